//! What is done in a server comes out as events, field by field.

use std::net::Ipv4Addr;

use whence_model::{Command, Event, EventKind, Provider, StatementClass, Transport};
use whence_testkit::client::command;
use whence_testkit::{Client, Product, Via};

use crate::told::{error, ok, only, query, sql};
use crate::watched::{Watched, refusal};

crate::servers::for_each_server! {
    a_session_over_tcp,
    a_session_over_the_socket,
    the_command_line_client,
    errors,
    refused_logins,
    long_and_foreign_text,
    slow_statements,
    prepared_statements,
    statements_prepared_in_sql,
    changes_of_database_and_user,
    cut_connections,
    sessions_at_once,
}

fn a_session_over_tcp(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let (id, port) = (client.connection_id, client.port);
    assert_eq!(client.query("SELECT * FROM goods").unwrap().rows, Some(3));
    client.ping().unwrap();
    client.query("INSERT INTO goods VALUES (4, 'four'), (5, 'five')").unwrap();
    client.quit().unwrap();
    let events = watched.connection(id);

    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let commands = [EventKind::Command; 4];
    assert_eq!(kinds, [&[EventKind::Connect][..], &commands, &[EventKind::Disconnect]].concat());
    for event in &events {
        assert_eq!(event.provider, Provider::Functions);
        assert_eq!(event.principal.user.as_deref(), Some("ana"), "{event:#?}");
        assert_eq!(event.principal.login_user.as_deref(), Some("ana"));
        assert_eq!(event.principal.client_host.as_deref(), Some("localhost"));
        assert_eq!(event.principal.client_ip, Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(event.principal.client_port, port);
        assert_eq!(event.principal.transport, Some(Transport::Tcp));
    }
    ok(&events[0]);
    let select = query(&events, "SELECT * FROM goods");
    assert_eq!(select.session.database.as_deref(), Some("shop"));
    assert_eq!(select.statement.as_ref().unwrap().class, StatementClass::Read);
    assert_eq!(ok(select), (Some(3), None));
    assert_eq!(ok(query(&events, "INSERT INTO goods VALUES (4, 'four'), (5, 'five')")).1, Some(2));
    // What the SELECT sent is not the PING's, and what the INSERT wrote not the QUIT's.
    assert!(matches!(ok(only(&events, Command(14))).0, None | Some(0)));
    assert!(matches!(ok(only(&events, Command::QUIT)), (None | Some(0), None | Some(0))));
    assert!(events.windows(2).all(|pair| pair[0].started_at <= pair[1].started_at));
    assert!(events.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
}

fn a_session_over_the_socket(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Socket, "ben", "");
    let id = client.connection_id;
    client.query("SELECT name FROM shop.goods WHERE id = 2").unwrap();
    client.quit().unwrap();
    let events = watched.connection(id);
    for event in &events {
        assert_eq!(event.principal.user.as_deref(), Some("ben"));
        assert_eq!(event.principal.client_host.as_deref(), Some("localhost"));
        assert_eq!(event.principal.client_ip, None);
        assert_eq!(event.principal.client_port, None);
        assert_eq!(event.principal.transport, Some(Transport::Unix));
        assert_eq!(event.session.database, None);
    }
    assert_eq!(ok(query(&events, "SELECT name FROM shop.goods WHERE id = 2")).0, Some(1));
}

fn the_command_line_client(product: Product) {
    let mut watched = Watched::start(product);
    for via in [Via::Tcp, Via::Socket] {
        let told = watched.server.sql("locked", "secret", "shop", "SELECT CONNECTION_ID()", via).unwrap();
        let events = watched.connection(told.parse().unwrap());
        let asked = query(&events, "SELECT CONNECTION_ID()");
        assert_eq!(asked.principal.user.as_deref(), Some("locked"));
        assert_eq!(asked.session.database.as_deref(), Some("shop"));
        let transport = if via == Via::Tcp { Transport::Tcp } else { Transport::Unix };
        assert_eq!(asked.principal.transport, Some(transport));
        assert_eq!(ok(asked).0, Some(1));
    }
}

fn errors(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ben", "shop");
    let id = client.connection_id;
    assert_eq!(refusal(client.query("SELEC 1")), 1064);
    assert_eq!(refusal(client.query("SELECT * FROM nothing")), 1146);
    assert_eq!(refusal(client.query("DELETE FROM goods")), 1142);
    assert_eq!(refusal(client.init_db("nowhere")), 1044);
    assert_eq!(client.query("SELECT 1").unwrap().rows, Some(1));
    client.quit().unwrap();
    let events = watched.connection(id);
    let (code, state, message) = error(query(&events, "SELEC 1"));
    assert_eq!((code, state), (1064, "42000"));
    assert!(message.contains("error in your SQL syntax"), "{message}");
    let (code, state, message) = error(query(&events, "SELECT * FROM nothing"));
    assert_eq!((code, state), (1146, "42S02"));
    assert_eq!(message, "Table 'shop.nothing' doesn't exist");
    let (code, state, message) = error(query(&events, "DELETE FROM goods"));
    assert_eq!((code, state), (1142, "42000"));
    assert!(message.contains("'ben'@'localhost'"), "{message}");
    assert_eq!(error(only(&events, Command::INIT_DB)).0, 1044);
    assert_eq!(ok(query(&events, "SELECT 1")).0, Some(1));
}

fn refused_logins(product: Product) {
    let mut watched = Watched::start(product);
    let refused = |user, scramble: &[u8]| {
        let mut client = Client::connect(&watched.server.address(Via::Tcp)).unwrap();
        refusal(client.log_in(user, scramble, ""))
    };
    assert_eq!(refused("locked", &[7; 20]), 1045);
    assert_eq!(refused("locked", &[]), 1045);
    let told = watched.server.sql("ben", "", "mysql", "SELECT 1", Via::Socket).unwrap_err();
    assert!(told.to_string().contains("1044"), "{told}");

    let failed = |event: &Event| event.kind == EventKind::ConnectFailed;
    let denied = |event: &Event| failed(event) && event.principal.login_user.as_deref() == Some("ben");
    let events: Vec<_> = watched.until(denied).iter().filter(|event| failed(event)).cloned().collect();
    assert_eq!(events.len(), 3, "{events:#?}");
    for event in &events[..2] {
        let (code, state, message) = error(event);
        assert_eq!((code, state), (1045, "28000"));
        assert!(message.starts_with("Access denied for user 'locked'@'localhost'"), "{message}");
        assert_eq!(event.principal.user, None);
        assert_eq!(event.principal.login_user.as_deref(), Some("locked"));
        assert_eq!(event.principal.client_host.as_deref(), Some("localhost"));
        assert_eq!(event.principal.client_ip, Some(Ipv4Addr::LOCALHOST.into()));
        assert!(event.session.connection_id.is_some());
    }
    assert_ne!(events[0].session.connection_id, events[1].session.connection_id);
    // The password was right, the database was not.
    let (code, state, message) = error(&events[2]);
    assert_eq!((code, state), (1044, "42000"));
    assert!(message.contains("'ben'@'localhost' to database 'mysql'"), "{message}");
}

fn long_and_foreign_text(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Socket, "zoë", "");
    let id = client.connection_id;
    client.query("CREATE DATABASE größe").unwrap();
    client.init_db("größe").unwrap();
    client.query("SELECT '日本語 ünï 🦀'").unwrap();
    let lengths = [1023, 1024, 1025, 5000, 65_536, 100_000];
    for length in lengths {
        client.query(&long(length)).unwrap();
    }
    client.quit().unwrap();
    let events = watched.connection(id);
    let foreign = query(&events, "SELECT '日本語 ünï 🦀'");
    assert_eq!(foreign.principal.user.as_deref(), Some("zoë"));
    assert_eq!(foreign.session.database.as_deref(), Some("größe"));
    for length in lengths {
        let whole = long(length);
        let is_it = |event: &&Event| {
            let text = event.statement.as_ref().and_then(|statement| statement.sql.as_ref());
            text.is_some_and(|text| text.original_bytes == length as u64)
        };
        let event = events.iter().find(is_it).unwrap_or_else(|| panic!("no text of {length} bytes"));
        let text = event.statement.as_ref().unwrap().sql.as_ref().unwrap();
        let kept = length.min(64 << 10);
        assert_eq!(text.text, whole[..kept]);
        assert_eq!(text.truncated, kept < length);
    }
}

/// A statement of this many bytes.
fn long(bytes: usize) -> String {
    let frame = "SELECT LENGTH('')".len();
    format!("SELECT LENGTH('{}')", "x".repeat(bytes - frame))
}

fn slow_statements(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ana", "");
    let id = client.connection_id;
    client.query("SELECT SLEEP(0.2)").unwrap();
    client.query("SELECT 1").unwrap();
    client.quit().unwrap();
    let events = watched.connection(id);
    let slow = query(&events, "SELECT SLEEP(0.2)");
    let took_ns = slow.duration_ns.unwrap();
    assert!((200_000_000..10_000_000_000).contains(&took_ns), "{took_ns} ns");
    let next = query(&events, "SELECT 1");
    assert!(next.started_at.since_ns(slow.started_at) >= 200_000_000);
    assert!(next.duration_ns.unwrap() < took_ns);
}

fn prepared_statements(product: Product) {
    const TEXT: &str = "SELECT name FROM goods WHERE id <= ?";
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    let statement = client.prepare(TEXT.as_bytes()).unwrap();
    assert_eq!(client.execute(statement, 2).unwrap().rows, Some(2));
    assert_eq!(client.execute(statement, 3).unwrap().rows, Some(3));
    client.tell(command::STMT_CLOSE, &statement.to_le_bytes()).unwrap();
    let update = client.prepare(b"UPDATE goods SET name = 'all' WHERE id >= ?").unwrap();
    assert_eq!(client.execute(update, 2).unwrap().affected, Some(2));
    assert_eq!(refusal(client.prepare(b"SELECT * FROM nothing WHERE id = ?")), 1146);
    client.quit().unwrap();
    let events = watched.connection(id);

    let of = |command| events.iter().filter(move |event| event.command == Some(command));
    let prepared: Vec<_> = of(Command::STMT_PREPARE).collect();
    assert_eq!(sql(prepared[0]), TEXT);
    ok(prepared[0]);
    assert_eq!(error(prepared[2]).0, 1146);
    let executed: Vec<_> = of(Command::STMT_EXECUTE).collect();
    assert_eq!(executed.len(), 3);
    for (event, rows) in executed.iter().zip([2, 3]) {
        // A server may put the parameters' values in.
        assert!([TEXT, &TEXT.replace('?', &rows.to_string())].contains(&sql(event)), "{event:#?}");
        assert_eq!(ok(event).0, Some(rows));
        assert_eq!(event.statement.as_ref().unwrap().class, StatementClass::Read);
    }
    assert!(sql(executed[2]).starts_with("UPDATE goods SET name = 'all' WHERE id >= "));
    assert_eq!(ok(executed[2]).1, Some(2));
    ok(only(&events, Command(25)));
}

fn statements_prepared_in_sql(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Socket, "ana", "shop");
    let id = client.connection_id;
    client.query("PREPARE few FROM 'SELECT name FROM goods LIMIT 2'").unwrap();
    assert_eq!(client.query("EXECUTE few").unwrap().rows, Some(2));
    client.quit().unwrap();
    let events = watched.connection(id);
    ok(query(&events, "PREPARE few FROM 'SELECT name FROM goods LIMIT 2'"));
    assert_eq!(ok(query(&events, "EXECUTE few")).0, Some(2));
}

fn changes_of_database_and_user(product: Product) {
    let mut watched = Watched::start(product);
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    client.query("SELECT 1").unwrap();
    client.init_db("mysql").unwrap();
    client.query("SELECT 2").unwrap();
    client.query("USE shop").unwrap();
    client.query("SELECT 3").unwrap();
    client.change_user("ben", &[], "").unwrap();
    client.query("SELECT 4").unwrap();
    assert_eq!(refusal(client.change_user("locked", &[], "")), 1045);
    // MariaDB lets the session go on as before, MySQL closes it.
    let goes_on = product.is_mariadb();
    if goes_on {
        client.query("SELECT 5").unwrap();
    }
    drop(client);
    let events = watched.connection(id);

    let database = |text| query(&events, text).session.database.as_deref();
    assert_eq!(database("SELECT 1"), Some("shop"));
    assert_eq!(database("SELECT 2"), Some("mysql"));
    assert_eq!(database("SELECT 3"), Some("shop"));
    assert_eq!(database("SELECT 4"), None);
    let user = |text| query(&events, text).principal.user.as_deref();
    assert_eq!((user("SELECT 3"), user("SELECT 4")), (Some("ana"), Some("ben")));
    let changes: Vec<_> = events.iter().filter(|event| event.kind == EventKind::ChangeUser).collect();
    assert_eq!(changes.len(), 2, "{events:#?}");
    ok(changes[0]);
    assert_eq!(changes[0].principal.user.as_deref(), Some("ben"));
    assert_eq!(changes[0].principal.client_ip, Some(Ipv4Addr::LOCALHOST.into()));
    let (code, _, message) = error(changes[1]);
    assert_eq!(code, 1045);
    assert!(message.contains("'locked'@'localhost'"), "{message}");
    assert_eq!(changes[1].principal.user.as_deref(), Some("ben"));
    assert!(!goes_on || user("SELECT 5") == Some("ben"));
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::Connect).count(), 1);
}

fn cut_connections(product: Product) {
    let mut watched = Watched::start(product);
    let client = watched.open(Via::Tcp, "ana", "");
    let id = client.connection_id;
    drop(client);
    let events = watched.connection(id);
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(events[1].principal, events[0].principal);

    let mut killed = watched.open(Via::Tcp, "ana", "");
    let id = killed.connection_id;
    killed.query("SELECT 1").unwrap();
    watched.server.sql("root", "", "", &format!("KILL {id}"), Via::Socket).unwrap();
    let events = watched.connection(id);
    assert_eq!(events.last().unwrap().kind, EventKind::Disconnect);
    drop(killed);
}

fn sessions_at_once(product: Product) {
    let mut watched = Watched::start(product);
    let address = watched.server.address(Via::Tcp);
    let users = ["ana", "ben", "zoë"];
    let work = |number: usize| {
        let mut client = Client::open(&address, users[number % 3], "shop").unwrap();
        for count in 0..50 {
            client.query(&format!("SELECT {number}, {count}")).unwrap();
        }
        let id = client.connection_id;
        client.quit().unwrap();
        id
    };
    let work = &work;
    let ids: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6).map(|number| scope.spawn(move || work(number))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for (number, id) in ids.into_iter().enumerate() {
        let events = watched.connection(id);
        let queries: Vec<_> = events.iter().filter(|event| event.command == Some(Command::QUERY)).collect();
        assert_eq!(queries.len(), 50);
        for (count, event) in queries.into_iter().enumerate() {
            assert_eq!(sql(event), format!("SELECT {number}, {count}"));
            assert_eq!(event.principal.user.as_deref(), Some(users[number % 3]));
        }
    }
    let counters = watched.counters();
    assert_eq!(counters.seen, counters.submitted);
    assert_eq!((counters.ring_full, counters.fields_unreadable), (0, 0), "{counters:?}");
}
