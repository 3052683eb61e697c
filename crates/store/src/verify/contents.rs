//! What a batch holds: its events in the order of their sequence numbers, and its coverage spans in theirs.

use std::ops::{Range, RangeInclusive};

use chrono::{Datelike, Months, NaiveTime};
use whence_chain::{Hash, content_hash, coverage_hash};
use whence_model::{BatchId, CollectorId, Coverage, Gap, Life, Provider, Timestamp};

use super::event::Judged;
use super::manifest::Sealed;
use super::{Finding, Kind};
use crate::StoreError;
use crate::row::CoverageRow;

/// The contents of one batch, looked at as they come in.
#[derive(Debug)]
pub struct Contents {
    pub sealed: Sealed,
    id: BatchId,
    /// The gaps that its events declare.
    pub gaps: Vec<(u64, Gap)>,
    /// The batches that its spans tell to be lost.
    pub lost_batches: Vec<RangeInclusive<u64>>,
    next_sequence: u64,
    event_hashes: Vec<Hash>,
    /// Of the events: the first and the last.
    times: Option<(Timestamp, Timestamp)>,
    /// When the events of each month were written: they are one part, which is written whole.
    events_received: Vec<(Range<Timestamp>, Timestamp)>,
    coverage_hashes: Vec<Hash>,
    span: Option<CoverageRow>,
    /// When the span at hand was written, newest, and those before it.
    span_received: Option<Timestamp>,
    spans_received: Option<Timestamp>,
    /// Whether no row of it came.
    is_empty: bool,
}

/// The month that this is in: events are partitioned by it.
fn month(at: Timestamp) -> Range<Timestamp> {
    let day = at.to_utc().date_naive();
    let first = day.with_day(1).unwrap_or(day);
    let next = first.checked_add_months(Months::new(1)).unwrap_or(first);
    let [first, next] = [first, next].map(|day| Timestamp::from(day.and_time(NaiveTime::MIN).and_utc()));
    first..next
}

impl Contents {
    pub fn new(sealed: Sealed) -> Self {
        Self {
            id: BatchId::derive(CollectorId(sealed.row.collector_id), sealed.row.number),
            next_sequence: sealed.row.first_sequence,
            sealed,
            gaps: Vec::new(),
            lost_batches: Vec::new(),
            event_hashes: Vec::new(),
            times: None,
            events_received: Vec::new(),
            coverage_hashes: Vec::new(),
            span: None,
            span_received: None,
            spans_received: None,
            is_empty: true,
        }
    }

    /// Takes the next row of the batch by sequence number.
    pub fn event(&mut self, row: Judged) {
        self.is_empty = false;
        if self.sealed.finding.is_some() {
            return;
        }
        let sequence = row.sequence;
        if let Some((kind, expected, found)) = self.check_event(row) {
            self.sealed.find(kind, Some(sequence), expected, found);
        }
    }

    fn check_event(&mut self, row: Judged) -> Option<(Kind, String, String)> {
        let (first, next) = (self.sealed.row.first_sequence, self.sealed.row.next_sequence());
        if row.sequence < first || row.sequence >= next {
            let expected = format!("events {first} to {}", next.saturating_sub(1));
            return Some((Kind::EventInserted, expected, format!("event {}", row.sequence)));
        }
        if row.sequence < self.next_sequence {
            return Some((Kind::EventDuplicated, "one row".into(), "another one of this number".into()));
        }
        if row.sequence > self.next_sequence {
            let (expected, found) = (self.next_sequence, format!("event {} next", row.sequence));
            return Some((Kind::EventMissing, format!("event {expected}"), found));
        }
        self.next_sequence += 1;
        let Judged { sequence, started_at: at, received_at, hash, gap, wrong, .. } = row;
        if let Some(wrong) = wrong {
            return Some(*wrong);
        }
        match self.events_received.iter().find(|(month, _)| month.contains(&at)) {
            None => self.events_received.push((month(at), received_at)),
            Some((_, received)) if *received == received_at => {}
            Some((_, received)) => {
                let expected = format!("received_at {received}, as the events before it");
                return Some((Kind::ColumnChanged, expected, received_at.to_string()));
            }
        }
        let (earliest, latest) = self.times.unwrap_or((at, at));
        self.times = Some((earliest.min(at), latest.max(at)));
        self.gaps.extend(gap.map(|gap| (sequence, gap)));
        self.event_hashes.push(hash);
        None
    }

    /// Takes the next row of the batch by position.
    pub fn coverage(&mut self, row: CoverageRow) {
        self.is_empty = false;
        if self.sealed.finding.is_some() {
            return;
        }
        if let Some((kind, expected, found)) = self.check_coverage(&row) {
            self.sealed.find(kind, None, expected, found);
        }
        self.span = Some(row);
    }

    fn check_coverage(&mut self, row: &CoverageRow) -> Option<(Kind, String, String)> {
        let position = row.position;
        if let Some(span) = self.span.take_if(|span| span.position == position) {
            // The same span written twice, until ClickHouse merges the two.
            if (CoverageRow { received_at: row.received_at, ..span }) != *row {
                let expected = format!("one coverage span at position {position}");
                return Some((Kind::CoverageInserted, expected, "two that differ".into()));
            }
            self.span_received = self.span_received.max(Some(row.received_at));
            return None;
        }
        let expected = self.coverage_hashes.len();
        if position >= self.sealed.row.coverage_count {
            let expected = format!("{} coverage spans", self.sealed.row.coverage_count);
            return Some((Kind::CoverageInserted, expected, format!("one at position {position}")));
        }
        if position as usize != expected {
            let found = format!("that at position {position} next");
            return Some((Kind::CoverageMissing, format!("the coverage span at position {expected}"), found));
        }
        let coverage = match row.to_coverage() {
            Ok(coverage) => coverage,
            Err(error) => return Some(unreadable(&error)),
        };
        let (collector, batch) = (CollectorId(row.collector_id), self.id);
        if CoverageRow::new(&coverage, collector, batch, position, row.received_at) != *row {
            let expected = format!("the columns of the coverage span at position {position}");
            return Some((Kind::CoverageChanged, expected, "others".into()));
        }
        if !coverage.adds_up() {
            let expected = format!(
                "seen = stored + filtered + lost, and filtered by rule = filtered, in the span at position {position}"
            );
            let Coverage { seen, stored, filtered, ref filtered_by, ref lost, .. } = coverage;
            let (by, lost) = (filtered_by.values().collect::<Vec<_>>(), lost.values().collect::<Vec<_>>());
            let found = format!("{seen}, {stored} + {filtered} (by rule {by:?}) + {lost:?}");
            return Some((Kind::Unaccounted, expected, found));
        }
        let different = self.close_span();
        self.span_received = Some(row.received_at);
        self.coverage_hashes.push(coverage_hash(&coverage));
        if coverage.provider == Some(Provider::Collector) {
            let life = coverage.detail.as_deref().map(Life::parse);
            self.lost_batches.extend(life.unwrap_or_default().lost_batches);
        }
        different
    }

    /// Spans of a batch are written at once: the newest copy of each bears the same time.
    fn close_span(&mut self) -> Option<(Kind, String, String)> {
        let received = self.span_received.take()?;
        let known = *self.spans_received.get_or_insert(received);
        (known != received).then(|| {
            let expected = format!("received_at {known}, as the coverage spans before it");
            (Kind::ColumnChanged, expected, received.to_string())
        })
    }

    /// Says what is wrong with the batch as a whole, now that all of its rows have come.
    pub fn finish(&mut self) {
        if self.sealed.finding.is_some() {
            return;
        }
        if let Some((kind, expected, found)) = self.check_whole() {
            let sequence = (kind == Kind::EventMissing).then_some(self.next_sequence);
            self.sealed.find(kind, sequence, expected, found);
        }
    }

    fn check_whole(&mut self) -> Option<(Kind, String, String)> {
        if let Some(different) = self.close_span() {
            return Some(different);
        }
        let row = &self.sealed.row;
        let (events, spans) = (self.event_hashes.len(), self.coverage_hashes.len());
        if self.next_sequence != self.sealed.row.next_sequence() {
            let expected = format!("{} events", row.event_count);
            return Some((Kind::EventMissing, expected, events.to_string()));
        }
        if spans != row.coverage_count as usize {
            let expected = format!("{} coverage spans", row.coverage_count);
            return Some((Kind::CoverageMissing, expected, spans.to_string()));
        }
        let content = content_hash(&self.event_hashes, &self.coverage_hashes);
        if content != row.content_hash {
            // Events have hashes of their own, so without any it was a span.
            let kind = if events == 0 { Kind::CoverageChanged } else { Kind::ContentChanged };
            let expected = format!("contents that make content_hash {}", hex::encode(row.content_hash));
            return Some((kind, expected, format!("others, which make {}", hex::encode(content))));
        }
        let times = row.first_started_at.zip(row.last_started_at);
        if times != self.times || row.first_started_at.is_some() != row.last_started_at.is_some() {
            let text = |times: Option<(Timestamp, Timestamp)>| match times {
                Some((first, last)) => format!("{first} to {last}"),
                None => "no times".into(),
            };
            let expected = format!("first_started_at to last_started_at {}", text(self.times));
            return Some((Kind::ManifestChanged, expected, text(times)));
        }
        let received = self.events_received.iter().map(|(_, received)| *received).chain(self.spans_received);
        let mut apart = received.filter(|received| !self.sealed.received_at.contains(received));
        let apart = apart.next()?;
        let expected = format!("received_at {} in all of its rows", row.received_at);
        let found = format!("{apart} too: ingest was interrupted in it, or received_at was changed");
        Some((Kind::WrittenInParts, expected, found))
    }

    /// The batch's finding, or that a stored text cannot even be read.
    pub fn mark_unreadable(&mut self, sequence: Option<u64>) {
        self.is_empty = false;
        self.sealed.find(Kind::Unreadable, sequence, "UTF-8".into(), "other bytes".into());
    }

    /// Whether nothing of what it holds is there.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Makes of rows that are missing, which are being removed, no finding.
    pub fn excuse_missing(&mut self) {
        let missing = [Kind::EventMissing, Kind::CoverageMissing];
        if let Some(finding) = self.sealed.finding.as_mut().filter(|finding| missing.contains(&finding.kind))
        {
            finding.kind = Kind::Unfinished;
        }
    }

    pub fn finding(&self) -> Option<&Finding> {
        self.sealed.finding.as_ref()
    }
}

fn unreadable(error: &StoreError) -> (Kind, String, String) {
    let found = match error {
        StoreError::Corrupt { what, value } => format!("{what} {value:?}"),
        other => other.to_string(),
    };
    (Kind::Unreadable, "a value that Whence writes".into(), found)
}
