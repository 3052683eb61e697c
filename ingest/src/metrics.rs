//! What ingest counts. No label holds what a sender chose.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Counters of one ingest service.
pub struct Metrics {
    pub batches_stored: Counter,
    pub batches_repeated: Counter,
    pub batches_missing: Counter,
    pub batches_late: Counter,
    pub batches_ahead: Counter,
    pub events_stored: Counter,
    pub external_events_stored: Counter,
    pub coverage_stored: Counter,
    pub coverage_mismatches: Counter,
    pub received_bytes: Counter,
    pub collectors_enrolled: Counter,
    pub in_flight: Gauge,
    pub write_seconds: Histogram,
    refusals: Family<Code, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            batches_stored: Counter::default(),
            batches_repeated: Counter::default(),
            batches_missing: Counter::default(),
            batches_late: Counter::default(),
            batches_ahead: Counter::default(),
            events_stored: Counter::default(),
            external_events_stored: Counter::default(),
            coverage_stored: Counter::default(),
            coverage_mismatches: Counter::default(),
            received_bytes: Counter::default(),
            collectors_enrolled: Counter::default(),
            in_flight: Gauge::default(),
            write_seconds: Histogram::new(exponential_buckets(0.002, 2.0, 14)),
            refusals: Family::default(),
        }
    }
}

impl Metrics {
    /// These metrics in a registry of their own.
    pub fn registry(&self) -> Registry {
        let mut registry = whence_service::metrics::registry("ingest");
        let counters = [
            ("batches_stored", "batches written now", &self.batches_stored),
            ("batches_repeated", "batches that were stored before", &self.batches_repeated),
            ("batches_missing", "batches that their collector declared lost", &self.batches_missing),
            ("batches_late", "batches written after later ones", &self.batches_late),
            ("batches_ahead", "batches with times far in the future", &self.batches_ahead),
            ("events_stored", "events written now", &self.events_stored),
            ("external_events_stored", "unsigned events written now", &self.external_events_stored),
            ("coverage_spans_stored", "coverage spans written now", &self.coverage_stored),
            ("coverage_mismatches", "coverage spans whose counts do not add up", &self.coverage_mismatches),
            ("collectors_enrolled", "collectors that enrolled for the first time", &self.collectors_enrolled),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let bytes = self.received_bytes.clone();
        registry.register_with_unit("received", "bodies of batches, as sent", Unit::Bytes, bytes);
        registry.register("requests_in_flight", "requests worked on now", self.in_flight.clone());
        let seconds = self.write_seconds.clone();
        registry.register_with_unit(
            "write",
            "time for ClickHouse to confirm a batch",
            Unit::Seconds,
            seconds,
        );
        registry.register("refusals", "requests that were not served, by code", self.refusals.clone());
        registry
    }

    /// Counts a request that was not served.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&Code { code }).inc();
    }
}
