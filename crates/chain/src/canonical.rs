//! The canonical encoding, version 1: the bytes that hashes are computed from.
//!
//! Fields follow one another in the order of this file, without names or padding:
//!
//! | value | bytes |
//! | --- | --- |
//! | number | big-endian, 1 (`bool`), 2, 4 or 8 |
//! | time | nanoseconds since 1970 as a signed 8-byte number |
//! | UUID, hash | 16, 32 |
//! | text | length in bytes as a 4-byte number, then UTF-8 |
//! | IP address | `4` or `6` as one byte, then 4 or 16; an IPv4 address mapped into IPv6 is an IPv4 address |
//! | optional | `0`, or `1` and the value |
//! | list | count as a 4-byte number, then the values |
//! | named value | its spelling as text |
//!
//! What was added to version 1 is an *addition*: it follows the rest where it has a value, as its name and its value, and
//! is not there where it has none. What was recorded before there was the field keeps its hash.
//! An ingest from before there was it does not hash it, and refuses a batch that has it: update ingest before collectors.
//!
//! What is not stored is not in it, and what is computed from it (ids, names of commands) is not either.

use std::net::IpAddr;

use whence_model::{Coverage, Event, Outcome, Server, Statement, Text, Timestamp};

use crate::Hash;

/// Encodes values, then hashes all of them at once: many small parts would cost several times as much.
pub struct Encoder {
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Starts a hash in `context`, which keeps hashes of different things apart.
    pub fn new(context: &str) -> Self {
        Self { hasher: blake3::Hasher::new_derive_key(context), bytes: Vec::new() }
    }

    /// Starts again in the same context, which need not be derived anew.
    pub fn restart(&mut self) {
        self.hasher.reset();
        self.bytes.clear();
    }

    /// The hash of what was encoded. Nothing may follow but [`Encoder::restart`].
    pub fn finish(&mut self) -> Hash {
        *self.hasher.update(&self.bytes).finalize().as_bytes()
    }

    /// Bytes without their length: only where nothing follows.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub fn timestamp(&mut self, value: Timestamp) {
        self.bytes.extend_from_slice(&value.0.to_be_bytes());
    }

    pub fn uuid(&mut self, value: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(value.as_ref());
    }

    pub fn hash(&mut self, value: &Hash) {
        self.bytes.extend_from_slice(value);
    }

    /// Texts are far shorter than 4 GiB: the wire refuses longer ones.
    pub(crate) fn length(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub fn str(&mut self, value: &str) {
        self.length(value.len());
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub fn ip(&mut self, value: IpAddr) {
        match value.to_canonical() {
            IpAddr::V4(address) => {
                self.u8(4);
                self.bytes.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.bytes.extend_from_slice(&address.octets());
            }
        }
    }

    pub fn option<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }

    fn text(&mut self, value: TextFields) {
        self.str(value.text);
        self.u64(value.original_bytes);
        self.bool(value.truncated);
    }
}

/// All of an event, wherever it is kept: whoever has it as something else than an [`Event`] need not make one.
#[derive(Clone, Copy, Debug)]
pub struct EventFields<'a, T> {
    pub collector: [u8; 16],
    pub sequence: u64,
    pub kind: &'a str,
    pub provider: &'a str,
    pub started_at: Timestamp,
    pub duration_ns: Option<u64>,
    pub server: ServerFields<'a>,
    pub user: Option<&'a str>,
    pub login_user: Option<&'a str>,
    pub client_host: Option<&'a str>,
    pub client_ip: Option<IpAddr>,
    pub client_port: Option<u16>,
    pub transport: Option<&'a str>,
    pub tls: Option<bool>,
    pub connection_id: Option<u64>,
    pub database: Option<&'a str>,
    pub command: Option<u32>,
    pub statement: Option<StatementFields<'a, T>>,
    pub outcome: Option<OutcomeFields<'a>>,
    pub gap: Option<(&'a str, u64)>,
    pub sampled_one_in: Option<u32>,
}

/// All of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerFields<'a> {
    pub host: &'a str,
    pub instance: [u8; 16],
    pub product: &'a str,
    pub version: Option<&'a str>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub process_id: u32,
    pub process_started_at: Timestamp,
    pub container_id: Option<&'a str>,
}

/// All of a statement; `T` is the name of a table.
#[derive(Clone, Copy, Debug)]
pub struct StatementFields<'a, T> {
    pub class: &'a str,
    pub sql: Option<TextFields<'a>>,
    pub fingerprint: Option<u64>,
    pub tables: &'a [T],
}

/// All of a text that may have been cut.
#[derive(Clone, Copy, Debug)]
pub struct TextFields<'a> {
    pub text: &'a str,
    pub original_bytes: u64,
    pub truncated: bool,
}

/// All of an outcome.
#[derive(Clone, Copy, Debug)]
pub enum OutcomeFields<'a> {
    Ok { rows_sent: Option<u64>, rows_affected: Option<u64> },
    Error { code: Option<u32>, sqlstate: Option<&'a str>, message: Option<TextFields<'a>> },
    Unfinished,
}

impl<'a> From<&'a Text> for TextFields<'a> {
    fn from(text: &'a Text) -> Self {
        Self { text: &text.text, original_bytes: text.original_bytes, truncated: text.truncated }
    }
}

impl<'a> From<&'a Server> for ServerFields<'a> {
    fn from(server: &'a Server) -> Self {
        Self {
            host: &server.host,
            instance: server.instance.0.into_bytes(),
            product: &server.product,
            version: server.version.as_deref(),
            address: server.address,
            port: server.port,
            process_id: server.process_id,
            process_started_at: server.process_started_at,
            container_id: server.container_id.as_deref(),
        }
    }
}

impl<'a> From<&'a Event> for EventFields<'a, String> {
    fn from(event: &'a Event) -> Self {
        let principal = &event.principal;
        Self {
            collector: event.collector.0.into_bytes(),
            sequence: event.sequence,
            kind: event.kind.as_str(),
            provider: event.provider.as_str(),
            started_at: event.started_at,
            duration_ns: event.duration_ns,
            server: event.server.as_ref().into(),
            user: principal.user.as_deref(),
            login_user: principal.login_user.as_deref(),
            client_host: principal.client_host.as_deref(),
            client_ip: principal.client_ip,
            client_port: principal.client_port,
            transport: principal.transport.map(whence_model::Transport::as_str),
            tls: principal.tls,
            connection_id: event.session.connection_id,
            database: event.session.database.as_deref(),
            command: event.command.map(|command| command.0),
            statement: event.statement.as_ref().map(StatementFields::from),
            outcome: event.outcome.as_ref().map(OutcomeFields::from),
            gap: event.gap.as_ref().map(|gap| (gap.reason.as_str(), gap.events)),
            sampled_one_in: event.sampled_one_in,
        }
    }
}

impl<'a> From<&'a Statement> for StatementFields<'a, String> {
    fn from(statement: &'a Statement) -> Self {
        Self {
            class: statement.class.as_str(),
            sql: statement.sql.as_ref().map(TextFields::from),
            fingerprint: statement.fingerprint,
            tables: &statement.tables,
        }
    }
}

impl<'a> From<&'a Outcome> for OutcomeFields<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Ok { rows_sent, rows_affected } => {
                Self::Ok { rows_sent: *rows_sent, rows_affected: *rows_affected }
            }
            Outcome::Error { code, sqlstate, message } => Self::Error {
                code: *code,
                sqlstate: sqlstate.as_deref(),
                message: message.as_ref().map(TextFields::from),
            },
            Outcome::Unfinished => Self::Unfinished,
        }
    }
}

/// All of an event.
pub fn event<T: AsRef<str>>(out: &mut Encoder, event: &EventFields<'_, T>) {
    out.uuid(event.collector);
    out.u64(event.sequence);
    out.str(event.kind);
    out.str(event.provider);
    out.timestamp(event.started_at);
    out.option(event.duration_ns, Encoder::u64);
    server(out, &event.server);

    out.option(event.user, Encoder::str);
    out.option(event.login_user, Encoder::str);
    out.option(event.client_host, Encoder::str);
    out.option(event.client_ip, Encoder::ip);
    out.option(event.client_port, Encoder::u16);
    out.option(event.transport, Encoder::str);
    out.option(event.tls, Encoder::bool);

    out.option(event.connection_id, Encoder::u64);
    out.option(event.database, Encoder::str);
    out.option(event.command, Encoder::u32);
    out.option(event.statement.as_ref(), statement);
    out.option(event.outcome.as_ref(), outcome);
    out.option(event.gap, |out, (reason, events)| {
        out.str(reason);
        out.u64(events);
    });
    server_additions(out, &event.server);
    if let Some(one_in) = event.sampled_one_in {
        out.str("sampled_one_in");
        out.u32(one_in);
    }
}

fn server(out: &mut Encoder, server: &ServerFields) {
    out.str(server.host);
    out.uuid(server.instance);
    out.str(server.product);
    out.option(server.version, Encoder::str);
    out.option(server.address, Encoder::ip);
    out.option(server.port, Encoder::u16);
    out.u32(server.process_id);
    out.timestamp(server.process_started_at);
}

/// Behind everything else of an event or a span.
fn server_additions(out: &mut Encoder, server: &ServerFields) {
    if let Some(id) = server.container_id {
        out.str("container_id");
        out.str(id);
    }
}

fn statement<T: AsRef<str>>(out: &mut Encoder, statement: &StatementFields<'_, T>) {
    out.str(statement.class);
    out.option(statement.sql, Encoder::text);
    out.option(statement.fingerprint, Encoder::u64);
    out.length(statement.tables.len());
    for table in statement.tables {
        out.str(table.as_ref());
    }
}

fn outcome(out: &mut Encoder, outcome: &OutcomeFields) {
    match *outcome {
        OutcomeFields::Ok { rows_sent, rows_affected } => {
            out.str("ok");
            out.option(rows_sent, Encoder::u64);
            out.option(rows_affected, Encoder::u64);
        }
        OutcomeFields::Error { code, sqlstate, message } => {
            out.str("error");
            out.option(code, Encoder::u32);
            out.option(sqlstate, Encoder::str);
            out.option(message, Encoder::text);
        }
        OutcomeFields::Unfinished => out.str("unfinished"),
    }
}

/// All of a coverage span.
pub fn coverage(out: &mut Encoder, coverage: &Coverage) {
    let of_server = ServerFields::from(&coverage.server);
    server(out, &of_server);
    out.str(coverage.state.as_str());
    out.option(coverage.provider.map(whence_model::Provider::as_str), Encoder::str);
    out.timestamp(coverage.from);
    out.timestamp(coverage.to);
    out.u64(coverage.seen);
    out.u64(coverage.stored);
    out.u64(coverage.filtered);
    out.length(coverage.lost.len());
    for (reason, events) in &coverage.lost {
        out.str(reason.as_str());
        out.u64(*events);
    }
    out.option(coverage.detail.as_deref(), Encoder::str);
    server_additions(out, &of_server);
    if !coverage.filtered_by.is_empty() {
        out.str("filtered_by");
        out.length(coverage.filtered_by.len());
        for (rule, events) in &coverage.filtered_by {
            out.str(rule);
            out.u64(*events);
        }
    }
}
