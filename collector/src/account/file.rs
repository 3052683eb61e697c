//! The accounts on disk: the file `accounts.json`, one step ahead of the spool.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_model::{Began, Timestamp};

use super::entry::{Account, Counted};

/// The accounts cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct AccountError {
    path: PathBuf,
    source: io::Error,
}

/// What is on disk: the accounts before and after one batch.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Boot and ring (`boot:ring`) that process numbers and counters belong to.
    ring: String,
    /// Whether the probes were taken off.
    detached: bool,
    /// Whether the collector was told to stop, and this is the last that it kept.
    #[serde(default)]
    ended: bool,
    /// When `after` was so.
    saved_at: Timestamp,
    /// When `before` was.
    #[serde(default)]
    saved_before: Timestamp,
    /// The batch in question.
    batch: u64,
    before: Vec<Account>,
    after: Vec<Account>,
    /// Of processes without an account.
    #[serde(default)]
    roomless_before: Option<Counted>,
    #[serde(default)]
    roomless_after: Option<Counted>,
    /// See [`super::Accounts::settle`].
    #[serde(default)]
    settled: Vec<u32>,
}

/// What the collector before this one left.
#[derive(Debug)]
pub struct Left {
    /// What it had open and nobody has looked at yet.
    pub accounts: Vec<Account>,
    /// When they were so.
    pub saved_at: Timestamp,
    /// What it had told of processes without an account. None: it did not say.
    pub roomless: Option<Counted>,
    /// Whether the kernel may have gone on recording since it ended.
    pub recorded_on: bool,
    /// How this collector came to run, by that.
    pub began: Began,
    /// See [`super::Accounts::settled_before`].
    pub settled: Vec<u32>,
}

/// The file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    ring: String,
    /// See [`super::Accounts::detach`].
    pub detached: bool,
    /// See [`super::Accounts::end`].
    pub ended: bool,
    /// As of the newest batch in the spool …
    saved: Saved,
    /// … and as of the one that is on its way there.
    saving: Saved,
}

/// The accounts as of a batch.
#[derive(Clone, Debug, Default)]
struct Saved {
    batch: u64,
    at: Timestamp,
    accounts: Vec<Account>,
    roomless: Option<Counted>,
}

impl File {
    /// See [`super::Accounts::open`].
    pub fn open(directory: &Path, ring: &str, newest: u64) -> (Self, Left) {
        let path = directory.join("accounts.json");
        // Damaged or not there: the time since then shows as not watched.
        let kept = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let is_same_ring = kept.as_ref().is_some_and(|kept| kept.ring == ring);
        let recorded_on = is_same_ring && kept.as_ref().is_some_and(|kept| !kept.detached);
        let began = match &kept {
            None => Began::First,
            Some(kept) if kept.ended && newest >= kept.batch => Began::Start,
            Some(_) => Began::Crash,
        };
        let is_damaged = kept.is_none() && newest > 0;
        let kept = kept.unwrap_or_default();
        let settled = if is_same_ring && newest >= kept.batch { kept.settled } else { Vec::new() };
        let (mut accounts, saved_at, roomless) = if newest >= kept.batch {
            (kept.after, kept.saved_at, kept.roomless_after)
        } else {
            (kept.before, kept.saved_before, kept.roomless_before)
        };
        // The counters of another ring are other counters, which begin at 0. Without the file it may be the same ring.
        let roomless = if is_same_ring || is_damaged { roomless } else { Some(Counted::default()) };
        let boot = |ring: &str| ring.split(':').next().map(str::to_owned);
        if boot(&kept.ring) != boot(ring) {
            // Process numbers are of another life.
            for account in &mut accounts {
                account.start_ticks = 0;
            }
        }
        let saved =
            Saved { batch: newest, at: saved_at, accounts: accounts.clone(), roomless: roomless.clone() };
        let saving = Saved::default();
        let file = Self { path, ring: ring.to_owned(), detached: false, ended: false, saved, saving };
        (file, Left { accounts, saved_at, roomless, recorded_on, began, settled })
    }

    /// See [`super::Accounts::save`].
    pub fn save(
        &mut self,
        number: u64,
        accounts: Vec<Account>,
        roomless: Option<&Counted>,
        settled: &[u32],
    ) -> Result<(), AccountError> {
        // A batch that is tried again tells of nothing that happened since.
        let at = if self.saving.batch == number { self.saving.at } else { Timestamp::now() };
        self.saving = Saved { batch: number, at, accounts, roomless: roomless.cloned() };
        let kept = Kept {
            ring: self.ring.clone(),
            detached: self.detached,
            ended: self.ended,
            saved_at: at,
            saved_before: self.saved.at,
            batch: number,
            before: self.saved.accounts.clone(),
            after: self.saving.accounts.clone(),
            roomless_before: self.saved.roomless.clone(),
            roomless_after: self.saving.roomless.clone(),
            settled: settled.to_vec(),
        };
        let partial = self.path.with_extension("partial");
        // Not synced: after a power failure neither processes nor counters are there any more.
        serde_json::to_vec(&kept)
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&partial, text))
            .and_then(|()| fs::rename(&partial, &self.path))
            .map_err(|source| AccountError { path: self.path.clone(), source })
    }

    /// The batch that the accounts were saved with is in the spool.
    pub fn confirm(&mut self) {
        self.saved = std::mem::take(&mut self.saving);
    }
}
