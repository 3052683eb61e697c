//! `whence enroll` and `whence collectors` with a real `whence ingest` that speaks TLS.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use whence_testkit::TestDatabase;

use crate::whence;

const DEADLINE: Duration = Duration::from_secs(30);

/// Killed when dropped.
struct Ingest(Child);

impl Drop for Ingest {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.display().to_string()
}

/// The arguments that reach `database`.
fn reach(database: &TestDatabase, directory: &Path) -> Vec<String> {
    let options = database.options();
    vec![
        format!("--clickhouse-url={}", options.url),
        format!("--clickhouse-user={}", options.user),
        format!("--clickhouse-database={}", options.database),
        format!(
            "--clickhouse-password-file={}",
            write(&directory.join("password"), options.password.expose_secret())
        ),
    ]
}

#[tokio::test]
async fn a_collector_is_enrolled_listed_and_revoked_by_hand() {
    let database = TestDatabase::new("cli_collectors").await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let reach = reach(&database, directory.path());
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let certificate = write(&file("cert.pem"), &certified.cert.pem());
    let key = write(&file("key.pem"), &certified.signing_key.serialize_pem());
    let token = write(&file("token"), "let-me-in\n");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ingest = Command::new(env!("CARGO_BIN_EXE_whence"))
        .args(["ingest", &format!("--listen={address}"), &format!("--enroll-token-file={token}")])
        .args([format!("--tls-cert={certificate}"), format!("--tls-key={key}")])
        .args(&reach)
        .stderr(Stdio::null())
        .spawn();
    let _ingest = Ingest(ingest.unwrap());

    let urls = format!("--ingest-url=http://127.0.0.1:1,https://localhost:{}", address.port());
    let spool = format!("--spool-dir={}", file("spool").display());
    let enroll = |more: &[&str]| whence(&[&["enroll", &urls, &spool, "--host=db1"], more].concat());
    let token_file = format!("--token-file={token}");
    let trusting = format!("--ingest-ca={certificate}");
    let deadline = Instant::now() + DEADLINE;
    let told = loop {
        let (status, told) = enroll(&[&token_file, &trusting]);
        if status == Some(0) {
            break told;
        }
        assert!(Instant::now() < deadline, "{told}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(told.contains("is enrolled at https://localhost"), "{told}");
    let id = told.split(' ').nth(1).unwrap();
    assert_eq!(enroll(&[&token_file, &trusting]).0, Some(0), "it enrols again with the same key");

    let (status, told) = enroll(&[&token_file]);
    assert!(status == Some(1) && told.contains("UnknownIssuer") && told.contains("127.0.0.1:1"), "{told}");
    let wrong = format!("--token-file={}", write(&file("wrong"), "let-me-out"));
    let (status, told) = enroll(&[&wrong, &trusting]);
    assert!(status == Some(1) && told.contains("the enrolment token is missing or wrong"), "{told}");

    let collectors = |arguments: &[&str]| {
        let reach = reach.iter().map(String::as_str);
        whence(&["collectors"].into_iter().chain(arguments.iter().copied()).chain(reach).collect::<Vec<_>>())
    };
    let (status, told) = collectors(&["list"]);
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains(&format!("{id}  db1  silent   last batch never")), "{told}");
    assert_eq!(collectors(&["revoke", id]).0, Some(0));
    let (_, told) = collectors(&["list"]);
    assert!(told.contains("revoked  last batch never") && told.contains("  revoked 20"), "{told}");
    let (status, told) = enroll(&[&token_file, &trusting]);
    assert!(status == Some(1) && told.contains("was revoked"), "{told}");
    let (status, told) = collectors(&["revoke", "00000000-0000-0000-0000-000000000000"]);
    assert!(status == Some(1) && told.contains("there is no collector"), "{told}");
}
