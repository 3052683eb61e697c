//! A server built with DTrace, as far as its probes go: found by them alone, without a name or a port.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use whence_e2e::{Api, Whence};

/// Builds and starts the program, which performs what is written to its standard input.
fn start(directory: &Path) -> Child {
    let program = directory.join("usdt-server");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/usdt/usdt-server.c");
    let built =
        Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(source).status().unwrap();
    assert!(built.success(), "this test needs cc and the package systemtap-sdt-dev");
    Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn static_probes_are_found_and_followed() {
    let directory = tempfile::tempdir().unwrap();
    let mut whence = Whence::start(&directory.path().join("data"), &[]).unwrap();
    let mut server = start(directory.path());
    let mut script = server.stdin.take().unwrap();
    let watched = whence.wait_for_server("watched", "usdt-server").unwrap();
    assert!(watched.contains("static probes"), "{watched}");

    let (query, init_db) = (3, 2);
    writeln!(script, "1\tconnect\t71\tapp\tweb1.example").unwrap();
    writeln!(script, "1\tcommand\t71\t{query}\tapp\tweb1.example\tshop\tSELECT 'seen by probes'\t0\t30000")
        .unwrap();
    writeln!(script, "1\tcommand\t71\t{init_db}\tapp\tweb1.example\tshop\t-\t1").unwrap();
    writeln!(script, "1\tdisconnect\t71").unwrap();
    script.flush().unwrap();

    let api = Api::new(&whence).unwrap();
    let event = api.wait_for_event(&[("text", "seen by probes")]).await;
    assert_eq!(event["provider"], "usdt", "{event}");
    assert_eq!((&event["user"], &event["client_host"]), (&"app".into(), &"web1.example".into()), "{event}");
    assert_eq!((&event["database"], &event["command"]), (&"shop".into(), &"Query".into()), "{event}");
    assert_eq!((&event["result"], &event["connection_id"]), (&"ok".into(), &71.into()), "{event}");
    assert!(event["duration_ns"].as_u64().unwrap() >= 30_000_000, "{event}");
    let failed = api.wait_for_event(&[("command", "Init_db"), ("user", "app")]).await;
    assert_eq!((&failed["result"], &failed["error_code"]), (&"error".into(), &serde_json::Value::Null));
    api.wait_for_event(&[("kind", "disconnect"), ("host", event["host"].as_str().unwrap())]).await;

    drop(script);
    server.wait().unwrap();
    whence.wait_for_server("not_running", "usdt-server").unwrap();
    assert!(whence.stop().unwrap().success());
}
