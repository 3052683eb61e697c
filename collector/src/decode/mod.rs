//! Kernel records go in, audit events come out, but for those that a rule leaves out.
//!
//! A record names its process; [`Decoder::add_server`] says which server that is. SQL that was too long for its record
//! comes before it on its own and waits here.

mod clock;
mod principal;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use whence_abi::record::{Overflow, Plain as _, Record, bit, kind, outcome, provider, string};
use whence_model::{
    CollectorId, Command, Event, EventKind, Gap, Outcome, Principal, Provider, Sequence, Server, Session,
    Statement, Text, Timestamp,
};

pub use clock::{Clock, Steps, boot_ns};

use crate::policy::{Decision, Facts, Policy, TextPolicy};

/// What a record gave.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once; a box would be an allocation for each event"
)]
pub enum Decoded {
    Event(Event),
    /// An event of process `tgid`, which a rule leaves out; with its connection, where it is a command of one.
    Filtered {
        tgid: u32,
        rule: Arc<str>,
        connection: Option<(u64, Principal)>,
    },
    /// A part of a record that is to come.
    Part,
}

impl Decoded {
    /// The event, where there is one.
    pub fn event(self) -> Option<Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Filtered { .. } | Self::Part => None,
        }
    }
}

/// The record gave no event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record is whole, but nobody said which server process `tgid` is. Add it and decode the record again.
    #[error("process {tgid} is no known server")]
    UnknownProcess { tgid: u32 },
    /// The record is not one of ours; it is lost.
    #[error("a record of the kernel is damaged: {0}")]
    Damaged(&'static str),
}

/// Most bytes of long SQL that wait for their records.
const PENDING_BYTES: usize = 64 << 20;

/// SQL that came before its record.
struct Pending {
    start_ns: u64,
    text: Vec<u8>,
}

/// A server process.
struct Process {
    server: Arc<Server>,
    /// The highest connection id seen: servers count upwards.
    highest_connection: u64,
}

/// Turns records into events, each with the next sequence number.
pub struct Decoder {
    collector: CollectorId,
    next_sequence: Sequence,
    policy: Arc<Policy>,
    clock: Clock,
    processes: HashMap<u32, Process>,
    pending: HashMap<(u32, u32), Pending>,
    pending_bytes: usize,
}

impl Decoder {
    /// A decoder whose first event gets `next_sequence`.
    pub fn new(collector: CollectorId, next_sequence: Sequence, policy: Arc<Policy>) -> Self {
        Self {
            collector,
            next_sequence,
            policy,
            clock: Clock::new(),
            processes: HashMap::new(),
            pending: HashMap::new(),
            pending_bytes: 0,
        }
    }

    /// The sequence number of the next event.
    pub fn next_sequence(&self) -> Sequence {
        self.next_sequence
    }

    /// Says that process `tgid` is `server`.
    pub fn add_server(&mut self, tgid: u32, server: Server) {
        match self.processes.entry(tgid) {
            Entry::Occupied(mut known) => {
                // A process id that was used again is another process.
                if known.get().server.process_started_at != server.process_started_at {
                    known.get_mut().highest_connection = 0;
                }
                known.get_mut().server = Arc::new(server);
            }
            Entry::Vacant(new) => {
                new.insert(Process { server: Arc::new(server), highest_connection: 0 });
            }
        }
    }

    /// The server that process `tgid` is.
    pub fn server(&self, tgid: u32) -> Option<&Server> {
        self.processes.get(&tgid).map(|process| process.server.as_ref())
    }

    /// Forgets a process that has ended. Decode its unfinished records first.
    pub fn remove_server(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
        self.pending.retain(|&(owner, _), _| owner != tgid);
        self.pending_bytes = self.pending.values().map(|pending| pending.text.len()).sum();
    }

    /// What one record from the ring gives.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Decoded, DecodeError> {
        self.clock.look();
        let Some(&first) = bytes.first_chunk::<4>() else {
            return Err(DecodeError::Damaged("shorter than its first word"));
        };
        match u32::from_ne_bytes(first) {
            kind::OVERFLOW => {
                self.keep_overflow(bytes)?;
                Ok(Decoded::Part)
            }
            kind::COMMAND..=kind::CHANGE_USER => self.event(bytes),
            _ => Err(DecodeError::Damaged("of an unknown kind")),
        }
    }

    /// The event that tells of a loss on `server`, between two points in time.
    pub fn gap(&mut self, server: Server, gap: Gap, from: Timestamp, to: Timestamp) -> Event {
        Event {
            collector: self.collector,
            sequence: self.take_sequence(),
            kind: EventKind::Gap,
            provider: Provider::Collector,
            started_at: from,
            duration_ns: u64::try_from(to.since_ns(from)).ok(),
            server: Arc::new(server),
            principal: Principal::default(),
            session: Session::default(),
            command: None,
            statement: None,
            outcome: None,
            gap: Some(gap),
            sampled_one_in: None,
        }
    }

    fn take_sequence(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    fn keep_overflow(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (head, room) =
            Overflow::split_from(bytes).ok_or(DecodeError::Damaged("a long text without its head"))?;
        let text =
            room.get(..head.length as usize).ok_or(DecodeError::Damaged("a long text that is cut short"))?;
        if let Some(before) = self.pending.remove(&(head.tgid, head.tid)) {
            self.pending_bytes -= before.text.len();
        }
        // Beyond this the record's own part of the text has to do, with its mark.
        if self.pending_bytes + text.len() <= PENDING_BYTES {
            self.pending_bytes += text.len();
            self.pending
                .insert((head.tgid, head.tid), Pending { start_ns: head.start_ns, text: text.to_vec() });
        }
        Ok(())
    }

    fn event(&mut self, bytes: &[u8]) -> Result<Decoded, DecodeError> {
        let (record, tail) = Record::split_from(bytes).ok_or(DecodeError::Damaged("without a whole head"))?;
        let view = View::new(&record, tail)?;
        let Some(process) = self.processes.get_mut(&record.tgid) else {
            return Err(DecodeError::UnknownProcess { tgid: record.tgid });
        };
        let connection = view.number(bit::CONNECTION_ID, record.connection_id);
        let kind = event_kind(&record, connection, process.highest_connection);
        process.highest_connection = process.highest_connection.max(connection.unwrap_or(0));

        let is_command = matches!(kind, EventKind::Command | EventKind::ChangeUser);
        let command = (is_command && view.has(bit::COMMAND)).then_some(Command(record.command));
        let whole = self.take_overflow(&view);
        // Where none of it could be read, that there was some is known by its length.
        let unreadable = (record.sql_bytes > 0).then_some(&[][..]);
        let sql = whole.as_deref().or_else(|| view.bytes(string::SQL)).or(unreadable).filter(|_| is_command);
        let reading = sql.map(whence_sqltext::read);
        let principal = principal::of(&view, kind);
        let database = view.text(string::DATABASE).filter(|name| !name.is_empty());
        let facts = Facts {
            kind,
            principal: &principal,
            database: database.as_deref(),
            command,
            class: reading.as_ref().map(|reading| reading.class),
        };
        let sampled = (record.sampled_one_in != 0).then_some(record.sampled_one_in);
        let (text, sampled_one_in) = match self.policy.decide(&facts, sampled) {
            Decision::Keep { text, sampled_one_in } => (text, sampled_one_in),
            Decision::Filter { rule } => {
                let connection = connection.filter(|_| kind == EventKind::Command).zip(Some(principal));
                return Ok(Decoded::Filtered { tgid: record.tgid, rule, connection });
            }
        };
        let statement = reading.zip(sql).map(|(reading, sql)| {
            let kept = reading.keep(view.sql_bytes(sql.len() as u64), &text.sql());
            Statement {
                class: kept.class,
                sql: kept.text,
                fingerprint: kept.fingerprint,
                tables: kept.tables,
            }
        });
        // What gives no event takes no number.
        let sequence = self.take_sequence();
        let process =
            self.processes.get(&record.tgid).ok_or(DecodeError::UnknownProcess { tgid: record.tgid })?;
        Ok(Decoded::Event(Event {
            collector: self.collector,
            sequence,
            kind,
            provider: if record.provider == provider::USDT { Provider::Usdt } else { Provider::Functions },
            started_at: self.clock.to_utc(record.start_ns),
            duration_ns: view.number(bit::DURATION, record.duration_ns),
            server: process.server.clone(),
            principal,
            session: Session { connection_id: connection, database },
            command,
            statement,
            outcome: outcome_of(&view, kind, text),
            gap: None,
            sampled_one_in,
        }))
    }

    /// The long SQL that came before its record.
    fn take_overflow(&mut self, view: &View<'_>) -> Option<Vec<u8>> {
        let record = view.record;
        let key = (record.tgid, record.tid);
        let is_its = |pending: &Pending| pending.start_ns == record.start_ns;
        if !view.has(bit::OVERFLOW) || !self.pending.get(&key).is_some_and(is_its) {
            return None;
        }
        let pending = self.pending.remove(&key)?;
        self.pending_bytes -= pending.text.len();
        Some(pending.text)
    }
}

fn outcome_of(view: &View<'_>, kind: EventKind, text: TextPolicy) -> Option<Outcome> {
    let record = view.record;
    if kind == EventKind::Disconnect {
        return None;
    }
    if kind == EventKind::ConnectFailed || record.outcome == outcome::ERROR {
        let message = view.bytes(string::ERROR_MESSAGE).and_then(|message| {
            let cut = u64::from(record.cut & bit::of(string::ERROR_MESSAGE) != 0);
            text.error_message(message, message.len() as u64 + cut)
        });
        let state = std::str::from_utf8(&record.sqlstate[..5]).ok();
        let state = state.filter(|state| state.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        return Some(Outcome::Error {
            code: view.has(bit::ERROR_CODE).then_some(record.error_code),
            sqlstate: state.filter(|_| view.has(bit::SQLSTATE)).map(str::to_owned),
            message,
        });
    }
    match record.outcome {
        outcome::OK => Some(Outcome::Ok {
            rows_sent: view.number(bit::ROWS_SENT, record.rows_sent),
            // A server says -1 where there is no number of rows.
            rows_affected: view
                .number(bit::AFFECTED_ROWS, record.affected_rows)
                .filter(|&rows| rows != u64::MAX),
        }),
        outcome::UNFINISHED => Some(Outcome::Unfinished),
        _ => None,
    }
}

/// A static probe tells a refused login only by its end: a connection that ends, was not seen before, and is newer than
/// any that was.
fn event_kind(record: &Record, connection: Option<u64>, highest: u64) -> EventKind {
    match record.kind {
        kind::CONNECT => EventKind::Connect,
        kind::CONNECT_FAILED => EventKind::ConnectFailed,
        kind::CHANGE_USER => EventKind::ChangeUser,
        kind::DISCONNECT => {
            let seen = record.present & bit::SEEN_BEFORE != 0;
            let newer = highest > 0 && connection.is_some_and(|id| id > highest);
            if record.provider == provider::USDT && !seen && newer {
                EventKind::ConnectFailed
            } else {
                EventKind::Disconnect
            }
        }
        _ => EventKind::Command,
    }
}

/// A record whose strings were checked to lie in its tail.
pub(crate) struct View<'a> {
    pub record: &'a Record,
    tail: &'a [u8],
}

impl<'a> View<'a> {
    pub fn new(record: &'a Record, tail: &'a [u8]) -> Result<Self, DecodeError> {
        for (index, span) in record.strings.iter().enumerate() {
            let end = usize::from(span.offset) + usize::from(span.length);
            if record.present & bit::of(index) != 0 && end > tail.len() {
                return Err(DecodeError::Damaged("a string lies outside of it"));
            }
        }
        Ok(Self { record, tail })
    }

    pub fn has(&self, bit: u32) -> bool {
        self.record.present & bit != 0
    }

    pub fn number(&self, bit: u32, value: u64) -> Option<u64> {
        self.has(bit).then_some(value)
    }

    pub fn bytes(&self, string: usize) -> Option<&'a [u8]> {
        let span = self.record.strings[string];
        let start = usize::from(span.offset);
        self.tail.get(start..start + usize::from(span.length)).filter(|_| self.has(bit::of(string)))
    }

    fn text(&self, string: usize) -> Option<String> {
        let bytes = self.bytes(string)?;
        let cut = self.record.cut & bit::of(string) != 0;
        Some(Text::from_source(bytes, bytes.len() as u64 + u64::from(cut)).text)
    }

    /// Length of the SQL at the source; where that is not known and it was cut, one more than was kept: at least that.
    fn sql_bytes(&self, kept: u64) -> u64 {
        match self.record.sql_bytes {
            0 => kept + u64::from(self.record.cut & bit::of(string::SQL) != 0),
            bytes => bytes.max(kept),
        }
    }
}

#[cfg(test)]
mod tests;
