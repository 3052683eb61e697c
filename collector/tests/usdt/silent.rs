//! What a collector cannot see the end of, and what nobody looked at, is stored once all the same.

use whence_collector::discover::process::inspect;
use whence_model::{Coverage, CoverageState, Gap, LossReason, Provider};

use crate::collector::Place;
use crate::overlay::Image;
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

#[test]
fn what_came_and_went_while_no_collector_ran_is_told() {
    const COMMANDS: u64 = 2000;
    let mut place = Place::new();
    place.ring_bytes = 64 << 10;
    let first = Server::start();
    let collector = place.start(true);
    collector.find_program(&first);
    collector.find(&first);
    collector.looked_once();
    place.until_watched(&first);
    collector.stop();

    let mut second = Server::start_program(first.program().to_owned());
    let busy = format!("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0\t0\t{COMMANDS}");
    second.run(&format!("{busy}\n{}", hang(2)));
    second.kill();
    let collector = place.start(false);
    collector.find_program(&first);
    collector.find(&first);
    collector.looked_once();
    place.until("the command that it died in", || place.commands(&second).contains(&unfinished(2)));
    collector.stop();

    let commands = place.commands(&second);
    let (stored, cut): (Vec<_>, Vec<_>) = commands.into_iter().partition(|(_, is_finished)| *is_finished);
    assert_eq!(cut, [unfinished(2)]);
    let gaps: Vec<_> = place.events(&second).into_iter().filter_map(|event| event.gap).collect();
    assert_eq!(gaps, [Gap { reason: LossReason::RingFull, events: COMMANDS - stored.len() as u64 }]);
    let spans = place.coverage(&second);
    assert_eq!(spans.iter().map(|span| span.stored).sum::<u64>(), stored.len() as u64 + 1);
    let lost = |span: &Coverage| span.lost.values().sum::<u64>();
    assert_eq!(spans.iter().map(lost).sum::<u64>(), gaps[0].events);
}

#[test]
fn a_container_that_is_not_found_yet_is_a_server_that_runs() {
    let (place, mut image) = (Place::new(), Image::new());
    let (mut first, mut second) = (image.start(), image.start());
    let collector = place.start(false);
    collector.find_program(&first);
    collector.find(&first);
    collector.looked_once();
    place.until_watched(&first);

    second.run(&format!("{}\n{}", command(1), hang(2)));
    place.until("its command", || place.commands(&second).contains(&finished(1)));
    // Whatever came of the first record has come of it by now.
    first.run(&command(3));
    place.until("the other's", || place.commands(&first).contains(&finished(3)));
    collector.find_program(&second);
    collector.find(&second);
    second.run(&command(4));
    place.until("its next command", || place.commands(&second).contains(&finished(4)));
    collector.stop();

    assert_eq!(place.commands(&second), [finished(1), finished(4), unfinished(2)]);
    let found = inspect(second.pid(), "test").unwrap().server;
    assert!(place.events(&second).iter().all(|event| event.server.instance == found.instance));
    let spans = place.coverage(&second);
    let is_watched = |span: &Coverage| (span.state, span.provider);
    let watched = (CoverageState::Watched, Some(Provider::Usdt));
    assert!(spans.iter().all(|span| is_watched(span) == watched), "{spans:#?}");
    assert_eq!(spans.iter().map(|span| span.stored).sum::<u64>(), 3);
}
