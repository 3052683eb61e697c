//! `whence doctor`: what it finds on this host, what it learns, and how it ends.

use serde_json::Value;
use whence_testkit::{MariaDb, MySql56};

use crate::{BAD_CONFIG, whence};

/// Without a collector's files, which the tests beside this one have.
fn doctor(arguments: &[&str]) -> (Option<i32>, String) {
    let none = ["--status-file=/nonexistent/status", "--spool-dir=/nonexistent/spool"];
    whence(&[&["doctor"], &none[..], arguments].concat())
}

#[test]
fn a_server_is_found_with_how_it_would_be_watched() {
    let server = MariaDb::start().unwrap();
    let pid = server.pid().unwrap();
    let (status, text) = doctor(&["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    // Servers of the tests beside this one may not be watchable.
    assert!(matches!(status, Some(0 | 1)), "{text}");
    let servers = report["servers"].as_array().unwrap();
    let found = servers.iter().find(|server| server["process_id"] == pid).unwrap();
    assert_eq!(found["product"], "MariaDB");
    assert_eq!(found["address"], format!("127.0.0.1:{}", server.port()));
    assert_eq!(found["watched_by"], "functions");
    assert_eq!(found["refused"], Value::Null);
    let offsets = found["offsets"].as_array().unwrap();
    let thread_id = offsets.iter().find(|offset| offset["field"] == "thread_id").unwrap();
    assert_eq!(thread_id["source"], "machine_code");
    for check in report["host"].as_array().unwrap() {
        assert_ne!(check["state"], "bad", "{check}");
    }

    let (_, text) = doctor(&[]);
    assert!(text.contains("  ok    probes: one was put on a function of this program"), "{text}");
    assert!(text.contains(&format!("on 127.0.0.1:{} (pid {pid}, ", server.port())), "{text}");
}

#[test]
fn a_binary_is_learnt_once() {
    let directory = tempfile::tempdir().unwrap();
    let program = MySql56::program().unwrap();
    let into = format!("--into={}", directory.path().join("offsets.toml").display());
    let learn = ["--learn", program.to_str().unwrap()];
    let (status, text) = doctor(&learn);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("[binary.layout]") && text.contains("security_context = 4360"), "{text}");
    let (status, text) = doctor(&[&learn[..], &[&into]].concat());
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("from the debug information of ") && text.contains("added to "), "{text}");
    let (status, text) = doctor(&[&learn[..], &[&into]].concat());
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("has it already"), "{text}");
}

#[test]
fn what_cannot_be_learnt_or_used_is_named() {
    let (status, text) = doctor(&["--learn", "/bin/sh"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("nothing can be learnt from /bin/sh: it has no function dispatch_command"),
        "{text}"
    );
    let (status, text) = doctor(&["--offsets", "/no/such/table"]);
    assert_eq!(status, Some(BAD_CONFIG), "{text}");
    assert!(text.contains("cannot read the table of offsets /no/such/table"), "{text}");
    assert_eq!(doctor(&["--into", "x"]).0, Some(BAD_CONFIG));
    assert_eq!(doctor(&["--json", "--learn", "x"]).0, Some(BAD_CONFIG));
}
