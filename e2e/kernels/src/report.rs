//! Lines of JSON to the host.

use std::fs::{self, File};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The second serial line; the first is the console.
const LINE: &str = "/dev/ttyS1";

/// One thing that was done to a server, or that the collector says was.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    pub server: &'a str,
    pub kind: &'a str,
    pub user: Option<&'a str>,
    pub host: Option<&'a str>,
    pub sql: Option<&'a str>,
    pub result: String,
}

impl Deed<'_> {
    fn json(&self) -> Value {
        let Self { server, kind, user, host, sql, result } = self;
        json!({"server": server, "kind": kind, "user": user, "host": host, "sql": sql, "result": result})
    }
}

pub struct Report(File);

impl Report {
    pub fn open() -> Result<Self> {
        let line = File::options().write(true).open(LINE);
        Ok(Self(line.with_context(|| format!("cannot open {LINE}"))?))
    }

    fn tell(&self, name: &str, value: &Value) -> Result<()> {
        Ok((&self.0).write_all(format!("{}\n", json!({ name: value })).as_bytes())?)
    }

    pub fn kernel(&self) -> Result<()> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        self.tell("kernel", &json!(release.trim()))
    }

    /// What was done to a server.
    pub fn did(&self, deed: &Deed<'_>) -> Result<()> {
        self.tell("did", &deed.json())
    }

    /// What the collector recorded.
    pub fn recorded(&self, deed: &Deed<'_>) -> Result<()> {
        self.tell("recorded", &deed.json())
    }

    /// Events that the collector says were lost.
    pub fn lost(&self, reason: &str, events: u64) -> Result<()> {
        self.tell("lost", &json!({"reason": reason, "events": events}))
    }

    /// The collector would not start.
    pub fn refused(&self, status: Option<i32>, said: &str) -> Result<()> {
        self.tell("refused", &json!({"status": status, "said": said}))
    }

    pub fn problem(&self, what: &str) -> Result<()> {
        self.tell("problem", &json!(what))
    }

    /// All was told.
    pub fn end(&self) -> Result<()> {
        self.tell("end", &json!(true))
    }
}
