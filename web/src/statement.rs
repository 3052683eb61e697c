//! What a page, a report or an answer says about the part of its window that nobody watched.

use std::collections::BTreeMap;

use serde::Serialize;
use whence_model::{Flaws, Timestamp};
use whence_store::read::{EventFilter, InstanceCoverage, Span, Window};

use crate::text;

/// The most servers that a statement names.
const MAX_NAMED: usize = 3;

/// How the window was watched, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// Whether every known server was watched (or known not to run) from the beginning to the end, and nothing was
    /// lost.
    pub complete: bool,
    pub sentences: Vec<String>,
    /// Events that were lost on all servers meant.
    pub lost_events: u64,
    /// Events that rules of the collectors left out, on all servers meant.
    pub filtered_events: u64,
}

/// The servers that a filter means.
pub fn meant(mut coverage: Vec<InstanceCoverage>, filter: &EventFilter) -> Vec<InstanceCoverage> {
    coverage.retain(|server| {
        filter.instance.is_none_or(|instance| instance == server.instance)
            && filter.host.as_ref().is_none_or(|host| *host == server.host)
    });
    coverage
}

/// States how these servers were watched in `window`.
pub fn state(coverage: &[InstanceCoverage], window: Window) -> Statement {
    let lost_events = coverage.iter().flat_map(|server| server.lost.values()).sum();
    let filtered_events = coverage.iter().map(|server| server.filtered).sum();
    if coverage.is_empty() {
        let sentences = vec!["No server was known in this window, so nothing was watched.".into()];
        return Statement { complete: false, sentences, lost_events, filtered_events };
    }
    let mut sentences = Vec::new();
    let unwatched = coverage.iter().filter(|server| !server.unwatched.is_empty()).map(|server| {
        let spans = server.unwatched.len();
        let in_spans = if spans == 1 { String::new() } else { format!(" in {spans} spans") };
        let length = text::long_duration(length_seconds(&server.unwatched));
        format!("{} for {length}{in_spans}", label(server))
    });
    sentences.extend(listed("Not watched:", unwatched.collect(), "server"));
    let unknown = coverage
        .iter()
        .filter(|server| server.first_known > window.from)
        .map(|server| format!("{} before {}", label(server), text::second(server.first_known)));
    sentences.extend(listed("Nothing is known of", unknown.collect(), "server"));
    if lost_events > 0 {
        let lost = text::counted(lost_events, "event was lost", "events were lost");
        sentences.push(format!("{lost} ({}).", reasons(coverage)));
    }
    let complete = sentences.is_empty();
    if complete {
        let servers = text::counted(coverage.len() as u64, "server", "servers");
        sentences.push(format!("All of this window was watched on {servers}, and no event was lost."));
    } else if lost_events == 0 {
        sentences.push("No event was lost in the parts that were watched.".into());
    }
    sentences.extend(filtered(coverage, filtered_events));
    Statement { complete, sentences, lost_events, filtered_events }
}

/// `1,500 events were seen and left out by rule: 1,400 pings, 100 batch reads.`
fn filtered(coverage: &[InstanceCoverage], events: u64) -> Option<String> {
    if events == 0 {
        return None;
    }
    let what =
        text::counted(events, "event was seen and left out by rule", "events were seen and left out by rule");
    let mut rules: Vec<_> =
        sums(coverage.iter().flat_map(|server| &server.filtered_by)).into_iter().collect();
    rules.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
    let more = rules.len().saturating_sub(MAX_NAMED);
    rules.truncate(MAX_NAMED);
    let mut rules: Vec<_> = rules
        .into_iter()
        .map(|(rule, events)| format!("{} {}", text::count(events), text::visible(rule)))
        .collect();
    if more > 0 {
        rules.push(format!("and by {}", text::counted(more as u64, "rule more", "rules more")));
    }
    Some(format!("{what}: {}.", rules.join(", ")))
}

/// The counts by name; those of 0 are left out.
fn sums<'a>(counts: impl Iterator<Item = (&'a String, &'a u64)>) -> BTreeMap<&'a str, u64> {
    let mut sums = BTreeMap::new();
    for (name, events) in counts.filter(|(_, events)| **events > 0) {
        *sums.entry(name.as_str()).or_default() += events;
    }
    sums
}

/// A sentence that lists these, the first of them by name; none when there are none. `one`: what one of them is.
pub fn listed(what: &str, mut items: Vec<String>, one: &str) -> Option<String> {
    let more = items.len().saturating_sub(MAX_NAMED);
    items.truncate(MAX_NAMED);
    if more > 0 {
        let (one, many) = (format!("{one} more"), format!("{one}s more"));
        items.push(format!("and {}", text::counted(more as u64, &one, &many)));
    }
    (!items.is_empty()).then(|| format!("{what} {}.", items.join(", ")))
}

/// `db1 MariaDB 127.0.0.1:3306`, of what is known.
pub fn label(server: &InstanceCoverage) -> String {
    server_label(&server.host, &server.product, server.server_ip, server.server_port)
}

/// A server's name for people.
pub fn server_label(host: &str, product: &str, ip: Option<std::net::Ipv6Addr>, port: Option<u16>) -> String {
    let ip = ip.map(|ip| std::net::IpAddr::V6(ip).to_canonical());
    let address = match (ip, port) {
        (Some(ip), Some(port)) => format!(" {}", std::net::SocketAddr::new(ip, port)),
        (None, Some(port)) => format!(" port {port}"),
        (Some(ip), None) => format!(" {ip}"),
        (None, None) => String::new(),
    };
    format!("{} {}{address}", text::visible(host), text::visible(product))
}

/// How long these spans are together, in whole seconds.
pub fn length_seconds(spans: &[Span]) -> u64 {
    let ns: i64 = spans.iter().map(|span| span.to.since_ns(span.from)).sum();
    u64::try_from(ns / 1_000_000_000).unwrap_or_default()
}

/// Why events were lost: `ring full`, or `5 ring full, 2 spool full`.
fn reasons(coverage: &[InstanceCoverage]) -> String {
    let reasons: Vec<_> = sums(coverage.iter().flat_map(|server| &server.lost)).into_iter().collect();
    if let [(reason, _)] = reasons.as_slice() {
        return text::words(reason);
    }
    let reasons =
        reasons.iter().map(|(reason, events)| format!("{} {}", text::count(*events), text::words(reason)));
    reasons.collect::<Vec<_>>().join(", ")
}

/// A server's coverage as the API gives it.
#[derive(Serialize)]
pub struct ServerCoverage<'a> {
    instance_id: String,
    host: &'a str,
    product: &'a str,
    version: Option<&'a str>,
    server_ip: Option<String>,
    server_port: Option<u16>,
    first_known: Timestamp,
    watched: Vec<SpanBody>,
    not_running: Vec<SpanBody>,
    unwatched: Vec<SpanBody>,
    seen: u64,
    stored: u64,
    filtered: u64,
    filtered_by: &'a BTreeMap<String, u64>,
    lost: &'a BTreeMap<String, u64>,
    flaws: Flaws,
    details: &'a [String],
}

#[derive(Serialize)]
struct SpanBody {
    from: Timestamp,
    to: Timestamp,
}

impl<'a> From<&'a InstanceCoverage> for ServerCoverage<'a> {
    fn from(server: &'a InstanceCoverage) -> Self {
        let spans =
            |spans: &[Span]| spans.iter().map(|span| SpanBody { from: span.from, to: span.to }).collect();
        Self {
            instance_id: server.instance.to_string(),
            host: &server.host,
            product: &server.product,
            version: server.version.as_deref(),
            server_ip: server.server_ip.map(|ip| std::net::IpAddr::V6(ip).to_canonical().to_string()),
            server_port: server.server_port,
            first_known: server.first_known,
            watched: spans(&server.watched),
            not_running: spans(&server.not_running),
            unwatched: spans(&server.unwatched),
            seen: server.seen,
            stored: server.stored,
            filtered: server.filtered,
            filtered_by: &server.filtered_by,
            lost: &server.lost,
            flaws: server.flaws,
            details: &server.details,
        }
    }
}

#[cfg(test)]
mod tests {
    use whence_model::{Flaws, InstanceId};

    use super::*;

    const WINDOW: Window = Window { from: Timestamp(0), to: Timestamp(3_600_000_000_000) };

    fn server(host: &str) -> InstanceCoverage {
        InstanceCoverage {
            instance: InstanceId::derive(host, "127.0.0.1:3306", "/data"),
            host: host.into(),
            product: "MariaDB".into(),
            version: None,
            server_ip: Some("::ffff:127.0.0.1".parse().unwrap()),
            server_port: Some(3306),
            first_known: WINDOW.from,
            watched: vec![Span { from: WINDOW.from, to: WINDOW.to }],
            not_running: vec![],
            unwatched: vec![],
            details: vec![],
            flaws: Flaws::default(),
            seen: 0,
            stored: 0,
            filtered: 0,
            filtered_by: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    #[test]
    fn a_window_that_was_watched_says_so() {
        let statement = state(&[server("db1"), server("db2")], WINDOW);
        assert!(statement.complete);
        let expected = ["All of this window was watched on 2 servers, and no event was lost."];
        assert_eq!(statement.sentences, expected);
    }

    #[test]
    fn what_was_not_watched_and_lost_is_said() {
        let mut gap = server("db1");
        gap.unwatched = vec![Span { from: Timestamp(0), to: Timestamp(62_000_000_000) }];
        gap.lost = BTreeMap::from([("ring_full".into(), 1500)]);
        let mut late = server("db2");
        late.first_known = Timestamp(1_000_000_000);
        let statement = state(&[gap, late], WINDOW);
        assert!(!statement.complete);
        assert_eq!(statement.lost_events, 1500);
        let expected = [
            "Not watched: db1 MariaDB 127.0.0.1:3306 for 1 min 2 s.",
            "Nothing is known of db2 MariaDB 127.0.0.1:3306 before 1970-01-01 00:00:01.",
            "1,500 events were lost (ring full).",
        ];
        assert_eq!(statement.sentences, expected);
        assert!(!state(&[], WINDOW).complete);
    }

    #[test]
    fn what_rules_left_out_is_said() {
        let mut quiet = server("db1");
        quiet.filtered = 1500;
        quiet.filtered_by = [("pings".into(), 1400), ("batch reads".into(), 100)].into();
        let statement = state(&[quiet], WINDOW);
        assert_eq!(statement.filtered_events, 1500);
        let expected = [
            "All of this window was watched on 1 server, and no event was lost.",
            "1,500 events were seen and left out by rule: 1,400 pings, 100 batch reads.",
        ];
        assert_eq!(statement.sentences, expected);
    }
}
