//! What the probes tell, event by event.

use whence_collector::probe::Config;
use whence_model::{Command, Event, EventKind, Outcome, Provider, StatementClass, Timestamp, Transport};

use crate::server::Server;
use crate::watch::Watch;

const OK: Option<Outcome> = Some(Outcome::Ok { rows_sent: None, rows_affected: None });
const ERROR: Option<Outcome> = Some(Outcome::Error { code: None, sqlstate: None, message: None });

fn start() -> (Server, Watch) {
    (Server::start(), Watch::new(&Config::default()))
}

fn sql(event: &Event) -> &str {
    &event.statement.as_ref().unwrap().sql.as_ref().unwrap().text
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[test]
fn a_session_is_told_from_its_login_to_its_end() {
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    let before = Timestamp::now();
    let done = server.run(
        "0\tconnect\t7\tapp\tweb1.example\n\
         0\tcommand\t7\t3\tapp\tweb1.example\tshop\tSELECT name FROM customers WHERE id = 4\t0\t3000\n\
         0\tcommand\t7\t14\tapp\tweb1.example\t-\t-\t0\n\
         0\tdisconnect\t7",
    );
    let after = Timestamp::now();
    let events = watch.events(4);

    assert_eq!(
        kinds(&events),
        [EventKind::Connect, EventKind::Command, EventKind::Command, EventKind::Disconnect]
    );
    for event in &events {
        assert_eq!(event.provider, Provider::Usdt);
        assert_eq!(event.session.connection_id, Some(7));
        assert_eq!(event.principal.user.as_deref(), Some("app"), "{event:#?}");
        assert_eq!(event.principal.client_host.as_deref(), Some("web1.example"));
        assert_eq!(event.principal.transport, Some(Transport::Tcp));
        assert!(event.started_at >= before && event.started_at <= after, "{event:#?}");
    }
    assert_eq!((&events[0].outcome, &events[3].outcome), (&OK, &None));

    let query = &events[1];
    assert_eq!(query.command, Some(Command::QUERY));
    assert_eq!(sql(query), "SELECT name FROM customers WHERE id = 4");
    assert_eq!(query.statement.as_ref().unwrap().class, StatementClass::Read);
    assert_eq!(query.statement.as_ref().unwrap().tables, ["customers"]);
    assert_eq!(query.session.database.as_deref(), Some("shop"));
    assert_eq!(query.outcome, OK);
    let duration = query.duration_ns.unwrap();
    assert!((3_000_000..=done[1].took_ns).contains(&duration), "{duration} of {}", done[1].took_ns);

    let ping = &events[2];
    assert_eq!(ping.command.unwrap().name(), "Ping");
    assert_eq!((&ping.statement, &ping.session.database), (&None, &None));
}

#[test]
fn names_are_told_as_the_server_has_them() {
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    let longest = "ü".repeat(63);
    server.run(&format!(
        "0\tcommand\t1\t14\t\tlocalhost\t-\t-\t0\n\
         0\tcommand\t1\t14\treport\t10.1.2.3\t-\t-\t0\n\
         0\tcommand\t1\t14\treport\t::ffff:10.1.2.3\t-\t-\t0\n\
         0\tcommand\t1\t14\t{longest}\t-\t-\t-\t0\n\
         0\tcommand\t1\t3\t密\\xff\tdb-host\t库\tDO 0\t0"
    ));
    let events = watch.events(5);
    let principals: Vec<_> = events.iter().map(|event| &event.principal).collect();
    assert_eq!(principals[0].user.as_deref(), Some(""), "the anonymous account");
    assert_eq!(principals[0].client_host.as_deref(), Some("localhost"));
    assert_eq!(principals[0].transport, None);
    for principal in &principals[1..3] {
        assert_eq!(principal.client_ip, Some("10.1.2.3".parse().unwrap()));
    }
    assert_eq!(principals[3].user.as_deref(), Some(longest.as_str()));
    assert_eq!(principals[3].client_host, None, "a null pointer is no name");
    assert_eq!(principals[4].user.as_deref(), Some("密\\xFF"));
    assert_eq!(events[4].session.database.as_deref(), Some("库"));
}

#[test]
fn sql_of_every_length_is_whole_or_says_that_it_is_cut() {
    const LONGEST: usize = (64 << 10) - 1;
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    let lengths = [
        1,
        1022,
        1023,
        1024,
        1025,
        5000,
        8190,
        8191,
        8192,
        8193,
        LONGEST - 1,
        LONGEST,
        LONGEST + 1,
        70_000,
        300_000,
    ];
    for length in lengths {
        let text: String = ('a'..='z').cycle().take(length).collect();
        server.run(&format!("0\tcommand\t1\t3\tapp\tweb\tshop\t{text}\t0"));
        let event = &watch.events(1)[0];
        let statement = event.statement.as_ref().unwrap();
        let kept = statement.sql.as_ref().unwrap();
        assert_eq!(kept.text, text[..length.min(LONGEST)], "{length} bytes");
        // The kernel looks no further than it keeps.
        let cut = length >= LONGEST;
        assert_eq!(kept.truncated, cut, "{length} bytes");
        let known_bytes = if cut { LONGEST + 1 } else { length };
        assert_eq!(kept.original_bytes, known_bytes as u64, "{length} bytes");
    }
}

#[test]
fn sql_of_any_bytes_is_kept() {
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    let long = "\\xfe".repeat(3000);
    server.run(&format!(
        "0\tcommand\t1\t3\tapp\tweb\tshop\tINSERT INTO t VALUES ('\\xff\\x01\\n\\t密')\t0\n\
         0\tcommand\t1\t3\tapp\tweb\tshop\tINSERT INTO t VALUES ('{long}')\t0"
    ));
    let events = watch.events(2);
    assert_eq!(sql(&events[0]), "INSERT INTO t VALUES ('\\xFF\u{1}\n\t密')");
    assert_eq!(sql(&events[1]), format!("INSERT INTO t VALUES ('{}')", "\\xFE".repeat(3000)));
    let text = events[1].statement.as_ref().unwrap().sql.as_ref().unwrap();
    assert_eq!((text.original_bytes, text.truncated), (3025, false));
}

#[test]
fn sql_comes_from_every_place_that_has_it() {
    let (mut server, mut watch) = start();
    let attachment = watch.attach(&server);
    server.run(
        "0\tcommand\t1\t3\tapp\tweb\tshop\t/* cached */ SELECT 1\t0\n\
         0\tcommand\t1\t3\tapp\tweb\t-\t/* cached */ SELECT 2\t0\n\
         0\tcommand\t1\t23\tapp\tweb\tshop\tSELECT ?\t0\n\
         0\tcommand\t1\t23\tapp\tweb\tshop\tUPDATE t SET a = ?\t0\n\
         0\tcommand\t1\t3\tapp\tweb\tshop\tUPDATE t SET a = 1\t0\n\
         0\tcommand\t1\t3\tapp\tweb\tshop\tTRUNCATE t\t0",
    );
    let events = watch.events(6);
    let texts: Vec<&str> = events.iter().map(sql).collect();
    let expected = [
        "/* cached */ SELECT 1",
        "/* cached */ SELECT 2",
        "SELECT ?",
        "UPDATE t SET a = ?",
        "UPDATE t SET a = 1",
        "TRUNCATE t",
    ];
    assert_eq!(texts, expected);
    assert_eq!(events[1].session.database, None);
    assert_eq!(events[2].session.database.as_deref(), Some("shop"));
    assert_eq!(events[2].command, Some(Command::STMT_EXECUTE));
    assert!(attachment.places().contains(&"query__exec__start".to_owned()));
}

#[test]
fn errors_are_told_apart_from_success() {
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    server.run(
        "0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT * FROM nothing\t1\n\
         0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0\n\
         0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 2\t-1",
    );
    let outcomes: Vec<_> = watch.events(3).into_iter().map(|event| event.outcome).collect();
    assert_eq!(outcomes, [ERROR, OK, ERROR]);
}

#[test]
fn a_refused_login_is_told_apart_from_the_end_of_an_old_connection() {
    let (mut server, mut watch) = start();
    server.run("0\tconnect\t5\tapp\tweb\n1\tconnect\t6\tapp\tweb");
    let _attachment = watch.attach(&server);
    server.run("0\tconnect\t7\tapp\tweb");
    // Three that the collector has not seen before: one that it came too late for, and two refused.
    server.run("1\tdisconnect\t6");
    server.run("2\trefuse\t8\n2\trefuse\t9");
    server.run("0\tdisconnect\t7");
    server.run("2\tconnect\t10\tapp\tweb\n2\tdisconnect\t10");
    let events = watch.events(7);
    assert_eq!(
        kinds(&events),
        [
            EventKind::Connect,
            EventKind::Disconnect,
            EventKind::ConnectFailed,
            EventKind::ConnectFailed,
            EventKind::Disconnect,
            EventKind::Connect,
            EventKind::Disconnect
        ]
    );
    assert_eq!((&events[2].outcome, &events[2].principal.user), (&ERROR, &None));
    assert_eq!(events[2].session.connection_id, Some(8));
    assert_eq!(events[1].principal.user, None, "who it was is not known any more");
}

#[test]
fn a_change_of_user_is_told_and_applies_from_then_on() {
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    server.run(
        "0\tconnect\t7\tapp\tweb\n\
         0\tcommand\t7\t17\tapp\tweb\t-\t-\t0\n\
         0\tcommand\t7\t3\tadmin\tweb\tshop\tSELECT 1\t0\n\
         0\tdisconnect\t7",
    );
    let events = watch.events(4);
    assert_eq!(
        kinds(&events),
        [EventKind::Connect, EventKind::ChangeUser, EventKind::Command, EventKind::Disconnect]
    );
    let users: Vec<_> = events.iter().map(|event| event.principal.user.as_deref().unwrap()).collect();
    assert_eq!(users, ["app", "app", "admin", "admin"]);
    assert_eq!(events[1].command, Some(Command::CHANGE_USER));
}

#[test]
fn a_command_that_the_server_died_in_is_unfinished() {
    let (mut server, mut watch) = start();
    let _attachment = watch.attach(&server);
    server.run(
        "0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0\n1\thang\t2\t3\tapp\tweb\tshop\tDELETE FROM customers",
    );
    assert_eq!(watch.events(1).len(), 1);
    server.kill();
    let (records, counters) = watch.probes.process_ended(server.pid()).unwrap();
    assert_eq!((counters.seen, counters.submitted), (1, 1));
    let events = watch.decode(&records);
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0].outcome, Some(Outcome::Unfinished));
    assert_eq!(sql(&events[0]), "DELETE FROM customers");
    assert_eq!(events[0].principal.user.as_deref(), Some("app"));
    assert_eq!(events[0].duration_ns, None);
}
