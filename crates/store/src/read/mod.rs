//! Typed reading: what the pages, the API, the reports and the exports ask.
//!
//! Whatever a person typed reaches ClickHouse as a parameter, never as part of the SQL. Every question has limits
//! on time and memory; one that needs more is answered with [`crate::StoreError::TooBig`].

mod coverage;
mod events;
mod facets;
mod filter;
mod lives;
mod report;
mod sources;

pub use coverage::{InstanceCoverage, Span, UNSETTLED_NS};
pub use events::{Bucket, Cursor, InvalidCursor, MAX_BUCKETS, MAX_PAGE_ROWS, Page};
pub use facets::{Facets, MAX_FACET_VALUES};
pub use filter::{ClientFilter, EventFilter, InvalidClient, Window};
pub use lives::{CollectorState, Heard, MAX_TURNS, SILENT_NS, Turn};
pub use report::{AccessReport, AccessRow, FailedLoginRow, MAX_REPORT_ROWS, Totals};
pub use sources::InstanceRow;

use clickhouse::query::Query;

use crate::Store;

impl Store {
    /// A question for a person who waits.
    pub(crate) fn ask(&self, sql: &str) -> Query {
        self.client()
            .query(sql)
            .with_setting("max_execution_time", "30")
            .with_setting("max_memory_usage", "2000000000")
            .with_setting("max_threads", "4")
    }

    /// An export: it may take long, but not much memory.
    pub(crate) fn ask_for_export(&self, sql: &str) -> Query {
        self.client()
            .query(sql)
            .with_setting("max_execution_time", "14400")
            .with_setting("max_memory_usage", "2000000000")
            .with_setting("max_threads", "2")
            .with_setting("max_block_size", "8192")
    }
}
