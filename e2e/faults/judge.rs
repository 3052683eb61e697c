//! Holds what ClickHouse has against what the clients know.

use std::collections::{BTreeSet, HashMap};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::audit::number;
use crate::load::{self, Ledger};
use crate::stack::Stack;

const DEADLINE: Duration = Duration::from_mins(5);
/// How long a gap may take to be told once everything before the fence is stored.
const GAP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(60);
const GAPS_A_BATCH: u64 = 8;
/// How much later a fence is tried again, should it be among what was lost.
const FENCE_AGAIN: Duration = Duration::from_secs(3);

/// What was found in one round.
#[derive(Debug, Default)]
pub struct Judgement {
    pub executed: usize,
    pub stored: usize,
    /// Executed, not stored, and counted in gaps.
    pub missing: u64,
    /// What gaps count of this server, and of no server in particular.
    pub in_gaps: u64,
    /// Commands of which the clients cannot know whether they were executed.
    pub open: usize,
    pub findings: Vec<String>,
}

/// What is known of the rounds before.
pub struct Judge {
    mark: String,
    /// Newest sequence number that a round before looked at.
    sequence: u64,
    instances: BTreeSet<String>,
    /// By how much more events and gaps are stored than coverage spans tell of: spans go with a batch that is damaged or
    /// refused.
    without_span: i64,
    spans_went: bool,
    /// Numbers without an event that no gap counts: gaps that were lost, and told again under their own reason.
    uncounted: u64,
    /// Numbers without a batch.
    without_batch: u64,
    /// Events of batches that were written when their answer was lost, some or all of a batch, and that were refused when they
    /// came again, or damaged before: they are stored, and the batch is counted as lost.
    also_stored: u64,
}

/// What a round may have lost without it being possible to say of which server, or to which number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blur {
    /// The database was restarted: connections broke, and nobody knows what ended how.
    pub connections: bool,
    /// The spool was damaged: what was in it is known by number only, and its spans are gone.
    pub damage: bool,
    /// A batch was refused, and its spans with it.
    pub refused: bool,
}

/// What is stored of a round.
struct Stored {
    markers: HashMap<String, (u64, String)>,
    /// Commands without a mark, connects and disconnects of this server.
    others: u64,
    own_gaps: u64,
    nobodys_gaps: u64,
}

impl Judge {
    pub fn new(mark: &str) -> Self {
        let (instances, mark) = (BTreeSet::new(), mark.to_owned());
        Self {
            mark,
            sequence: 0,
            instances,
            without_span: 0,
            spans_went: false,
            uncounted: 0,
            without_batch: 0,
            also_stored: 0,
        }
    }

    /// Waits until what happened up to now is stored. Adds the commands that it needs for it to the ledger.
    pub fn fence(&self, stack: &Stack, port: u16, label: &str, ledger: &mut Ledger) -> anyhow::Result<bool> {
        let until = Instant::now() + DEADLINE;
        let mut tries = 0;
        while Instant::now() < until {
            tries += 1;
            let fence = load::one(port, &format!("{label} fence {tries}"))?;
            ledger.connections += 1;
            ledger.ended += 1;
            ledger.executed.insert(fence.clone());
            let again = Instant::now() + FENCE_AGAIN;
            while Instant::now() < again {
                let sql = format!(
                    "SELECT count() FROM events WHERE sequence > {} AND sql_text = '{}'",
                    self.sequence,
                    fence.replace('\'', "\\'")
                );
                if number(&stack.ask(&sql)?, 0) > 0 {
                    return Ok(true);
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(false)
    }

    /// Judges a round whose commands are all stored, as far as they are.
    pub fn judge(&mut self, stack: &Stack, ledger: &Ledger, blur: Blur) -> anyhow::Result<Judgement> {
        let until = Instant::now() + GAP_DEADLINE;
        let (mut stored, mut missing);
        loop {
            stored = self.stored(stack)?;
            missing =
                ledger.executed.iter().filter(|marker| !stored.markers.contains_key(*marker)).count() as u64;
            let lacks_others = lacking_others(ledger, &stored, blur);
            if stored.own_gaps + stored.nobodys_gaps >= missing + lacks_others || Instant::now() > until {
                break;
            }
            std::thread::sleep(POLL);
        }
        let mut judgement = Judgement {
            executed: ledger.executed.len(),
            stored: stored.markers.len(),
            missing,
            in_gaps: stored.own_gaps + stored.nobodys_gaps,
            open: ledger.open.len(),
            findings: Vec::new(),
        };
        let findings = &mut judgement.findings;
        for (marker, (count, result)) in &stored.markers {
            if *count > 1 {
                findings.push(format!("stored {count} times: {marker}"));
            }
            match (ledger.executed.contains(marker), ledger.open.contains(marker)) {
                // A server can be killed between its answer and the end of the command.
                (true, _) if result == "unfinished" && blur.connections => {}
                (true, _) if result != "ok" => findings.push(format!("stored as {result}: {marker}")),
                (false, false) => findings.push(format!("stored and never sent: {marker}")),
                _ => {}
            }
        }
        let also_stored = stored_of_lost(stack)?;
        let newly = also_stored.saturating_sub(std::mem::replace(&mut self.also_stored, also_stored));
        let lacks_others = lacking_others(ledger, &stored, blur);
        let lost = missing + lacks_others;
        if judgement.in_gaps < lost {
            let in_gaps = judgement.in_gaps;
            findings.push(format!("{lost} lost ({missing} of them marked), {in_gaps} in gaps"));
            let example = ledger.executed.iter().find(|marker| !stored.markers.contains_key(*marker));
            findings.extend(example.map(|marker| format!("such as {marker}")));
        } else if !blur.connections && !blur.damage && stored.own_gaps > lost + newly {
            findings.push(format!("gaps say too much: {} of this server, {lost} lost", stored.own_gaps));
        }
        self.judge_numbers(stack, findings)?;
        self.spans_went |= blur.damage || blur.refused;
        Ok(judgement)
    }

    fn stored(&mut self, stack: &Stack) -> anyhow::Result<Stored> {
        let after = self.sequence;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sql = format!(
            "SELECT sql_text, count(), min(ifNull(result, '')), min(toString(instance_id)) FROM events
            WHERE sequence > {after} AND startsWith(ifNull(sql_text, ''), 'SELECT \\'{}') GROUP BY sql_text",
            self.mark
        );
        let mut markers = HashMap::new();
        for row in stack.ask(&sql)? {
            if let [marker, count, result, instance] = row.as_slice() {
                markers.insert(text(marker), (count.as_u64().unwrap_or(0), text(result)));
                self.instances.insert(text(instance));
            }
        }
        let ours = self.ours();
        let sql = format!(
            "SELECT countIf({ours} AND kind != 'gap' AND NOT startsWith(ifNull(sql_text, ''), 'SELECT \\'{}')),
                sumIf(ifNull(gap_events, 0), {ours} AND kind = 'gap'),
                sumIf(ifNull(gap_events, 0), product = 'Whence collector' AND kind = 'gap')
            FROM events WHERE sequence > {after}",
            self.mark
        );
        let rows = stack.ask(&sql)?;
        Ok(Stored {
            markers,
            others: number(&rows, 0),
            own_gaps: number(&rows, 1),
            nobodys_gaps: number(&rows, 2),
        })
    }

    fn ours(&self) -> String {
        let list = self.instances.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        if list.is_empty() { "false".into() } else { format!("toString(instance_id) IN ({list})") }
    }

    /// Every number that was given is stored once, or counted in a gap.
    fn judge_numbers(&mut self, stack: &Stack, findings: &mut Vec<String>) -> anyhow::Result<()> {
        let rows = stack.ask(&format!(
            "SELECT count(), uniqExact(sequence), max(sequence), uniqExact(collector_id),
                sumIf(ifNull(gap_events, 0), gap_reason IN ('spool_full', 'spool_corrupt', 'refused')),
                countIf(kind = 'gap' AND sequence > {})
            FROM events",
            self.sequence
        ))?;
        let [count, different, newest, collectors, given_up, gaps] =
            [0, 1, 2, 3, 4, 5].map(|column| number(&rows, column));
        if count != different || collectors != 1 {
            findings.push(format!("{count} events of {collectors} collectors have {different} numbers"));
        }
        let without_event = newest.saturating_sub(different);
        // A batch that was lost may have held a gap or two of each server.
        let rows = stack.ask("SELECT max(number) - uniqExact(number) FROM batches")?;
        let without_batch = number(&rows, 0);
        let new = (without_batch.saturating_sub(std::mem::replace(&mut self.without_batch, without_batch)))
            * GAPS_A_BATCH;
        let expected = given_up + self.uncounted;
        let allowed = expected.saturating_sub(self.also_stored)..=expected + gaps + new;
        if !allowed.contains(&without_event) {
            let before = self.uncounted;
            findings.push(format!(
                "{without_event} numbers have no event, gaps count {given_up} given up ({before} more in rounds before)"
            ));
        }
        self.uncounted = without_event.saturating_sub(given_up);
        self.sequence = newest;
        Ok(())
    }

    /// Holds the coverage spans, all of them closed, against the events.
    pub fn judge_coverage(&mut self, stack: &Stack) -> anyhow::Result<Vec<String>> {
        let ours = self.ours();
        let spans = stack.ask(&format!(
            "SELECT sum(seen), sum(stored), sum(filtered), sum(arraySum(mapValues(lost))) FROM coverage FINAL WHERE {ours}"
        ))?;
        let events = stack.ask(&format!(
            "SELECT countIf(kind != 'gap'), sumIf(ifNull(gap_events, 0), kind = 'gap') FROM events WHERE {ours}"
        ))?;
        let [seen, stored, filtered, lost] = [0, 1, 2, 3].map(|column| number(&spans, column));
        let told = number(&events, 0) + number(&events, 1);
        let mut findings = Vec::new();
        if seen != stored + filtered + lost {
            findings
                .push(format!("coverage: seen {seen}, stored {stored}, filtered {filtered}, lost {lost}"));
        }
        let without_span = told.cast_signed() - (stored + lost).cast_signed();
        if without_span != self.without_span && !std::mem::take(&mut self.spans_went) {
            let before = self.without_span;
            findings.push(format!(
                "coverage: spans tell of {stored} stored and {lost} lost, events and gaps are {told}: {without_span} more, \
                 {before} before"
            ));
        }
        self.without_span = without_span;
        Ok(findings)
    }
}

/// Events that are stored of batches in quarantine, or of batches that are not stored though later ones are.
fn stored_of_lost(stack: &Stack) -> anyhow::Result<u64> {
    let mut lost = vec![
        "batch_id NOT IN (SELECT batch_id FROM batches) AND sequence < (SELECT max(first_sequence) FROM batches)"
            .to_owned(),
    ];
    for file in std::fs::read_dir(stack.spool_disk.path().join("spool/quarantine"))? {
        // Another file is a note of one that was damaged.
        if let Ok(batch) = whence_wire::decode(&std::fs::read(file?.path())?, &whence_wire::Limits::default())
        {
            let (first, count) = (batch.manifest.first_sequence, batch.manifest.event_count);
            lost.push(format!("sequence >= {first} AND sequence - {first} < {count}"));
        }
    }
    Ok(number(&stack.ask(&format!("SELECT count() FROM events WHERE {}", lost.join(" OR ")))?, 0))
}

/// Connects, quits and disconnects that are not stored.
fn lacking_others(ledger: &Ledger, stored: &Stored, blur: Blur) -> u64 {
    const OF_A_CONNECTION: u64 = 3;
    if blur.connections || ledger.connections != ledger.ended {
        return 0;
    }
    (ledger.connections * OF_A_CONNECTION).saturating_sub(stored.others)
}

/// Runs `whence verify`, on what happened since `from` or on everything; what it says when it is not clean.
pub fn verify(stack: &Stack, from: Option<SystemTime>) -> anyhow::Result<Option<String>> {
    let mut command = Command::new(whence_e2e::whence::program()?);
    command.args(["verify", "--clickhouse-user=whence_migrate"]);
    command.arg(format!("--clickhouse-url={}", stack.audit.url));
    let password = stack.engine_disk.path().join("passwords/whence_migrate");
    command.arg(format!("--clickhouse-password-file={}", password.display()));
    if let Some(from) = from {
        let seconds = from.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let rows = [seconds - 2, seconds + 600].map(|seconds| {
            stack.ask(&format!("SELECT formatDateTime(toDateTime({seconds}, 'UTC'), '%Y-%m-%dT%H:%i:%SZ')"))
        });
        for (flag, rows) in ["--from", "--to"].into_iter().zip(rows) {
            let time =
                rows?.first().and_then(|row| row.first()?.as_str().map(str::to_owned)).unwrap_or_default();
            command.arg(format!("{flag}={time}"));
        }
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let findings: Vec<&str> = said.lines().filter(|line| !line.starts_with("note")).take(5).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    Ok(Some(format!("verify ended with {}: {} {}", output.status, findings.join("; "), errors.trim())))
}
