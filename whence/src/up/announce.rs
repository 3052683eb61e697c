//! What `whence up` tells the person at the terminal: each database server and what became of it.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use whence_collector::status::{ServerStatus, Status};

use super::say;
use crate::terminal::printable;

const POLL: Duration = Duration::from_millis(200);

/// Says what is attached, and from then on what changes, until `shutdown`.
pub struct Announcer {
    status_file: std::path::PathBuf,
    told: Vec<ServerStatus>,
}

impl Announcer {
    pub fn new(status_file: &Path) -> Self {
        Self { status_file: status_file.into(), told: Vec::new() }
    }

    /// Waits until the collector has looked for servers once, and says what it found, or that it cannot capture.
    pub async fn first_look(&mut self, log: &Path, deadline: Duration) {
        let looked = tokio::time::timeout(deadline, async {
            while Status::read(&self.status_file).is_err() {
                tokio::time::sleep(POLL).await;
            }
        });
        if looked.await.is_err() {
            say(format_args!(
                "capturing does not work: {} says why; it is tried again and again",
                log.display()
            ));
            return;
        }
        self.tell_changes();
        if self.told.is_empty() {
            say("no database server is running here yet; one that starts is captured at once");
        }
    }

    /// Says what changes, until `shutdown`.
    pub async fn follow(&mut self, shutdown: CancellationToken) {
        while tokio::time::timeout(POLL, shutdown.cancelled()).await.is_err() {
            self.tell_changes();
        }
    }

    fn tell_changes(&mut self) {
        // The file is away only while the collector starts.
        let Ok(status) = Status::read(&self.status_file) else { return };
        for server in &status.servers {
            if !self.told.contains(server) {
                say(line(server));
            }
        }
        self.told = status.servers;
    }
}

fn line(server: &ServerStatus) -> String {
    format!("{}: {}: {}", server.state, printable(&server.server), printable(&server.detail))
}
