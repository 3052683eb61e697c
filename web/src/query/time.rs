//! Moments and windows as people type them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use whence_model::Timestamp;
use whence_store::read::Window;

use super::{FieldProblem, Query};

/// Windows that the pages offer: what stands in the URL, and its name.
pub const WINDOW_PRESETS: &[(&str, &str)] =
    &[("-15m", "15 min"), ("-1h", "1 h"), ("-24h", "24 h"), ("-7d", "7 days"), ("-30d", "30 days")];

const DAY_NS: i64 = 86_400_000_000_000;
const FORMATS: &[&str] =
    &["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
/// ClickHouse's `DateTime64(9)` begins with 1900, and nothing was audited before Unix time began.
const FIRST: Timestamp = Timestamp(0);
/// 2262-01-01, in the last year that nanoseconds in 64 bits reach.
const LAST: Timestamp = Timestamp(9_214_646_400_000_000_000);

/// A moment: RFC 3339, a UTC time without its zone, a date, or a time ago. A date as an end is the end of that day.
fn moment(text: &str, now: Timestamp, is_end: bool) -> Option<Timestamp> {
    let text = text.trim();
    if text == "now" {
        return Some(now);
    }
    if let Some(ago) = text.strip_prefix(['-', '−']) {
        return Some(now.plus_ns(-span_ns(ago)?));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(Timestamp::from(at.with_timezone(&Utc)));
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let start = Timestamp::from(date.and_time(NaiveTime::MIN).and_utc());
        return Some(if is_end { start.plus_ns(DAY_NS) } else { start });
    }
    let without_zone = text.strip_suffix(" UTC").unwrap_or(text);
    let parsed = FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(without_zone, format).ok());
    parsed.map(|at| Timestamp::from(at.and_utc()))
}

/// `15m`, `2h`, `7d` or `30s` in nanoseconds.
fn span_ns(text: &str) -> Option<i64> {
    let unit = text.chars().next_back()?;
    let number: i64 = text.strip_suffix(unit)?.parse().ok().filter(|number| *number >= 0)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds)?.checked_mul(1_000_000_000)
}

/// The window that `from` and `to` of a query mean. Without `to` it ends now; without `from` it is a day long.
pub fn window(query: &Query, now: Timestamp) -> Result<Window, Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut read = |name: &str, is_end| {
        let text = query.only(name, &mut problems)?;
        let at = moment(text, now, is_end).filter(|at| (FIRST..=LAST).contains(at));
        if at.is_none() {
            let shown: String = text.chars().take(64).collect();
            let message = format!(
                "{shown:?} is no time; give one such as 2026-11-23T20:00:00Z, 2026-11-23 20:00 (UTC), 2026-11-23, \
                 or a time ago such as -15m, -2h or -7d"
            );
            problems.push(FieldProblem::new(name, message));
        }
        at
    };
    let from = read("from", false);
    let to = read("to", true);
    if !problems.is_empty() {
        return Err(problems);
    }
    let to = to.unwrap_or(now);
    let window = Window { from: from.unwrap_or(to.plus_ns(-DAY_NS)), to };
    if window.from >= window.to {
        let message = format!("{} is not before the end, {}; give an earlier one", window.from, window.to);
        return Err(vec![FieldProblem::new("from", message)]);
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T12:00:00Z.
    const NOON: Timestamp = Timestamp(1_795_435_200_000_000_000);

    fn of(raw: &str) -> Result<(String, String), Vec<FieldProblem>> {
        let window = window(&Query::parse(Some(raw)), NOON)?;
        Ok((window.from.to_string(), window.to.to_string()))
    }

    #[test]
    fn windows_are_read_in_every_form() {
        let noon = "2026-11-23T12:00:00.000000000Z";
        let cases = [
            ("", "2026-11-22T12:00:00.000000000Z", noon),
            ("from=-15m", "2026-11-23T11:45:00.000000000Z", noon),
            ("from=-7d&to=-1d", "2026-11-16T12:00:00.000000000Z", "2026-11-22T12:00:00.000000000Z"),
            (
                "from=2026-11-20&to=2026-11-20",
                "2026-11-20T00:00:00.000000000Z",
                "2026-11-21T00:00:00.000000000Z",
            ),
            ("from=2026-11-20T22:00", "2026-11-20T22:00:00.000000000Z", noon),
            ("from=2026-11-20+22:00:01.5", "2026-11-20T22:00:01.500000000Z", noon),
            ("from=2026-11-23T12:00:00%2B02:00&to=now", "2026-11-23T10:00:00.000000000Z", noon),
        ];
        for (raw, from, to) in cases {
            assert_eq!(of(raw).unwrap(), (from.into(), to.into()), "{raw}");
        }
    }

    #[test]
    fn what_is_no_window_is_answered_with_what_is() {
        let wrong = [
            ("from=yesterday", "from"),
            ("to=2026-13-01", "to"),
            ("from=-1w", "from"),
            ("from=--1h", "from"),
            ("from=-99999999999999999999d", "from"),
            ("from=-9999999d", "from"),
            ("from=9999-01-01", "from"),
            ("from=1900-01-01", "from"),
            ("from=-1h&from=-2h", "from"),
            ("from=2026-11-23T12:00:00Z", "from"),
            ("from=-1h&to=-2h", "from"),
        ];
        for (raw, field) in wrong {
            let problems = of(raw).unwrap_err();
            assert_eq!(problems[0].field, field, "{raw}");
        }
        assert!(of("from=x").unwrap_err()[0].message.contains("such as 2026-11-23T20:00:00Z"));
    }
}
