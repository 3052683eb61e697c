//! What was kept outside of ClickHouse, and must be in it still.

use std::collections::BTreeMap;

use whence_chain::{Expired, Hash, PublicKey};
use whence_model::CollectorId;

use super::expired::Expiries;
use super::{Finding, Kind, Report, Step};
use crate::{Store, StoreError};

/// What is known from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Keys of services that may declare what expired. With none, those that the store itself names may.
    pub service_keys: Vec<PublicKey>,
    /// Batches that were there once.
    pub heads: Vec<KnownHead>,
}

/// A batch that a collector's chain had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// Where it is known from, in words.
    pub source: String,
    pub collector: CollectorId,
    /// The collector's key then.
    pub public_key: Option<[u8; 32]>,
    pub batch: u64,
    pub batch_hash: Hash,
}

impl KnownHead {
    fn finding(&self, kind: Kind, expected: &str, found: String) -> Finding {
        let (collector, batch) = (self.collector, Some(self.batch));
        Finding {
            kind,
            collector,
            batch,
            sequence: None,
            expected: format!("{expected} ({})", self.source),
            found,
        }
    }
}

/// Looks for every head of the collectors that `is_meant` names.
pub async fn heads<F: FnMut(Step)>(
    store: &Store,
    outside: &Outside,
    keys: &[PublicKey],
    is_meant: impl Fn(CollectorId) -> bool,
    report: &mut Report<F>,
) -> Result<(), StoreError> {
    let mut collectors = BTreeMap::<CollectorId, Vec<&KnownHead>>::new();
    for head in outside.heads.iter().filter(|head| is_meant(head.collector)) {
        collectors.entry(head.collector).or_default().push(head);
    }
    for (collector, heads) in collectors {
        let numbers: Vec<u64> = heads.iter().map(|head| head.batch).collect();
        let rows = store.batches(collector, &numbers).await?;
        // What is wrong with a declaration was told when the chain was walked.
        let mut silent = Report { sink: drop, summary: report.summary };
        let expiries = Expiries::load(store, collector, keys, &mut silent).await?;
        let stored_key = store.collector(collector).await?.map(|known| known.public_key);
        if let Some(head) =
            heads.iter().find(|head| head.public_key.is_some() && head.public_key != stored_key)
        {
            let text = |key: Option<[u8; 32]>| key.map_or_else(|| "none".into(), hex::encode);
            report.find(head.finding(
                Kind::KeyChanged,
                &format!("the key {}", text(head.public_key)),
                text(stored_key),
            ));
        }
        for head in heads {
            let known = hex::encode(head.batch_hash);
            let mut stored = rows.iter().filter(|row| row.number == head.batch).peekable();
            let expired = expiries.of(Expired::Batches, head.batch);
            if stored.peek().is_none() {
                let fits = expired.is_some_and(|e| e.last_batch > head.batch || e.head == head.batch_hash);
                if !fits {
                    let expected = format!("a batch that makes batch_hash {known}");
                    report.find(head.finding(Kind::HeadMissing, &expected, "none".into()));
                }
            } else if let Some(other) = stored.find(|row| row.batch_hash != head.batch_hash) {
                let expected = format!("batch_hash {known}");
                report.find(head.finding(Kind::HeadChanged, &expected, hex::encode(other.batch_hash)));
            }
        }
    }
    Ok(())
}
