//! From bytes to a batch. The bytes come from a stranger: every field and every limit is checked.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;

use prost::Message;
use uuid::Uuid;
use whence_chain::Manifest;
use whence_model::{
    CollectorId, Command, Coverage, CoverageState, Event, EventKind, Gap, InstanceId, LossReason, Outcome,
    Principal, Provider, Server, Session, Statement, StatementClass, Text, Timestamp, Transport,
};

use crate::census::Census;
use crate::{Batch, message};

/// Tables and the like that an event may have on average.
const DETAILS_PER_EVENT: usize = 16;

/// Most batches that are read of one body.
const MOST_BATCHES: usize = 64;

/// Most that a batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of protobuf, after decompression.
    pub decompressed_bytes: usize,
    /// Events, and likewise coverage spans.
    pub events: usize,
    /// Bytes of one name: a user, a host, a table.
    pub name_bytes: usize,
    /// Bytes of one text: SQL, an error message.
    pub text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { decompressed_bytes: 128 << 20, events: 100_000, name_bytes: 4 << 10, text_bytes: 1 << 20 }
    }
}

/// The bytes are no batch. Retrying does not mend any of these.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the body is not zstd: {0}")]
    Compression(std::io::Error),
    #[error("the batch has more than {limit} bytes after decompression")]
    TooLarge { limit: usize },
    #[error("the body is not a protobuf batch: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("the batch has {found} {what}; at most {limit} are allowed")]
    TooMany { what: &'static str, found: usize, limit: usize },
    #[error("{field} has {found} bytes; {expected} are right")]
    Length { field: &'static str, found: usize, expected: &'static str },
    #[error("{field} has {found} bytes; at most {limit} are allowed")]
    TooLong { field: &'static str, found: usize, limit: usize },
    #[error("{field} is not UTF-8")]
    NotUtf8 { field: &'static str },
    #[error("{field} has the value {value:?}, which this version does not know")]
    UnknownValue { field: &'static str, value: String },
    #[error("{field} is out of range")]
    OutOfRange { field: &'static str },
    #[error("{field} is missing")]
    Missing { field: &'static str },
}

/// Reads the batches of a body, at least one: the first, and those that follow as far as they can be read and all of them are
/// within the limits of one. Does not check hashes, signature or times: that is ingest's. The answer is also how many bytes
/// they are, decompressed.
pub fn decode_run(body: &[u8], limits: &Limits) -> Result<(Vec<Batch>, usize), WireError> {
    let whole = limits.decompressed_bytes;
    let mut limits = *limits;
    let mut next = |rest: &mut &[u8]| {
        let (bytes, behind) = split_first(rest)?;
        let (batch, decompressed_bytes) = decode_one(bytes, &limits)?;
        limits.decompressed_bytes -= decompressed_bytes;
        limits.events -= batch.events.len();
        *rest = behind;
        Ok::<_, WireError>(batch)
    };
    let mut rest = body;
    let mut run = vec![next(&mut rest)?];
    while !rest.is_empty()
        && run.len() < MOST_BATCHES
        && let Ok(batch) = next(&mut rest)
    {
        run.push(batch);
    }
    Ok((run, whole - limits.decompressed_bytes))
}

/// Reads a batch and checks every field. Does not check hashes, signature or times: that is ingest's.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Batch, WireError> {
    Ok(decode_one(bytes, limits)?.0)
}

/// A batch, and how many bytes it has decompressed.
fn decode_one(bytes: &[u8], limits: &Limits) -> Result<(Batch, usize), WireError> {
    let bytes = decompress(bytes, limits)?;
    check_census(Census::take(&bytes)?, limits)?;
    let message = message::Batch::decode(bytes.as_slice())?;
    Ok((Checker { limits, servers: Vec::new() }.batch(message)?, bytes.len()))
}

/// Parts a body into its first batch and what follows.
fn split_first(body: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let no_frame = |reason: &str| WireError::Compression(std::io::Error::other(reason.to_owned()));
    let length = zstd::zstd_safe::find_frame_compressed_size(body)
        .map_err(|code| no_frame(zstd::zstd_safe::get_error_name(code)))?;
    body.split_at_checked(length).ok_or_else(|| no_frame("a frame is cut off"))
}

fn check_census(census: Census, limits: &Limits) -> Result<(), WireError> {
    let check = |what, found, limit| {
        if found > limit { Err(WireError::TooMany { what, found, limit }) } else { Ok(()) }
    };
    check("events", census.events, limits.events)?;
    check("coverage spans", census.spans, limits.events)?;
    check("servers", census.servers, limits.events)?;
    check("tables, losses and rules", census.details, limits.events.saturating_mul(DETAILS_PER_EVENT))
}

fn decompress(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, WireError> {
    let limit = limits.decompressed_bytes;
    let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(WireError::Compression)?;
    // A frame may ask for a window of gigabytes; 2^27 is what the format recommends to support.
    decoder.window_log_max(27).map_err(WireError::Compression)?;
    let mut out = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut out).map_err(WireError::Compression)?;
    if out.len() > limit { Err(WireError::TooLarge { limit }) } else { Ok(out) }
}

struct Checker<'a> {
    limits: &'a Limits,
    servers: Vec<Arc<Server>>,
}

impl Checker<'_> {
    fn batch(mut self, batch: message::Batch) -> Result<Batch, WireError> {
        self.servers = batch
            .servers
            .into_iter()
            .map(|server| self.server(server).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let collector = CollectorId(uuid("collector", &batch.collector)?);
        if batch.number == 0 || batch.first_sequence == 0 {
            return Err(WireError::OutOfRange { field: "number or first_sequence" });
        }
        let events = batch.events.into_iter().zip(0_u64..).map(|(event, position)| {
            let sequence = batch.first_sequence.checked_add(position);
            let sequence = sequence.ok_or(WireError::OutOfRange { field: "first_sequence" })?;
            self.event(event, collector, sequence)
        });
        let events = events.collect::<Result<Vec<_>, WireError>>()?;
        let coverage = batch.coverage.into_iter().map(|span| self.coverage(span));
        let coverage = coverage.collect::<Result<Vec<_>, WireError>>()?;
        let manifest = Manifest {
            collector,
            number: batch.number,
            first_sequence: batch.first_sequence,
            event_count: u32::try_from(events.len()).unwrap_or(u32::MAX),
            coverage_count: u32::try_from(coverage.len()).unwrap_or(u32::MAX),
            sealed_at: Timestamp(batch.sealed_at),
            content_hash: fixed("content_hash", &batch.content_hash, "32")?,
            previous_hash: fixed("previous_hash", &batch.previous_hash, "32")?,
        };
        Ok(Batch {
            manifest,
            batch_hash: fixed("batch_hash", &batch.batch_hash, "32")?,
            signature: fixed("signature", &batch.signature, "64")?,
            events,
            coverage,
        })
    }

    fn server(&self, server: message::Server) -> Result<Server, WireError> {
        Ok(Server {
            host: self.name("host", server.host)?,
            instance: InstanceId(uuid("instance", &server.instance)?),
            product: self.name("product", server.product)?,
            version: self.optional_name("version", server.version)?,
            address: server.address.map(|bytes| ip("server address", &bytes)).transpose()?,
            port: server.port.map(|port| self::port("server port", port)).transpose()?,
            process_id: server.process_id,
            process_started_at: Timestamp(server.process_started_at),
            container_id: self.optional_name("container_id", server.container_id)?,
        })
    }

    fn event(
        &self,
        event: message::Event,
        collector: CollectorId,
        sequence: u64,
    ) -> Result<Event, WireError> {
        let statement = event.statement.map(|statement| self.statement(statement)).transpose()?;
        let outcome = event.outcome.map(|outcome| self.outcome(outcome)).transpose()?;
        let transport = event.transport.as_deref().map(|text| named("transport", text, Transport::parse));
        Ok(Event {
            collector,
            sequence,
            kind: named("kind", &event.kind, EventKind::parse)?,
            provider: named("provider", &event.provider, signing_provider)?,
            started_at: Timestamp(event.started_at),
            duration_ns: event.duration_ns,
            server: self.server_at(event.server)?,
            principal: Principal {
                user: self.optional_name("user", event.user)?,
                login_user: self.optional_name("login_user", event.login_user)?,
                client_host: self.optional_name("client_host", event.client_host)?,
                client_ip: event.client_ip.map(|bytes| ip("client_ip", &bytes)).transpose()?,
                client_port: event.client_port.map(|port| self::port("client_port", port)).transpose()?,
                transport: transport.transpose()?,
                tls: event.tls,
            },
            session: Session {
                connection_id: event.connection_id,
                database: self.optional_name("database", event.database)?,
            },
            command: event.command.map(Command),
            statement,
            outcome,
            gap: event.gap.as_ref().map(gap).transpose()?,
            sampled_one_in: event.sampled_one_in,
        })
    }

    fn statement(&self, statement: message::Statement) -> Result<Statement, WireError> {
        self.count("tables", statement.tables.len())?;
        let tables = statement.tables.into_iter().map(|table| self.name("table", table));
        Ok(Statement {
            class: named("statement_class", &statement.class, StatementClass::parse)?,
            sql: statement.sql.map(|text| self.text("sql_text", text)).transpose()?,
            fingerprint: statement.fingerprint,
            tables: tables.collect::<Result<_, _>>()?,
        })
    }

    fn outcome(&self, outcome: message::Outcome) -> Result<Outcome, WireError> {
        match outcome.result.as_str() {
            "ok" => Ok(Outcome::Ok { rows_sent: outcome.rows_sent, rows_affected: outcome.rows_affected }),
            "error" => Ok(Outcome::Error {
                code: outcome.code,
                sqlstate: self.optional_name("sqlstate", outcome.sqlstate)?,
                message: outcome.message.map(|text| self.text("error_message", text)).transpose()?,
            }),
            "unfinished" => Ok(Outcome::Unfinished),
            other => Err(unknown("result", other)),
        }
    }

    fn coverage(&self, span: message::Coverage) -> Result<Coverage, WireError> {
        if span.to < span.from {
            return Err(WireError::OutOfRange { field: "the end of a coverage span" });
        }
        let provider = span.provider.as_deref().map(|text| named("provider", text, signing_provider));
        let lost = span.lost.iter().map(|lost| gap(lost).map(|gap| (gap.reason, gap.events)));
        let filtered_by = span.filtered_by.into_iter();
        let filtered_by = filtered_by.map(|by| self.name("rule", by.rule).map(|rule| (rule, by.events)));
        Ok(Coverage {
            server: self.server_at(span.server)?.as_ref().clone(),
            state: named("state", &span.state, CoverageState::parse)?,
            provider: provider.transpose()?,
            from: Timestamp(span.from),
            to: Timestamp(span.to),
            seen: span.seen,
            stored: span.stored,
            filtered: span.filtered,
            lost: lost.collect::<Result<_, _>>()?,
            filtered_by: filtered_by.collect::<Result<_, _>>()?,
            detail: span.detail.map(|bytes| utf8("detail", bytes, self.limits.text_bytes)).transpose()?,
        })
    }

    fn server_at(&self, index: u32) -> Result<Arc<Server>, WireError> {
        let server = usize::try_from(index).ok().and_then(|index| self.servers.get(index));
        server.cloned().ok_or(WireError::Missing { field: "the server that an event or a span refers to" })
    }

    fn count(&self, what: &'static str, found: usize) -> Result<(), WireError> {
        let limit = self.limits.events;
        if found > limit { Err(WireError::TooMany { what, found, limit }) } else { Ok(()) }
    }

    fn name(&self, field: &'static str, bytes: Vec<u8>) -> Result<String, WireError> {
        utf8(field, bytes, self.limits.name_bytes)
    }

    fn optional_name(
        &self,
        field: &'static str,
        bytes: Option<Vec<u8>>,
    ) -> Result<Option<String>, WireError> {
        bytes.map(|bytes| self.name(field, bytes)).transpose()
    }

    fn text(&self, field: &'static str, text: message::Text) -> Result<Text, WireError> {
        let truncated = text.truncated;
        let original_bytes = text.original_bytes;
        Ok(Text { text: utf8(field, text.text, self.limits.text_bytes)?, original_bytes, truncated })
    }
}

fn utf8(field: &'static str, bytes: Vec<u8>, limit: usize) -> Result<String, WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLong { field, found: bytes.len(), limit });
    }
    String::from_utf8(bytes).map_err(|_| WireError::NotUtf8 { field })
}

fn gap(gap: &message::Gap) -> Result<Gap, WireError> {
    Ok(Gap { reason: named("gap reason", &gap.reason, LossReason::parse)?, events: gap.events })
}

fn named<T>(field: &'static str, text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, WireError> {
    parse(text).ok_or_else(|| unknown(field, text))
}

/// What others sent is in no batch: a batch is signed.
fn signing_provider(text: &str) -> Option<Provider> {
    Provider::parse(text).filter(|provider| *provider != Provider::External)
}

fn unknown(field: &'static str, value: &str) -> WireError {
    WireError::UnknownValue { field, value: value.chars().take(64).collect() }
}

fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, WireError> {
    Ok(Uuid::from_bytes(fixed(field, bytes, "16")?))
}

fn fixed<const N: usize>(
    field: &'static str,
    bytes: &[u8],
    expected: &'static str,
) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Length { field, found: bytes.len(), expected })
}

fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, WireError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    Ok(IpAddr::from(fixed::<16>(field, bytes, "4 or 16")?).to_canonical())
}

fn port(field: &'static str, port: u32) -> Result<u16, WireError> {
    u16::try_from(port).map_err(|_| WireError::OutOfRange { field })
}
