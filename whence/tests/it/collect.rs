//! `whence collect` as systemd runs it: what it may still do after its start, and what it tells.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use whence_collector::status::Status;
use whence_testkit::{MariaDb, Via};

const DEADLINE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// With the directory of its pinned probes; killed when dropped, and its probes taken off.
struct Collector(Child, String);

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all(&self.1);
    }
}

/// The next message of the service, of those that begin so.
fn told(socket: &UnixDatagram, start: &str) {
    let deadline = Instant::now() + DEADLINE;
    let mut bytes = [0; 256];
    loop {
        let length = socket.recv(&mut bytes).unwrap();
        if bytes[..length].starts_with(start.as_bytes()) {
            return;
        }
        assert!(Instant::now() < deadline, "it did not say {start}");
    }
}

#[test]
fn a_collector_keeps_few_rights_and_watches_what_starts_later() {
    let directory = tempfile::tempdir().unwrap();
    let [spool, status, notify] = ["spool", "status.json", "notify"].map(|name| directory.path().join(name));
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let pins = format!("/sys/fs/bpf/whence-collect-{}", std::process::id());
    let child = Command::new(env!("CARGO_BIN_EXE_whence"))
        .args(["collect", "--ingest-url=http://127.0.0.1:1"])
        .arg(format!("--spool-dir={}", spool.display()))
        .arg(format!("--status-file={}", status.display()))
        .arg(format!("--pin-dir={pins}"))
        .env("NOTIFY_SOCKET", &notify)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut collector = Collector(child, pins);
    told(&socket, "READY=1");

    let pid = collector.0.id();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        // CAP_DAC_READ_SEARCH (2), CAP_SYS_PTRACE (19), CAP_SYS_ADMIN (21).
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set), "0000000000280004", "{set}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }

    let server = MariaDb::start().unwrap();
    server.sql("root", "", "", "SELECT 1", Via::Socket).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let is_watched = || {
        let servers = Status::read(&status).map(|status| status.servers).unwrap_or_default();
        servers.iter().any(|found| Some(found.process_id) == server.pid() && found.state == "watched")
    };
    while !is_watched() {
        assert!(Instant::now() < deadline, "it is not watched: {:?}", Status::read(&status));
        std::thread::sleep(POLL);
    }
    told(&socket, "WATCHDOG=1");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).unwrap();
    told(&socket, "STOPPING=1");
    assert!(collector.0.wait().unwrap().success());
}
