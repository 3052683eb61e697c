//! A database server with probes on it, and the events that come of what is done there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use whence_abi::record::Counters;
use whence_collector::decode::{DecodeError, Decoder};
use whence_collector::offsets::{Derived, Table, derive};
use whence_collector::probe::{Attachment, Config, Probes, Ring};
use whence_model::{Event, EventKind, InstanceId, Server, Timestamp};
use whence_testkit::client::Failure;
use whence_testkit::{Client, DatabaseServer, Product, Via};

/// How long an event may take from the kernel to here.
const DEADLINE: Duration = Duration::from_secs(20);

/// Accounts without a password, but for `locked`, and a database with three rows.
const SETUP: &str = "
    CREATE DATABASE shop DEFAULT CHARACTER SET utf8;
    CREATE TABLE shop.goods (id INT PRIMARY KEY, name VARCHAR(40));
    INSERT INTO shop.goods VALUES (1, 'one'), (2, 'two'), (3, 'three');
    CREATE USER 'ana'@'localhost'; GRANT ALL ON *.* TO 'ana'@'localhost';
    CREATE USER 'ben'@'localhost'; GRANT SELECT ON shop.* TO 'ben'@'localhost';
    CREATE USER 'zoë'@'localhost'; GRANT ALL ON *.* TO 'zoë'@'localhost';
    CREATE USER 'locked'@'localhost' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO 'locked'@'localhost';
";

/// A server that is watched.
pub struct Watched {
    pub server: DatabaseServer,
    pub probes: Probes,
    ring: Ring,
    decoder: Decoder,
    events: Vec<Event>,
    pub attachment: Option<Attachment>,
}

/// The number of the error that the server refused with.
pub fn refusal<T>(result: Result<T, Failure>) -> u16 {
    result.err().and_then(|failure| failure.code()).unwrap()
}

impl Watched {
    /// Starts a server and puts probes on it.
    pub fn start(product: Product) -> Self {
        Self::new(product.start().unwrap())
    }

    /// The same with more options of the server.
    pub fn start_with(product: Product, options: &[&str]) -> Self {
        Self::new(product.start_with(options).unwrap())
    }

    /// Puts probes on a server that has just been started, with accounts and data in it.
    pub fn new(server: DatabaseServer) -> Self {
        server.sql("root", "", "", SETUP, Via::Socket).unwrap();
        // Its path may be one of another mount namespace.
        let program = PathBuf::from(format!("/proc/{}/exe", server.pid().unwrap()));
        let derived = derive(&program, &Table::load(None).unwrap()).unwrap();
        let config = Config { ring_bytes: 4 << 20, ..Config::default() };
        let mut probes = Probes::load(&config).unwrap();
        let attachment = probes.attach_functions(&program, &derived.targets).unwrap();
        let ring = probes.take_ring().unwrap().unwrap();
        let id = "0198c0de-0000-7000-8000-000000000000".parse().unwrap();
        let mut decoder = Decoder::new(id, 1, Arc::default());
        decoder.add_server(server.pid().unwrap(), describe(&server, &derived));
        Self { server, probes, ring, decoder, events: Vec::new(), attachment: Some(attachment) }
    }

    /// A connection with an empty password.
    pub fn open(&self, via: Via, user: &str, database: &str) -> Client {
        Client::open(&self.server.address(via), user, database).unwrap()
    }

    /// Reads events until one is `wanted`, and gives all that came since the start.
    pub fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> &[Event] {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.take_in();
            if self.events.iter().any(&wanted) {
                return &self.events;
            }
            assert!(Instant::now() < deadline, "the event did not come; these did: {:#?}", self.events);
            self.ring.wait(Duration::from_millis(20)).unwrap();
        }
    }

    /// Reads what is in the ring.
    pub fn take_in(&mut self) {
        let mut end = None;
        while let Some(entry) = self.ring.next() {
            end = Some(entry.end);
            match self.decoder.decode(entry.bytes) {
                Ok(decoded) => self.events.extend(decoded.event()),
                // Other tests run servers of the same program.
                Err(DecodeError::UnknownProcess { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if let Some(end) = end {
            self.ring.commit(end);
        }
    }

    /// The kernel's counters of the server.
    pub fn counters(&self) -> Counters {
        self.probes.counters(self.server.pid().unwrap()).unwrap()
    }

    /// Ends the server as a crash would, and gives what it had begun and not ended.
    pub fn kill_server(&mut self) -> Vec<Event> {
        let pid = self.server.pid().unwrap();
        self.server.kill();
        let (records, _) = self.probes.process_ended(pid).unwrap();
        records.iter().filter_map(|record| self.decoder.decode(record).unwrap().event()).collect()
    }

    /// All events of a connection that has ended, in order.
    pub fn connection(&mut self, id: u64) -> Vec<Event> {
        let is_of = |event: &Event| event.session.connection_id == Some(id);
        let events = self.until(|event| is_of(event) && event.kind == EventKind::Disconnect);
        events.iter().filter(|event| is_of(event)).cloned().collect()
    }
}

fn describe(server: &DatabaseServer, derived: &Derived) -> Server {
    let data = server.data_directory();
    Server {
        host: "test".into(),
        instance: InstanceId::derive("test", "127.0.0.1", &data.to_string_lossy()),
        product: derived.product.to_string(),
        version: derived.version.clone(),
        address: Some([127, 0, 0, 1].into()),
        port: Some(server.port()),
        process_id: server.pid().unwrap(),
        process_started_at: Timestamp::now(),
        container_id: None,
    }
}
