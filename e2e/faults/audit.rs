//! What ClickHouse holds, asked over its own interface.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// ClickHouse, as the account that may do everything.
pub struct Audit {
    http: reqwest::Client,
    pub url: String,
    password_file: PathBuf,
}

impl Audit {
    pub fn new(http: reqwest::Client, url: String, password_file: PathBuf) -> Self {
        Self { http, url, password_file }
    }

    /// The rows that a statement gives.
    pub async fn ask(&self, sql: &str) -> anyhow::Result<Vec<Vec<Value>>> {
        let password = std::fs::read_to_string(&self.password_file)?;
        let request = self
            .http
            .post(&self.url)
            .query(&[
                ("default_format", "JSONCompactEachRow"),
                ("output_format_json_quote_64bit_integers", "0"),
            ])
            .header("X-ClickHouse-User", "whence_migrate")
            .header("X-ClickHouse-Key", password.trim())
            .header("X-ClickHouse-Database", "whence")
            .body(sql.to_owned());
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{sql}: {text}");
        }
        let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
        rows.with_context(|| text.clone())
    }
}

/// A number of an answer's first row; 0 where there is none.
pub fn number(rows: &[Vec<Value>], column: usize) -> u64 {
    rows.first().and_then(|row| row.get(column)).and_then(Value::as_u64).unwrap_or(0)
}
