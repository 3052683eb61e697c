//! The filter in a query.

use whence_model::{EventKind, InstanceId, StatementClass, Timestamp};
use whence_store::read::{ClientFilter, Cursor, EventFilter, MAX_PAGE_ROWS, Window};

use super::{FieldProblem, Query};

/// Names of everything that narrows a search.
pub const FILTER_NAMES: &[&str] = &[
    "user",
    "client_host",
    "instance",
    "host",
    "database",
    "command",
    "class",
    "kind",
    "result",
    "text",
    "connection_id",
    "server_started_at",
    "from",
    "to",
];
/// Names of what a page of a search needs as well.
const PAGE_NAMES: &[&str] = &["limit", "cursor"];

/// How a query says "the anonymous account", whose name is empty: an empty value is as good as none.
const ANONYMOUS: &str = "''";
const RESULTS: &[&str] = &["ok", "error", "unfinished"];

/// What to look for, and which page of it.
#[derive(Clone, Debug)]
pub struct Search {
    pub filter: EventFilter,
    pub limit: u32,
    pub cursor: Option<Cursor>,
}

impl Search {
    /// Reads a query that may hold [`FILTER_NAMES`], `limit` and `cursor`.
    pub fn page(query: &Query, now: Timestamp, default_limit: u32) -> Result<Self, Vec<FieldProblem>> {
        Self::with_names(query, now, &[FILTER_NAMES, PAGE_NAMES].concat(), default_limit)
    }

    /// Reads a query that may hold [`FILTER_NAMES`] and no page.
    pub fn all(query: &Query, now: Timestamp) -> Result<EventFilter, Vec<FieldProblem>> {
        Ok(Self::with_names(query, now, FILTER_NAMES, 1)?.filter)
    }

    fn with_names(
        query: &Query,
        now: Timestamp,
        names: &[&str],
        limit: u32,
    ) -> Result<Self, Vec<FieldProblem>> {
        let mut problems = query.check(names);
        let window = query.window(now).unwrap_or_else(|mut wrong| {
            problems.append(&mut wrong);
            Window { from: now, to: now }
        });
        let filter = filter(query, window, &mut problems);
        let limit = parse(query, "limit", &mut problems, |text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_PAGE_ROWS).contains(limit));
            limit.ok_or_else(|| format!("{text:?} is no number from 1 to {MAX_PAGE_ROWS}"))
        })
        .unwrap_or(limit);
        let cursor = parse(query, "cursor", &mut problems, |text| text.parse().map_err(described));
        if problems.is_empty() { Ok(Self { filter, limit, cursor }) } else { Err(problems) }
    }
}

fn filter(query: &Query, window: Window, problems: &mut Vec<FieldProblem>) -> EventFilter {
    let users = query.all("user").map(|user| if user == ANONYMOUS { "" } else { user }.to_owned());
    let texts = |name| query.all(name).map(str::to_owned).collect();
    EventFilter {
        users: users.collect(),
        client: parse(query, "client_host", problems, |text| ClientFilter::parse(text).map_err(described)),
        instance: parse(query, "instance", problems, |text| text.parse::<InstanceId>().map_err(described)),
        host: query.only("host", problems).map(str::to_owned),
        database: query.only("database", problems).map(str::to_owned),
        commands: texts("command"),
        classes: named(query, "class", problems, &names(StatementClass::ALL, StatementClass::as_str)),
        kinds: named(query, "kind", problems, &names(EventKind::ALL, EventKind::as_str)),
        result: parse(query, "result", problems, |text| one_of(text, RESULTS)),
        text: query.only("text", problems).map(str::to_owned),
        connection_id: parse(query, "connection_id", problems, |text| {
            text.parse().map_err(|_| format!("{} is no connection number", shown(text)))
        }),
        server_started_at: parse(query, "server_started_at", problems, |text| {
            let at = chrono::DateTime::parse_from_rfc3339(text);
            at.map(|at| Timestamp::from(at.with_timezone(&chrono::Utc)))
                .map_err(|_| format!("{} is no time such as 2026-11-23T20:00:00Z", shown(text)))
        }),
        ..EventFilter::all(window)
    }
}

fn parse<T>(
    query: &Query,
    name: &str,
    problems: &mut Vec<FieldProblem>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = query.only(name, problems)?;
    read(text).map_err(|message| problems.push(FieldProblem::new(name, message))).ok()
}

/// The values of `name`, each of which must be one of `known`.
fn named(query: &Query, name: &str, problems: &mut Vec<FieldProblem>, known: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    for text in query.all(name) {
        match one_of(text, known) {
            Ok(value) => values.push(value),
            Err(message) => problems.push(FieldProblem::new(name, message)),
        }
    }
    values
}

fn one_of(text: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not one of {}", shown(text), known.join(", ")))
}

fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|value| name(*value)).collect()
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

fn described(error: impl std::error::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_435_200_000_000_000);

    fn read(raw: &str) -> Result<Search, Vec<FieldProblem>> {
        Search::page(&Query::parse(Some(raw)), NOW, 50)
    }

    #[test]
    fn every_name_reaches_its_field() {
        let search = read(
            "user=a&user=''&client_host=10.0.0.0/8&instance=0198c0de-0000-7000-8000-000000000000&host=h&database=d\
             &command=Query&class=read&class=ddl&kind=command&result=error&text=t&connection_id=7\
             &server_started_at=2026-11-23T10:00:00Z&limit=9",
        )
        .unwrap();
        let filter = search.filter;
        assert_eq!(filter.users, ["a", ""]);
        assert_eq!(filter.client, ClientFilter::parse("10.0.0.0/8").ok());
        assert!(filter.instance.is_some() && filter.server_started_at.is_some());
        assert_eq!((filter.host.as_deref(), filter.database.as_deref()), (Some("h"), Some("d")));
        assert_eq!(
            (filter.commands, filter.classes),
            (vec!["Query".into()], vec!["read".into(), "ddl".into()])
        );
        assert_eq!((filter.kinds, filter.result.as_deref()), (vec!["command".into()], Some("error")));
        assert_eq!((filter.text.as_deref(), filter.connection_id, search.limit), (Some("t"), Some(7), 9));
    }

    #[test]
    fn every_wrong_value_is_named() {
        for (raw, field) in [
            ("client_host=10.0.0.0/33", "client_host"),
            ("instance=db1", "instance"),
            ("class=reads", "class"),
            ("kind=login", "kind"),
            ("result=fine", "result"),
            ("connection_id=-1", "connection_id"),
            ("server_started_at=now", "server_started_at"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("cursor=zz", "cursor"),
            ("usr=a", "usr"),
            ("host=a&host=b", "host"),
        ] {
            let problems = read(raw).unwrap_err();
            assert_eq!(problems.len(), 1, "{raw}");
            assert_eq!(problems[0].field, field);
        }
        assert_eq!(read("class=x&from=y&limit=z").unwrap_err().len(), 3);
    }
}
