//! The account of every server: in which span it was watched, how many of its events were stored, filtered and lost.
//!
//! Events counted and the kernel's counters go in; coverage spans and losses come out. The account is kept on disk, one
//! step ahead of the spool, so that a collector that was killed goes on with exactly what its spool holds: see
//! [`Accounts::save`].

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_abi::record::Counters;
use whence_model::{Began, Coverage, CoverageState, InstanceId, LossReason, Provider, Server, Timestamp};

use crate::discover::ProcessId;

/// Servers that do not run are told of for ever, but not more than so many: the last ones.
const MOST_AWAY: usize = 256;

/// The accounts cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct AccountError {
    path: PathBuf,
    source: io::Error,
}

/// What of the kernel's counters is in the account already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    ring_full: u64,
    table_full: u64,
    /// By the name of the rule.
    #[serde(default)]
    filtered: BTreeMap<String, u64>,
}

/// One server, whatever process it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    server: Server,
    state: CoverageState,
    provider: Option<Provider>,
    detail: Option<String>,
    /// Clock ticks from boot to the start of the process.
    start_ticks: u64,
    /// Start of the span that is open.
    since: Timestamp,
    /// In the open span.
    stored: u64,
    /// By the name of the rule.
    #[serde(default)]
    filtered: BTreeMap<String, u64>,
    lost: BTreeMap<LossReason, u64>,
    counted: Counted,
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
    saved_at: Timestamp,
    /// The batch in question.
    batch: u64,
    before: Vec<Account>,
    after: Vec<Account>,
}

/// A process that the collector before this one watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    pub process: ProcessId,
    pub provider: Provider,
    pub server: Server,
}

/// All accounts.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    ring: String,
    /// Servers that run, by process.
    running: HashMap<u32, Account>,
    /// Servers that do not.
    away: HashMap<InstanceId, Account>,
    /// What the collector before this one had open and nobody has looked at yet.
    former: Vec<Account>,
    former_saved_at: Timestamp,
    /// Whether the kernel may have gone on recording since the collector before this one ended.
    recorded_on: bool,
    began: Began,
    detached: bool,
    ended: bool,
    /// As of the newest batch in the spool …
    saved: Vec<Account>,
    /// … and as of the one that is on its way there.
    saving: Vec<Account>,
}

impl Accounts {
    /// Takes up the accounts in `directory`, as they were after batch `newest` of the spool.
    ///
    /// `ring` is the identity of the kernel's ring: with another one, nothing was recorded in the meantime.
    pub fn open(directory: &Path, ring: &str, newest: u64) -> Self {
        let path = directory.join("accounts.json");
        // Damaged or not there: the time since then shows as not watched.
        let kept = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let recorded_on = kept.as_ref().is_some_and(|kept| kept.ring == ring && !kept.detached);
        let began = match &kept {
            None => Began::First,
            Some(kept) if kept.ended && newest >= kept.batch => Began::Start,
            Some(_) => Began::Crash,
        };
        let kept = kept.unwrap_or_default();
        let mut former = if newest >= kept.batch { kept.after } else { kept.before };
        let boot = |ring: &str| ring.split(':').next().map(str::to_owned);
        if boot(&kept.ring) != boot(ring) {
            // Process numbers are of another life.
            for account in &mut former {
                account.start_ticks = 0;
            }
        }
        Self {
            path,
            ring: ring.to_owned(),
            running: HashMap::new(),
            away: HashMap::new(),
            saved: former.clone(),
            former,
            former_saved_at: kept.saved_at,
            recorded_on,
            began,
            detached: false,
            ended: false,
            saving: Vec::new(),
        }
    }

    /// How this collector came to run.
    pub fn began(&self) -> Began {
        self.began
    }

    /// From when on the kernel recorded although no collector ran; None when it did not.
    pub fn recorded_since(&self) -> Option<Timestamp> {
        self.recorded_on.then_some(self.former_saved_at)
    }

    /// The processes that were watched when the collector before this one ended, may have been recorded since, and were
    /// not registered again.
    pub fn former_processes(&self) -> Vec<Former> {
        let watched = self.former.iter().filter(|_| self.recorded_on);
        let watched = watched.filter(|account| account.state == CoverageState::Watched);
        let former = watched.map(|account| Former {
            process: account.process(),
            provider: account.provider.unwrap_or(Provider::Functions),
            server: account.server.clone(),
        });
        former.collect()
    }

    /// The server as it was known before, to this collector or the one before it, when `process` is the same.
    ///
    /// A process's start in UTC is rounded anew at each look; what was stored first stays.
    pub fn known_server(&self, process: ProcessId) -> Option<&Server> {
        let mut all = self.running.values().chain(&self.former);
        all.find(|account| account.process() == process).map(|account| &account.server)
    }

    /// Whether this process has an account that is open.
    pub fn is_open(&self, process: ProcessId) -> bool {
        self.running.get(&process.tgid).is_some_and(|account| account.process() == process)
    }

    /// Opens the account of a process that is watched from `since` on.
    ///
    /// `went_on`: its probes were pinned all the time since the collector before this one ended, so that its span goes on.
    /// The answer is the spans that this ends.
    pub fn watch(
        &mut self,
        process: ProcessId,
        server: &Server,
        provider: Provider,
        since: Timestamp,
        went_on: bool,
    ) -> Vec<Coverage> {
        if went_on
            && self.recorded_on
            && let Some(place) = self
                .former
                .iter()
                .position(|former| former.process() == process && former.state == CoverageState::Watched)
        {
            let former = self.former.swap_remove(place);
            let ended = self.away.remove(&server.instance).and_then(|away| away.span(former.since));
            self.running.insert(process.tgid, former);
            return ended.into_iter().collect();
        }
        let account = Account::new(server, CoverageState::Watched, process.start_ticks, since);
        self.begin(Account { provider: Some(provider), ..account })
    }

    /// Opens the account of a process that cannot be watched, for the reason in `detail`.
    pub fn refuse(
        &mut self,
        process: ProcessId,
        server: &Server,
        detail: &str,
        now: Timestamp,
    ) -> Vec<Coverage> {
        let account = Account::new(server, CoverageState::Unattachable, process.start_ticks, now);
        self.begin(Account { detail: Some(detail.to_owned()), ..account })
    }

    /// Closes the account of process `tgid`, of which what was read is not believed, for the reason in `detail`.
    pub fn refuse_running(&mut self, tgid: u32, detail: &str, now: Timestamp) -> Vec<Coverage> {
        let Some(account) = self.running.get(&tgid) else { return Vec::new() };
        let (process, server) = (account.process(), account.server.clone());
        self.refuse(process, &server, detail, now)
    }

    /// Events of `tgid` that reached the collector and are not believed.
    pub fn count_undecodable(&mut self, tgid: u32, events: u64) {
        if let Some(account) = self.running.get_mut(&tgid) {
            *account.lost.entry(LossReason::Undecodable).or_default() += events;
        }
    }

    fn begin(&mut self, account: Account) -> Vec<Coverage> {
        let since = account.since;
        let mut spans = Vec::new();
        while let Some(place) = self.former.iter().position(|former| former.process() == account.process()) {
            spans.extend(self.former.swap_remove(place).span(self.former_saved_at));
        }
        spans.extend(self.away.remove(&account.server.instance).and_then(|away| away.span(since)));
        let tgid = account.server.process_id;
        spans.extend(self.running.insert(tgid, account).and_then(|before| before.span(since)));
        spans
    }

    /// Process `tgid` has ended: its server is not running, unless it is as another process. `is_known`: it was seen
    /// running, so that its absence tells something.
    pub fn ended(&mut self, tgid: u32, is_known: bool, now: Timestamp) -> Option<Coverage> {
        let account = self.running.remove(&tgid)?;
        let instance = account.server.instance;
        if is_known && !self.is_running(instance) {
            self.away.insert(instance, Account::new(&account.server, CoverageState::NotRunning, 0, now));
            self.forget_oldest_away();
        }
        account.span(now)
    }

    /// Everything that runs has been looked at: what the collector before this one knew and is not running, is not.
    pub fn looked_once(&mut self, now: Timestamp) -> Vec<Coverage> {
        let mut spans = Vec::new();
        for former in std::mem::take(&mut self.former) {
            spans.extend(former.span(self.former_saved_at));
            let instance = former.server.instance;
            if !self.is_running(instance) {
                let away = || Account::new(&former.server, CoverageState::NotRunning, 0, now);
                self.away.entry(instance).or_insert_with(away);
            }
        }
        self.forget_oldest_away();
        spans
    }

    fn is_running(&self, instance: InstanceId) -> bool {
        self.running.values().any(|account| account.server.instance == instance)
    }

    fn forget_oldest_away(&mut self) {
        while self.away.len() > MOST_AWAY {
            let oldest = self.away.values().min_by_key(|account| account.server.process_started_at);
            let Some(oldest) = oldest.map(|account| account.server.instance) else { return };
            self.away.remove(&oldest);
        }
    }

    /// The open account of a process. Also that of one which the collector before this one knew and nobody has looked at
    /// yet: a collector that is told to stop reads what there is of it all the same.
    fn open_account(&mut self, tgid: u32) -> Option<&mut Account> {
        let former = self.former.iter_mut().find(|former| former.server.process_id == tgid);
        self.running.get_mut(&tgid).or(former)
    }

    /// One more event of `tgid` is in a batch.
    pub fn count_stored(&mut self, tgid: u32) {
        if let Some(account) = self.open_account(tgid) {
            account.stored += 1;
        }
    }

    /// One more event of `tgid` was left out by `rule`.
    pub fn count_filtered(&mut self, tgid: u32, rule: &str) {
        let Some(account) = self.open_account(tgid) else { return };
        match account.filtered.get_mut(rule) {
            Some(events) => *events += 1,
            None => _ = account.filtered.insert(rule.to_owned(), 1),
        }
    }

    /// Takes in how many events of `tgid` the kernel has left out so far, by rule.
    pub fn count_filtered_in_kernel(&mut self, tgid: u32, counts: BTreeMap<String, u64>) {
        let Some(account) = self.running.get_mut(&tgid) else { return };
        for (rule, events) in &counts {
            let before = account.counted.filtered.get(rule).copied().unwrap_or(0);
            let new = events.saturating_sub(before);
            if new > 0 {
                *account.filtered.entry(rule.clone()).or_default() += new;
            }
        }
        account.counted.filtered = counts;
    }

    /// Takes in the kernel's counters of `tgid`; the answer is what was lost since they were taken in last.
    pub fn count_lost(&mut self, tgid: u32, counters: &Counters) -> Vec<(LossReason, u64)> {
        let Some(account) = self.running.get_mut(&tgid) else { return Vec::new() };
        let before = Counters {
            ring_full: account.counted.ring_full,
            table_full: account.counted.table_full,
            ..Counters::default()
        };
        let losses = crate::decode::losses(&before, counters);
        account.counted.ring_full = counters.ring_full;
        account.counted.table_full = counters.table_full;
        for &(reason, events) in &losses {
            *account.lost.entry(reason).or_default() += events;
        }
        losses
    }

    /// Ends every open span at `now` and begins the next.
    pub fn checkpoint(&mut self, now: Timestamp) -> Vec<Coverage> {
        let close = |account: &mut Account| {
            let span = account.span(now);
            account.since = account.since.max(now);
            account.stored = 0;
            account.filtered.clear();
            account.lost.clear();
            span
        };
        self.running.values_mut().chain(self.away.values_mut()).filter_map(close).collect()
    }

    /// The processes that are watched.
    pub fn watched(&self) -> Vec<u32> {
        let watched = self.running.iter().filter(|(_, account)| account.state == CoverageState::Watched);
        watched.map(|(tgid, _)| *tgid).collect()
    }

    /// Every server with its state and why it is so, by product and port.
    pub fn servers(&self) -> Vec<(&Server, CoverageState, Option<&str>)> {
        let all = self.running.values().chain(self.away.values());
        let mut servers: Vec<_> =
            all.map(|account| (&account.server, account.state, account.detail.as_deref())).collect();
        servers.sort_by_key(|(server, ..)| (&server.product, server.port, server.instance));
        servers
    }

    /// The probes will be taken off: the next collector finds a hole. To be saved before they are.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// The collector stops, as it was told, with the batch to come.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Keeps the accounts as they are with batch `number`; to be called before that batch goes to the spool, and
    /// [`Accounts::confirm`] after it. Whichever of the two files a crash leaves behind, [`Accounts::open`] finds the
    /// accounts that fit the spool.
    pub fn save(&mut self, number: u64) -> Result<(), AccountError> {
        self.saving = self.running.values().chain(self.away.values()).chain(&self.former).cloned().collect();
        let kept = Kept {
            ring: self.ring.clone(),
            detached: self.detached,
            ended: self.ended,
            saved_at: Timestamp::now(),
            batch: number,
            before: self.saved.clone(),
            after: self.saving.clone(),
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

impl Account {
    fn new(server: &Server, state: CoverageState, start_ticks: u64, since: Timestamp) -> Self {
        Self {
            server: server.clone(),
            state,
            provider: None,
            detail: None,
            start_ticks,
            since,
            stored: 0,
            filtered: BTreeMap::new(),
            lost: BTreeMap::new(),
            counted: Counted::default(),
        }
    }

    fn process(&self) -> ProcessId {
        ProcessId { tgid: self.server.process_id, start_ticks: self.start_ticks }
    }

    /// The open span, as if it ended at `to`. None when it would be empty.
    fn span(&self, to: Timestamp) -> Option<Coverage> {
        let lost: u64 = self.lost.values().sum();
        let filtered: u64 = self.filtered.values().sum();
        let seen = self.stored + filtered + lost;
        if self.since >= to && seen == 0 {
            return None;
        }
        Some(Coverage {
            server: self.server.clone(),
            state: self.state,
            provider: self.provider,
            from: self.since,
            to: to.max(self.since),
            seen,
            stored: self.stored,
            filtered,
            filtered_by: self.filtered.clone(),
            lost: self.lost.clone(),
            detail: self.detail.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PROCESS: ProcessId = ProcessId { tgid: 7, start_ticks: 70 };

    fn server() -> Server {
        Server {
            host: "db1".into(),
            instance: InstanceId(Uuid::from_u128(1)),
            product: "MariaDB".into(),
            version: None,
            address: None,
            port: Some(3306),
            process_id: 7,
            process_started_at: Timestamp(1),
            container_id: None,
        }
    }

    fn open(directory: &Path, newest: u64) -> Accounts {
        Accounts::open(directory, "boot:1", newest)
    }

    fn watch(accounts: &mut Accounts, since: i64, went_on: bool) -> Vec<Coverage> {
        accounts.watch(PROCESS, &server(), Provider::Functions, Timestamp(since), went_on)
    }

    #[test]
    fn spans_follow_each_other_and_count_each_event_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        assert_eq!(watch(&mut accounts, 10, false), []);
        accounts.count_stored(7);
        let counters = Counters { seen: 3, submitted: 1, ring_full: 2, ..Counters::default() };
        assert_eq!(accounts.count_lost(7, &counters), [(LossReason::RingFull, 2)]);
        assert_eq!(accounts.count_lost(7, &counters), []);
        accounts.count_filtered(7, "pings");
        accounts.count_filtered(7, "pings");
        let first = accounts.checkpoint(Timestamp(20)).remove(0);
        assert_eq!((first.from, first.to), (Timestamp(10), Timestamp(20)));
        assert_eq!((first.seen, first.stored, first.filtered), (5, 1, 2));
        assert_eq!(first.filtered_by["pings"], 2);
        assert!(first.adds_up());
        let counts = |pings| BTreeMap::from([("pings".to_owned(), pings), ("other".to_owned(), 1)]);
        accounts.count_filtered_in_kernel(7, counts(40));
        accounts.count_filtered_in_kernel(7, counts(41));
        let kernel = accounts.checkpoint(Timestamp(25)).remove(0);
        assert_eq!((kernel.filtered_by, kernel.seen), (counts(41), 42));
        accounts.count_filtered_in_kernel(7, counts(41));
        let second = accounts.ended(7, true, Timestamp(30)).unwrap();
        assert_eq!((second.from, second.to, second.seen), (Timestamp(25), Timestamp(30), 0));
        let third = accounts.checkpoint(Timestamp(40)).remove(0);
        assert_eq!((third.state, third.from), (CoverageState::NotRunning, Timestamp(30)));
    }

    #[test]
    fn a_killed_collector_goes_on_with_what_its_spool_holds() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        watch(&mut accounts, 10, false);
        accounts.count_stored(7);
        accounts.save(1).unwrap();
        accounts.confirm();
        accounts.count_stored(7);
        // The second attempt, after a disk that was full.
        accounts.save(2).unwrap();
        accounts.save(2).unwrap();
        for (newest, stored) in [(1, 1), (2, 2)] {
            let mut next = open(directory.path(), newest);
            let former = Former { process: PROCESS, provider: Provider::Functions, server: server() };
            assert_eq!(next.former_processes(), [former]);
            assert!(!next.is_open(PROCESS));
            assert_eq!(watch(&mut next, 50, true), []);
            let span = next.checkpoint(Timestamp(60)).remove(0);
            assert_eq!((span.from, span.stored), (Timestamp(10), stored), "batch {newest} in the spool");
        }
    }

    #[test]
    fn what_is_read_before_anyone_looked_is_counted_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        watch(&mut accounts, 10, false);
        accounts.save(1).unwrap();
        // Started and told to stop at once: it reads the ring, and looks at no server.
        let mut next = open(directory.path(), 1);
        next.count_stored(7);
        next.save(2).unwrap();
        let mut third = open(directory.path(), 2);
        watch(&mut third, 50, true);
        let span = third.checkpoint(Timestamp(60)).remove(0);
        assert_eq!((span.from, span.stored), (Timestamp(10), 1));
    }

    #[test]
    fn probes_that_did_not_go_on_leave_a_hole() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        watch(&mut accounts, 10, false);
        accounts.save(1).unwrap();
        let mut next = open(directory.path(), 1);
        let before = watch(&mut next, i64::MAX - 1, false).remove(0);
        assert_eq!(before.from, Timestamp(10));
        assert!(before.to < Timestamp(i64::MAX - 1));
    }

    #[test]
    fn after_a_boot_no_process_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        watch(&mut accounts, 10, false);
        accounts.save(1).unwrap();
        let mut next = Accounts::open(directory.path(), "another boot:1", 1);
        assert_eq!(next.former_processes(), []);
        assert_eq!(next.known_server(PROCESS), None);
        assert_eq!(next.looked_once(Timestamp(i64::MAX)).len(), 1);
        let span = next.checkpoint(Timestamp(i64::MAX)).pop();
        assert_eq!(span, None);
    }

    #[test]
    fn a_server_that_restarted_meanwhile_does_not_hide_the_process_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        watch(&mut accounts, 10, false);
        accounts.save(1).unwrap();
        let mut next = open(directory.path(), 1);
        let successor = Server { process_id: 8, ..server() };
        let process = ProcessId { tgid: 8, start_ticks: 80 };
        assert_eq!(next.watch(process, &successor, Provider::Functions, Timestamp(50), true), []);
        let former = next.former_processes().remove(0);
        assert_eq!(former.process, PROCESS);
        watch(&mut next, 0, true);
        next.count_stored(7);
        let span = next.ended(7, true, Timestamp(60)).unwrap();
        assert_eq!((span.from, span.stored), (Timestamp(10), 1));
        assert_eq!(next.looked_once(Timestamp(60)), []);
        let states: Vec<_> =
            next.servers().iter().map(|(server, state, _)| (server.process_id, *state)).collect();
        assert_eq!(states, [(8, CoverageState::Watched)]);
    }

    #[test]
    fn servers_that_are_away_are_forgotten_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut accounts = open(directory.path(), 0);
        for number in 0..300 {
            let instance = InstanceId(Uuid::from_u128(number));
            accounts.watch(
                PROCESS,
                &Server { instance, ..server() },
                Provider::Functions,
                Timestamp(1),
                false,
            );
            accounts.ended(7, true, Timestamp(2));
        }
        assert_eq!(accounts.servers().len(), MOST_AWAY);
    }

    #[test]
    fn damaged_accounts_are_no_accounts() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("accounts.json"), "{").unwrap();
        assert_eq!(open(directory.path(), 5).former_processes(), []);
    }
}
