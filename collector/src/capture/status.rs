//! What capturing tells `whence up` and `whence doctor`: the accounts, the spool and the probes go in, the file
//! [`Status`] comes out.

use std::net::SocketAddr;

use whence_model::{CoverageState, Server, Timestamp};

use super::Capture;
use crate::ship;
use crate::status::{ServerStatus, SpoolStatus, Status};

impl Capture {
    pub(super) fn write_status(&self) {
        if !self.looked_once {
            return;
        }
        let servers = self.parts.accounts.servers();
        self.parts.metrics.set_servers(servers.iter().map(|(_, state, _)| *state));
        let servers = servers.into_iter().map(|(server, state, detail)| ServerStatus {
            process_id: server.process_id,
            server: describe(server),
            state: state.as_str().to_owned(),
            detail: match (state, detail) {
                (_, Some(detail)) => detail.to_owned(),
                (CoverageState::Watched, None) => self.programs.places(server.process_id).unwrap_or_default(),
                (CoverageState::NotRunning, None) => {
                    "it has ended; captured again as soon as it starts".into()
                }
                (CoverageState::Unattachable, None) => String::new(),
            },
        });
        let (batches, bytes) = ship::lock(&self.parts.spool).backlog();
        let shipped_at = self.parts.metrics.ship.shipped_at_seconds.get();
        let status = Status {
            updated_at: Timestamp::now(),
            process_id: std::process::id(),
            spool: SpoolStatus {
                batches: batches as u64,
                bytes,
                shipped_at: (shipped_at > 0).then(|| Timestamp(shipped_at * 1_000_000_000)),
            },
            servers: servers.collect(),
        };
        if let Err(error) = status.write(&self.parts.status_file) {
            tracing::warn!(%error, "cannot say what is attached");
        }
    }
}

/// `MariaDB 10.11.19 on 127.0.0.1:3306 (pid 812)`.
fn describe(server: &Server) -> String {
    let version = server.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let at = match (server.address, server.port) {
        (Some(address), Some(port)) => format!(" on {}", SocketAddr::new(address, port)),
        _ => String::new(),
    };
    format!("{}{version}{at} (pid {})", server.product, server.process_id)
}
