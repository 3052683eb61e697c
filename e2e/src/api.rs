//! The API, as a script uses it.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{Whence, eventually};

/// A client with the administrator's token.
pub struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Api {
    pub fn new(whence: &Whence) -> anyhow::Result<Self> {
        Ok(Self { http: reqwest::Client::new(), url: whence.url().to_owned(), token: whence.token()? })
    }

    /// The JSON at `path` with `query`.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).query(query);
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// The events that match, newest first, at most a page of them.
    pub async fn events(&self, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let query: Vec<_> = [query, &[("limit", "1000")]].concat();
        let answer = self.get("/api/v1/events", &query).await?;
        Ok(answer.get("events").and_then(Value::as_array).context("no events in the answer")?.clone())
    }

    /// All events that match, page by page.
    pub async fn all_events(&self, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query: Vec<_> = [query, &[("limit", "1000")]].concat();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = self.get("/api/v1/events", &query).await?;
            all.extend(page["events"].as_array().context("no events in the answer")?.iter().cloned());
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// The first event that matches, waiting for it.
    pub async fn wait_for_event(&self, query: &[(&str, &str)]) -> Value {
        let what = format!("an event with {query:?}");
        eventually(&what, || async { Ok(self.events(query).await?.into_iter().next()) }).await
    }
}
