//! What the service counts. Labels hold routes and codes of ours, never what a visitor chose.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use whence_store::read::CollectorState;

/// Counters of the service.
pub struct Metrics {
    requests: Family<Request, Counter>,
    pub request_seconds: Histogram,
    pub exported_events: Counter,
    pub exports_cut_off: Counter,
    pub exports_running: Gauge,
    pub sign_ins_failed: Counter,
    collectors: Family<State, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.002, 2.0, 14)),
            exported_events: Counter::default(),
            exports_cut_off: Counter::default(),
            exports_running: Gauge::default(),
            sign_ins_failed: Counter::default(),
            collectors: Family::default(),
        }
    }
}

impl Metrics {
    /// These metrics in a registry of their own.
    pub fn registry(&self) -> Registry {
        let mut registry = whence_service::metrics::registry("web");
        registry.register("requests", "requests answered, by route and status", self.requests.clone());
        let seconds = self.request_seconds.clone();
        registry.register_with_unit("request", "time until the answer began", Unit::Seconds, seconds);
        registry.register("exported_events", "events handed out by exports", self.exported_events.clone());
        registry.register("exports_cut_off", "exports that ended early", self.exports_cut_off.clone());
        registry.register("exports_running", "exports under way", self.exports_running.clone());
        registry.register("sign_ins_failed", "sign-ins that were refused", self.sign_ins_failed.clone());
        let collectors = self.collectors.clone();
        registry.register("collectors", "collectors that enrolled, by whether they send", collectors);
        registry
    }

    /// Notes how many collectors are in this state.
    pub fn set_collectors(&self, state: CollectorState, collectors: usize) {
        let gauge = self.collectors.get_or_create(&State { state: state.as_str() });
        gauge.set(i64::try_from(collectors).unwrap_or(i64::MAX));
    }

    /// Counts an answered request.
    pub fn answered(&self, route: &str, status: u16) {
        self.requests.get_or_create(&Request { route: route.to_owned(), status }).inc();
    }
}
