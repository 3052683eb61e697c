//! Tells systemd how the service is doing (`sd_notify(3)`); does nothing elsewhere.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the service can be used.
pub fn ready() {
    send("READY=1");
}

/// Says that the service has begun to stop.
pub fn stopping() {
    send("STOPPING=1");
}

/// Says that the service is alive; due every half of `WatchdogSec`.
pub fn watchdog() {
    send("WATCHDOG=1");
}

fn send(state: &str) {
    let Some(path) = std::env::var("NOTIFY_SOCKET").ok() else {
        return;
    };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
