//! Single events, pages of them, their distribution over time, and all of them as a stream.

use std::fmt;
use std::str::FromStr;

use clickhouse::Row;
use futures::Stream;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::{EventId, Timestamp};

use super::{EventFilter, Window};
use crate::row::EventRow;
use crate::{Store, StoreError};

/// The most rows that one page may have.
pub const MAX_PAGE_ROWS: u32 = 1000;
/// The most bars that a histogram may have.
pub const MAX_BUCKETS: u32 = 120;

/// A place between two events. As text it is opaque to everyone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    started_at: Timestamp,
    collector: Uuid,
    sequence: u64,
}

/// The text is no cursor.
#[derive(Debug, thiserror::Error)]
#[error("not a cursor: give the one that the page before was answered with, or none for the first page")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collector = self.collector.simple();
        write!(f, "{:016x}{collector}{:016x}", self.started_at.0, self.sequence)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = hex::decode(text).map_err(|_| InvalidCursor)?;
        let (started_at, rest) = bytes.split_first_chunk::<8>().ok_or(InvalidCursor)?;
        let (collector, sequence) = rest.split_first_chunk::<16>().ok_or(InvalidCursor)?;
        let sequence: [u8; 8] = sequence.try_into().map_err(|_| InvalidCursor)?;
        Ok(Self {
            started_at: Timestamp(i64::from_be_bytes(*started_at)),
            collector: Uuid::from_bytes(*collector),
            sequence: u64::from_be_bytes(sequence),
        })
    }
}

impl Cursor {
    fn after(row: &EventRow) -> Self {
        Self { started_at: row.started_at, collector: row.collector_id, sequence: row.sequence }
    }
}

/// Some events, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<EventRow>,
    /// Where the next page begins; none when this is the last.
    pub next: Option<Cursor>,
}

/// One bar of a histogram: from `from` up to the next bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub from: Timestamp,
    pub to: Timestamp,
    pub ok: u64,
    /// Events that ended in an error, failed logins among them.
    pub error: u64,
    /// Events that were lost then, as far as is known.
    pub gap: u64,
}

#[derive(Row, Deserialize)]
struct BucketRow {
    bucket: u32,
    all: u64,
    failed: u64,
    lost: u64,
}

impl Store {
    /// A page of the events that match, newest first. `limit` is held to [`MAX_PAGE_ROWS`].
    pub async fn events_page(
        &self,
        filter: &EventFilter,
        limit: u32,
        cursor: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE_ROWS);
        let before = match cursor {
            // The first condition is for the primary key.
            Some(_) => {
                "AND started_at <= fromUnixTimestamp64Nano({at:Int64}, 'UTC')
                 AND (started_at, collector_id, sequence)
                     < (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), {collector:UUID}, {sequence:UInt64})"
            }
            None => "",
        };
        let sql = format!(
            "SELECT ?fields FROM events WHERE {} {before}
             ORDER BY started_at DESC, collector_id DESC, sequence DESC LIMIT {{limit:UInt32}}",
            filter.conditions()
        );
        let mut query = filter.bind(self.ask(&sql)).param("limit", limit + 1);
        if let Some(cursor) = cursor {
            query = query
                .param("at", cursor.started_at.0)
                .param("collector", cursor.collector.to_string())
                .param("sequence", cursor.sequence);
        }
        let mut rows: Vec<EventRow> = query.fetch_all().await?;
        let is_last = rows.len() <= limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| !is_last).map(Cursor::after);
        Ok(Page { rows, next })
    }

    /// One event by its id.
    pub async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        let sql = "SELECT ?fields FROM events WHERE event_id = {id:UUID} LIMIT 1";
        Ok(self.ask(sql).param("id", id.to_string()).fetch_optional().await?)
    }

    /// How many events match.
    pub async fn count(&self, filter: &EventFilter) -> Result<u64, StoreError> {
        let sql = format!("SELECT count() FROM events WHERE {}", filter.conditions());
        Ok(filter.bind(self.ask(&sql)).fetch_one().await?)
    }

    /// The events that match over time, in `buckets` bars of equal length (held to [`MAX_BUCKETS`]), none left out.
    ///
    /// Losses of the servers meant are counted whatever else the filter says: nobody knows whose events were lost.
    pub async fn histogram(&self, filter: &EventFilter, buckets: u32) -> Result<Vec<Bucket>, StoreError> {
        let mut bars = bars(filter.window, buckets);
        let Some(width) = bars.first().map(|bar| bar.to.since_ns(bar.from)) else {
            return Ok(bars);
        };
        for filter in [filter.clone(), filter.for_gaps()] {
            let is_gap = filter.kinds == ["gap"];
            let sql = format!(
                "SELECT toUInt32(intDiv(toUnixTimestamp64Nano(started_at) - {{from:Int64}}, {{width:Int64}})) AS bucket,
                     countIf(kind != 'gap') AS all,
                     countIf(kind = 'connect_failed' OR ifNull(result, '') = 'error') AS failed,
                     sum(ifNull(gap_events, 0)) AS lost
                 FROM events WHERE {} GROUP BY bucket",
                filter.conditions()
            );
            let rows: Vec<BucketRow> = filter.bind(self.ask(&sql)).param("width", width).fetch_all().await?;
            for row in rows {
                let Some(bar) = bars.get_mut(row.bucket as usize) else {
                    continue;
                };
                if is_gap {
                    bar.gap = row.lost;
                } else {
                    bar.ok = row.all.saturating_sub(row.failed);
                    bar.error = row.failed;
                }
            }
        }
        Ok(bars)
    }

    /// Every event that matches, oldest first, read as it is asked for.
    ///
    /// When the stream is dropped, ClickHouse stops reading.
    pub fn stream_events(
        &self,
        filter: &EventFilter,
    ) -> impl Stream<Item = Result<EventRow, StoreError>> + Send + use<> {
        let sql = format!(
            "SELECT ?fields FROM events WHERE {} ORDER BY started_at, collector_id, sequence",
            filter.conditions()
        );
        let query = filter.bind(self.ask_for_export(&sql));
        async_stream::try_stream! {
            let mut rows = query.fetch::<EventRow>()?;
            while let Some(row) = rows.next().await? {
                yield row;
            }
        }
    }
}

/// Empty bars that cover the window.
fn bars(window: Window, buckets: u32) -> Vec<Bucket> {
    let length = window.to.since_ns(window.from);
    if length <= 0 {
        return Vec::new();
    }
    let buckets = i64::from(buckets.clamp(1, MAX_BUCKETS));
    let width = (length / buckets + i64::from(length % buckets != 0)).max(1);
    let bar = |number: i64| {
        let from = window.from.plus_ns(number.saturating_mul(width));
        Bucket { from, to: from.plus_ns(width), ok: 0, error: 0, gap: 0 }
    };
    (0..buckets).map(bar).take_while(|bar| bar.from < window.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let cursor =
            Cursor { started_at: Timestamp(i64::MAX), collector: Uuid::from_u128(5), sequence: u64::MAX };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for wrong in ["", "00", "zz", &"0".repeat(66), "密"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bars_cover_the_window() {
        let window = |to| Window { from: Timestamp(100), to: Timestamp(to) };
        assert_eq!(bars(window(100), 10).len(), 0);
        assert_eq!(bars(window(103), 10).len(), 3);
        let bars = bars(window(1101), 10);
        assert_eq!(bars.len(), 10);
        assert!(bars[9].from < Timestamp(1101) && bars[9].to >= Timestamp(1101));
    }
}
