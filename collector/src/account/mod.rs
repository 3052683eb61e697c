//! The account of every server: in which span it was watched, how many of its events were stored, filtered and lost.
//!
//! Events counted and the kernel's counters go in; coverage spans and losses come out. The account is kept on disk, one
//! step ahead of the spool, so that a collector that was killed goes on with exactly what its spool holds: see
//! [`Accounts::save`].

mod entry;
mod file;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use whence_abi::record::Counters;
use whence_model::{
    Began, Coverage, CoverageState, Flaws, InstanceId, LossReason, Provider, Server, Timestamp,
};

use crate::discover::ProcessId;
use entry::{Account, Counted};
use file::{AccountError, File, Left};

/// Servers that do not run are told of for ever, but not more than so many: the last ones.
const MOST_AWAY: usize = 256;

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
    file: File,
    /// Servers that run, by process.
    running: HashMap<u32, Account>,
    /// Servers that do not.
    away: HashMap<InstanceId, Account>,
    /// What is told of the kernel's counters of processes that found no room of their own. None: nobody knows.
    roomless: Option<Counted>,
    former: Left,
    settled: Vec<u32>,
}

impl Accounts {
    /// Takes up the accounts in `directory`, as they were after batch `newest` of the spool.
    ///
    /// `ring` is the identity of the kernel's ring: with another one, nothing was recorded in the meantime.
    pub fn open(directory: &Path, ring: &str, newest: u64) -> Self {
        let (file, former) = File::open(directory, ring, newest);
        let roomless = former.roomless.clone();
        Self { file, running: HashMap::new(), away: HashMap::new(), roomless, former, settled: Vec::new() }
    }

    /// How this collector came to run.
    pub fn began(&self) -> Began {
        self.former.began
    }

    /// From when on the kernel recorded although no collector ran; None when it did not.
    pub fn recorded_since(&self) -> Option<Timestamp> {
        self.former.recorded_on.then_some(self.former.saved_at)
    }

    /// The processes that were watched when the collector before this one ended, may have been recorded since, and were
    /// not registered again.
    pub fn former_processes(&self) -> Vec<Former> {
        let watched = self.former.accounts.iter().filter(|_| self.former.recorded_on);
        let watched = watched.filter(|account| account.state == CoverageState::Watched);
        let former = watched.map(|account| Former {
            process: account.process(),
            provider: account.provider.unwrap_or(Provider::Functions),
            server: account.server.clone(),
        });
        former.collect()
    }

    /// Whether the collector before this one could not watch process `tgid`, or did not believe what was read of it.
    pub fn was_refused(&self, tgid: u32) -> bool {
        let mut former = self.former.accounts.iter();
        former
            .any(|account| account.server.process_id == tgid && account.state == CoverageState::Unattachable)
    }

    /// The server as it was known before, to this collector or the one before it, when `process` is the same.
    ///
    /// A process's start in UTC is rounded anew at each look; what was stored first stays.
    pub fn known_server(&self, process: ProcessId) -> Option<&Server> {
        let mut all = self.running.values().chain(&self.former.accounts);
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
        let is_it = |former: &Account| former.process() == process && former.state == CoverageState::Watched;
        if went_on
            && self.former.recorded_on
            && let Some(place) = self.former.accounts.iter().position(is_it)
        {
            let former = self.former.accounts.swap_remove(place);
            let ended = self.away.remove(&server.instance).and_then(|away| away.span(former.since));
            self.running.insert(process.tgid, former);
            return ended.into_iter().collect();
        }
        let mut account = Account::new(server, CoverageState::Watched, process.start_ticks, since);
        account.provider = Some(provider);
        self.begin(account)
    }

    /// Opens the account of a process that cannot be watched, for the reason in `detail`.
    pub fn refuse(
        &mut self,
        process: ProcessId,
        server: &Server,
        detail: &str,
        now: Timestamp,
    ) -> Vec<Coverage> {
        let mut account = Account::new(server, CoverageState::Unattachable, process.start_ticks, now);
        account.detail = Some(detail.to_owned());
        self.begin(account)
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
        let is_it = |former: &mut Account| former.process() == account.process();
        let before = self.former.accounts.extract_if(.., is_it);
        let mut spans: Vec<_> = before.filter_map(|former| former.span(self.former.saved_at)).collect();
        spans.extend(self.away.remove(&account.server.instance).and_then(|away| away.span(since)));
        let tgid = account.server.process_id;
        spans.extend(self.running.insert(tgid, account).and_then(|before| before.span(since)));
        spans
    }

    /// Process `tgid` has ended: its server is not running, unless it is as another process. `is_known`: it was seen
    /// running, so that its absence tells something.
    pub fn ended(&mut self, tgid: u32, is_known: bool, now: Timestamp) -> Option<Coverage> {
        let account = self.running.remove(&tgid)?;
        if is_known {
            self.put_away(&account.server, now);
        }
        account.span(now)
    }

    /// Everything that runs has been looked at: what the collector before this one knew and is not running, is not.
    pub fn looked_once(&mut self, now: Timestamp) -> Vec<Coverage> {
        let former = std::mem::take(&mut self.former.accounts);
        for account in &former {
            self.put_away(&account.server, now);
        }
        former.iter().filter_map(|account| account.span(self.former.saved_at)).collect()
    }

    /// This server is not running, unless it is as another process.
    fn put_away(&mut self, server: &Server, now: Timestamp) {
        let instance = server.instance;
        if self.running.values().any(|account| account.server.instance == instance) {
            return;
        }
        self.away.entry(instance).or_insert_with(|| Account::new(server, CoverageState::NotRunning, 0, now));
        if self.away.len() > MOST_AWAY {
            let oldest = self.away.values().min_by_key(|account| account.server.process_started_at);
            if let Some(oldest) = oldest.map(|account| account.server.instance) {
                self.away.remove(&oldest);
            }
        }
    }

    /// The open account of a process. Also that of one which the collector before this one knew and nobody has looked at
    /// yet: a collector that is told to stop reads what there is of it all the same.
    fn open_account(&mut self, tgid: u32) -> Option<&mut Account> {
        let former = self.former.accounts.iter_mut().find(|former| former.server.process_id == tgid);
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
        if let Some(account) = self.open_account(tgid) {
            account.count_filtered(rule);
        }
    }

    /// Takes in how many events of `tgid` the kernel has left out so far, by rule.
    pub fn count_filtered_in_kernel(&mut self, tgid: u32, counts: BTreeMap<String, u64>) {
        if let Some(account) = self.running.get_mut(&tgid) {
            account.count_filtered_in_kernel(counts);
        }
    }

    /// Takes in the kernel's counters of `tgid`; the answer is what was lost since they were taken in last, and what was
    /// not whole.
    pub fn count(&mut self, tgid: u32, counters: &Counters) -> (Vec<(LossReason, u64)>, Flaws) {
        self.running.get_mut(&tgid).map_or_else(Default::default, |account| account.count(counters))
    }

    /// The same of the processes that found no room of their own.
    pub fn count_roomless(&mut self, counters: &Counters) -> (Vec<(LossReason, u64)>, Flaws) {
        let is_known = self.roomless.is_some();
        let counted = self.roomless.get_or_insert_default().count(counters);
        if is_known { counted } else { Default::default() }
    }

    /// Ends every open span at `now` and begins the next.
    pub fn checkpoint(&mut self, now: Timestamp) -> Vec<Coverage> {
        let open = self.running.values_mut().chain(self.away.values_mut());
        open.filter_map(|account| account.checkpoint(now)).collect()
    }

    /// The clock was set, from `before` to `after`: ends every open span as if it had not been, and begins the next.
    pub fn clock_was_set(&mut self, before: Timestamp, after: Timestamp) -> Vec<Coverage> {
        let open = self.running.values_mut().chain(self.away.values_mut());
        open.filter_map(|account| account.clock_was_set(before, after)).collect()
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
        self.file.detached = true;
    }

    /// The collector stops, as it was told, with the batch to come.
    pub fn end(&mut self) {
        self.file.ended = true;
    }

    /// Keeps the accounts as they are with batch `number`; to be called before that batch goes to the spool, and
    /// [`Accounts::confirm`] after it. Whichever of the two files a crash leaves behind, [`Accounts::open`] finds the
    /// accounts that fit the spool.
    pub fn save(&mut self, number: u64) -> Result<(), AccountError> {
        let all = self.running.values().chain(self.away.values()).chain(&self.former.accounts);
        let all = all.cloned().collect();
        self.file.save(number, all, self.roomless.as_ref(), &self.settled)
    }

    /// The batch that the accounts were saved with is in the spool. The answer is the processes that it settles.
    pub fn confirm(&mut self) -> Vec<u32> {
        self.file.confirm();
        std::mem::take(&mut self.settled)
    }

    /// With the batch to come everything that the kernel has of process `tgid` is told: to be forgotten there when the
    /// batch is in the spool, or it would be told again.
    pub fn settle(&mut self, tgid: u32) {
        self.settled.push(tgid);
    }

    /// The processes that the newest batch in the spool settles, which the collector before this one may not have had
    /// forgotten any more.
    pub fn settled_before(&self) -> &[u32] {
        &self.former.settled
    }
}

#[cfg(test)]
mod tests;
