//! The command line: what a person typed wrong is answered with what would be right.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod collect;
mod collectors;
mod doctor;
mod spool;
mod verify;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

const BAD_CONFIG: i32 = 64;

fn whence(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_whence")).args(arguments).output().unwrap();
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn help_and_version_are_no_errors() {
    let (status, text) = whence(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(text.contains("whence [OPTIONS] <COMMAND>") && text.contains("collect"), "{text}");
    assert_eq!(whence(&["up", "--version"]).0, Some(BAD_CONFIG));
    assert_eq!(whence(&["--version"]), (Some(0), format!("whence {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_cannot_be_used_ends_with_64_and_says_why() {
    for (arguments, reason) in [
        (vec!["up", "--listen", "nonsense"], "invalid socket address"),
        (vec!["up", "--nonsense"], "unexpected argument '--nonsense'"),
        (vec!["collect"], "--ingest-url"),
        (vec!["collect", "--ingest-url=x", "--client-cert=x"], "--client-key"),
        (vec!["collectors", "revoke", "db1"], "invalid"),
        (vec!["people", "add", "Li", "--role", "owner"], "viewer"),
        (vec!["--config", "/no/such/file", "web"], "cannot read the configuration file /no/such/file"),
    ] {
        let (status, text) = whence(&arguments);
        assert_eq!(status, Some(BAD_CONFIG), "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}

#[test]
fn the_configuration_is_checked_key_by_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("whence.toml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        whence(&["--config", path.to_str().unwrap(), "--check-config", "up"])
    };
    assert_eq!(
        check("[up]\nlisten = '127.0.0.1:9000'\n"),
        (Some(0), "the configuration can be used\n".into())
    );
    let (status, text) = check("[up]\nlisen = '127.0.0.1:9000'\n");
    assert_eq!(status, Some(BAD_CONFIG));
    assert!(text.contains("unknown key `up.lisen`; known here:"), "{text}");
    assert_eq!(check("[up]\nlisten = 5\n").0, Some(BAD_CONFIG));
}

#[test]
fn a_clickhouse_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = format!("--data={}", directory.path().display());
    let up = ["up", "--listen=127.0.0.1:0", "--clickhouse-url=http://127.0.0.1:1"];
    let (status, text) = whence(&[&up[..], &[&data]].concat());
    assert_eq!(status, Some(1));
    assert!(text.contains("ClickHouse at http://127.0.0.1:1 cannot be used"), "{text}");
}
