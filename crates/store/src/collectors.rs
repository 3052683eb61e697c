//! The collectors that may send: the first key of an id wins.

use whence_model::{CollectorId, Timestamp};

use crate::row::CollectorRow;
use crate::write::fresh_token;
use crate::{Store, StoreError};

/// What came of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    New,
    /// It had enrolled before with the same key.
    Before,
}

impl Store {
    /// Enrols a collector by its Ed25519 public key. `Rejected` when its id has another key, or was revoked.
    pub async fn enroll_collector(
        &self,
        id: CollectorId,
        host: &str,
        public_key: [u8; 32],
    ) -> Result<Enrolment, StoreError> {
        if let Some(known) = self.collector(id).await? {
            return judge(&known, public_key);
        }
        let now = Timestamp::now();
        let row = CollectorRow {
            collector_id: id.0,
            host: host.to_owned(),
            public_key,
            enrolled_at: now,
            revoked_at: None,
            changed_at: now,
        };
        self.insert("collectors", &fresh_token(), [&row]).await?;
        // Two may have come at once: both look at what is stored, and the first counts.
        match self.collector(id).await? {
            Some(known) if known.public_key == public_key => Ok(Enrolment::New),
            Some(known) => judge(&known, public_key),
            None => Err(StoreError::Corrupt { what: "collectors", value: id.to_string() }),
        }
    }

    /// The collector with this id, revoked or not. Its key is the first that was enrolled.
    pub async fn collector(&self, id: CollectorId) -> Result<Option<CollectorRow>, StoreError> {
        Ok(self.collector_rows(Some(id)).await?.into_iter().next())
    }

    /// The key that a collector signs with; none when it never enrolled or was revoked.
    pub async fn key_of(&self, id: CollectorId) -> Result<Option<[u8; 32]>, StoreError> {
        let known = self.collector(id).await?.filter(|known| known.revoked_at.is_none());
        Ok(known.map(|known| known.public_key))
    }

    /// Every collector that ever enrolled, by host.
    pub async fn list_collectors(&self) -> Result<Vec<CollectorRow>, StoreError> {
        self.collector_rows(None).await
    }

    /// Takes a collector's key away. `Rejected` when there is no such collector.
    pub async fn revoke_collector(&self, id: CollectorId) -> Result<(), StoreError> {
        let Some(known) = self.collector(id).await? else {
            let reason = format!("there is no collector {id}");
            return Err(StoreError::Rejected { reason });
        };
        if known.revoked_at.is_some() {
            return Ok(());
        }
        let now = Timestamp::now();
        let row = CollectorRow { revoked_at: Some(now), changed_at: now, ..known };
        self.insert("collectors", &fresh_token(), [&row]).await
    }

    async fn collector_rows(&self, id: Option<CollectorId>) -> Result<Vec<CollectorRow>, StoreError> {
        // Not FINAL: the newest row would win there, and a second key must never replace the first.
        let sql = "SELECT collector_id, any_host AS host, first_key AS public_key, first_at AS enrolled_at,
                revoked AS revoked_at, last_change AS changed_at
            FROM (
                SELECT collector_id, argMin(host, (enrolled_at, public_key)) AS any_host,
                    argMin(public_key, (enrolled_at, public_key)) AS first_key, min(enrolled_at) AS first_at,
                    max(revoked_at) AS revoked, max(changed_at) AS last_change
                FROM collectors
                WHERE {all:Bool} OR collector_id = {id:UUID}
                GROUP BY collector_id
            )
            ORDER BY host, collector_id";
        let query = self.client().query(sql).param("all", id.is_none());
        let id = id.map_or_else(uuid::Uuid::nil, |id| id.0);
        Ok(query.param("id", id.to_string()).fetch_all().await?)
    }
}

fn judge(known: &CollectorRow, public_key: [u8; 32]) -> Result<Enrolment, StoreError> {
    let reason = if known.public_key != public_key {
        format!("collector {} enrolled with another key", known.collector_id)
    } else if known.revoked_at.is_some() {
        format!("collector {} was revoked", known.collector_id)
    } else {
        return Ok(Enrolment::Before);
    };
    Err(StoreError::Rejected { reason })
}
