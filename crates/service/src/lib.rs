//! What every long-running part shares: configuration, logs, metrics, secrets and an orderly end.

pub mod config;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod secret;
pub mod shutdown;
