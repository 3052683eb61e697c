//! The collector's side in a test: probes, ring and decoder, without what ships the events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;
use whence_collector::decode::{DecodeError, Decoded, Decoder};
use whence_collector::policy::Policy;
use whence_collector::probe::{Attachment, Config, Probes, Ring};
use whence_model::{CollectorId, Event, InstanceId, Timestamp};

use crate::server::Server;

/// How long an event may take to come.
const DEADLINE: Duration = Duration::from_secs(30);

pub struct Watch {
    pub probes: Probes,
    ring: Ring,
    decoder: Decoder,
    policy: Arc<Policy>,
    /// Events that were left out here, and not in the kernel, by rule.
    pub filtered: BTreeMap<String, u64>,
}

impl Watch {
    pub fn new(config: &Config) -> Self {
        Self::with_rules(config, Policy::default())
    }

    pub fn with_rules(config: &Config, policy: Policy) -> Self {
        let mut probes = match Probes::load(config) {
            Ok(probes) => probes,
            Err(error) => panic!("this test needs root and a kernel that takes BPF programs: {error}"),
        };
        let ring = probes.take_ring().unwrap().unwrap();
        probes.hold_rules(&policy).unwrap();
        let policy = Arc::new(policy);
        let decoder = Decoder::new(CollectorId(Uuid::from_u128(1)), 1, policy.clone());
        Self { probes, ring, decoder, policy, filtered: BTreeMap::new() }
    }

    /// Watches `server` from here on.
    pub fn attach(&mut self, server: &Server) -> Attachment {
        self.know(server);
        self.probes.attach_usdt(server.program()).unwrap()
    }

    /// The same by the path that the collector takes, which leads into a container.
    pub fn attach_process(&mut self, server: &Server) -> Attachment {
        self.know(server);
        self.probes.attach_usdt(&server.executable()).unwrap()
    }

    pub fn know(&mut self, server: &Server) {
        self.know_process(server.pid());
    }

    pub fn know_process(&mut self, process_id: u32) {
        let described = whence_model::Server {
            host: "test".into(),
            instance: InstanceId(Uuid::from_u128(2)),
            product: "usdt-server".into(),
            version: None,
            address: None,
            port: None,
            process_id,
            process_started_at: Timestamp(0),
            container_id: None,
        };
        self.decoder.add_server(process_id, described);
    }

    /// The next `count` events.
    pub fn events(&mut self, count: usize) -> Vec<Event> {
        let deadline = Instant::now() + DEADLINE;
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            self.read(&mut events);
            assert!(Instant::now() < deadline, "{} of {count} events came: {events:#?}", events.len());
            if events.len() < count {
                self.ring.wait(Duration::from_millis(100)).unwrap();
            }
        }
        assert_eq!(events.len(), count, "more events than expected: {:#?}", &events[count..]);
        events
    }

    /// What is in the ring now.
    pub fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.read(&mut events);
        events
    }

    /// The events of records that did not come through the ring.
    pub fn decode(&mut self, records: &[Vec<u8>]) -> Vec<Event> {
        records.iter().filter_map(|record| self.decoder.decode(record).unwrap().event()).collect()
    }

    fn read(&mut self, events: &mut Vec<Event>) {
        while let Some(entry) = self.ring.next() {
            let end = entry.end;
            match self.decoder.decode(entry.bytes) {
                Ok(Decoded::Filtered { tgid, rule, connection }) => {
                    *self.filtered.entry(rule.to_string()).or_default() += 1;
                    if let Some((id, principal)) = connection {
                        self.probes.tell_connection(&self.policy, tgid, id, &principal).unwrap();
                    }
                }
                Ok(decoded) => events.extend(decoded.event()),
                Err(error @ DecodeError::UnknownProcess { .. }) => panic!("a record of a stranger: {error}"),
                Err(error) => panic!("{error}"),
            }
            self.ring.commit(end);
        }
    }
}
