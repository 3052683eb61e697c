//! Servers are found, in containers too, and told as the host knows them.

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use whence_collector::discover::{self, BinaryId, Finding, Plan};
use whence_collector::offsets::Table;
use whence_testkit::Product;

/// How long a server may take to be found.
const DEADLINE: Duration = Duration::from_secs(20);

crate::servers::for_each_server! {
    a_server_is_found,
}

fn a_server_is_found(product: Product) {
    let server = product.start().unwrap();
    let pid = server.pid().unwrap();
    let program = BinaryId::of(&PathBuf::from(format!("/proc/{pid}/exe"))).unwrap();
    let (sender, findings) = channel();
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    let looking = std::thread::spawn(move || {
        discover::run("db1", &Table::load(None).unwrap(), &sender, &told);
    });
    let deadline = Instant::now() + DEADLINE;
    let mut watchable = false;
    let found = loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        match findings.recv_timeout(wait).unwrap() {
            Finding::Binary { binary, plan: Plan::Functions(derived), .. } if binary == program => {
                assert!(derived.targets.acl_authenticate.is_some() && derived.absent().is_empty());
                watchable = true;
            }
            Finding::Process { binary, process } if process.id.tgid == pid => {
                assert_eq!(binary, program);
                break process;
            }
            _ => {}
        }
    };
    shutdown.cancel();
    looking.join().unwrap();

    assert!(watchable && found.listens);
    let told = found.server;
    // The host's number of the process; in its container it is 1.
    assert_eq!(told.process_id, pid);
    assert_eq!(told.container_id.as_deref(), server.container_id());
    assert_eq!(told.container_id.is_some(), server.product().is_in_container());
    assert_eq!((told.host.as_str(), told.port), ("db1", Some(server.port())));
    assert_eq!(told.product, product.name().split_once(' ').unwrap().0);
    assert!(told.version.unwrap().starts_with(product.name().split_once(' ').unwrap().1));
}
