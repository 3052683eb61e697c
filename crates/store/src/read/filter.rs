//! Which events are meant.

use std::net::{IpAddr, Ipv6Addr};

use clickhouse::query::Query;
use ipnet::IpNet;
use uuid::Uuid;
use whence_model::{InstanceId, Timestamp};

use crate::row::to_ipv6;

/// A span of time: from `from` up to, but without, `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// Where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// The client host exactly as the server names it.
    Host(String),
    Ip(IpAddr),
    Network(IpNet),
}

/// The text names no client.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is no client: give a host name, an address, or a network such as 10.0.0.0/8 or 2001:db8::/32"
)]
pub struct InvalidClient {
    text: String,
}

impl ClientFilter {
    /// A network where there is a slash, an address where it is one, else a host name.
    pub fn parse(text: &str) -> Result<Self, InvalidClient> {
        let text = text.trim();
        let invalid = || InvalidClient { text: text.chars().take(100).collect() };
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.is_empty() || text.contains('/') {
            return Err(invalid());
        }
        Ok(Self::Host(text.into()))
    }

    /// First and last address meant, as they are stored.
    fn range(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        match self {
            Self::Host(_) => None,
            Self::Ip(address) => Some((to_ipv6(*address), to_ipv6(*address))),
            Self::Network(network) => {
                let network = network.trunc();
                // `0.0.0.0/0` ends at 255.255.255.255, which is what broadcast() says for every prefix.
                Some((to_ipv6(network.network()), to_ipv6(network.broadcast())))
            }
        }
    }
}

/// Which events are meant: all that match every field that is set. Several values of one field: any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    pub window: Window,
    /// Accounts; the empty name is the anonymous account. Matches the name given at login as well.
    pub users: Vec<String>,
    pub client: Option<ClientFilter>,
    pub instance: Option<InstanceId>,
    /// Name of the host that the server runs on.
    pub host: Option<String>,
    pub database: Option<String>,
    /// Commands by name: `Query`, `Ping` …
    pub commands: Vec<String>,
    /// Statement classes by name: `read`, `ddl` …
    pub classes: Vec<String>,
    /// Kinds by name: `connect`, `command` …
    pub kinds: Vec<String>,
    /// `ok`, `error` or `unfinished`.
    pub result: Option<String>,
    /// Part of the SQL text, in any case of letters.
    pub text: Option<String>,
    pub connection_id: Option<u64>,
    /// The server's process start, which makes a connection id unique.
    pub server_started_at: Option<Timestamp>,
}

impl EventFilter {
    /// Every event of a window.
    pub fn all(window: Window) -> Self {
        Self {
            window,
            users: Vec::new(),
            client: None,
            instance: None,
            host: None,
            database: None,
            commands: Vec::new(),
            classes: Vec::new(),
            kinds: Vec::new(),
            result: None,
            text: None,
            connection_id: None,
            server_started_at: None,
        }
    }

    /// The filter without what a gap has not: gaps concern everyone on a server.
    pub(crate) fn for_gaps(&self) -> Self {
        Self {
            instance: self.instance,
            host: self.host.clone(),
            kinds: vec!["gap".into()],
            ..Self::all(self.window)
        }
    }

    /// The conditions, over parameters that [`EventFilter::bind`] gives values to.
    pub(crate) fn conditions(&self) -> String {
        let mut conditions = vec![
            "started_at >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')",
            "started_at < fromUnixTimestamp64Nano({to:Int64}, 'UTC')",
        ];
        let mut add = |is_set: bool, condition| {
            if is_set {
                conditions.push(condition);
            }
        };
        add(
            !self.users.is_empty(),
            "(has({users:Array(String)}, user) OR has({users:Array(String)}, login_user))",
        );
        match &self.client {
            Some(ClientFilter::Host(_)) => add(true, "client_host = {client:String}"),
            Some(_) => add(
                true,
                "(client_ip BETWEEN {client_first:IPv6} AND {client_last:IPv6} OR (client_ip IS NULL \
                 AND toIPv6OrNull(client_host) BETWEEN {client_first:IPv6} AND {client_last:IPv6}))",
            ),
            None => {}
        }
        add(self.instance.is_some(), "instance_id = {instance:UUID}");
        add(self.host.is_some(), "host = {host:String}");
        add(self.database.is_some(), "database = {database:String}");
        add(!self.commands.is_empty(), "has({commands:Array(String)}, command)");
        add(!self.classes.is_empty(), "has({classes:Array(String)}, statement_class)");
        add(!self.kinds.is_empty(), "has({kinds:Array(String)}, kind)");
        add(self.result.is_some(), "result = {result:String}");
        add(self.text.is_some(), "positionCaseInsensitiveUTF8(sql_text, {text:String}) > 0");
        add(self.connection_id.is_some(), "connection_id = {connection_id:UInt64}");
        add(
            self.server_started_at.is_some(),
            "server_started_at = fromUnixTimestamp64Nano({server_started_at:Int64}, 'UTC')",
        );
        conditions.join(" AND ")
    }

    /// Gives the parameters of [`EventFilter::conditions`] their values.
    pub(crate) fn bind(&self, query: Query) -> Query {
        let window = self.window;
        let mut query = query.param("from", window.from.0).param("to", window.to.0);
        for (name, values) in [
            ("users", &self.users),
            ("commands", &self.commands),
            ("classes", &self.classes),
            ("kinds", &self.kinds),
        ] {
            if !values.is_empty() {
                query = query.param(name, values);
            }
        }
        if let Some(ClientFilter::Host(host)) = &self.client {
            query = query.param("client", host);
        }
        if let Some((first, last)) = self.client.as_ref().and_then(ClientFilter::range) {
            query = query.param("client_first", first.to_string()).param("client_last", last.to_string());
        }
        for (name, value) in [
            ("host", &self.host),
            ("database", &self.database),
            ("result", &self.result),
            ("text", &self.text),
        ] {
            if let Some(value) = value {
                query = query.param(name, value);
            }
        }
        if let Some(InstanceId(instance)) = self.instance {
            query = query.param("instance", Uuid::to_string(&instance));
        }
        if let Some(connection) = self.connection_id {
            query = query.param("connection_id", connection);
        }
        if let Some(at) = self.server_started_at {
            query = query.param("server_started_at", at.0);
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> (String, String) {
        let (first, last) = ClientFilter::parse(text).unwrap().range().unwrap();
        (first.to_string(), last.to_string())
    }

    #[test]
    fn a_client_is_a_network_an_address_or_a_host() {
        assert_eq!(range("10.1.2.3/8"), ("::ffff:10.0.0.0".into(), "::ffff:10.255.255.255".into()));
        assert_eq!(range("0.0.0.0/0"), ("::ffff:0.0.0.0".into(), "::ffff:255.255.255.255".into()));
        assert_eq!(range("::/0").1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(range(" 2001:db8::1 "), ("2001:db8::1".into(), "2001:db8::1".into()));
        assert_eq!(ClientFilter::parse("web%").unwrap(), ClientFilter::Host("web%".into()));
        for wrong in ["", " ", "10.0.0.0/33", "host/8"] {
            assert!(ClientFilter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
