//! One line of JSON to an audit event: every field is checked, and the first that is wrong is told.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use whence_model::{
    CollectorId, Command, Event, EventKind, InstanceId, Outcome, Principal, Provider, Server, Session,
    Statement, StatementClass, Text, Timestamp, Transport,
};
use whence_store::row::FIELD_NAMES;
use whence_wire::Limits;

/// Longest line: room for the longest SQL text with every byte escaped. Decoded, it may take many times as much.
const LINE_BYTES: usize = 8 << 20;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Empty when it is the line as a whole.
    pub field: String,
    /// What was wrong and what would be right.
    pub message: String,
}

fn problem(field: &str, message: impl Into<String>) -> Problem {
    Problem { field: field.chars().take(64).collect(), message: message.into() }
}

/// The event, not yet numbered.
pub fn read(line: &[u8], limits: &Limits) -> Result<Event, Problem> {
    if line.len() > LINE_BYTES {
        return Err(problem("", format!("has {} bytes; at most {LINE_BYTES} are allowed", line.len())));
    }
    let object = serde_json::from_slice::<Map<String, Value>>(line);
    let object =
        object.map_err(|error| problem("", format!("must be a JSON object on one line: {error}")))?;
    let mut fields = Fields { object, limits };
    // Of gaps only collectors can tell.
    let kinds: Vec<EventKind> =
        EventKind::ALL.iter().copied().filter(|kind| *kind != EventKind::Gap).collect();
    let kind = fields.needed("kind", |fields| fields.named("kind", &kinds, EventKind::as_str))?;
    let command = fields.command(kind)?;
    let event = Event {
        collector: CollectorId(uuid::Uuid::nil()),
        sequence: 0,
        kind,
        provider: Provider::External,
        started_at: fields.needed("started_at", |fields| fields.time("started_at"))?,
        duration_ns: fields.number("duration_ns")?,
        server: Arc::new(fields.server()?),
        principal: Principal {
            user: fields.name("user")?,
            login_user: fields.name("login_user")?,
            client_host: fields.name("client_host")?,
            client_ip: fields.address("client_ip")?,
            client_port: fields.number("client_port")?,
            transport: fields.named("transport", Transport::ALL, Transport::as_str)?,
            tls: fields.flag("tls")?,
        },
        session: Session {
            connection_id: fields.number("connection_id")?,
            database: fields.name("database")?,
        },
        command,
        statement: fields.statement()?,
        outcome: fields.outcome()?,
        gap: None,
        sampled_one_in: None,
    };
    fields.end()?;
    Ok(event)
}

/// The fields that were not taken yet.
struct Fields<'a> {
    object: Map<String, Value>,
    limits: &'a Limits,
}

impl Fields<'_> {
    /// Null is as good as nothing.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.object.remove(name).filter(|value| !value.is_null())
    }

    fn needed<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<Option<T>, Problem>,
    ) -> Result<T, Problem> {
        read(self)?.ok_or_else(|| problem(name, "is missing"))
    }

    fn text(&mut self, name: &str, limit: usize) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() > limit => {
                Err(problem(name, format!("has {} bytes; at most {limit} are allowed", text.len())))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(problem(name, "must be a string")),
        }
    }

    fn name(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.text(name, self.limits.name_bytes)
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        let bits = 8 * size_of::<T>();
        number
            .map(Some)
            .ok_or_else(|| problem(name, format!("must be a whole number of at most {bits} bits")))
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(problem(name, "must be true or false")),
        }
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.name(name)? else { return Ok(None) };
        let found: String = text.chars().take(64).collect();
        let wrong = || problem(name, format!("is {found:?}; it must be {expected}"));
        parse(&text).map(Some).ok_or_else(wrong)
    }

    fn named<T: Copy>(
        &mut self,
        name: &str,
        all: &[T],
        text: impl Fn(T) -> &'static str,
    ) -> Result<Option<T>, Problem> {
        let names: Vec<&str> = all.iter().map(|value| text(*value)).collect();
        let find = |found: &str| all.iter().copied().find(|value| text(*value) == found);
        self.parsed(name, &format!("one of {}", names.join(", ")), find)
    }

    fn time(&mut self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let expected = "a time as in RFC 3339 from 1970 to 2262, such as 2026-11-23T20:11:40.123456789Z";
        self.parsed(name, expected, |text| {
            let at = chrono::DateTime::parse_from_rfc3339(text).ok()?;
            at.timestamp_nanos_opt().filter(|at| *at >= 0).map(Timestamp)
        })
    }

    fn address(&mut self, name: &str) -> Result<Option<IpAddr>, Problem> {
        self.parsed(name, "an IPv4 or IPv6 address", |text| {
            text.parse().ok().map(|address: IpAddr| address.to_canonical())
        })
    }

    fn server(&mut self) -> Result<Server, Problem> {
        let host = self.needed("host", |fields| fields.name("host"))?;
        let address = self.address("server_ip")?;
        let port = self.number("server_port")?;
        let listens = match (address, port) {
            (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
            _ => String::new(),
        };
        let given = self.parsed("instance_id", "a UUID", |text| text.parse().ok())?;
        Ok(Server {
            instance: given.unwrap_or_else(|| InstanceId::derive(&host, &listens, "")),
            host,
            product: self.needed("product", |fields| fields.name("product"))?,
            version: self.name("version")?,
            address,
            port,
            process_id: self.number("server_process_id")?.unwrap_or(0),
            process_started_at: self.time("server_started_at")?.unwrap_or_default(),
            container_id: self.name("container_id")?,
        })
    }

    fn command(&mut self, kind: EventKind) -> Result<Option<Command>, Problem> {
        let expected = "a command of the protocol, such as Query, Ping or Stmt_execute";
        let named = self.parsed("command", expected, |text| {
            let other = text.strip_prefix("Command_").and_then(|number| number.parse().ok());
            let known = (0..=255).map(Command).find(|command| command.name() == text);
            known.or(other.map(Command))
        })?;
        let numbered: Option<u32> = self.number("command_code")?;
        match (named, numbered.map(Command)) {
            (Some(named), Some(numbered)) if named != numbered => Err(problem(
                "command_code",
                format!("does not fit command; {} has {}", named.name(), named.0),
            )),
            (None, None) if kind == EventKind::Command => {
                Err(problem("command", format!("is missing; it must be {expected}")))
            }
            (named, numbered) => Ok(named.or(numbered)),
        }
    }

    /// Credentials are masked here as on a collector's host: it is the first place that can.
    fn statement(&mut self) -> Result<Option<Statement>, Problem> {
        let sql = self.text("sql_text", self.limits.text_bytes)?;
        let original_bytes: Option<u64> = self.number("sql_original_bytes")?;
        let was_cut = self.flag("sql_truncated")?.unwrap_or(false);
        let class = self.named("statement_class", StatementClass::ALL, StatementClass::as_str)?;
        let fingerprint = self.parsed("fingerprint", "16 hexadecimal digits", |text| {
            u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16)
        })?;
        let tables = self.tables()?;
        let Some(sql) = sql else {
            let is_empty = fingerprint.is_none() && tables.is_none();
            return match class {
                None if is_empty => Ok(None),
                class => Ok(Some(Statement {
                    class: class.unwrap_or(StatementClass::Unknown),
                    sql: None,
                    fingerprint,
                    tables: tables.unwrap_or_default(),
                })),
            };
        };
        let config = whence_sqltext::Config { max_bytes: self.limits.text_bytes, ..Default::default() };
        let original_bytes = original_bytes.unwrap_or(0).max(sql.len() as u64);
        let analysis = whence_sqltext::analyze(sql.as_bytes(), original_bytes, &config);
        Ok(Some(Statement {
            class: class.unwrap_or(analysis.class),
            sql: analysis.text.map(|text| Text { truncated: text.truncated || was_cut, ..text }),
            fingerprint: fingerprint.or(analysis.fingerprint),
            tables: tables.unwrap_or(analysis.tables),
        }))
    }

    fn tables(&mut self) -> Result<Option<Vec<String>>, Problem> {
        const TABLES: usize = 64;
        let Some(value) = self.take("tables") else { return Ok(None) };
        let wrong = || problem("tables", format!("must be a list of at most {TABLES} names"));
        let Value::Array(values) = value else { return Err(wrong()) };
        let name = |value: Value| match value {
            Value::String(name) if name.len() <= self.limits.name_bytes => Some(name),
            _ => None,
        };
        let names: Option<Vec<String>> = values.into_iter().map(name).collect();
        names.filter(|names| names.len() <= TABLES).map(Some).ok_or_else(wrong)
    }

    fn outcome(&mut self) -> Result<Option<Outcome>, Problem> {
        let result = self.parsed("result", "one of ok, error, unfinished", |text| {
            ["ok", "error", "unfinished"].into_iter().find(|known| *known == text)
        })?;
        match result {
            Some("ok") => Ok(Some(Outcome::Ok {
                rows_sent: self.number("rows_sent")?,
                rows_affected: self.number("rows_affected")?,
            })),
            Some("error") => Ok(Some(Outcome::Error {
                code: self.number("error_code")?,
                sqlstate: self.parsed("sqlstate", "five letters and digits", |text| {
                    let is_state = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                    is_state.then(|| text.to_owned())
                })?,
                message: self.message()?,
            })),
            Some(_) => Ok(Some(Outcome::Unfinished)),
            None => Ok(None),
        }
    }

    fn message(&mut self) -> Result<Option<Text>, Problem> {
        let message = self.text("error_message", self.limits.text_bytes)?;
        let original_bytes: Option<u64> = self.number("error_message_original_bytes")?;
        let truncated = self.flag("error_message_truncated")?.unwrap_or(false);
        Ok(message.map(|message| {
            let text = whence_sqltext::mask_message(message.as_bytes(), truncated);
            Text { original_bytes: original_bytes.unwrap_or(0).max(text.original_bytes), ..text }
        }))
    }

    /// Every field was taken.
    fn end(self) -> Result<(), Problem> {
        let Some((name, _)) = self.object.iter().find(|(_, value)| !value.is_null()) else { return Ok(()) };
        let message = if FIELD_NAMES.contains(&name.as_str()) {
            "is given by Whence, or does not fit the kind or result of this event; leave it out"
        } else {
            "is no field of an event; the fields are those of the API's events"
        };
        Err(problem(name, message))
    }
}
