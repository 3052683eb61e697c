//! Records from the kernel's ring: each input is several, with their lengths before them.

use std::sync::Arc;

use uuid::Uuid;
use whence_collector::decode::{Decoded, Decoder};
use whence_model::{CollectorId, Event, InstanceId, Server, Timestamp};

/// The process that the seeds' records are of.
pub const PROCESS: u32 = 7;

pub fn decode(bytes: &[u8]) {
    events(bytes);
}

/// The events of the records.
pub fn events(bytes: &[u8]) -> Vec<Event> {
    let mut decoder = Decoder::new(CollectorId(Uuid::from_u128(1)), 1, Arc::default());
    let server = Server {
        host: "host".into(),
        instance: InstanceId(Uuid::from_u128(2)),
        product: "MariaDB".into(),
        version: None,
        address: None,
        port: None,
        process_id: PROCESS,
        container_id: None,
        process_started_at: Timestamp(0),
    };
    decoder.add_server(PROCESS, server);
    let mut rest = bytes;
    let mut events = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (record, behind) = behind.split_at(length);
        events.extend(decoder.decode(record).ok().and_then(Decoded::event));
        rest = behind;
    }
    let numbered = decoder.next_sequence() - 1;
    assert_eq!(numbered, events.len() as u64, "every event has a number, and nothing else");
    events
}
