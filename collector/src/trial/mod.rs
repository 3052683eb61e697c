//! Whether what is read of a server by its offsets can be true: its first records and what the kernel knows of its
//! connections go in, a verdict comes out.
//!
//! The collector keeps a server's first records back until they have been tried, so that what is wrong is never stored.
//! Only that counts against a server which no client can bring about: not the name that someone logs in with, nor a
//! statement or a message. Offsets out of the table are not proven by the binary. Of those more is asked: the account
//! that applies must have been the login name, a command must have been answered, and a client's port must be that of a
//! connection which the kernel knows.

mod hold;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use whence_abi::record::{Record, bit, kind, outcome, provider, string};
use whence_model::Command;

use crate::decode::View;
use crate::discover::process;
use crate::offsets::ByTable;
pub use hold::{Look, Refusal, Trials};

/// So many records tell enough …
const ENOUGH: u32 = 8;
/// … and what came in this time has to do.
const LONGEST: Duration = Duration::from_millis(300);
/// How often the kernel's list of connections is read at most.
const MOST_LOOKS: u32 = 8;
/// A page that is not in memory leaves a field out now and then; wrong offsets do so again and again.
const MOST_UNREADABLE: u32 = 3;
/// A connection that is killed may end without an answer.
const MOST_SILENT: u32 = 4;
/// No statement touches so many rows.
const MOST_ROWS: u64 = 1 << 48;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More records are needed.
    Open,
    /// Nothing speaks against what was read, but not enough for it.
    Unsettled,
    Holds,
    /// What was read cannot be true, for this reason.
    Fails(String),
}

/// One process on trial.
pub struct Trial {
    tgid: u32,
    by_table: ByTable,
    began: Option<Instant>,
    records: u32,
    looks: u32,
    connections: HashMap<u64, Connection>,
    /// Fields that every record has and that could not be read.
    unreadable: u32,
    /// Records with an account, and those of them in which it is the login name.
    accounts: u32,
    same_name: u32,
    /// Commands that are always answered, and those of them that the server answered.
    asked: u32,
    answered: u32,
    port_is_known: bool,
}

/// A connection as its first record has it.
#[derive(Clone, Copy)]
struct Connection {
    client: Option<(IpAddr, u16)>,
    /// When the kernel's list was read after that record, by the clock of records. The client was not in it.
    missed_at_ns: Option<u64>,
}

impl Trial {
    pub fn new(tgid: u32, by_table: ByTable) -> Self {
        Self {
            tgid,
            by_table,
            began: None,
            records: 0,
            looks: 0,
            connections: HashMap::new(),
            unreadable: 0,
            accounts: 0,
            same_name: 0,
            asked: 0,
            answered: 0,
            port_is_known: false,
        }
    }

    /// Whether records are being kept back for it.
    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// Takes in one record.
    pub fn record(&mut self, record: &Record, tail: &[u8]) -> Verdict {
        let Ok(view) = View::new(record, tail) else { return Verdict::Open };
        if record.provider != provider::FUNCTIONS {
            return Verdict::Open;
        }
        self.began.get_or_insert_with(Instant::now);
        self.records += 1;
        if let Err(reason) = self.check(&view) {
            return Verdict::Fails(reason);
        }
        if self.records >= ENOUGH && self.is_confirmed() { self.end() } else { Verdict::Open }
    }

    /// Whether it has gone on for long enough.
    pub fn is_over(&self) -> bool {
        self.began.is_some_and(|began| began.elapsed() >= LONGEST)
    }

    /// The verdict by what there is.
    pub fn end(&mut self) -> Verdict {
        if self.by_table.all && self.accounts > 0 && self.same_name == 0 {
            return Verdict::Fails(format!(
                "in {} records the account was never the login name",
                self.accounts
            ));
        }
        if self.asked >= if self.by_table.all { 1 } else { MOST_SILENT } && self.answered == 0 {
            return Verdict::Fails(format!(
                "none of {} commands, which are always answered, has the status of one that was",
                self.asked
            ));
        }
        if self.is_confirmed() {
            return Verdict::Holds;
        }
        (self.began, self.records) = (None, 0);
        Verdict::Unsettled
    }

    fn is_confirmed(&self) -> bool {
        let has_port = self.connections.values().any(|connection| connection.client.is_some());
        let port_is_confirmed = !self.by_table.port || self.port_is_known || !has_port;
        let is_readable = self.unreadable == 0 || self.accounts > self.unreadable;
        is_readable && port_is_confirmed && (!self.by_table.all || self.same_name > 0 && self.answered > 0)
    }

    fn check(&mut self, view: &View<'_>) -> Result<(), String> {
        let record = view.record;
        let Some(id) = view.number(bit::CONNECTION_ID, record.connection_id) else {
            return self.unreadable("the connection id cannot be read");
        };
        // Clients are told 32 bits of it.
        if id == 0 || id > u64::from(u32::MAX) {
            return Err(format!("a connection id would be {id}"));
        }
        // A connection that ends may not have got as far as a login.
        if record.kind != kind::DISCONNECT {
            self.check_client(view)?;
            if self.by_table.all {
                check_local(view)?;
            }
        }
        if !matches!(record.kind, kind::DISCONNECT | kind::CONNECT_FAILED) {
            self.check_account(view)?;
        }
        if record.kind == kind::COMMAND && record.outcome != outcome::UNFINISHED {
            self.check_result(view)?;
        }
        self.check_port(view, id)
    }

    /// One more field of every record could not be read.
    fn unreadable(&mut self, what: &str) -> Result<(), String> {
        self.unreadable += 1;
        if self.unreadable > MOST_UNREADABLE { Err(what.to_owned()) } else { Ok(()) }
    }

    fn check_client(&mut self, view: &View<'_>) -> Result<(), String> {
        let text = |string| view.bytes(string).filter(|text: &&[u8]| !text.is_empty());
        let (host, ip) = (text(string::HOST), text(string::IP));
        // What stands for both until either is known may be `connecting host`.
        let name = host.or_else(|| text(string::HOST_OR_IP));
        if name.is_none() && ip.is_none() {
            return self.unreadable("neither host nor address of a client can be read");
        }
        let is_name = |name: &[u8]| {
            name.iter().all(u8::is_ascii_graphic) || host.is_none() && name == b"connecting host"
        };
        if let Some(name) = name.filter(|name| !is_name(name)) {
            return Err(format!("the host of a client would be {}", shown(name)));
        }
        if let Some(ip) = ip
            && !std::str::from_utf8(ip).is_ok_and(|ip| ip.parse::<IpAddr>().is_ok())
        {
            return Err(format!("the address of a client would be {}", shown(ip)));
        }
        Ok(())
    }

    fn check_account(&mut self, view: &View<'_>) -> Result<(), String> {
        let Some(account) = view.bytes(string::PRIV_USER) else {
            return self.unreadable("the account cannot be read");
        };
        if !std::str::from_utf8(account).is_ok_and(|name| !name.contains(char::is_control)) {
            return Err(format!("the account would be {}", shown(account)));
        }
        let login = view.bytes(string::LOGIN_USER).filter(|login| !login.is_empty());
        self.accounts += 1;
        self.same_name += u32::from(login == Some(account));
        Ok(())
    }

    fn check_result(&mut self, view: &View<'_>) -> Result<(), String> {
        let record = view.record;
        if record.outcome == outcome::UNKNOWN {
            return Err("the status of a command is none that a server has".to_owned());
        }
        let failed = record.outcome == outcome::ERROR;
        if failed && !(1..=u32::from(u16::MAX)).contains(&record.error_code) {
            return Err(format!("the number of an error would be {}", record.error_code));
        }
        let state = &record.sqlstate[..5];
        let is_state = state.iter().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
        if failed && view.has(bit::SQLSTATE) && !is_state {
            return Err(format!("the SQLSTATE of an error would be {}", shown(state)));
        }
        let rows = [(bit::ROWS_SENT, record.rows_sent), (bit::AFFECTED_ROWS, record.affected_rows)];
        if let Some((_, rows)) = rows.into_iter().find(|&(has, rows)| view.has(has) && rows > MOST_ROWS)
            && self.by_table.all
        {
            return Err(format!("a command would have had {rows} rows"));
        }
        if matches!(Command(record.command), Command::QUERY | Command::PING | Command::INIT_DB) {
            self.asked += 1;
            self.answered += u32::from(failed || view.has(bit::ANSWERED));
        }
        Ok(())
    }

    /// A connection has one client. One that goes on after the kernel's list was read must have been in it.
    fn check_port(&mut self, view: &View<'_>, id: u64) -> Result<(), String> {
        let port = u16::try_from(view.record.peer_port).ok().filter(|_| view.has(bit::PEER_PORT));
        let ip = view.bytes(string::IP).and_then(|ip| std::str::from_utf8(ip).ok()?.parse::<IpAddr>().ok());
        let client = ip.map(|ip| ip.to_canonical()).zip(port);
        if let Some(known) = self.connections.get(&id) {
            if known.client.is_some() && client.is_some() && known.client != client {
                return Err(format!("connection {id} would have come from two ports"));
            }
            // Behind a proxy the kernel knows another client than the server.
            let went_on = known.missed_at_ns.is_some_and(|missed| view.record.start_ns > missed);
            if let Some((ip, port)) = client
                && self.by_table.port
                && went_on
                && !self.port_is_known
            {
                let client = std::net::SocketAddr::new(ip, port);
                return Err(format!(
                    "connection {id} would be from {client}, which no connection of the server is"
                ));
            }
            return Ok(());
        }
        let mut missed_at_ns = None;
        if let Some(client) = client
            && self.by_table.port
            && !self.port_is_known
            && self.looks < MOST_LOOKS
        {
            self.looks += 1;
            if let Ok(clients) = process::clients(self.tgid) {
                self.port_is_known = clients.contains(&client);
                missed_at_ns = (!self.port_is_known).then(crate::decode::boot_ns);
            }
        }
        self.connections.insert(id, Connection { client, missed_at_ns });
        Ok(())
    }
}

/// Servers call a client of their own host by this name, without asking anybody.
fn check_local(view: &View<'_>) -> Result<(), String> {
    let [host, ip] = [string::HOST, string::IP].map(|string| view.bytes(string).unwrap_or_default());
    let is_local = matches!(ip, b"" | b"127.0.0.1" | b"::1");
    if is_local
        && host != b"localhost"
        && (host.is_empty() && ip.is_empty() || !host.is_empty() && host != ip)
    {
        return Err(format!("the host of a client on the server's own would be {}", shown(host)));
    }
    Ok(())
}

/// The beginning of some text, whatever it is.
fn shown(text: &[u8]) -> String {
    const MOST: usize = 32;
    format!("\"{}\"", text[..text.len().min(MOST)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use whence_abi::record::Span;

    use super::*;

    /// A good command as a record and its tail.
    fn good() -> (Record, Vec<u8>) {
        let mut record = Record {
            kind: kind::COMMAND,
            provider: provider::FUNCTIONS,
            present: bit::CONNECTION_ID | bit::COMMAND | bit::ANSWERED,
            outcome: outcome::OK,
            connection_id: 7,
            command: Command::QUERY.0,
            ..Record::default()
        };
        let mut tail = Vec::new();
        for (index, text) in [
            (string::PRIV_USER, "ana"),
            (string::LOGIN_USER, "ana"),
            (string::HOST, "localhost"),
            (string::IP, "127.0.0.1"),
        ] {
            put(&mut record, &mut tail, index, text.as_bytes());
        }
        (record, tail)
    }

    fn put(record: &mut Record, tail: &mut Vec<u8>, index: usize, text: &[u8]) {
        let offset = u16::try_from(tail.len()).unwrap();
        record.strings[index] = Span { offset, length: u16::try_from(text.len()).unwrap() };
        record.present |= bit::of(index);
        tail.extend(text);
    }

    /// The verdict over nine commands that were changed so.
    fn verdict(by_table: bool, change: impl Fn(&mut Record, &mut Vec<u8>)) -> Verdict {
        let mut trial = Trial::new(1, ByTable { all: by_table, port: by_table });
        let (mut record, mut tail) = good();
        change(&mut record, &mut tail);
        let verdicts = (0..=ENOUGH).map(|_| trial.record(&record, &tail));
        verdicts.into_iter().find(|verdict| *verdict != Verdict::Open).unwrap_or(Verdict::Open)
    }

    #[test]
    fn what_is_right_holds() {
        for by_table in [false, true] {
            assert_eq!(verdict(by_table, |_, _| {}), Verdict::Holds);
        }
    }

    #[test]
    fn what_no_client_can_bring_about_fails() {
        type Change = fn(&mut Record, &mut Vec<u8>);
        let cases: [(Change, &str); 10] = [
            (|record, _| record.connection_id = 0x7f00_dead_beef, "a connection id would be"),
            (|record, _| record.connection_id = 0, "a connection id would be 0"),
            (|record, _| record.present &= !bit::CONNECTION_ID, "the connection id cannot be read"),
            (|record, _| record.present &= !bit::of(string::PRIV_USER), "the account cannot be read"),
            (
                |record, tail| put(record, tail, string::PRIV_USER, b"\x01\xff"),
                "account would be \"\\x01\\xff\"",
            ),
            (|record, tail| put(record, tail, string::HOST, b"a b"), "the host of a client would be \"a b\""),
            (|record, tail| put(record, tail, string::IP, b"localhost"), "the address of a client would be"),
            (|record, _| record.outcome = outcome::UNKNOWN, "the status of a command"),
            (|record, _| record.outcome = outcome::ERROR, "the number of an error would be 0"),
            (|record, _| record.present &= !bit::ANSWERED, "commands, which are always answered"),
        ];
        for (change, reason) in cases {
            match verdict(false, change) {
                Verdict::Fails(told) => assert!(told.contains(reason), "{told}"),
                other => panic!("{reason}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_field_that_cannot_be_read_once_speaks_against_nothing_but_is_not_enough() {
        let mut trial = Trial::new(1, ByTable { all: false, port: false });
        let (record, tail) = good();
        let unreadable = Record { present: record.present & !bit::of(string::PRIV_USER), ..record };
        assert_eq!(trial.record(&unreadable, &tail), Verdict::Open);
        assert_eq!(trial.end(), Verdict::Unsettled);
        let verdicts = (0..ENOUGH).map(|_| trial.record(&record, &tail));
        assert_eq!(verdicts.last(), Some(Verdict::Holds));
    }

    #[test]
    fn what_clients_choose_speaks_against_nothing() {
        assert_eq!(
            verdict(false, |record, tail| {
                put(record, tail, string::LOGIN_USER, b"\xff\x01");
                put(record, tail, string::DATABASE, b"\xff\x01");
                put(record, tail, string::SQL, b"\xff\x01");
            }),
            Verdict::Holds
        );
        // An anonymous account.
        assert_eq!(verdict(false, |record, tail| put(record, tail, string::PRIV_USER, b"")), Verdict::Holds);
    }

    #[test]
    fn of_the_table_more_is_asked() {
        let mut trial = Trial::new(1, ByTable { all: true, port: true });
        let (mut record, mut tail) = good();
        put(&mut record, &mut tail, string::PRIV_USER, b"");
        for _ in 0..20 {
            assert_eq!(trial.record(&record, &tail), Verdict::Open);
        }
        assert!(matches!(trial.end(), Verdict::Fails(reason) if reason.contains("never the login name")));
        let elsewhere = verdict(true, |record, tail| put(record, tail, string::HOST, b"ana"));
        assert!(
            matches!(elsewhere, Verdict::Fails(reason) if reason.contains("on the server's own would be"))
        );
    }

    #[test]
    fn a_client_port_is_that_of_a_connection_of_the_server() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _connection = listener.accept().unwrap();
        let port = client.local_addr().unwrap().port();
        let tried = |port: u16| {
            let mut trial = Trial::new(std::process::id(), ByTable { all: false, port: true });
            let (mut record, tail) = good();
            record.present |= bit::PEER_PORT;
            record.peer_port = port.into();
            let first = trial.record(&record, &tail);
            assert_eq!(first, Verdict::Open);
            record.start_ns = u64::MAX;
            (1..ENOUGH).map(|_| trial.record(&record, &tail)).find(|verdict| *verdict != Verdict::Open)
        };
        assert_eq!(tried(port), Some(Verdict::Holds));
        let other = tried(1);
        let Some(Verdict::Fails(reason)) = other else { panic!("{other:?}") };
        assert!(reason.contains("which no connection of the server is"), "{reason}");
    }
}
