//! What retention removed: declared and signed, so that it is told apart from what somebody else removed.

use std::ops::RangeInclusive;

use whence_chain::{Expired, Expiry, PublicKey};
use whence_model::{CollectorId, Timestamp};

use super::link::End;
use super::manifest::Sealed;
use super::{Finding, Kind, Report, Step};
use crate::retention::ExpiryRow;
use crate::{Store, StoreError};

/// How long removing may take: until then a part of what was declared may still be there.
const REMOVING_NS: i64 = 3600 * 1_000_000_000;

/// The proven declarations of one collector.
#[derive(Debug, Default)]
pub struct Expiries(Vec<Expiry>);

impl Expiries {
    /// Reads them; one that no known key signed is a finding, and says nothing.
    pub async fn load<F: FnMut(Step)>(
        store: &Store,
        collector: CollectorId,
        keys: &[PublicKey],
        report: &mut Report<F>,
    ) -> Result<Self, StoreError> {
        let mut proven: Vec<Expiry> = Vec::new();
        for row in store.expiries(Some(collector)).await? {
            match check(&row, keys) {
                // The same twice says the same.
                Ok(expiry) if proven.contains(&expiry) => {}
                Ok(expiry) => {
                    report.find(notice(&expiry, &row));
                    proven.push(expiry);
                }
                Err((expected, found)) => report.find(Finding {
                    kind: Kind::ExpiryForged,
                    collector,
                    batch: Some(row.first_batch),
                    sequence: None,
                    expected: expected.into(),
                    found,
                }),
            }
        }
        let expiries = Self(proven);
        // Contents expire before the rows that tell of them do.
        for expiry in expiries.0.iter().filter(|expiry| expiry.what == Expired::Batches) {
            for batch in [expiry.first_batch, expiry.last_batch] {
                if expiries.of(Expired::Contents, batch).is_none() {
                    report.find(Finding {
                        kind: Kind::ExpiryForged,
                        collector,
                        batch: Some(batch),
                        sequence: None,
                        expected: "a declaration that its contents expired".into(),
                        found: "none".into(),
                    });
                    break;
                }
            }
        }
        Ok(expiries)
    }

    /// Declarations of collectors that have no batch: retention always leaves the newest.
    pub async fn orphans<F: FnMut(Step)>(
        store: &Store,
        collectors: &[CollectorId],
        report: &mut Report<F>,
    ) -> Result<(), StoreError> {
        let rows = store.expiries(None).await?;
        for row in rows.iter().filter(|row| !collectors.contains(&CollectorId(row.collector_id))) {
            report.find(Finding {
                kind: Kind::BatchesMissing,
                collector: CollectorId(row.collector_id),
                batch: Some(row.last_batch),
                sequence: None,
                expected: "a batch behind those that expired".into(),
                found: "none".into(),
            });
        }
        Ok(())
    }

    /// The declaration that `what` of this batch was removed.
    pub fn of(&self, what: Expired, number: u64) -> Option<&Expiry> {
        let is_of = |expiry: &&Expiry| {
            expiry.what == what && (expiry.first_batch..=expiry.last_batch).contains(&number)
        };
        self.0.iter().find(is_of)
    }

    /// What the first batch that is left hangs on.
    pub fn end(&self) -> Option<End> {
        let batches = self.0.iter().filter(|expiry| expiry.what == Expired::Batches);
        let last = batches.max_by_key(|expiry| expiry.last_batch)?;
        Some(End {
            number: last.last_batch,
            next_sequence: last.last_sequence.saturating_add(1),
            hashes: [last.head; 2],
        })
    }

    /// Batches that were lost on the way, of which only the declarations may tell any more: each of those that expired.
    pub fn lost_batches(&self) -> Vec<RangeInclusive<u64>> {
        let lost = self.0.iter().flat_map(|expiry| expiry.lost_batches.iter().zip(std::iter::repeat(expiry)));
        let lost = lost.filter(|((_, last), expiry)| *last <= expiry.last_batch);
        lost.map(|((first, last), _)| *first..=*last).collect()
    }

    /// Compares a batch that is there with what declarations say of it.
    pub fn compare(&self, batch: &mut Sealed) {
        let number = batch.row.number;
        for what in [Expired::Contents, Expired::Batches] {
            let Some(expiry) = self.of(what, number) else { continue };
            if batch.row.sealed_at >= expiry.before {
                let expected = format!("an expiry of batches that were sealed before {}", expiry.before);
                batch.find(Kind::ExpiryForged, None, expected, format!("sealed at {}", batch.row.sealed_at));
            }
            let is_last = number == expiry.last_batch;
            if is_last
                && (batch.row.batch_hash, batch.row.next_sequence())
                    != (expiry.head, expiry.last_sequence + 1)
            {
                let expected = format!("the batch {} as it was when it expired", hex::encode(expiry.head));
                batch.find(Kind::ExpiryForged, None, expected, hex::encode(batch.row.batch_hash));
            }
        }
    }

    /// Whether the contents of this batch may be on their way out.
    pub fn is_removing(&self, number: u64, now: Timestamp) -> bool {
        let expiry = self.of(Expired::Contents, number);
        expiry.is_some_and(|expiry| (0..REMOVING_NS).contains(&now.since_ns(expiry.declared_at)))
    }
}

fn check(row: &ExpiryRow, keys: &[PublicKey]) -> Result<Expiry, (&'static str, String)> {
    let expiry = row.to_expiry().map_err(|error| ("an expiry that Whence writes", error.to_string()))?;
    let key = PublicKey::from_bytes(&row.public_key).filter(|key| keys.contains(key));
    let Some(key) = key else {
        return Err((
            "an expiry that a known service declared",
            format!("one by {}", hex::encode(row.public_key)),
        ));
    };
    if !key.verify(&expiry.hash(), &row.signature) {
        return Err(("the expiry that was signed", "another".into()));
    }
    Ok(expiry)
}

fn notice(expiry: &Expiry, row: &ExpiryRow) -> Finding {
    let Expiry { what, first_batch, last_batch, events, before, reason, declared_at, .. } = expiry;
    let what = match what {
        Expired::Contents => "events and coverage",
        Expired::Batches => "the rows",
    };
    let found = format!(
        "{what} of batches {first_batch} to {last_batch} ({events} events, sealed before {before}) expired: {reason}; \
         declared {declared_at} by service key {}",
        hex::encode(row.public_key)
    );
    Finding {
        kind: Kind::Expired,
        collector: expiry.collector,
        batch: Some(*first_batch),
        sequence: None,
        expected: String::new(),
        found,
    }
}
