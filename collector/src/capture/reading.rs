//! From the ring to the batch: the kernel's records go in, are tried and decoded, and come out as events and as counts of
//! what was filtered.

use std::borrow::Cow;
use std::time::Instant;

use whence_model::{LossReason, Principal, Timestamp};

use super::{Capture, CaptureError, Parts};
use crate::decode::{DecodeError, Decoded};
use crate::trial::Look;

impl Capture {
    /// Decodes what is in the ring, until it is empty or a batch is full. Whether it is empty.
    pub(super) fn drain(&mut self) -> bool {
        while !self.is_due() {
            if !self.read_one() {
                return true;
            }
        }
        false
    }

    /// Reads and decodes everything that is in the ring by now, also what is kept back.
    pub(super) fn drain_all(&mut self) -> Result<(), CaptureError> {
        let end = self.parts.ring.produced();
        loop {
            while !self.drain() {
                self.flush()?;
            }
            if self.trials.is_empty() || self.position >= end {
                return Ok(());
            }
            for refusal in self.trials.end() {
                self.refuse(&refusal);
            }
        }
    }

    /// Takes one record of those that were kept back, or else of the ring; false: there is none.
    fn read_one(&mut self) -> bool {
        let (bytes, end) = if let Some((bytes, end)) = self.trials.release() {
            (Cow::Owned(bytes), end)
        } else {
            let Some(entry) = self.parts.ring.next() else { return false };
            match self.trials.look(entry.bytes, entry.end) {
                Look::Passes => (Cow::Borrowed(entry.bytes), entry.end),
                Look::KeptBack => return true,
                Look::Refuses(refusal) => {
                    self.refuse(&refusal);
                    return true;
                }
            }
        };
        match self.parts.decoder.decode(&bytes) {
            Err(DecodeError::UnknownProcess { tgid }) if !self.trials.is_refused(tgid) => {
                let bytes = bytes.into_owned();
                self.introduce(tgid, &bytes);
                // It may be on trial now, which begins with this record.
                if let Some(refusal) = self.trials.put_back(bytes, end) {
                    self.refuse(&refusal);
                }
            }
            decoded => {
                self.position = end;
                self.take(decoded);
            }
        }
        true
    }

    pub(super) fn take(&mut self, decoded: Result<Decoded, DecodeError>) {
        match decoded {
            Ok(Decoded::Event(event)) => {
                self.parts.accounts.count_stored(event.server.process_id);
                self.parts.metrics.events.inc();
                self.parts.sealer.event(event);
            }
            Ok(Decoded::Filtered { tgid, rule, connection }) => {
                self.parts.accounts.count_filtered(tgid, &rule);
                if let Some((id, principal)) = connection {
                    self.tell_kernel(tgid, id, &principal);
                }
                self.parts.metrics.events_filtered.inc();
                self.has_filtered = true;
            }
            Ok(Decoded::Part) => {}
            // Counted already, or done since it is not watched any more.
            Err(DecodeError::UnknownProcess { tgid }) if self.trials.is_refused(tgid) => {}
            Err(error) => {
                tracing::error!(%error, "a record of the kernel was lost");
                let now = Timestamp::now();
                let nobody = self.own_server();
                self.tell_gap(nobody, LossReason::Undecodable, 1, (now, now));
            }
        }
    }

    /// A connection of which events are left out: the kernel may do that by itself from now on.
    fn tell_kernel(&mut self, tgid: u32, connection: u64, principal: &Principal) {
        let Parts { probes, policy, .. } = &mut self.parts;
        if let Err(error) = probes.tell_connection(policy, tgid, connection, principal) {
            tracing::warn!(%error, "the kernel cannot be told of a connection; its events are filtered here");
        }
    }

    /// Whether a batch is to be made: it is full or has waited, or much of the ring is held by what it brings to disk.
    pub(super) fn is_due(&self) -> bool {
        let holds = self.has_filtered || !self.parts.sealer.is_empty();
        self.parts.sealer.is_due(Instant::now()) || holds && self.is_ring_held()
    }

    /// Whether a batch would give much of the ring back to the kernel.
    pub(super) fn is_ring_held(&self) -> bool {
        self.parts.ring.held_bytes(self.position) >= self.parts.ring.capacity_bytes() / 4
    }
}
