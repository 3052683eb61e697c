//! How fast the way from the spool to ClickHouse is: real ingest and real ClickHouse, a real spool, signed batches of
//! made-up events.
//!
//! [`backlog`] ships what one collector has put by, and lets ClickHouse take the same rows alone; [`crowd`] lets many
//! collectors send at once; [`parts`] runs the processes.

pub mod backlog;
pub mod crowd;
pub mod parts;

/// So many in so many seconds.
#[expect(clippy::cast_precision_loss, reason = "rates are rough")]
pub fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
