//! One line of a record that is not Whence's: what a log of the server or the client says of one event.

use std::net::IpAddr;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Connect,
    ConnectFailed,
    Disconnect,
    /// A command of the protocol by its number, `COM_CHANGE_USER` among them.
    Command(u32),
}

/// How the SQL of an entry is held against that of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wording {
    /// The same text, once credentials are masked.
    #[default]
    Exact,
    /// Either may show the values in place of the `?` of a prepared statement.
    Values,
    /// The record masks credentials too, as `*****`.
    Masked,
}

/// What a record says. A field that is None is one that the record does not tell.
#[derive(Clone, Debug)]
pub struct Entry {
    pub what: What,
    pub sql: Option<Vec<u8>>,
    pub wording: Wording,
    pub login_user: Option<String>,
    /// The account that applied.
    pub account: Option<String>,
    pub client_host: Option<String>,
    /// Some(None): no address, it came by the socket.
    pub client_ip: Option<Option<IpAddr>>,
    pub client_port: Option<Option<u16>>,
    /// Some(None): no database was current.
    pub database: Option<Option<String>>,
    /// Error number; 0: it went well.
    pub code: Option<u32>,
    pub rows_sent: Option<u64>,
    pub rows_affected: Option<u64>,
}

impl Entry {
    /// An entry that tells nothing but what happened.
    pub fn new(what: What) -> Self {
        Self {
            what,
            sql: None,
            wording: Wording::Exact,
            login_user: None,
            account: None,
            client_host: None,
            client_ip: None,
            client_port: None,
            database: None,
            code: None,
            rows_sent: None,
            rows_affected: None,
        }
    }
}
