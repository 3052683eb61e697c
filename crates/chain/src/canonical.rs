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
//! What is not stored is not in it, and what is computed from it (ids, names of commands) is not either.

use std::net::IpAddr;

use whence_model::{Coverage, Event, Outcome, Server, Statement, Text, Timestamp};

use crate::Hash;

/// Hashes values as they are encoded.
pub struct Encoder(blake3::Hasher);

impl Encoder {
    /// Starts a hash in `context`, which keeps hashes of different things apart.
    pub fn new(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    pub fn finish(&self) -> Hash {
        *self.0.finalize().as_bytes()
    }

    pub fn u8(&mut self, value: u8) {
        self.0.update(&[value]);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.update(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.update(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.update(&value.to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub fn timestamp(&mut self, value: Timestamp) {
        self.0.update(&value.0.to_be_bytes());
    }

    pub fn uuid(&mut self, value: impl AsRef<[u8]>) {
        self.0.update(value.as_ref());
    }

    pub fn hash(&mut self, value: &Hash) {
        self.0.update(value);
    }

    /// Texts are far shorter than 4 GiB: the wire refuses longer ones.
    fn length(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub fn str(&mut self, value: &str) {
        self.length(value.len());
        self.0.update(value.as_bytes());
    }

    pub fn ip(&mut self, value: IpAddr) {
        match value.to_canonical() {
            IpAddr::V4(address) => {
                self.u8(4);
                self.0.update(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.0.update(&address.octets());
            }
        }
    }

    pub fn option<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }

    pub fn text(&mut self, value: &Text) {
        self.str(&value.text);
        self.u64(value.original_bytes);
        self.bool(value.truncated);
    }
}

/// All of an event.
pub fn event(out: &mut Encoder, event: &Event) {
    out.uuid(event.collector.0);
    out.u64(event.sequence);
    out.str(event.kind.as_str());
    out.str(event.provider.as_str());
    out.timestamp(event.started_at);
    out.option(event.duration_ns, Encoder::u64);
    server(out, &event.server);

    let principal = &event.principal;
    out.option(principal.user.as_deref(), Encoder::str);
    out.option(principal.login_user.as_deref(), Encoder::str);
    out.option(principal.client_host.as_deref(), Encoder::str);
    out.option(principal.client_ip, Encoder::ip);
    out.option(principal.client_port, Encoder::u16);
    out.option(principal.transport.map(whence_model::Transport::as_str), Encoder::str);
    out.option(principal.tls, Encoder::bool);

    out.option(event.session.connection_id, Encoder::u64);
    out.option(event.session.database.as_deref(), Encoder::str);
    out.option(event.command.map(|command| command.0), Encoder::u32);
    out.option(event.statement.as_ref(), statement);
    out.option(event.outcome.as_ref(), outcome);
    out.option(event.gap.as_ref(), |out, gap| {
        out.str(gap.reason.as_str());
        out.u64(gap.events);
    });
}

fn server(out: &mut Encoder, server: &Server) {
    out.str(&server.host);
    out.uuid(server.instance.0);
    out.str(&server.product);
    out.option(server.version.as_deref(), Encoder::str);
    out.option(server.address, Encoder::ip);
    out.option(server.port, Encoder::u16);
    out.u32(server.process_id);
    out.timestamp(server.process_started_at);
}

fn statement(out: &mut Encoder, statement: &Statement) {
    out.str(statement.class.as_str());
    out.option(statement.sql.as_ref(), Encoder::text);
    out.option(statement.fingerprint, Encoder::u64);
    out.length(statement.tables.len());
    for table in &statement.tables {
        out.str(table);
    }
}

fn outcome(out: &mut Encoder, outcome: &Outcome) {
    out.str(outcome.as_str());
    match outcome {
        Outcome::Ok { rows_sent, rows_affected } => {
            out.option(*rows_sent, Encoder::u64);
            out.option(*rows_affected, Encoder::u64);
        }
        Outcome::Error { code, sqlstate, message } => {
            out.option(*code, Encoder::u32);
            out.option(sqlstate.as_deref(), Encoder::str);
            out.option(message.as_ref(), Encoder::text);
        }
        Outcome::Unfinished => {}
    }
}

/// All of a coverage span.
pub fn coverage(out: &mut Encoder, coverage: &Coverage) {
    server(out, &coverage.server);
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
}
