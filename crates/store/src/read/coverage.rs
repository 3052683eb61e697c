//! What part of a window was watched, server by server: a page that shows no event must say whether anyone looked.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::{Flaws, InstanceId, Timestamp};

use super::Window;
use crate::{Store, StoreError, codec};

/// How old a moment must be before a missing span counts as not watched: spans come with the next batch.
pub const UNSETTLED_NS: i64 = 30_000_000_000;

/// A span of time: from `from` up to, but without, `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// How one server was watched within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceCoverage {
    pub instance: InstanceId,
    pub host: String,
    pub product: String,
    pub version: Option<String>,
    pub server_ip: Option<Ipv6Addr>,
    pub server_port: Option<u16>,
    /// When the first collector found it. Nothing is known of the time before.
    pub first_known: Timestamp,
    /// Spans with probes attached, merged, in order.
    pub watched: Vec<Span>,
    /// Spans in which a collector saw that the server was not running.
    pub not_running: Vec<Span>,
    /// What is neither, from `first_known` to the end of the window (or almost now, see [`UNSETTLED_NS`]).
    pub unwatched: Vec<Span>,
    /// Why it could not be watched, newest first, without repeats.
    pub details: Vec<String>,
    /// What was seen and is not whole.
    pub flaws: Flaws,
    pub seen: u64,
    pub stored: u64,
    pub filtered: u64,
    /// Events that were filtered, by the name of the rule.
    pub filtered_by: BTreeMap<String, u64>,
    /// Events that were lost, by reason.
    pub lost: BTreeMap<String, u64>,
}

#[derive(Row, Deserialize)]
struct SpanRow {
    #[serde(with = "codec::timestamp")]
    span_from: Timestamp,
    #[serde(with = "codec::timestamp")]
    span_to: Timestamp,
    #[serde(with = "clickhouse::serde::uuid")]
    instance_id: Uuid,
    state: String,
    seen: u64,
    stored: u64,
    filtered: u64,
    filtered_by: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
    detail: Option<String>,
}

impl Store {
    /// How each known server (or this one) was watched within a window, by host.
    ///
    /// Counts are those of every span that touches the window; a span at its edge is counted whole.
    pub async fn coverage(
        &self,
        window: Window,
        instance: Option<InstanceId>,
    ) -> Result<Vec<InstanceCoverage>, StoreError> {
        let sql = "SELECT ?fields FROM coverage FINAL
            WHERE span_from < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
                AND span_to > fromUnixTimestamp64Nano({from:Int64}, 'UTC')
                AND ({all:Bool} OR instance_id = {instance:UUID})
                AND ifNull(provider, '') != 'collector'
            ORDER BY instance_id, span_from";
        let query = self.ask(sql).param("from", window.from.0).param("to", window.to.0);
        let query = query.param("all", instance.is_none());
        let wanted = instance.map_or_else(Uuid::nil, |instance| instance.0).to_string();
        let spans: Vec<SpanRow> = query.param("instance", wanted).fetch_all().await?;

        let settled = Timestamp::now().plus_ns(-UNSETTLED_NS).min(window.to);
        let known = self.instances().await?.into_iter();
        let known = known.filter(|known| instance.is_none_or(|instance| instance.0 == known.instance_id));
        let coverage = known.filter(|known| known.first_seen < window.to).map(|known| {
            let mut coverage = InstanceCoverage {
                instance: InstanceId(known.instance_id),
                host: known.host,
                product: known.product,
                version: known.version,
                server_ip: known.server_ip,
                server_port: known.server_port,
                first_known: known.first_seen,
                watched: Vec::new(),
                not_running: Vec::new(),
                unwatched: Vec::new(),
                details: Vec::new(),
                flaws: Flaws::default(),
                seen: 0,
                stored: 0,
                filtered: 0,
                filtered_by: BTreeMap::new(),
                lost: BTreeMap::new(),
            };
            let from = window.from.max(known.first_seen);
            for span in spans.iter().filter(|span| span.instance_id == known.instance_id) {
                coverage.add(span, Window { from, ..window });
            }
            coverage.watched = merge(coverage.watched);
            coverage.not_running = merge(coverage.not_running);
            let accounted = merge([coverage.watched.as_slice(), &coverage.not_running].concat());
            coverage.unwatched = complement(&accounted, Span { from, to: settled });
            coverage
        });
        Ok(coverage.collect())
    }
}

impl InstanceCoverage {
    fn add(&mut self, row: &SpanRow, window: Window) {
        let span = Span { from: row.span_from.max(window.from), to: row.span_to.min(window.to) };
        match row.state.as_str() {
            "watched" => self.watched.push(span),
            "not_running" => self.not_running.push(span),
            _ => {}
        }
        if let Some(flaws) = row.detail.as_deref().and_then(Flaws::parse) {
            self.flaws += flaws;
        } else if let Some(detail) = &row.detail {
            self.details.retain(|known| known != detail);
            self.details.insert(0, detail.clone());
        }
        self.seen += row.seen;
        self.stored += row.stored;
        self.filtered += row.filtered;
        for (rule, events) in &row.filtered_by {
            *self.filtered_by.entry(rule.clone()).or_default() += events;
        }
        for (reason, events) in &row.lost {
            *self.lost.entry(reason.clone()).or_default() += events;
        }
    }
}

/// The same time in as few spans as possible, in order.
fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for span in spans.into_iter().filter(|span| span.from < span.to) {
        match merged.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => merged.push(span),
        }
    }
    merged
}

/// What `merged` leaves of `whole`.
fn complement(merged: &[Span], whole: Span) -> Vec<Span> {
    let mut rest = Vec::new();
    let mut from = whole.from;
    for span in merged {
        rest.push(Span { from, to: span.from.min(whole.to) });
        from = from.max(span.to);
    }
    rest.push(Span { from, to: whole.to });
    rest.retain(|span| span.from < span.to);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: i64, to: i64) -> Span {
        Span { from: Timestamp(from), to: Timestamp(to) }
    }

    #[test]
    fn spans_that_touch_are_one() {
        let spans = vec![span(5, 7), span(1, 3), span(3, 4), span(6, 6), span(2, 3), span(9, 9)];
        assert_eq!(merge(spans), [span(1, 4), span(5, 7)]);
    }

    #[test]
    fn the_complement_and_the_spans_make_the_whole() {
        assert_eq!(complement(&[], span(0, 10)), [span(0, 10)]);
        assert_eq!(complement(&[span(0, 10)], span(0, 10)), []);
        assert_eq!(complement(&[span(2, 4), span(6, 12)], span(0, 10)), [span(0, 2), span(4, 6)]);
        assert_eq!(complement(&[span(0, 4), span(11, 12)], span(5, 10)), [span(5, 10)]);
        assert_eq!(complement(&[], span(10, 5)), []);
    }
}
