//! Operational logs on standard error: text on a terminal, JSON lines elsewhere.
//!
//! They never hold SQL, credentials or audited names.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, e.g. `info,whence_ingest=debug`.
const FILTER_VARIABLE: &str = "WHENCE_LOG";

/// Starts logging for this process. Later calls change nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber (in tests) is refused, and the first goes on.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}
