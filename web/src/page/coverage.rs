//! Coverage: which servers were watched when, what was lost, and which collectors watch.

use askama::Template;
use whence_model::{Began, Flaws, Timestamp};
use whence_store::read::{Heard, InstanceCoverage, InstanceRow, Span, Turn, Window};

use super::histogram::scale;
use super::{Link, Shell};
use crate::collectors;
use crate::query::{FieldProblem, Query};
use crate::statement::{self, Statement};
use crate::{page::filter_form, text};

/// Spans that are listed for one server.
const MAX_SPANS: usize = 50;
/// Units of a server's line in time.
const LINE_WIDTH: u64 = 10_000;

#[derive(Template)]
#[template(path = "coverage.html")]
pub struct CoveragePage {
    pub shell: Shell,
    from: String,
    to: String,
    presets: Vec<Link>,
    problems: Vec<FieldProblem>,
    window: Option<Watched>,
    collectors: Vec<Collector>,
}

struct Watched {
    from: String,
    to: String,
    statement: Statement,
    servers: Vec<Server>,
    turns: Vec<TurnText>,
}

/// A beginning or an end of a collector.
struct TurnText {
    at: String,
    host: String,
    what: &'static str,
    is_crash: bool,
}

struct Server {
    label: String,
    version: String,
    /// The beginning of its id.
    container: Option<String>,
    state: &'static str,
    state_text: String,
    detail: String,
    percent: String,
    unwatched: String,
    first_known: String,
    line_width: u64,
    line: Vec<LinePart>,
    spans: Vec<SpanText>,
    more_spans: usize,
    seen: String,
    stored: String,
    filtered: Vec<(String, String)>,
    lost: Vec<(String, String)>,
    /// How many of what is not whole.
    flaws: Vec<(String, &'static str)>,
    history: String,
}

struct LinePart {
    class: &'static str,
    x: u64,
    width: u64,
}

struct SpanText {
    from: String,
    to: String,
    length: String,
}

struct Collector {
    id: String,
    host: String,
    state: &'static str,
    last_seen: String,
    clock: String,
    enrolled: String,
    batches: String,
    events: String,
}

/// What the store answered.
pub struct Found {
    pub window: Window,
    pub coverage: Vec<InstanceCoverage>,
    pub instances: Vec<InstanceRow>,
    pub turns: Vec<Turn>,
}

impl CoveragePage {
    pub fn new(
        shell: Shell,
        query: &Query,
        found: Option<&Found>,
        collectors: &[Heard],
        problems: Vec<FieldProblem>,
        now: Timestamp,
    ) -> Self {
        Self {
            shell,
            from: query.first("from").into(),
            to: query.first("to").into(),
            presets: filter_form::presets("/coverage", query),
            problems,
            window: found.map(Watched::new),
            collectors: collectors.iter().map(|heard| Collector::new(heard, now)).collect(),
        }
    }
}

impl Watched {
    fn new(found: &Found) -> Self {
        let server = |coverage: &InstanceCoverage| {
            let now = found.instances.iter().find(|row| row.instance_id == coverage.instance.0);
            Server::new(coverage, now, found.window)
        };
        Self {
            from: text::second(found.window.from),
            to: text::second(found.window.to),
            statement: statement::state(&found.coverage, found.window),
            servers: found.coverage.iter().map(server).collect(),
            turns: found.turns.iter().map(TurnText::new).collect(),
        }
    }
}

impl Server {
    fn new(coverage: &InstanceCoverage, now: Option<&InstanceRow>, window: Window) -> Self {
        let watched = statement::length_seconds(&coverage.watched);
        let unwatched = statement::length_seconds(&coverage.unwatched);
        let state = now.map(|row| row.state.as_str()).unwrap_or_default();
        let (state, state_text) = match state {
            "watched" => ("ok", "watched"),
            "not_running" => ("none", "not running"),
            _ => ("error", "not watched"),
        };
        let is_all = coverage.unwatched.is_empty();
        let percent = scale(watched, 1000, watched + unwatched);
        Self {
            label: statement::label(coverage),
            version: text::visible(coverage.version.as_deref().unwrap_or("unknown version")).into_owned(),
            // As people know it from their container tools.
            container: now
                .and_then(|row| row.container_id.as_deref())
                .map(|id| text::visible(&id.chars().take(12).collect::<String>()).into_owned()),
            state,
            state_text: state_text.into(),
            detail: text::visible(&coverage.details.join("; ")).into_owned(),
            // Never rounded up to all.
            percent: match (is_all, percent) {
                (true, _) => "100 %".into(),
                (false, tenths) => format!("{}.{} %", tenths.min(999) / 10, tenths.min(999) % 10),
            },
            unwatched: if is_all { "none".into() } else { text::long_duration(unwatched) },
            first_known: text::second(coverage.first_known),
            line_width: LINE_WIDTH,
            line: line(coverage, window),
            spans: coverage.unwatched.iter().take(MAX_SPANS).map(SpanText::new).collect(),
            more_spans: coverage.unwatched.len().saturating_sub(MAX_SPANS),
            seen: text::count(coverage.seen),
            stored: text::count(coverage.stored),
            filtered: coverage
                .filtered_by
                .iter()
                .filter(|(_, events)| **events > 0)
                .map(|(rule, events)| (text::visible(rule).into_owned(), text::count(*events)))
                .collect(),
            lost: coverage
                .lost
                .iter()
                .filter(|(_, events)| **events > 0)
                .map(|(reason, events)| (text::words(reason), text::count(*events)))
                .collect(),
            flaws: flaws(coverage.flaws),
            history: format!(
                "/history?{}",
                Query::default().with("instance", coverage.instance.to_string()).over(window)
            ),
        }
    }
}

fn flaws(flaws: Flaws) -> Vec<(String, &'static str)> {
    let counted = [
        (flaws.fields_unreadable, "fields could not be read, and are missing in their events"),
        (flaws.texts_cut, "SQL texts cut for want of room, with a mark"),
        (flaws.ends_unmatched, "commands were under way when the watch began, and are not stored"),
    ];
    let counted = counted.into_iter().filter(|&(count, _)| count > 0);
    counted.map(|(count, what)| (text::count(count), what)).collect()
}

fn line(coverage: &InstanceCoverage, window: Window) -> Vec<LinePart> {
    let length = u64::try_from(window.to.since_ns(window.from)).unwrap_or_default();
    let place = |at: Timestamp| {
        let ns = u64::try_from(at.since_ns(window.from)).unwrap_or_default();
        scale(ns, LINE_WIDTH, length)
    };
    let part = |class, span: &Span| {
        let x = place(span.from);
        LinePart { class, x, width: place(span.to).saturating_sub(x).max(8) }
    };
    // The unwatched come last, on top.
    let watched = coverage.watched.iter().map(|span| part("watched", span));
    let not_running = coverage.not_running.iter().map(|span| part("not-running", span));
    let unwatched = coverage.unwatched.iter().map(|span| part("unwatched", span));
    watched.chain(not_running).chain(unwatched).collect()
}

impl SpanText {
    fn new(span: &Span) -> Self {
        Self {
            from: text::millisecond(span.from),
            to: text::millisecond(span.to),
            length: text::long_duration(statement::length_seconds(&[*span])),
        }
    }
}

impl TurnText {
    fn new(turn: &Turn) -> Self {
        Self {
            at: text::millisecond(turn.at),
            host: text::visible(&turn.host).into_owned(),
            what: match turn.began {
                Some(Began::First) => "started for the first time",
                Some(Began::Start) => "started",
                Some(Began::Crash) => "started after a crash",
                None => "stopped",
            },
            is_crash: turn.began == Some(Began::Crash),
        }
    }
}

impl Collector {
    fn new(heard: &Heard, now: Timestamp) -> Self {
        Self {
            id: heard.collector.collector_id.to_string(),
            host: text::visible(&heard.collector.host).into_owned(),
            state: heard.state(now).as_str(),
            last_seen: heard
                .last_seen
                .map_or_else(|| "never".into(), |at| format!("{} ago", collectors::ago(at, now))),
            clock: collectors::clock(heard.clock()),
            enrolled: text::second(heard.collector.enrolled_at),
            batches: text::count(heard.batches),
            events: text::count(heard.events),
        }
    }
}
