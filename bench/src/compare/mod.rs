//! Holds Whence's events against another record, session by session and in order.

mod event;
mod fields;
mod habits;

use std::collections::{BTreeMap, BTreeSet};

use whence_model::{Event, Outcome, Text};
use whence_sqltext::{Config, analyze};

use crate::align;
use crate::entry::{Entry, What, Wording};
use crate::load;
use crate::record::Sessions;
use event::{begins, is_error, is_execute_in_sql, is_unknown, number, sql, trimmed, what};

/// Most differences that are kept to be shown.
const EXAMPLES: usize = 20;

/// Whose record it is; each leaves out and adds other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's own journal: everything it sent, and what it was answered.
    Journal,
    GeneralLog,
    ServerAudit,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Journal => "client",
            Self::GeneralLog => "general_log",
            Self::ServerAudit => "server_audit",
        }
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Pairs of an event and an entry.
    pub compared: u64,
    pub missing: u64,
    /// Events by connection and position.
    pub extra: BTreeSet<(u64, usize)>,
    pub wrong: BTreeSet<(u64, usize)>,
    /// Missing entries by connection.
    pub missing_by_connection: BTreeMap<u64, u64>,
    /// What only one side can have, or no one can compare, by reason.
    pub set_aside: BTreeMap<String, u64>,
    pub examples: Vec<String>,
}

impl Findings {
    fn set_aside(&mut self, reason: &str) {
        *self.set_aside.entry(reason.to_owned()).or_default() += 1;
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// Holds `stored` against `record`. Connections below `first` were before the load.
pub fn compare(
    side: Side,
    stored: &BTreeMap<u64, Vec<Event>>,
    record: &Sessions,
    unrecorded: &BTreeSet<u64>,
    first: u64,
) -> Findings {
    let mut findings = Findings::default();
    let connections: BTreeSet<u64> = stored.keys().chain(record.keys()).copied().collect();
    for id in connections {
        let events = stored.get(&id).map(Vec::as_slice).unwrap_or_default();
        let entries = record.get(&id).map(Vec::as_slice).unwrap_or_default();
        if id < first {
            for () in events.iter().map(drop).chain(entries.iter().map(drop)) {
                findings.set_aside("before the load began");
            }
        } else if unrecorded.contains(&id) {
            for _ in events {
                findings.set_aside("of a program that keeps no journal");
            }
        } else {
            Session { side, id, events, entries }.compare(&mut findings);
        }
    }
    findings
}

struct Session<'a> {
    side: Side,
    id: u64,
    events: &'a [Event],
    entries: &'a [Entry],
}

/// An entry with its SQL as Whence would keep it.
struct Expected<'a> {
    entry: &'a Entry,
    sql: Option<Text>,
    fingerprint: Option<u64>,
}

impl<'a> Expected<'a> {
    fn new(entry: &'a Entry) -> Self {
        let config = Config::default();
        let analysis = entry.sql.as_ref().map(|sql| {
            let kept = sql.get(..config.max_bytes).unwrap_or(sql);
            analyze(kept, sql.len() as u64, &config)
        });
        let fingerprint = analysis.as_ref().and_then(|analysis| analysis.fingerprint);
        let mut sql = analysis.and_then(|analysis| analysis.text);
        if entry.wording == Wording::Masked
            && let Some(sql) = &mut sql
        {
            sql.text = sql.text.replace("*****", "'***'");
        }
        Self { entry, sql, fingerprint }
    }
}

impl Session<'_> {
    fn compare(&self, findings: &mut Findings) {
        let visible: Vec<(usize, &Event)> = self
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| match self.never_written(event) {
                Some(reason) => {
                    findings.set_aside(reason);
                    false
                }
                None => true,
            })
            .collect();
        let expected: Vec<Expected<'_>> = self.entries.iter().map(Expected::new).collect();
        let same = |left: usize, right: usize| self.is_same(visible[left].1, &expected[right]);
        let pairs = align::pairs(visible.len(), expected.len(), same);
        let (mut next_event, mut next_entry) = (0, 0);
        for (left, right) in pairs.into_iter().chain([(visible.len(), expected.len())]) {
            self.between(&visible, next_event..left, &expected, next_entry..right, findings);
            if let (Some((at, event)), Some(expected)) = (visible.get(left), expected.get(right)) {
                findings.compared += 1;
                let differences = self.differences(event, expected, findings);
                if !differences.is_empty() {
                    findings.wrong.insert((self.id, *at));
                    findings.example(|| {
                        format!("wrong {} of {}", differences.join(", "), self.show(event, expected))
                    });
                }
            }
            (next_event, next_entry) = (left + 1, right + 1);
        }
    }

    /// What found no partner between two pairs.
    fn between(
        &self,
        visible: &[(usize, &Event)],
        events: std::ops::Range<usize>,
        expected: &[Expected<'_>],
        entries: std::ops::Range<usize>,
        findings: &mut Findings,
    ) {
        // What the entry may be a part of: its server logs parts before or behind the whole.
        let around = [events.start.checked_sub(1), Some(events.end)];
        let around = around.map(|at| at.and_then(|at| visible.get(at)).map(|(_, event)| *event));
        let mut lonely = Vec::new();
        for (at, event) in visible.get(events).unwrap_or_default() {
            match self.sometimes_not_written(event) {
                Some(reason) => findings.set_aside(reason),
                None => lonely.push((*at, *event)),
            }
        }
        let mut unmet = Vec::new();
        for expected in expected.get(entries).unwrap_or_default() {
            match around.iter().flatten().find_map(|event| self.added(expected, event)) {
                Some(reason) => findings.set_aside(reason),
                None => unmet.push(expected),
            }
        }
        // The same command with another text is one wrong event, not one missing and one extra.
        while let Some(position) = lonely
            .iter()
            .position(|(_, event)| unmet.iter().any(|expected| what(event) == expected.entry.what))
        {
            let (at, event) = lonely.remove(position);
            if let Some(partner) = unmet.iter().position(|expected| what(event) == expected.entry.what) {
                let partner = unmet.remove(partner);
                findings.compared += 1;
                findings.wrong.insert((self.id, at));
                findings.example(|| format!("wrong SQL of {}", self.show(event, partner)));
            }
        }
        for (at, event) in lonely {
            findings.extra.insert((self.id, at));
            findings.example(|| format!("extra in connection {}: {}", self.id, seen(event)));
        }
        for expected in unmet {
            findings.missing += 1;
            *findings.missing_by_connection.entry(self.id).or_default() += 1;
            findings.example(|| format!("missing in connection {}: {:?}", self.id, Short(expected.entry)));
        }
    }

    fn show(&self, event: &Event, expected: &Expected<'_>) -> String {
        let (side, told) = (self.side.name(), Short(expected.entry));
        format!("connection {}: {}; {side} has {told:?}", self.id, seen(event))
    }

    fn is_same(&self, event: &Event, expected: &Expected<'_>) -> bool {
        let (seen, told) = (what(event), expected.entry.what);
        let is_prepared =
            told == What::Command(3) && matches!(seen, What::Command(number::PREPARE | number::EXECUTE));
        let same = seen == told
            // It logs an attempt before it knows how that ends, and does not always say.
            || self.side == Side::GeneralLog && seen == What::ConnectFailed && told == What::Connect
            // It calls every statement a query.
            || self.side == Side::ServerAudit && is_prepared
            || told == What::Command(load::UNKNOWN_COMMAND.into()) && is_unknown(event);
        same && match (&expected.sql, sql(event)) {
            (Some(told), Some(seen)) => self.is_same_sql(event, seen, told, expected),
            (Some(told), None) => told.text.is_empty(),
            (None, _) => true,
        }
    }

    fn is_same_sql(&self, event: &Event, seen: &Text, told: &Text, expected: &Expected<'_>) -> bool {
        if self.side == Side::Journal {
            if seen == told {
                return true;
            }
        } else {
            // A server drops white space and semicolons around a statement before it logs it.
            let (seen, told) = (trimmed(&seen.text), trimmed(&told.text));
            if seen == told || seen.strip_prefix(told).is_some_and(|rest| rest.trim_start().starts_with(';'))
            {
                return true;
            }
        }
        if self.side == Side::ServerAudit && is_execute_in_sql(event) {
            return self.is_within_execute(event, trimmed(&told.text));
        }
        let is_execution = what(event) == What::Command(number::EXECUTE);
        let fingerprint = event.statement.as_ref().and_then(|statement| statement.fingerprint);
        is_execution && fingerprint == expected.fingerprint
    }

    /// Whether `told` is what the session had prepared in SQL when the event executed it: the same around the first `?`.
    fn is_within_execute(&self, event: &Event, told: &str) -> bool {
        let before = self.events.iter().rev().skip_while(|before| before.sequence >= event.sequence);
        let mut prepared = before.filter(|before| !is_error(before)).filter_map(|before| {
            let text = sql(before).map(|sql| sql.text.as_str()).filter(|text| begins(text, "prepare"))?;
            text.split_once('\'')?.1.rsplit_once('\'').map(|(within, _)| within)
        });
        prepared.next().is_some_and(|within| match within.split_once('?') {
            Some((head, tail)) => told.starts_with(head) && told.ends_with(tail),
            None => told == within,
        })
    }
}

/// An entry, with no more of its SQL than a person reads.
struct Short<'a>(&'a Entry);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entry = self.0;
        let sql = entry.sql.as_ref().map(|sql| {
            let text = String::from_utf8_lossy(sql.get(..200).unwrap_or(sql)).into_owned();
            (text, sql.len())
        });
        let who = (&entry.login_user, &entry.account, &entry.client_host, &entry.client_ip);
        write!(f, "{:?} {who:?} database {:?} code {:?} ", entry.what, entry.database, entry.code)?;
        write!(f, "rows {:?} {:?} SQL {sql:?}", entry.rows_sent, entry.rows_affected)
    }
}

/// An event, with no more of its SQL than a person reads.
fn seen(event: &Event) -> String {
    let principal = &event.principal;
    let who = (&principal.login_user, &principal.user, &principal.client_host, &principal.client_ip);
    let text = sql(event).map(|sql| (sql.text.chars().take(200).collect::<String>(), sql.original_bytes));
    let outcome = match &event.outcome {
        Some(Outcome::Error { code, .. }) => format!("error {code:?}"),
        other => format!("{other:?}"),
    };
    format!("{:?} {who:?} database {:?} {outcome} SQL {text:?}", what(event), event.session.database)
}

#[cfg(test)]
mod tests {
    use whence_model::{Command, EventKind, Principal, Provider, Session as Place, Statement, Timestamp};

    use super::*;

    fn event(sequence: u64, text: &str, error: Option<u32>) -> Event {
        let analysis = analyze(text.as_bytes(), text.len() as u64, &Config::default());
        Event {
            collector: "0198c0de-0000-7000-8000-000000000000".parse().unwrap(),
            sequence,
            kind: EventKind::Command,
            provider: Provider::Functions,
            started_at: Timestamp(1),
            duration_ns: None,
            server: whence_testkit::sample::server().into(),
            principal: Principal { login_user: Some("app".into()), ..Principal::default() },
            session: Place { connection_id: Some(7), database: None },
            command: Some(Command(3)),
            statement: Some(Statement {
                class: analysis.class,
                sql: analysis.text,
                fingerprint: analysis.fingerprint,
                tables: analysis.tables,
            }),
            outcome: Some(match error {
                Some(code) => Outcome::Error { code: Some(code), sqlstate: None, message: None },
                None => Outcome::Ok { rows_sent: None, rows_affected: None },
            }),
            gap: None,
            sampled_one_in: None,
        }
    }

    fn entry(text: &str, code: u32) -> Entry {
        Entry {
            sql: Some(text.into()),
            login_user: Some("app".into()),
            code: Some(code),
            ..Entry::new(What::Command(3))
        }
    }

    /// Missing, extra, wrong and compared, against the client's journal.
    fn found(events: Vec<Event>, entries: Vec<Entry>) -> (u64, usize, usize, u64) {
        let stored = BTreeMap::from([(7, events)]);
        let record = Sessions::from([(7, entries)]);
        let findings = compare(Side::Journal, &stored, &record, &BTreeSet::new(), 0);
        (findings.missing, findings.extra.len(), findings.wrong.len(), findings.compared)
    }

    fn both() -> (Vec<Event>, Vec<Entry>) {
        let events =
            vec![event(1, "SELECT 1", None), event(2, "SELEC 2", Some(1064)), event(3, "SELECT 3", None)];
        (events, vec![entry("SELECT 1", 0), entry("SELEC 2", 1064), entry("SELECT 3", 0)])
    }

    #[test]
    fn the_same_is_the_same() {
        let (events, entries) = both();
        assert_eq!(found(events, entries), (0, 0, 0, 3));
    }

    #[test]
    fn what_is_lost_is_missing_and_what_was_not_sent_is_extra() {
        let (mut events, entries) = both();
        events.remove(1);
        assert_eq!(found(events, entries), (1, 0, 0, 2));
        let (events, mut entries) = both();
        entries.remove(0);
        assert_eq!(found(events, entries), (0, 1, 0, 2));
    }

    #[test]
    fn a_field_that_differs_is_wrong() {
        let (events, mut entries) = both();
        entries[0].login_user = Some("other".into());
        entries[1].code = Some(1146);
        entries[2].database = Some(Some("shop".into()));
        assert_eq!(found(events, entries), (0, 0, 3, 3));
    }

    #[test]
    fn another_text_and_another_order_are_wrong() {
        let (events, mut entries) = both();
        entries[0].sql = Some("SELECT 1 ".into());
        assert_eq!(found(events, entries), (0, 0, 1, 3));
        let (events, mut entries) = both();
        entries.swap(0, 1);
        assert_ne!(found(events, entries), (0, 0, 0, 3));
    }
}
