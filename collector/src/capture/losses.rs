//! What was lost, and with whom: the kernel's counters and the batches that the spool lost go in, gaps come out.

use std::collections::HashMap;

use whence_abi::record::Counters;
use whence_model::{Coverage, Gap, LossReason, Server, Timestamp};

use super::{Capture, CaptureError};
use crate::ship;
use crate::spool::{Lost, LostBatch, ToldGap};

impl Capture {
    /// What the kernel has lost, of every process and of those that found no room of their own.
    pub(super) fn tell_losses(&mut self) -> Result<(), CaptureError> {
        let now = Timestamp::now();
        for tgid in self.parts.accounts.watched() {
            let counters = self.parts.probes.counters(tgid)?;
            self.tell_losses_of(tgid, &counters, now)?;
        }
        let roomless = self.parts.probes.counters(0)?;
        let (losses, flaws) = self.parts.accounts.count_roomless(&roomless);
        self.parts.metrics.count_flaws(flaws);
        for (reason, events) in losses {
            let nobody = self.own_server();
            self.tell_gap(nobody, reason, events, (self.losses_since, now));
        }
        self.losses_since = now;
        Ok(())
    }

    /// Takes in what the kernel has left out of process `tgid`, and tells what it has lost of it.
    pub(super) fn tell_losses_of(
        &mut self,
        tgid: u32,
        counters: &Counters,
        now: Timestamp,
    ) -> Result<(), CaptureError> {
        let filtered = self.parts.probes.filtered(tgid)?;
        self.parts.accounts.count_filtered_in_kernel(tgid, filtered);
        let (losses, flaws) = self.parts.accounts.count(tgid, counters);
        self.parts.metrics.count_flaws(flaws);
        let Some(server) = self.parts.decoder.server(tgid).cloned() else { return Ok(()) };
        for (reason, events) in losses {
            self.tell_gap(server.clone(), reason, events, (self.losses_since, now));
        }
        Ok(())
    }

    pub(super) fn tell_gap(
        &mut self,
        server: Server,
        reason: LossReason,
        events: u64,
        (from, to): (Timestamp, Timestamp),
    ) {
        tracing::warn!(reason = reason.as_str(), events, "events were lost");
        self.parts.metrics.count_lost(reason, events);
        let gap = self.parts.decoder.gap(server, Gap { reason, events }, from, to);
        self.parts.sealer.event(gap);
    }

    /// Batches that the spool gave up, lost or put aside, as gaps of their servers.
    pub(super) fn tell_lost_batches(&mut self) {
        let (lost, batches) = {
            let mut spool = ship::lock(&self.parts.spool);
            (spool.take_lost(), spool.lost_batches())
        };
        if lost.is_empty() {
            return;
        }
        self.own_life.lose(batches);
        self.tell_own_life(false, Timestamp::now());
        let nobody = self.own_server();
        let mut held = Held::default();
        for lost in lost {
            match lost {
                Lost::Corrupt { events, gaps } => held.add_unread(events, gaps, &nobody),
                Lost::Refused { batch } => {
                    // Its coverage may be what was refused.
                    held.add(batch, LossReason::Refused, &nobody);
                }
                Lost::Full { batches } => {
                    for batch in batches {
                        let coverage = held.add(batch, LossReason::SpoolFull, &nobody);
                        self.seal_spans(coverage);
                    }
                }
            }
        }
        for ((server, reason), (events, from, to)) in held.losses {
            self.tell_gap(server, reason, events, (from, to));
        }
        for gap in held.gaps {
            self.tell_gap(gap.server, gap.reason, gap.events, (gap.from, gap.to));
        }
    }
}

/// What lost batches held.
#[derive(Default)]
struct Held {
    /// How many events, from when to when.
    losses: HashMap<(Server, LossReason), (u64, Timestamp, Timestamp)>,
    /// To be told again.
    gaps: Vec<ToldGap>,
}

impl Held {
    /// Adds a batch; the answer is its coverage.
    fn add(&mut self, lost: LostBatch, reason: LossReason, nobody: &Server) -> Vec<Coverage> {
        let Ok(batch) = whence_wire::decode(&lost.bytes, &whence_wire::Limits::default()) else {
            tracing::error!(events = lost.held.events, "a lost batch cannot be read");
            self.add_unread(lost.held.events, lost.held.gaps, nobody);
            return Vec::new();
        };
        for event in batch.events {
            let at = event.started_at;
            let mut server = event.server.as_ref().clone();
            if let Some(gap) = ToldGap::of(&event) {
                self.gaps.push(gap);
                // Its number has no event now, which nothing but the collector has lost.
                server = nobody.clone();
            }
            let loss = self.losses.entry((server, reason)).or_insert((0, at, at));
            *loss = (loss.0 + 1, loss.1.min(at), loss.2.max(at));
        }
        batch.coverage
    }

    /// Adds a batch of which no more is known than this.
    fn add_unread(&mut self, events: u64, gaps: Vec<ToldGap>, nobody: &Server) {
        if events > 0 {
            let now = Timestamp::now();
            let key = (nobody.clone(), LossReason::SpoolCorrupt);
            self.losses.entry(key).or_insert((0, now, now)).0 += events;
        }
        self.gaps.extend(gaps);
    }
}

#[cfg(test)]
mod tests {
    use whence_testkit::sample;

    use super::*;

    #[test]
    fn a_lost_batch_that_cannot_be_read_is_counted_by_what_is_known_of_it() {
        let server = sample::server();
        let now = Timestamp::now();
        let gap =
            ToldGap { server: server.clone(), reason: LossReason::RingFull, events: 7, from: now, to: now };
        let mut held = Held::default();
        for reason in [LossReason::Refused, LossReason::SpoolFull] {
            let known = crate::spool::Held { events: 10, gaps: vec![gap.clone()], ..Default::default() };
            let lost = LostBatch { bytes: b"damaged".into(), held: known };
            assert_eq!(held.add(lost, reason, &server), []);
        }
        assert_eq!(held.losses[&(server, LossReason::SpoolCorrupt)].0, 20);
        assert_eq!((held.losses.len(), held.gaps), (1, vec![gap; 2]));
    }
}
