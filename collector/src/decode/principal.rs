//! Who it was, from what the server's own memory says.

use std::net::IpAddr;

use whence_abi::record::{bit, provider, string};
use whence_model::{EventKind, Principal, Transport};

use super::View;

/// The principal of an event of `kind`.
pub fn of(view: &View<'_>, kind: EventKind) -> Principal {
    let named = |string| view.text(string).filter(|name| !name.is_empty());
    let ip = named(string::IP);
    let client_host = named(string::HOST).or_else(|| named(string::HOST_OR_IP)).or_else(|| ip.clone());
    let address = ip.as_deref().or(client_host.as_deref()).and_then(parse_ip);
    let by_functions = view.record.provider == provider::FUNCTIONS;
    let transport = match client_host.as_deref() {
        _ if address.is_some() => Some(Transport::Tcp),
        // The address of a TCP client is always known to the server; a static probe may call 127.0.0.1 `localhost` too.
        Some("localhost") => by_functions.then_some(Transport::Unix),
        Some(_) => Some(Transport::Tcp),
        None => None,
    };
    let port =
        u16::try_from(view.record.peer_port).ok().filter(|&port| port != 0 && view.has(bit::PEER_PORT));
    Principal {
        // Before a login is let in, no account applies: an empty name would be the anonymous one.
        user: view.text(string::PRIV_USER).filter(|_| kind != EventKind::ConnectFailed),
        login_user: view.text(string::LOGIN_USER),
        client_host,
        client_ip: address,
        client_port: port.filter(|_| transport == Some(Transport::Tcp)),
        transport,
        tls: None,
    }
}

/// The address; one of IPv4 that came in over IPv6 is IPv4.
fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}
