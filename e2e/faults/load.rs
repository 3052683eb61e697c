//! Clients that send one marked command after the other, and know of each whether the server executed it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use whence_testkit::client::command;
use whence_testkit::{Address, Client};

const CLIENTS: u32 = 3;
/// Between two commands of a client; the answer takes its time too.
const PACE: Duration = Duration::from_micros(1500);
const RECONNECT: Duration = Duration::from_millis(10);

/// What the clients know.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Commands that were answered: executed, exactly once.
    pub executed: BTreeSet<String>,
    /// Commands whose connection broke before an answer: executed once or not at all.
    pub open: BTreeSet<String>,
    /// Connections that began, and those that ended in good order.
    pub connections: u64,
    pub ended: u64,
}

impl Ledger {
    fn add(&mut self, other: Self) {
        self.executed.extend(other.executed);
        self.open.extend(other.open);
        self.connections += other.connections;
        self.ended += other.ended;
    }
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Ledger>>,
}

impl Load {
    /// Starts clients whose commands contain `mark`.
    pub fn start(port: u16, mark: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let clients = (0..CLIENTS).map(|number| {
            let (stop, answered) = (stop.clone(), answered.clone());
            let label = format!("{mark} client {number}");
            std::thread::spawn(move || run(port, &label, &stop, &answered))
        });
        Self { clients: clients.collect(), stop, answered }
    }

    /// How many commands were answered up to now.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets every client end its connection.
    pub fn stop(self) -> anyhow::Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for client in self.clients {
            all.add(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        }
        Ok(all)
    }
}

fn run(port: u16, label: &str, stop: &AtomicBool, answered: &AtomicU64) -> Ledger {
    let mut ledger = Ledger::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(mut client) = log_in(port) else {
            std::thread::sleep(RECONNECT);
            continue;
        };
        ledger.connections += 1;
        loop {
            if stop.load(Ordering::Relaxed) {
                if client.tell(command::QUIT, &[]).is_ok() {
                    client.wait_for_end();
                    ledger.ended += 1;
                }
                break;
            }
            number += 1;
            let statement = statement(&format!("{label} {number}"));
            if client.ask(command::QUERY, statement.as_bytes()).is_err() {
                ledger.open.insert(statement);
                break;
            }
            ledger.executed.insert(statement);
            answered.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PACE);
        }
    }
    ledger
}

fn statement(text: &str) -> String {
    format!("SELECT '{text}'")
}

fn log_in(port: u16) -> Option<Client> {
    let mut client = Client::connect(&Address::Tcp { from: Ipv4Addr::LOCALHOST.into(), port }).ok()?;
    client.log_in("root", &[], "").ok()?;
    Some(client)
}

/// Executes one marked command on a connection of its own; the answer is the command.
pub fn one(port: u16, text: &str) -> anyhow::Result<String> {
    let statement = statement(text);
    let mut client = log_in(port).ok_or_else(|| anyhow::anyhow!("cannot log in"))?;
    client.ask(command::QUERY, statement.as_bytes())?;
    client.tell(command::QUIT, &[])?;
    client.wait_for_end();
    Ok(statement)
}
