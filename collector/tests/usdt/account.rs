//! That nothing is lost, and that what is lost is counted.

use whence_abi::record::Counters;
use whence_collector::probe::Config;
use whence_model::Timestamp;

use crate::server::Server;
use crate::watch::Watch;

#[test]
fn of_a_hundred_thousand_quick_commands_none_is_lost() {
    const EACH: usize = 50_000;
    let (mut server, mut watch) = (Server::start(), Watch::new(&Config::default()));
    let _attachment = watch.attach(&server);
    server.begin(&format!(
        "0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1 FROM first\t0\t0\t{EACH}\n\
         1\tcommand\t2\t3\treport\tetl\tmart\tSELECT 2 FROM second\t0\t0\t{EACH}"
    ));
    let events = watch.events(2 * EACH);
    server.wait();
    for (connection, user, database) in [(1, "app", "shop"), (2, "report", "mart")] {
        let of_connection = events.iter().filter(|event| event.session.connection_id == Some(connection));
        let mut last = Timestamp(0);
        let mut count = 0;
        for event in of_connection {
            assert_eq!(event.principal.user.as_deref(), Some(user));
            assert_eq!(event.session.database.as_deref(), Some(database));
            // In the order of their thread; the wall clock may be slewed meanwhile.
            assert!(event.started_at > last.plus_ns(-1_000_000), "{} after {last}", event.started_at);
            last = event.started_at;
            count += 1;
        }
        assert_eq!(count, EACH);
    }
    let expected = Counters { seen: 2 * EACH as u64, submitted: 2 * EACH as u64, ..Counters::default() };
    assert_eq!(watch.probes.counters(server.pid()).unwrap(), expected);
}

#[test]
fn what_a_full_ring_loses_is_counted() {
    const COMMANDS: u64 = 2000;
    let config = Config { ring_bytes: 64 << 10, ..Config::default() };
    let (mut server, mut watch) = (Server::start(), Watch::new(&config));
    let _attachment = watch.attach(&server);
    server.run(&format!("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0\t0\t{COMMANDS}"));
    let counters = watch.probes.counters(server.pid()).unwrap();
    let read = watch.rest().len() as u64;
    assert_eq!(counters.seen, COMMANDS);
    assert!(counters.ring_full > 0 && counters.submitted > 0, "{counters:?}");
    assert_eq!((read, read + counters.ring_full), (counters.submitted, COMMANDS));

    server.run("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 2\t0");
    assert_eq!(watch.events(1).len(), 1, "there is room again");
}

#[test]
fn long_sql_that_finds_no_room_is_cut_to_its_beginning() {
    let config = Config { ring_bytes: 8 << 10, ..Config::default() };
    let (mut server, mut watch) = (Server::start(), Watch::new(&config));
    let _attachment = watch.attach(&server);
    server.run(&format!("0\tcommand\t1\t3\tapp\tweb\tshop\t{}\t0", "x".repeat(20_000)));
    let event = &watch.events(1)[0];
    let text = event.statement.as_ref().unwrap().sql.as_ref().unwrap();
    assert_eq!(text.text, "x".repeat(1023));
    assert!(text.truncated);
    assert_eq!(watch.probes.counters(server.pid()).unwrap().sql_cut, 1);
}

#[test]
fn threads_beyond_the_table_are_counted_as_lost() {
    let config = Config { threads: 1, ..Config::default() };
    let (mut server, mut watch) = (Server::start(), Watch::new(&config));
    let _attachment = watch.attach(&server);
    server.run("0\tcommand\t1\t14\tapp\tweb\t-\t-\t0");
    server.run("1\tcommand\t2\t14\tapp\tweb\t-\t-\t0");
    let counters = watch.probes.counters(server.pid()).unwrap();
    assert_eq!((counters.seen, counters.submitted, counters.table_full), (2, 1, 1));
    assert_eq!(watch.events(1)[0].session.connection_id, Some(1));
}

#[test]
fn semaphores_are_raised_while_watched() {
    const USED: [&str; 6] = [
        "connection__start",
        "connection__done",
        "command__start",
        "command__done",
        "query__start",
        "query__exec__start",
    ];
    let (mut server, mut watch) = (Server::start(), Watch::new(&Config::default()));
    assert_eq!(server.raised(), [""; 0], "is another collector at work on this machine?");
    let attachment = watch.attach(&server);
    assert_eq!(server.raised(), USED);

    drop(attachment);
    server.wait_until_unwatched();
    server.run("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0");
    assert_eq!(watch.rest(), []);

    let _attachment = watch.attach(&server);
    assert_eq!(server.raised(), USED);
}
