//! Brings the schema to this version: the files of `migrations/`, each applied once and known by its SHA-256.
//!
//! ClickHouse has no transactions, so every statement can be run again (`IF NOT EXISTS` and the like), and the
//! row in `schema_migrations` is written when all statements of a file are done. A runner that was killed starts
//! the file again; two runners at once do the same work twice and leave the same schema.
//!
//! The files are written for a single node. A cluster needs the same statements with `ON CLUSTER`, `Replicated`
//! before the engine's name and a `Distributed` table on top of each: all three can be derived statement by
//! statement in [`statements`], which is why a statement holds one table and its engine starts a line.

use clickhouse::Row;
use clickhouse::sql::Identifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use whence_model::Timestamp;

use crate::write::fresh_token;
use crate::{Store, StoreError, codec};

/// The schema cannot be brought to this version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(
        "migration {name} was changed after it was applied (it was {applied}, and is {found}); \
         restore the file and put the change into a new one"
    )]
    Changed { name: String, applied: String, found: String },
    #[error("migration {name}: {source}")]
    Failed { name: String, source: StoreError },
    #[error("the schema is older than this program: {missing} has not been applied; run `whence migrate`")]
    Behind { missing: String },
    #[error("the schema is newer than this program: it has migration {name}; update Whence")]
    Ahead { name: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file of `migrations/`.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// File name without `.sql`; files are applied in the order of their names.
    pub name: &'static str,
    pub sql: &'static str,
}

/// All migrations, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_audit", sql: include_str!("../../../migrations/0001_audit.sql") },
    Migration { name: "0002_people", sql: include_str!("../../../migrations/0002_people.sql") },
    Migration { name: "0003_container", sql: include_str!("../../../migrations/0003_container.sql") },
    Migration { name: "0004_filters", sql: include_str!("../../../migrations/0004_filters.sql") },
    Migration { name: "0005_external", sql: include_str!("../../../migrations/0005_external.sql") },
    Migration { name: "0006_proof", sql: include_str!("../../../migrations/0006_proof.sql") },
    Migration { name: "0007_claims", sql: include_str!("../../../migrations/0007_claims.sql") },
    Migration {
        name: "0008_expired_losses",
        sql: include_str!("../../../migrations/0008_expired_losses.sql"),
    },
];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations
(
    name        String,
    sha256      String,
    applied_at  DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY (name, sha256)";

#[derive(Clone, Debug, Row, Serialize, Deserialize)]
struct AppliedRow {
    name: String,
    sha256: String,
    #[serde(with = "codec::timestamp")]
    applied_at: Timestamp,
}

impl Migration {
    fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.sql))
    }
}

impl Store {
    /// Makes the database when it is not there, and applies what has not been applied.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        self.migrate_with(MIGRATIONS).await
    }

    /// [`Store::migrate`] with other migrations, for tests.
    pub async fn migrate_with(&self, migrations: &[Migration]) -> Result<(), MigrateError> {
        let server = self.client().clone().with_database("system");
        let create = server.query("CREATE DATABASE IF NOT EXISTS ?").bind(Identifier(&self.database));
        create.execute().await.map_err(StoreError::from)?;
        self.execute(TABLE).await?;
        let applied = self.applied().await?;
        refuse_unknown(migrations, &applied)?;
        for migration in migrations {
            if is_applied(migration, &applied)? {
                continue;
            }
            for statement in statements(migration.sql) {
                let done = self.execute(&statement).await;
                done.map_err(|source| MigrateError::Failed { name: migration.name.into(), source })?;
            }
            let row = AppliedRow {
                name: migration.name.into(),
                sha256: migration.sha256(),
                applied_at: Timestamp::now(),
            };
            self.insert("schema_migrations", &fresh_token(), [&row]).await?;
            tracing::info!(migration = migration.name, "schema migration applied");
        }
        Ok(())
    }

    /// Whether the schema is the one that this program was built for.
    pub async fn check_schema(&self) -> Result<(), MigrateError> {
        let applied = self.applied().await?;
        refuse_unknown(MIGRATIONS, &applied)?;
        for migration in MIGRATIONS {
            if !is_applied(migration, &applied)? {
                return Err(MigrateError::Behind { missing: migration.name.into() });
            }
        }
        Ok(())
    }

    async fn applied(&self) -> Result<Vec<AppliedRow>, StoreError> {
        let sql = "SELECT ?fields FROM schema_migrations FINAL ORDER BY name";
        Ok(self.client().query(sql).fetch_all().await?)
    }

    async fn execute(&self, statement: &str) -> Result<(), StoreError> {
        Ok(self.client().query_raw(statement).execute().await?)
    }
}

fn is_applied(migration: &Migration, applied: &[AppliedRow]) -> Result<bool, MigrateError> {
    let found = migration.sha256();
    let rows = applied.iter().filter(|row| row.name == migration.name);
    match rows.map(|row| &row.sha256).find(|sha256| **sha256 != found) {
        Some(other) => {
            Err(MigrateError::Changed { name: migration.name.into(), applied: other.clone(), found })
        }
        None => Ok(applied.iter().any(|row| row.name == migration.name)),
    }
}

fn refuse_unknown(migrations: &[Migration], applied: &[AppliedRow]) -> Result<(), MigrateError> {
    let known = |name: &str| migrations.iter().any(|migration| migration.name == name);
    match applied.iter().find(|row| !known(&row.name)) {
        Some(row) => Err(MigrateError::Ahead { name: row.name.clone() }),
        None => Ok(()),
    }
}

/// The statements of a file, without comments. Knows strings and quoted names, in which `;` and `--` mean nothing.
pub fn statements(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '-' if rest.starts_with("--") => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
                statement.push(' ');
                continue;
            }
            ';' => {
                push(&mut statements, &mut statement);
                rest = &rest[1..];
                continue;
            }
            '\'' | '"' | '`' => quoted_length(rest, first),
            other => other.len_utf8(),
        };
        statement.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    push(&mut statements, &mut statement);
    statements
}

fn push(statements: &mut Vec<String>, statement: &mut String) {
    let trimmed = statement.trim();
    if !trimmed.is_empty() {
        statements.push(trimmed.to_owned());
    }
    statement.clear();
}

/// Bytes of the quoted text that `text` begins with, both quotes included. A doubled quote closes and opens again.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (position, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return position + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_split_outside_of_strings_and_comments() {
        let sql = "-- a; b\nCREATE 'x;--y''z\\'; '; /* ; */ SELECT `a;b`;\n\n;SELECT \"密;\" -- end";
        assert_eq!(statements(sql), ["CREATE 'x;--y''z\\'; '", "SELECT `a;b`", "SELECT \"密;\""]);
    }

    #[test]
    fn every_statement_can_be_run_again() {
        for migration in MIGRATIONS {
            for statement in statements(migration.sql) {
                assert!(statement.contains("IF NOT EXISTS"), "{}: {statement}", migration.name);
            }
        }
    }
}
