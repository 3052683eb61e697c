//! Every kind of event that a server can have, on each server.

use std::time::{Duration, Instant};

use whence_model::{Command, Event, EventKind, Outcome, Transport};
use whence_testkit::client::command;
use whence_testkit::{Client, Product, Via};

use crate::told::{error, ok, only, query, sql};
use crate::watched::{Watched, refusal};

crate::servers::for_each_server! {
    every_command_by_its_name,
    several_statements_in_one_command,
    local_files,
    procedures_tell_of_the_call,
    a_flood_of_pings,
    a_statement_that_is_killed,
    a_server_that_dies_in_mid_command,
    dumps_of_the_binary_log,
    clients_over_ip_6,
}

fn every_command_by_its_name(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    let statement = client.prepare(b"SELECT name FROM goods WHERE id = ? OR name = ?").unwrap();
    let number = statement.to_le_bytes();
    let long_data = [&number[..], &1_u16.to_le_bytes(), b"three"].concat();
    client.tell(command::STMT_SEND_LONG_DATA, &long_data).unwrap();
    client.one_answer(command::STMT_RESET, &number).unwrap();
    client.tell(command::STMT_CLOSE, &number).unwrap();
    client.field_list("goods").unwrap();
    client.init_db("mysql").unwrap();
    client.ping().unwrap();
    client.one_answer(command::SET_OPTION, &[1, 0]).unwrap();
    // Answered with text, which may begin like an error.
    client.tell(command::STATISTICS, &[]).unwrap();
    client.receive().unwrap();
    // Some servers have dropped these.
    for (number, body) in [
        (command::PROCESS_INFO, &[][..]),
        (command::PROCESS_KILL, &[0xff, 0xff, 0xff, 0x7f]),
        (command::RESET_CONNECTION, &[]),
    ] {
        match client.ask(number, body) {
            Ok(_) => {}
            Err(failure) => assert!(matches!(failure.code(), Some(1047 | 1094)), "{number}: {failure}"),
        }
    }
    client.change_user("ana", &[], "shop").unwrap();
    client.quit().unwrap();

    let events = watched.connection(id);
    let names: Vec<String> = events.iter().filter_map(|event| Some(event.command?.name())).collect();
    for name in [
        "Stmt_prepare",
        "Stmt_send_long_data",
        "Stmt_reset",
        "Stmt_close",
        "Field_list",
        "Init_db",
        "Ping",
        "Set_option",
        "Statistics",
        "Change_user",
        "Quit",
    ] {
        assert_eq!(names.iter().filter(|told| *told == name).count(), 1, "{name}: {names:?}");
    }
    // One that is not known is told with the number that the server takes for it.
    let others: Vec<&Event> = events
        .iter()
        .filter(|event| event.command.is_some_and(|command| [10, 12].contains(&command.0) || command.0 > 28))
        .collect();
    assert_eq!(others.len(), 3, "{names:?}");
}

fn several_statements_in_one_command(product: Product) {
    const TEXT: &str = "SELECT 1; UPDATE goods SET name = 'new' WHERE id < 3; SELECT * FROM goods";
    const FAILS: &str = "SELECT 2; SELECT * FROM nothing; SELECT 3";
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Socket, "ana", "shop");
    let id = client.connection_id;
    assert_eq!(client.query(TEXT).unwrap().results, 3);
    assert_eq!(refusal(client.query(FAILS)), 1146);
    client.quit().unwrap();
    let events = watched.connection(id);
    let queries: Vec<_> = events.iter().filter(|event| event.command == Some(Command::QUERY)).collect();
    assert_eq!(queries.len(), 2, "{queries:#?}");
    ok(query(&events, TEXT));
    assert_eq!(error(query(&events, FAILS)).0, 1146);
}

fn local_files(product: Product) {
    const LOAD: &str = "LOAD DATA LOCAL INFILE 'goods.txt' INTO TABLE goods FIELDS TERMINATED BY ','";
    let mut watched = Watched::start_with(product, &["--local-infile=1"]);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    assert_eq!(client.load_local(LOAD, b"10,ten\n11,eleven\n").unwrap().affected, Some(2));
    client.quit().unwrap();
    let events = watched.connection(id);
    assert_eq!(ok(query(&events, LOAD)).1, Some(2));
}

fn procedures_tell_of_the_call(product: Product) {
    let mut watched = Watched::start(product);
    let procedure = "CREATE PROCEDURE few(most INT) BEGIN DELETE FROM goods WHERE id = 3; \
                     SELECT * FROM goods WHERE id < most; END";
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    client.query(procedure).unwrap();
    assert_eq!(client.query("CALL few(3)").unwrap().results, 2);
    client.quit().unwrap();
    let events = watched.connection(id);
    let told: Vec<_> = events.iter().filter(|event| event.command == Some(Command::QUERY)).map(sql).collect();
    assert_eq!(told, [procedure, "CALL few(3)"]);
    ok(query(&events, "CALL few(3)"));
}

fn a_flood_of_pings(product: Product) {
    const PINGS: usize = 20_000;
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Socket, "ana", "");
    let id = client.connection_id;
    let before = watched.counters();
    for number in 0..PINGS {
        client.ping().unwrap();
        // The ring is smaller than the flood.
        if number % 1000 == 0 {
            watched.take_in();
        }
    }
    client.quit().unwrap();
    let events = watched.connection(id);
    let pings = events.iter().filter(|event| event.command == Some(Command(14))).count();
    let after = watched.counters();
    let lost = [after.ring_full - before.ring_full, after.table_full - before.table_full];
    assert_eq!((pings, lost), (PINGS, [0, 0]));
    assert_eq!(after.seen, after.submitted);
}

/// Waits until the server runs this statement.
fn wait_until_running(watched: &Watched, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let sql = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE info = '{text}'");
    while watched.server.sql("root", "", "", &sql, Via::Socket).unwrap() != "1" {
        assert!(Instant::now() < deadline, "{text} does not run");
        std::thread::yield_now();
    }
}

fn a_statement_that_is_killed(product: Product) {
    const QUERY: &str = "SELECT SLEEP(600) FROM goods WHERE id = 1";
    let mut watched = Watched::start(product);
    let mut ids = Vec::new();
    for kill in ["KILL QUERY", "KILL"] {
        let mut client = watched.open(Via::Tcp, "ana", "shop");
        let id = client.connection_id;
        client.tell(command::QUERY, QUERY.as_bytes()).unwrap();
        wait_until_running(&watched, QUERY);
        watched.server.sql("root", "", "", &format!("{kill} {id}"), Via::Socket).unwrap();
        let answer = client.answer();
        if kill == "KILL" {
            client.wait_for_end();
        } else {
            // A sleep that is interrupted gives 1 in some servers, and fails in others.
            assert!(answer.is_ok_and(|answer| answer.rows == Some(1)) || product.is_mariadb());
            client.query("SELECT 1").unwrap();
            client.quit().unwrap();
        }
        ids.push(id);
    }
    let events = watched.connection(ids[0]);
    let killed = query(&events, QUERY);
    assert!(killed.duration_ns.is_some());
    match &killed.outcome {
        Some(Outcome::Error { code, .. }) => assert_eq!(*code, Some(1317), "{killed:#?}"),
        Some(Outcome::Ok { rows_sent, .. }) => assert_eq!(*rows_sent, Some(1), "{killed:#?}"),
        other => panic!("{other:?}"),
    }
    ok(query(&events, "SELECT 1"));
    let events = watched.connection(ids[1]);
    let killed = query(&events, QUERY);
    assert!(matches!(killed.outcome, Some(Outcome::Error { .. } | Outcome::Ok { .. })), "{killed:#?}");
    assert_eq!(events.last().unwrap().kind, EventKind::Disconnect);
}

fn a_server_that_dies_in_mid_command(product: Product) {
    const QUERY: &str = "SELECT SLEEP(601) FROM goods";
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let (id, port) = (client.connection_id, client.port);
    client.tell(command::QUERY, QUERY.as_bytes()).unwrap();
    wait_until_running(&watched, QUERY);
    let unfinished = watched.kill_server();
    let event = unfinished.iter().find(|event| event.session.connection_id == Some(id));
    let event = event.unwrap_or_else(|| panic!("not told: {unfinished:#?}"));
    assert_eq!(event.outcome, Some(Outcome::Unfinished));
    assert_eq!(sql(event), QUERY);
    assert_eq!(event.principal.user.as_deref(), Some("ana"));
    assert_eq!(event.principal.client_port, port);
    assert_eq!(event.session.database.as_deref(), Some("shop"));
}

fn dumps_of_the_binary_log(product: Product) {
    let mut watched = Watched::start_with(product, &["--log-bin=binlog", "--server-id=1"]);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    // As a replica does, up to the end of the log: 2 bytes of flags (1: do not wait for more), its own server id.
    client.query("SET @master_binlog_checksum = 'NONE', @source_binlog_checksum = 'NONE'").unwrap();
    let head = [&4_u32.to_le_bytes()[..], &1_u16.to_le_bytes(), &7_u32.to_le_bytes()].concat();
    client.tell(command::BINLOG_DUMP, &[&head[..], b"binlog.000001"].concat()).unwrap();
    // Events, and at the end of the log the end of the answer.
    let mut packets = 0;
    loop {
        let packet = client.receive().unwrap();
        assert_ne!(packet[0], 0xff, "{}", String::from_utf8_lossy(&packet));
        if packet[0] == 0xfe {
            break;
        }
        packets += 1;
    }
    assert!(packets > 2, "{packets}");
    drop(client);
    let events = watched.connection(id);
    let dump = only(&events, Command(18));
    assert_eq!(dump.command.unwrap().name(), "Binlog_dump");
    assert_eq!(dump.principal.user.as_deref(), Some("ana"));
    ok(dump);
}

fn clients_over_ip_6(product: Product) {
    let mut watched = Watched::start_with(product, &["--bind-address=::1"]);
    let mut client = Client::open(&watched.server.address(Via::TcpV6), "ana", "shop").unwrap();
    let (id, port) = (client.connection_id, client.port);
    client.query("SELECT 6").unwrap();
    client.quit().unwrap();
    let events = watched.connection(id);
    for event in &events {
        assert_eq!(event.principal.client_ip, Some(std::net::Ipv6Addr::LOCALHOST.into()), "{event:#?}");
        assert_eq!(event.principal.transport, Some(Transport::Tcp));
        assert_eq!(event.principal.client_port, port);
        assert_eq!(event.principal.client_host.as_deref(), Some("localhost"));
    }
}
