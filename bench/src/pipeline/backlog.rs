//! One collector with a long backlog: from its spool to confirmed rows; and ClickHouse alone with the same rows.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use whence_chain::event_hash;
use whence_collector::identity::Identity;
use whence_collector::seal::{Link, Sealer};
use whence_collector::ship::{self, Enrolment};
use whence_collector::spool::Spool;
use whence_model::{BatchId, CollectorId, Timestamp};
use whence_store::row::EventRow;
use whence_testkit::sample::shop_query;

use super::parts::{Parts, Usage};
use super::rate;

const POLL: Duration = Duration::from_millis(10);
const SAMPLES: Duration = Duration::from_secs(5);
/// Rows of one insert of ClickHouse alone: large enough that it has nothing to wish for.
const ALONE_ROWS: u64 = 100_000;

/// What came of shipping a backlog.
pub struct Shipped {
    pub seconds: f64,
    pub usage: Usage,
    /// Resident memory of ingest in MiB, every few seconds.
    pub memory: Vec<f64>,
    /// As they lie in the spool and go over the wire, without HTTP's heads.
    pub bytes: u64,
}

/// Fills a spool in `directory` with `events`, then ships it and returns when ingest has confirmed all.
pub async fn ship(parts: &Parts, directory: &Path, events: u64) -> anyhow::Result<Shipped> {
    let (mut spool, _) = Spool::open(directory, u64::MAX)?;
    let identity = Identity::load_or_create(directory)?;
    let enrolment = Enrolment {
        collector_id: identity.id,
        public_key: hex::encode(identity.key.public().to_bytes()),
        host: "db1.example".into(),
    };
    let client = parts.client(enrolment)?;
    let mut sealer = Sealer::new(identity.id, identity.key, Link::FIRST)?;
    let began = Timestamp::now();
    for number in 0..events {
        sealer.event(shop_query(number, began.plus_ns(i64::try_from(number * 1_000)?)));
        if sealer.is_due(Instant::now())
            && let Some(batch) = sealer.seal()?
        {
            spool.append(&batch, None)?;
        }
    }
    if let Some(batch) = sealer.seal()? {
        spool.append(&batch, None)?;
    }
    let (_, bytes) = spool.backlog();
    let spool = Arc::new(Mutex::new(spool));

    let before = parts.usage()?;
    let began = Instant::now();
    let done = CancellationToken::new();
    let shipping = tokio::spawn(ship::run(spool.clone(), client, ship::Metrics::default(), done.clone()));
    let mut memory = Vec::new();
    let mut sample_at = began;
    while ship::lock(&spool).backlog().0 > 0 {
        if Instant::now() >= sample_at {
            memory.push(parts.usage()?.ingest_memory);
            sample_at += SAMPLES;
        }
        tokio::time::sleep(POLL).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let usage = parts.usage()?.since(&before);
    done.cancel();
    shipping.await?;
    Ok(Shipped { seconds, usage, memory, bytes })
}

/// Rows per second, and seconds of ClickHouse's processor time per million, of a client that only inserts the same rows
/// into the same tables.
pub async fn alone(parts: &Parts, rows: u64) -> anyhow::Result<(f64, f64)> {
    const DATABASE: &str = "whence_alone";
    parts.other_store(DATABASE)?.migrate().await?;
    let client = parts.clickhouse(DATABASE)?;
    let (collector, batch) = (CollectorId(uuid::Uuid::now_v7()), BatchId(uuid::Uuid::now_v7()));
    let now = Timestamp::now();
    let (mut seconds, mut clickhouse) = (0.0, 0.0);
    let mut number = 0;
    while number < rows {
        // Made before the clock starts.
        let some: Vec<EventRow> = (number..rows.min(number + ALONE_ROWS))
            .map(|number| {
                let mut event = shop_query(number, now.plus_ns(i64::try_from(number * 1_000).unwrap_or(0)));
                (event.collector, event.sequence) = (collector, number + 1);
                EventRow::new(&event, batch, now, event_hash(&event))
            })
            .collect();
        let (before, began) = (parts.usage()?, Instant::now());
        let mut insert = client.insert::<EventRow>("events").await?;
        for row in &some {
            insert.write(row).await?;
        }
        insert.end().await?;
        seconds += began.elapsed().as_secs_f64();
        clickhouse += parts.usage()?.since(&before).clickhouse;
        number += ALONE_ROWS;
    }
    Ok((rate(rows, seconds), clickhouse * 1e6 / rate(rows, 1.0)))
}
