//! TLS on the listener: certificate files go in, encrypted connections come out. Who speaks HTTP without it is told so.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// First byte of a TLS connection: a record of a handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// The answer to who speaks HTTP here. No status that would make a collector give its batch up.
const PLAIN_HTTP: &str = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nConnection: Upgrade, close\r\n\
    Content-Type: application/json\r\n\r\n\
    {\"code\":\"tls_required\",\"message\":\"this port speaks TLS; use https://\"}";
/// Most that is read of what such a sender has on its way, so that it sees the answer.
const PLAIN_BYTES: u64 = 16 << 20;

/// TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be used as PEM: {source}")]
    File { path: PathBuf, source: PemError },
    #[error("{path} holds no certificate in PEM")]
    NoCertificate { path: PathBuf },
    #[error("the certificate in {certificate} and the key in {key} cannot be used together: {source}")]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{path} holds a certificate that is none of an authority: {source}")]
    NoAuthority { path: PathBuf, source: rustls::Error },
    #[error("the certificates of collectors cannot be checked: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("this build of TLS has no safe versions of the protocol: {0}")]
    Versions(rustls::Error),
}

/// PEM files of a TLS listener.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// Its certificate, and those between it and its authority.
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// Authorities that sign the certificates of collectors; with it no other may connect.
    pub client_authority: Option<&'a Path>,
}

impl TlsFiles<'_> {
    /// What makes encrypted connections with them.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Versions)?;
        let builder = match self.client_authority {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    let added = roots.add(authority);
                    added.map_err(|source| TlsError::NoAuthority { path: path.into(), source })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let key = PrivateKeyDer::from_pem_file(self.key)
            .map_err(|source| TlsError::File { path: self.key.into(), source })?;
        let chain = certificates(self.certificate)?;
        let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Unusable {
            certificate: self.certificate.into(),
            key: self.key.into(),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file_error = |source| TlsError::File { path: path.into(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(file_error)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(file_error)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.into() });
    }
    Ok(certificates)
}

/// Takes connections that have agreed on keys. One that takes its time holds up no other.
pub struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub fn new(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        Self { listener, acceptor, handshakes: JoinSet::new() }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, address) = Listener::accept(&mut self.listener) => {
                    let handshake = handshake(self.acceptor.clone(), stream);
                    self.handshakes.spawn(async move {
                        match tokio::time::timeout(HANDSHAKE, handshake).await {
                            Ok(Ok(stream)) => Some((stream?, address)),
                            Ok(Err(error)) => {
                                tracing::warn!(client = %address, %error, "a client could not agree on TLS");
                                None
                            }
                            Err(_) => {
                                tracing::debug!(client = %address, "a client did not agree on TLS in time");
                                None
                            }
                        }
                    });
                }
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The connection, once it is encrypted; None when its sender spoke HTTP without TLS and was told.
async fn handshake(acceptor: TlsAcceptor, mut stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    // One that only looks whether the port is open says nothing.
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first == [HANDSHAKE_RECORD] {
        return acceptor.accept(stream).await.map(Some);
    }
    stream.write_all(PLAIN_HTTP.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(PLAIN_BYTES), &mut tokio::io::sink()).await?;
    Ok(None)
}
