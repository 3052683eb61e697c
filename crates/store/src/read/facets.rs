//! What occurs in a window, as suggestions for a form.

use clickhouse::Row;
use serde::Deserialize;

use super::{EventFilter, Window};
use crate::{Store, StoreError};

/// The most values of one field.
pub const MAX_FACET_VALUES: usize = 100;

/// The most frequent values of some fields, each list most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Facets {
    pub users: Vec<String>,
    pub client_hosts: Vec<String>,
    /// Names of the hosts that the servers run on.
    pub hosts: Vec<String>,
    pub databases: Vec<String>,
    pub commands: Vec<String>,
}

impl Store {
    /// What occurs most in a window; approximate where there is very much.
    pub async fn facets(&self, window: Window) -> Result<Facets, StoreError> {
        let filter = EventFilter::all(window);
        let top = |column: &str| {
            format!("topKIf({MAX_FACET_VALUES})(assumeNotNull({column}), isNotNull({column}))")
        };
        let sql = format!(
            "SELECT {} AS users, {} AS client_hosts, {} AS hosts, {} AS databases, {} AS commands
             FROM events WHERE {}",
            top("toNullable(toString(user))"),
            top("toNullable(toString(client_host))"),
            top("toNullable(toString(host))"),
            top("toNullable(toString(database))"),
            top("toNullable(toString(command))"),
            filter.conditions()
        );
        Ok(filter.bind(self.ask(&sql)).fetch_one().await?)
    }
}
