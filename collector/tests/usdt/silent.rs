//! What a collector cannot see the end of, and what nobody looked at, is stored once all the same.

use crate::collector::Place;
use crate::server::Server;

fn command(number: u32) -> String {
    format!("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT {number}\t0")
}

/// Begins a command on a thread of its own and never ends it.
fn hang(number: u32) -> String {
    format!("1\thang\t2\t3\tapp\tweb\tshop\tSELECT {number}")
}

fn finished(number: u32) -> (String, bool) {
    (format!("SELECT {number}"), true)
}

fn unfinished(number: u32) -> (String, bool) {
    (format!("SELECT {number}"), false)
}

#[test]
fn commands_under_way_are_unfinished_when_the_probes_come_off() {
    let (place, mut server) = (Place::new(), Server::start());
    let collector = place.start(true);
    collector.find_program(&server);
    collector.find(&server);
    collector.looked_once();
    place.until_watched(&server);
    server.run(&format!("{}\n{}", command(1), hang(2)));
    // The kernel goes on, and the next one may see the end.
    collector.stop();
    assert_eq!(place.commands(&server), [finished(1)]);

    let collector = place.start(false);
    collector.find_program(&server);
    collector.find(&server);
    collector.looked_once();
    place.until_watched(&server);
    server.run(&command(3));
    collector.stop();
    assert_eq!(place.commands(&server), [finished(1), finished(3), unfinished(2)]);
    let stored: u64 = place.coverage(&server).iter().map(|span| span.stored).sum();
    assert_eq!(stored, 3);
}
