//! The audit event.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{CollectorId, EventId, InstanceId, LossReason, Sequence, Text, Timestamp};

/// A set of named values, each with one spelling for every place where it is text.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value spelled `text`, if there is one.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::unknown_variant(&text, &[$($text,)+]))
            }
        }
    };
}
pub(crate) use text_enum;

/// One thing that one client did to one server (or, for [`EventKind::Gap`], a number of them that were lost).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub collector: CollectorId,
    pub sequence: Sequence,
    pub kind: EventKind,
    pub provider: Provider,
    /// When it began. For a gap: when the first loss may have happened.
    pub started_at: Timestamp,
    /// How long it took. For a gap: how long the losses may have gone on. None where the source saw one end only.
    pub duration_ns: Option<u64>,
    /// Shared by the events of one server, of which there are many.
    pub server: Arc<Server>,
    pub principal: Principal,
    pub session: Session,
    /// Set when `kind` is `Command` (and for `ChangeUser`, which is a command too).
    pub command: Option<Command>,
    pub statement: Option<Statement>,
    pub outcome: Option<Outcome>,
    /// Set when `kind` is `Gap`.
    pub gap: Option<Gap>,
    /// Set where a rule lets one of so many events through: the others like it are counted as filtered.
    pub sampled_one_in: Option<u32>,
}

impl Event {
    pub fn id(&self) -> EventId {
        EventId::derive(self.collector, self.sequence)
    }
}

text_enum! {
    /// What sort of thing happened.
    EventKind {
        Connect = "connect",
        ConnectFailed = "connect_failed",
        Disconnect = "disconnect",
        ChangeUser = "change_user",
        Command = "command",
        Gap = "gap",
    }
}

text_enum! {
    /// How the collector saw it.
    Provider {
        /// The server's own static probes.
        Usdt = "usdt",
        /// Entry and return of the server's functions.
        Functions = "functions",
        /// The collector itself: gaps, and the spans of its own life.
        Collector = "collector",
        /// Another sender, which signs nothing.
        External = "external",
    }
}

/// The database server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// Name of the host that the server runs on.
    pub host: String,
    pub instance: InstanceId,
    /// `MySQL`, `MariaDB`, or the name of the program.
    pub product: String,
    pub version: Option<String>,
    /// Address that it listens on. None: socket only.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub process_id: u32,
    pub process_started_at: Timestamp,
    /// Id of the container that it runs in, as its runtime gave it. None: it runs in none, or nobody looked.
    #[serde(default)]
    pub container_id: Option<String>,
}

/// Who, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The account that applied (`priv_user`). Empty: the anonymous account.
    pub user: Option<String>,
    /// The name given at login.
    pub login_user: Option<String>,
    /// The client host as the server names it: `localhost`, a name, or an address.
    pub client_host: Option<String>,
    pub client_ip: Option<IpAddr>,
    pub client_port: Option<u16>,
    pub transport: Option<Transport>,
    pub tls: Option<bool>,
}

text_enum! {
    /// How the client reached the server.
    Transport {
        Tcp = "tcp",
        Unix = "unix",
    }
}

/// The connection in which it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The server's number for the connection; unique only together with the server's process start.
    pub connection_id: Option<u64>,
    /// The current database when the command began.
    pub database: Option<String>,
}

/// A command of the MySQL client/server protocol, by its number (`enum_server_command`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Command(pub u32);

/// Names by number, as in `include/my_command.h` and the protocol documentation, without `COM_`.
const COMMAND_NAMES: [&str; 33] = [
    "Sleep",
    "Quit",
    "Init_db",
    "Query",
    "Field_list",
    "Create_db",
    "Drop_db",
    "Refresh",
    "Shutdown",
    "Statistics",
    "Process_info",
    "Connect",
    "Process_kill",
    "Debug",
    "Ping",
    "Time",
    "Delayed_insert",
    "Change_user",
    "Binlog_dump",
    "Table_dump",
    "Connect_out",
    "Register_slave",
    "Stmt_prepare",
    "Stmt_execute",
    "Stmt_send_long_data",
    "Stmt_close",
    "Stmt_reset",
    "Set_option",
    "Stmt_fetch",
    "Daemon",
    "Binlog_dump_gtid",
    "Reset_connection",
    "Clone",
];

impl Command {
    pub const QUIT: Self = Self(1);
    pub const INIT_DB: Self = Self(2);
    pub const QUERY: Self = Self(3);
    pub const PING: Self = Self(14);
    pub const CHANGE_USER: Self = Self(17);
    pub const STMT_PREPARE: Self = Self(22);
    pub const STMT_EXECUTE: Self = Self(23);

    /// The names that [`Command::name`] gives to numbers that all servers agree on.
    pub fn names() -> &'static [&'static str] {
        &COMMAND_NAMES
    }

    /// The command that [`Command::name`] calls so.
    pub fn parse(name: &str) -> Option<Self> {
        let known =
            (0..).zip(COMMAND_NAMES).find(|(_, known)| *known == name).map(|(number, _)| Self(number));
        let numbered = || name.strip_prefix("Command_")?.parse().ok().map(Self);
        let extension = || (250..=253).map(Self).find(|command| command.name() == name);
        known.or_else(extension).or_else(numbered).filter(|command| command.name() == name)
    }

    /// `Query`, `Ping`, … or `Command_<number>` for one that has no name here (MariaDB's 250 to 254 have one).
    pub fn name(self) -> String {
        let extension = match self.0 {
            250 => Some("Stmt_bulk_execute"),
            251 => Some("Slave_worker"),
            252 => Some("Slave_IO"),
            253 => Some("Slave_SQL"),
            _ => None,
        };
        let standard = usize::try_from(self.0).ok().and_then(|number| COMMAND_NAMES.get(number).copied());
        standard.or(extension).map_or_else(|| format!("Command_{}", self.0), str::to_owned)
    }
}

/// The SQL of a command, as far as the configuration lets it leave the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub class: StatementClass,
    /// Already masked. None where the configuration keeps no text.
    pub sql: Option<Text>,
    /// 64-bit hash of the statement's shape; the same for statements that differ in literals and spacing only.
    pub fingerprint: Option<u64>,
    /// Tables named in it, as written, `database.table` or `table`, sorted, without repeats.
    pub tables: Vec<String>,
}

text_enum! {
    /// What a statement does. What the lexer does not understand is `Unknown`.
    StatementClass {
        Read = "read",
        Write = "write",
        Ddl = "ddl",
        Privileges = "privileges",
        Transaction = "transaction",
        Admin = "admin",
        Other = "other",
        Unknown = "unknown",
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok {
        rows_sent: Option<u64>,
        rows_affected: Option<u64>,
    },
    Error {
        /// The server's error number, e.g. 1045.
        code: Option<u32>,
        /// Five characters, e.g. `28000`.
        sqlstate: Option<String>,
        /// The server's message, masked like SQL.
        message: Option<Text>,
    },
    /// The server ended, the connection was cut, or the watch of it ended, in mid-command.
    Unfinished,
}

impl Outcome {
    /// `ok`, `error` or `unfinished`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Error { .. } => "error",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A number of events that were seen to happen and could not be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub reason: LossReason,
    /// How many events were lost.
    pub events: u64,
}
