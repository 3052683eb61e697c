//! Two collectors on the same probes: each sees everything, and neither takes the probes from the other.

use whence_collector::probe::Config;

use crate::server::Server;
use crate::watch::Watch;

const SESSION: &str = "0\tconnect\t5\tapp\tweb
0\tcommand\t5\t3\tapp\tweb\tshop\tSELECT 1\t0
0\tdisconnect\t5";

#[test]
fn another_tracer_on_the_same_probes_changes_nothing() {
    let mut server = Server::start();
    let mut first = Watch::new(&Config::default());
    let mut second = Watch::new(&Config::default());
    let first_attachment = first.attach(&server);
    server.run(SESSION);
    let second_attachment = second.attach(&server);
    server.run(SESSION);
    assert_eq!(first.events(6).len(), 6);
    assert_eq!(second.events(3).len(), 3);

    // The counters stay raised while one of them is there.
    drop(first_attachment);
    assert!(!server.raised().is_empty());
    server.run(SESSION);
    assert_eq!(second.events(3).len(), 3);
    assert_eq!(first.rest(), []);

    let first_attachment = first.attach(&server);
    drop(second_attachment);
    server.run(SESSION);
    assert_eq!(first.events(3).len(), 3);
    assert_eq!(second.rest(), []);
    drop(first_attachment);
    server.wait_until_unwatched();
}
