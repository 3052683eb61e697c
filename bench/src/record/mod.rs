//! The records that are compared, each read into sessions by connection id.

pub mod general_log;
pub mod server_audit;
pub mod whence;

use std::collections::BTreeMap;

use crate::entry::Entry;

/// Entries by connection id, in the order in which they were written.
pub type Sessions = BTreeMap<u64, Vec<Entry>>;
