//! Prometheus metrics. Each service has one struct of them, registered here.

use prometheus_client::registry::Registry;

/// `Content-Type` of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry whose metrics are all named `whence_<component>_…`.
pub fn registry(component: &str) -> Registry {
    Registry::with_prefix(format!("whence_{component}"))
}

/// The metrics in the `OpenMetrics` text format.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}
