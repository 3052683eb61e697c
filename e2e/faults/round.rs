//! One round after the other: load, faults, healing, judgement.

use std::time::{Duration, Instant, SystemTime};

use anyhow::bail;
use tempfile::TempDir;
use whence_testkit::{DatabaseServer, MariaDb};

use crate::judge::{Blur, Judge, Judgement, verify};
use crate::load::Load;
use crate::schedule::{Fault, Kind};
use crate::stack::Stack;

const POLL: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(30);
/// So many commands are answered before the first fault.
const WARM: u64 = 50;
/// So often everything is verified, and else only what the round brought: it takes longer with every round.
const VERIFY_IN_FULL_EVERY: u64 = 25;

/// The rounds of one run.
pub struct Rounds {
    // Dropped in this order: the disks are unmounted before the directory is removed.
    stack: Stack,
    database: DatabaseServer,
    judge: Judge,
    mark: String,
    done: u64,
    findings: u64,
    directory: Option<TempDir>,
}

impl Rounds {
    pub fn start(seed: u64) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("whence-faults-").tempdir()?;
        let database = MariaDb::start()?;
        let stack = Stack::start(directory.path())?;
        // Whence records every server of this machine, those of another run of this test too.
        let mark = format!("faults {seed:x} of {}", std::process::id());
        let judge = Judge::new(&mark);
        Ok(Self { stack, database, judge, mark, done: 0, findings: 0, directory: Some(directory) })
    }

    pub fn done(&self) -> u64 {
        self.done
    }

    pub fn findings(&self) -> u64 {
        self.findings
    }

    /// Runs a round and prints what came of it. `closes_spans`: the collector is stopped at its end, so that its coverage
    /// can be judged.
    pub fn run(&mut self, faults: &[Fault], closes_spans: bool, is_last: bool) -> anyhow::Result<()> {
        self.done += 1;
        let began = (Instant::now(), SystemTime::now());
        let list = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let judged = self.round(faults, closes_spans || is_last, is_last, began.1);
        let judgement = judged.unwrap_or_else(|error| Judgement {
            findings: vec![format!("the round did not come to its end: {error:#}")],
            ..Judgement::default()
        });
        let Judgement { executed, stored, missing, in_gaps, open, findings } = judgement;
        println!(
            "round {}: {list}: {executed} executed, {open} open, {stored} stored, {missing} missing, {in_gaps} in gaps, {:.1} s",
            self.done,
            began.0.elapsed().as_secs_f64()
        );
        if findings.is_empty() {
            return Ok(());
        }
        for finding in findings.iter().take(10) {
            println!("FINDING in round {}: {finding}", self.done);
        }
        self.findings += 1;
        self.stack.keep()?;
        if let Some(directory) = self.directory.take() {
            println!("what is there is kept in {}", directory.keep().display());
        }
        Ok(())
    }

    fn round(
        &mut self,
        faults: &[Fault],
        closes_spans: bool,
        is_last: bool,
        began: SystemTime,
    ) -> anyhow::Result<Judgement> {
        let label = format!("{} round {}", self.mark, self.done);
        let port = self.database.port();
        let load = Load::start(port, &label);
        let until = Instant::now() + DEADLINE;
        while load.answered() < WARM {
            if Instant::now() > until {
                bail!("the database does not answer");
            }
            std::thread::sleep(POLL);
        }
        let disturbed = self.disturb(faults);
        // Healed in any case, or the clients would never end.
        let healed = self.heal();
        let mut ledger = load.stop()?;
        disturbed.and(healed)?;
        let is_stored = self.judge.fence(&self.stack, port, &label, &mut ledger)?;
        let has = |kinds: &[Kind]| faults.iter().any(|fault| kinds.contains(&fault.kind));
        let blur = Blur {
            connections: has(&[Kind::RestartDatabase, Kind::KillDatabase]),
            damage: has(&[Kind::DamageSpool]),
            refused: has(&[Kind::RefuseBatch]),
        };
        let mut judgement = self.judge.judge(&self.stack, &ledger, blur)?;
        if !is_stored {
            judgement.findings.push("what was executed last does not reach ClickHouse".into());
        }
        if closes_spans {
            self.stack.collector.stop()?;
            judgement.findings.extend(self.judge.judge_coverage(&self.stack)?);
            self.stack.start_collector()?;
        }
        let in_full = is_last || self.done.is_multiple_of(VERIFY_IN_FULL_EVERY);
        judgement.findings.extend(verify(&self.stack, (!in_full).then_some(began))?);
        Ok(judgement)
    }

    /// Lets every fault begin and end at its time.
    fn disturb(&mut self, faults: &[Fault]) -> anyhow::Result<()> {
        let began = Instant::now();
        let begins = faults.iter().map(|fault| (fault.begins, fault, true));
        let ends = faults.iter().map(|fault| (fault.ends, fault, false));
        let mut events: Vec<_> = begins.chain(ends).collect();
        events.sort_by_key(|(at, ..)| *at);
        for (at, fault, begins) in events {
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            if begins {
                fault.begin(&mut self.stack, &mut self.database)?;
            } else {
                fault.end(&mut self.stack, &mut self.database)?;
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> anyhow::Result<()> {
        if self.database.pid().is_none() {
            self.database.restart()?;
        }
        self.stack.heal()
    }
}
