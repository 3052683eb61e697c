//! Whether the collectors live: when each was heard last, how good its clock is, when it began and ended.

use clickhouse::{Row, RowOwned, RowRead};
use serde::Deserialize;
use uuid::Uuid;
use whence_model::{ClockQuality, InstanceId, Life, Timestamp};

use super::Window;
use crate::row::CollectorRow;
use crate::{Store, StoreError, codec};

/// A collector that sent nothing for so long is silent: it sends a batch every ten seconds, also when nothing happens.
pub const SILENT_NS: i64 = 45_000_000_000;
/// Beginnings and ends that are told at once, the newest.
pub const MAX_TURNS: usize = 100;
/// Collectors that are asked for in one question.
const AT_ONCE: usize = 50;

/// Whether a collector sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectorState {
    Sending,
    /// Nothing came for [`SILENT_NS`], or nothing at all yet.
    Silent,
    /// It was told to stop, and said so.
    Stopped,
    /// Its key was taken away: what it sends is refused.
    Revoked,
}

impl CollectorState {
    pub const ALL: [Self; 4] = [Self::Sending, Self::Silent, Self::Stopped, Self::Revoked];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Silent => "silent",
            Self::Stopped => "stopped",
            Self::Revoked => "revoked",
        }
    }
}

/// A collector, and what it told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub collector: CollectorRow,
    /// When its newest batch was received; none when there is none yet.
    pub last_seen: Option<Timestamp>,
    /// How many batches it has sealed so far, as it numbers them.
    pub batches: u64,
    /// How many events are in them.
    pub events: u64,
    /// What its newest span of its own says; none when it never wrote one.
    pub life: Option<Life>,
}

impl Heard {
    /// How good the clock of its host is.
    pub fn clock(&self) -> ClockQuality {
        self.life.as_ref().map(|life| life.clock).unwrap_or_default()
    }

    pub fn state(&self, now: Timestamp) -> CollectorState {
        match self.last_seen {
            _ if self.collector.revoked_at.is_some() => CollectorState::Revoked,
            _ if self.life.as_ref().is_some_and(|life| life.ended) => CollectorState::Stopped,
            Some(last) if now.since_ns(last) <= SILENT_NS => CollectorState::Sending,
            _ => CollectorState::Silent,
        }
    }
}

/// A beginning or an end in the life of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub collector_id: Uuid,
    pub host: String,
    pub at: Timestamp,
    /// How it began; it ended when there is none.
    pub began: Option<whence_model::Began>,
}

#[derive(Row, Deserialize)]
struct BatchRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    batch_id: Uuid,
    number: u64,
    events: u64,
    #[serde(with = "codec::timestamp")]
    received_at: Timestamp,
}

#[derive(Row, Deserialize)]
struct LifeRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    batch_id: Uuid,
    life: String,
}

#[derive(Row, Deserialize)]
struct TurnRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    host: String,
    #[serde(with = "codec::timestamp")]
    span_from: Timestamp,
    #[serde(with = "codec::timestamp")]
    span_to: Timestamp,
    life: String,
}

impl Store {
    /// Every collector that enrolled, with what it told last; by host.
    pub async fn heard(&self) -> Result<Vec<Heard>, StoreError> {
        let collectors = self.list_collectors().await?;
        let (mut received, mut lives): (Vec<BatchRow>, Vec<LifeRow>) = (Vec::new(), Vec::new());
        for some in collectors.chunks(AT_ONCE) {
            let batches = some.iter().map(|collector| {
                // Read from the end of its part of the table's order.
                format!(
                    "SELECT collector_id, batch_id, number, toUInt64(first_sequence + event_count - 1) AS events, received_at
                    FROM batches
                    WHERE collector_id = '{}' ORDER BY number DESC, received_at LIMIT 1",
                    collector.collector_id
                )
            });
            received.extend(self.newest(batches).await?);
            let spans = some.iter().map(|collector| {
                let own = InstanceId::of_collector(&collector.host);
                format!(
                    "SELECT collector_id, batch_id, ifNull(detail, '') AS life FROM coverage
                    WHERE instance_id = '{own}' AND collector_id = '{}' AND ifNull(provider, '') = 'collector'
                    ORDER BY span_from DESC LIMIT 1",
                    collector.collector_id
                )
            });
            lives.extend(self.newest(spans).await?);
        }
        let heard = collectors.into_iter().map(|collector| {
            let batch = received.iter().find(|row| row.collector_id == collector.collector_id);
            let row = lives.iter().find(|row| row.collector_id == collector.collector_id);
            let life = row.map(|row| Life::parse(&row.life)).map(|life| Life {
                // What came after an end is of a new life, which may be filed under another name of the host.
                ended: life.ended && batch.map(|batch| batch.batch_id) == row.map(|row| row.batch_id),
                ..life
            });
            Heard {
                last_seen: batch.map(|row| row.received_at),
                batches: batch.map_or(0, |row| row.number),
                events: batch.map_or(0, |row| row.events),
                life,
                collector,
            }
        });
        Ok(heard.collect())
    }

    /// Asks these, each of which has one row at most.
    async fn newest<R: RowOwned + RowRead>(
        &self,
        questions: impl Iterator<Item = String>,
    ) -> Result<Vec<R>, StoreError> {
        let questions: Vec<String> = questions.map(|question| format!("({question})")).collect();
        Ok(self.ask(&questions.join(" UNION ALL ")).fetch_all().await?)
    }

    /// The newest beginnings and ends of collectors in a window, at most [`MAX_TURNS`], the newest first.
    pub async fn collector_turns(&self, window: Window) -> Result<Vec<Turn>, StoreError> {
        let sql =
            "SELECT collector_id, host, span_from, span_to, ifNull(detail, '') AS life FROM coverage FINAL
            WHERE ifNull(provider, '') = 'collector' AND match(ifNull(detail, ''), '(began|ended)=')
                AND span_from < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
                AND span_to >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
            ORDER BY span_to DESC LIMIT {limit:UInt32}";
        let query = self.ask(sql).param("from", window.from.0).param("to", window.to.0);
        let rows: Vec<TurnRow> = query.param("limit", MAX_TURNS).fetch_all().await?;
        let mut turns = Vec::new();
        for row in rows {
            let life = Life::parse(&row.life);
            let turn = |at, began| Turn { collector_id: row.collector_id, host: row.host.clone(), at, began };
            turns.extend(life.ended.then(|| turn(row.span_to, None)));
            turns.extend(life.began.map(|began| turn(row.span_from, Some(began))));
        }
        turns.retain(|turn| turn.at >= window.from && turn.at < window.to);
        turns.sort_by_key(|turn| std::cmp::Reverse(turn.at));
        turns.truncate(MAX_TURNS);
        Ok(turns)
    }
}
