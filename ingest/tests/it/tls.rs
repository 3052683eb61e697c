//! TLS of the listener, spoken by the collector's own client, straight and through a proxy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use whence_collector::ship::{Client, ClientError, Enrolment, Transport};
use whence_ingest::{IngestConfig, TlsFiles};
use whence_testkit::TestDatabase;

use crate::sender::{TOKEN, config, hex};

/// An authority in files, and what it signs.
struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(directory: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, directory.display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Self { directory: directory.into(), issuer }
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Files of a certificate for `name`, and of its key.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_until(name, 4096)
    }

    /// The same, with a certificate that is good until the beginning of `year`.
    fn sign_until(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = ["cert", "key"].map(|part| self.directory.join(format!("{name}.{year}.{part}")));
        std::fs::write(&files[0], certificate.pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        files.into()
    }

    /// Trusts this authority, and shows nothing.
    fn trusted(&self) -> Transport {
        Transport { ingest_ca: Some(self.certificate()), ..Transport::default() }
    }
}

async fn start(database: &TestDatabase, files: Option<TlsFiles<'_>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = IngestConfig { tls: files.map(|files| files.acceptor().unwrap()), ..config(database) };
    tokio::spawn(whence_ingest::serve(config, listener, CancellationToken::new()));
    port
}

async fn enroll(url: &str, transport: &Transport) -> Result<(), ClientError> {
    let enrolment = Enrolment {
        collector_id: whence_model::CollectorId(uuid::Uuid::new_v4()),
        public_key: hex(&whence_chain::SigningKey::generate().public().to_bytes()),
        host: "db1".into(),
    };
    Client::new(&[url.to_owned()], transport, enrolment, Some(TOKEN.into())).unwrap().enroll().await
}

/// Why it could not be enrolled.
async fn refusal(url: &str, transport: &Transport) -> String {
    enroll(url, transport).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_collector_trusts_ingest_by_its_authority_and_no_other() {
    let database = TestDatabase::new("tls").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(&directory.path().join("ours"));
    let (certificate, key) = authority.sign("localhost");
    let files = TlsFiles { certificate: &certificate, key: &key, client_authority: None };
    let port = start(&database, Some(files)).await;
    let url = format!("https://localhost:{port}");

    let trusted = authority.trusted();
    enroll(&url, &trusted).await.unwrap();
    for transport in [Transport::default(), Authority::new(&directory.path().join("other")).trusted()] {
        let told = refusal(&url, &transport).await;
        assert!(told.contains("UnknownIssuer"), "{told}");
    }
    let told = refusal(&format!("https://127.0.0.1:{port}"), &trusted).await;
    assert!(told.contains("not valid for name"), "{told}");
    let told = refusal(&format!("http://localhost:{port}"), &trusted).await;
    assert!(told.contains("this port speaks TLS; use https://"), "{told}");

    let client = trusted.client(std::slice::from_ref(&url)).unwrap();
    let answer = client.get(format!("{url}/live")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
}

#[tokio::test]
async fn an_expired_certificate_and_a_port_without_tls_are_named() {
    let database = TestDatabase::new("tls_expired").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let (certificate, key) = authority.sign_until("localhost", 2020);
    let files = TlsFiles { certificate: &certificate, key: &key, client_authority: None };
    let port = start(&database, Some(files)).await;
    let told = refusal(&format!("https://localhost:{port}"), &authority.trusted()).await;
    assert!(told.contains("certificate expired"), "{told}");
    let port = start(&database, None).await;
    let told = refusal(&format!("https://localhost:{port}"), &authority.trusted()).await;
    assert!(told.contains("InvalidContentType"), "{told}");
}

#[tokio::test]
async fn with_an_authority_for_collectors_only_its_own_may_connect() {
    let database = TestDatabase::new("tls_client").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(&directory.path().join("ours"));
    let (certificate, key) = authority.sign("localhost");
    let ours = authority.certificate();
    let files = TlsFiles { certificate: &certificate, key: &key, client_authority: Some(&ours) };
    let url = format!("https://localhost:{}", start(&database, Some(files)).await);

    let with = |(certificate, key): (PathBuf, PathBuf)| Transport {
        client_cert: Some(certificate),
        client_key: Some(key),
        ..authority.trusted()
    };
    enroll(&url, &with(authority.sign("db1"))).await.unwrap();
    let told = refusal(&url, &authority.trusted()).await;
    assert!(told.contains("CertificateRequired"), "{told}");
    let told = refusal(&url, &with(authority.sign_until("db1", 2020))).await;
    assert!(told.contains("CertificateExpired"), "{told}");
    let other = Authority::new(&directory.path().join("other"));
    let told = refusal(&url, &with(other.sign("db1"))).await;
    assert!(told.contains("UnknownCA"), "{told}");
    // Who was refused holds up nobody.
    enroll(&url, &with(authority.sign("db2"))).await.unwrap();
}

#[tokio::test]
async fn one_that_does_not_agree_on_keys_holds_up_no_other() {
    let database = TestDatabase::new("tls_slow").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let (certificate, key) = authority.sign("localhost");
    let files = TlsFiles { certificate: &certificate, key: &key, client_authority: None };
    let port = start(&database, Some(files)).await;
    let mut open = Vec::new();
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x00\x05hello", b"GET", b"\0\0\0\0"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        open.push(stream);
    }
    enroll(&format!("https://localhost:{port}"), &authority.trusted()).await.unwrap();
}

/// A proxy that knows CONNECT: its port, and the heads of the requests that it got.
async fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(tunnel(client, seen.clone()));
        }
    });
    (port, heads)
}

async fn tunnel(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
    // Either side may end as it likes.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn ingest_is_reached_through_a_proxy_that_sees_nothing() {
    let database = TestDatabase::new("tls_proxy").await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let (certificate, key) = authority.sign("localhost");
    let files = TlsFiles { certificate: &certificate, key: &key, client_authority: None };
    let url = format!("https://localhost:{}", start(&database, Some(files)).await);
    let (port, heads) = proxy().await;
    let through = |proxy: String| Transport { proxy: Some(proxy), ..authority.trusted() };
    enroll(&url, &through(format!("http://me:secret@127.0.0.1:{port}"))).await.unwrap();
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(heads[0].starts_with(&format!("CONNECT {} ", &url["https://".len()..])), "{heads:?}");
    // me:secret
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic bwu6c2vjcmv0"), "{heads:?}");
    let told = refusal(&url, &through("http://127.0.0.1:1".into())).await;
    assert!(told.contains("Connection refused"), "{told}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let (certificate, key) = authority.sign("localhost");
    let (_, other_key) = authority.sign("other");
    let told = |certificate: &Path, key: &Path, client_authority: Option<&Path>| {
        let files = TlsFiles { certificate, key, client_authority };
        files.acceptor().err().unwrap().to_string()
    };
    assert!(told(&directory.path().join("nothing"), &key, None).contains("nothing"));
    assert!(told(&key, &key, None).contains("holds no certificate"));
    assert!(told(&certificate, &certificate, None).contains("localhost.4096.cert"));
    assert!(told(&certificate, &other_key, None).contains("cannot be used together"));
    assert!(told(&certificate, &key, Some(&key)).contains("holds no certificate"));
}
