use whence_abi::record::{INLINE_SQL_BYTES, Span};
use whence_model::Transport;
use whence_testkit::sample::server;

use super::*;

fn decoder() -> Decoder {
    let id = "0198c0de-0000-7000-8000-000000000000".parse().unwrap();
    let mut decoder = Decoder::new(id, 1, Arc::default());
    decoder.add_server(7, server());
    decoder
}

/// A record as the kernel writes it.
fn record(kind: u32, change: impl FnOnce(&mut Record), strings: &[(usize, &[u8])]) -> Vec<u8> {
    let mut record = Record { kind, provider: provider::FUNCTIONS, tgid: 7, tid: 70, ..Record::default() };
    let mut tail = Vec::new();
    for &(index, bytes) in strings {
        record.strings[index] =
            Span { offset: u16::try_from(tail.len()).unwrap(), length: u16::try_from(bytes.len()).unwrap() };
        record.present |= bit::of(index);
        tail.extend_from_slice(bytes);
    }
    record.tail_bytes = u32::try_from(tail.len()).unwrap();
    change(&mut record);
    [record.as_bytes(), &tail].concat()
}

fn query(change: impl FnOnce(&mut Record), strings: &[(usize, &[u8])]) -> Vec<u8> {
    record(
        kind::COMMAND,
        |record| {
            record.command = 3;
            record.outcome = outcome::OK;
            record.connection_id = 12;
            record.present |= bit::COMMAND | bit::CONNECTION_ID;
            change(record);
        },
        strings,
    )
}

fn overflow(start_ns: u64, text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    let head = Overflow { kind: kind::OVERFLOW, length, tgid: 7, tid: 70, start_ns };
    [head.as_bytes(), text, &[0; 9]].concat()
}

fn one(decoder: &mut Decoder, bytes: &[u8]) -> Event {
    decoder.decode(bytes).unwrap().event().unwrap()
}

#[test]
fn a_query_becomes_an_event() {
    let mut decoder = decoder();
    let bytes = query(
        |record| {
            record.duration_ns = 5;
            record.affected_rows = 3;
            record.peer_port = 40_000;
            record.sql_bytes = 8;
            record.present |= bit::DURATION | bit::AFFECTED_ROWS | bit::PEER_PORT;
        },
        &[
            (string::PRIV_USER, b"app"),
            (string::LOGIN_USER, b"app"),
            (string::HOST, b"web1"),
            (string::IP, b"::ffff:10.0.0.8"),
            (string::DATABASE, b"shop"),
            (string::SQL, b"SELECT 1"),
        ],
    );
    let event = one(&mut decoder, &bytes);
    assert_eq!((event.sequence, event.kind, event.duration_ns), (1, EventKind::Command, Some(5)));
    assert_eq!(event.principal.user.as_deref(), Some("app"));
    assert_eq!(event.principal.client_host.as_deref(), Some("web1"));
    assert_eq!(event.principal.client_ip, Some("10.0.0.8".parse().unwrap()));
    assert_eq!(
        (event.principal.client_port, event.principal.transport),
        (Some(40_000), Some(Transport::Tcp))
    );
    assert_eq!(event.session, Session { connection_id: Some(12), database: Some("shop".into()) });
    assert_eq!(event.command, Some(Command::QUERY));
    assert_eq!(event.statement.unwrap().sql.unwrap().text, "SELECT 1");
    assert_eq!(event.outcome, Some(Outcome::Ok { rows_sent: None, rows_affected: Some(3) }));
    assert_eq!(decoder.next_sequence(), 2);
}

#[test]
fn what_was_not_read_is_absent() {
    let event = one(&mut decoder(), &record(kind::COMMAND, |_| {}, &[]));
    assert_eq!(event.principal, Principal::default());
    assert_eq!(event.session, Session::default());
    assert_eq!((event.command, event.statement, event.outcome, event.duration_ns), (None, None, None, None));
}

#[test]
fn a_client_on_the_socket_has_no_address() {
    let event = one(&mut decoder(), &query(|_| {}, &[(string::HOST, b"localhost"), (string::IP, b"")]));
    assert_eq!((event.principal.client_ip, event.principal.transport), (None, Some(Transport::Unix)));
    let by_probe = query(|record| record.provider = provider::USDT, &[(string::HOST_OR_IP, b"localhost")]);
    assert_eq!(one(&mut decoder(), &by_probe).principal.transport, None);
}

#[test]
fn a_refused_login_has_no_account() {
    let bytes = record(
        kind::CONNECT_FAILED,
        |record| {
            record.outcome = outcome::ERROR;
            record.error_code = 1045;
            record.sqlstate = *b"28000\0\0\0";
            record.present |= bit::ERROR_CODE | bit::SQLSTATE;
        },
        &[(string::PRIV_USER, b""), (string::LOGIN_USER, b"eve"), (string::ERROR_MESSAGE, b"Access denied")],
    );
    let event = one(&mut decoder(), &bytes);
    assert_eq!((event.kind, event.principal.user), (EventKind::ConnectFailed, None));
    assert_eq!(event.principal.login_user.as_deref(), Some("eve"));
    let Some(Outcome::Error { code, sqlstate, message }) = event.outcome else { panic!("not an error") };
    assert_eq!(
        (code, sqlstate.as_deref(), message.unwrap().text.as_str()),
        (Some(1045), Some("28000"), "Access denied")
    );
}

#[test]
fn long_sql_is_joined_with_its_record() {
    let mut decoder = decoder();
    let text = vec![b'x'; 3000];
    assert_eq!(decoder.decode(&overflow(99, &text)), Ok(Decoded::Part));
    let long = |start_ns| {
        query(
            |record| {
                record.start_ns = start_ns;
                record.sql_bytes = 3000;
                record.cut = bit::of(string::SQL);
                record.present |= bit::OVERFLOW;
            },
            &[(string::SQL, &text[..usize::try_from(INLINE_SQL_BYTES).unwrap()])],
        )
    };
    let sql = one(&mut decoder, &long(99)).statement.unwrap().sql.unwrap();
    assert_eq!((sql.text.len(), sql.truncated), (3000, false));
    assert_eq!(decoder.pending_bytes, 0);

    // Without it, or with that of another command, the beginning is kept, and marked.
    decoder.decode(&overflow(98, &text)).unwrap();
    let sql = one(&mut decoder, &long(100)).statement.unwrap().sql.unwrap();
    assert_eq!((sql.text.len(), sql.truncated, sql.original_bytes), (1024, true, 3000));
    decoder.remove_server(7);
    assert_eq!(decoder.pending_bytes, 0);
}

#[test]
fn sql_of_which_nothing_could_be_read_is_marked_as_cut() {
    let event = one(&mut decoder(), &query(|record| record.sql_bytes = 40, &[]));
    let sql = event.statement.unwrap().sql.unwrap();
    assert_eq!((sql.text.as_str(), sql.truncated, sql.original_bytes), ("", true, 40));
}

#[test]
fn an_unknown_process_costs_no_sequence_number_and_no_text() {
    let mut decoder = decoder();
    decoder.remove_server(7);
    decoder.decode(&overflow(0, &[b'x'; 2000])).unwrap();
    let bytes = query(|record| record.present |= bit::OVERFLOW, &[(string::SQL, b"x")]);
    assert_eq!(decoder.decode(&bytes), Err(DecodeError::UnknownProcess { tgid: 7 }));
    decoder.add_server(7, server());
    let event = one(&mut decoder, &bytes);
    assert_eq!((event.sequence, event.statement.unwrap().sql.unwrap().text.len()), (1, 2000));
}

#[test]
fn a_static_probe_tells_a_refused_login_by_its_end() {
    let mut decoder = decoder();
    let done = |id, seen| {
        record(
            kind::DISCONNECT,
            |record| {
                record.provider = provider::USDT;
                record.connection_id = id;
                record.present |= bit::CONNECTION_ID | if seen { bit::SEEN_BEFORE } else { 0 };
            },
            &[],
        )
    };
    // Nothing is known yet: it may have been there before us.
    assert_eq!(one(&mut decoder, &done(5, false)).kind, EventKind::Disconnect);
    assert_eq!(one(&mut decoder, &done(6, false)).kind, EventKind::ConnectFailed);
    assert_eq!(one(&mut decoder, &done(7, true)).kind, EventKind::Disconnect);
    assert_eq!(one(&mut decoder, &done(4, false)).kind, EventKind::Disconnect);
}

#[test]
fn damaged_records_are_refused() {
    let whole = query(|_| {}, &[(string::SQL, b"SELECT 1")]);
    for end in 0..whole.len() {
        assert!(matches!(decoder().decode(&whole[..end]), Err(DecodeError::Damaged(_))), "cut at {end}");
    }
    assert!(matches!(decoder().decode(&[9; 400]), Err(DecodeError::Damaged(_))));
    let text = overflow(1, &[b'x'; 50]);
    assert!(matches!(decoder().decode(&text[..60]), Err(DecodeError::Damaged(_))));
}
