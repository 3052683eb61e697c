//! People who use the audit: their accounts, their sessions and API tokens, and the audit of their reading.
//!
//! Passwords come in hashed (Argon2id) and secrets as their SHA-256; nothing here can be used to sign in.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::Timestamp;

use crate::read::Window;
use crate::write::fresh_token;
use crate::{Store, StoreError, codec};

/// One person's account.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct PersonRow {
    pub name: String,
    /// Argon2id, as a PHC string.
    pub password_hash: String,
    /// `viewer`, `auditor` or `admin`.
    pub role: String,
    pub disabled: bool,
    #[serde(with = "codec::timestamp")]
    pub changed_at: Timestamp,
}

/// A browser session or an API token.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct CredentialRow {
    /// SHA-256 of the secret.
    #[serde(with = "codec::fixed")]
    pub secret_hash: [u8; 32],
    /// `session` or `api_token`.
    pub kind: String,
    pub person: String,
    pub label: String,
    #[serde(with = "codec::timestamp")]
    pub created_at: Timestamp,
    #[serde(with = "codec::timestamp::option")]
    pub expires_at: Option<Timestamp>,
    pub revoked: bool,
    #[serde(with = "codec::timestamp")]
    pub changed_at: Timestamp,
}

/// One entry of the audit of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ReadRow {
    #[serde(with = "codec::timestamp")]
    pub at: Timestamp,
    #[serde(with = "clickhouse::serde::uuid")]
    pub request_id: Uuid,
    pub person: String,
    /// Peer of the request.
    pub address: String,
    /// What was done: `sign_in`, `search`, `export` …
    pub action: String,
    /// The filter, as in the URL.
    pub query: String,
    /// Rows handed out.
    pub rows: Option<u64>,
    /// `ok`, `denied`, `failed`, `started` or `cut_off`.
    pub result: String,
}

impl Store {
    /// The account of this name, disabled or not.
    pub async fn person(&self, name: &str) -> Result<Option<PersonRow>, StoreError> {
        let sql = "SELECT ?fields FROM people FINAL WHERE name = {name:String}";
        Ok(self.ask(sql).param("name", name).fetch_optional().await?)
    }

    /// Every account, by name.
    pub async fn people(&self) -> Result<Vec<PersonRow>, StoreError> {
        Ok(self.ask("SELECT ?fields FROM people FINAL ORDER BY name").fetch_all().await?)
    }

    /// Writes an account; the newest row of a name counts.
    pub async fn put_person(&self, row: &PersonRow) -> Result<(), StoreError> {
        self.insert("people", &fresh_token(), [row]).await
    }

    /// The session or token with this SHA-256, whether it can still be used or not.
    pub async fn credential(&self, secret_hash: [u8; 32]) -> Result<Option<CredentialRow>, StoreError> {
        let sql = "SELECT ?fields FROM credentials FINAL WHERE secret_hash = unhex({hash:String})";
        Ok(self.ask(sql).param("hash", hex::encode(secret_hash)).fetch_optional().await?)
    }

    /// The API tokens that were not revoked, by person and time.
    pub async fn api_tokens(&self) -> Result<Vec<CredentialRow>, StoreError> {
        let sql = "SELECT ?fields FROM credentials FINAL WHERE kind = 'api_token' AND NOT revoked
            ORDER BY person, created_at";
        Ok(self.ask(sql).fetch_all().await?)
    }

    /// Writes a session or a token; the newest row of a secret counts.
    pub async fn put_credential(&self, row: &CredentialRow) -> Result<(), StoreError> {
        self.insert("credentials", &fresh_token(), [row]).await
    }

    /// Adds an entry to the audit of the audit, and returns when ClickHouse has it.
    pub async fn record_read(&self, row: &ReadRow) -> Result<(), StoreError> {
        self.insert("audit_reads", &fresh_token(), [row]).await
    }

    /// The newest entries of the audit of the audit within a window, newest first.
    pub async fn reads(&self, window: Window, limit: u32) -> Result<Vec<ReadRow>, StoreError> {
        let sql = "SELECT ?fields FROM audit_reads
            WHERE at >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
                AND at < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
            ORDER BY at DESC, request_id LIMIT {limit:UInt32}";
        let query = self.ask(sql).param("from", window.from.0).param("to", window.to.0);
        Ok(query.param("limit", limit).fetch_all().await?)
    }

    /// How often signing in under this name from this address failed since `since`, and since it last succeeded.
    pub async fn failed_sign_ins(
        &self,
        person: &str,
        address: &str,
        since: Timestamp,
    ) -> Result<u64, StoreError> {
        let sql = "WITH (
                SELECT max(at) FROM audit_reads WHERE at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
                    AND person = {person:String} AND address = {address:String}
                    AND action = 'sign_in' AND result = 'ok'
            ) AS last_success
            SELECT count() FROM audit_reads WHERE at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
                AND person = {person:String} AND address = {address:String} AND action = 'sign_in_failed'
                AND result = 'failed' AND at > last_success";
        let query = self.ask(sql).param("since", since.0).param("person", person);
        Ok(query.param("address", address).fetch_one().await?)
    }
}
