//! The audit of the audit: who read what.

use askama::Template;
use whence_store::ReadRow;

use super::{Link, Shell};
use crate::page::filter_form;
use crate::query::{FieldProblem, Query};
use crate::text;

#[derive(Template)]
#[template(path = "reads.html")]
pub struct ReadsPage {
    pub shell: Shell,
    from: String,
    to: String,
    presets: Vec<Link>,
    problems: Vec<FieldProblem>,
    entries: Vec<Entry>,
    /// Whether there are older ones than those shown.
    is_full: bool,
}

struct Entry {
    at: String,
    person: String,
    address: String,
    action: String,
    query: String,
    rows: String,
    result: String,
    tone: &'static str,
}

impl ReadsPage {
    pub fn new(
        shell: Shell,
        query: &Query,
        entries: &[ReadRow],
        limit: u32,
        problems: Vec<FieldProblem>,
    ) -> Self {
        Self {
            shell,
            from: query.first("from").into(),
            to: query.first("to").into(),
            presets: filter_form::presets("/reads", query),
            problems,
            entries: entries.iter().map(Entry::new).collect(),
            is_full: entries.len() >= limit as usize,
        }
    }
}

impl Entry {
    fn new(row: &ReadRow) -> Self {
        Self {
            at: text::millisecond(row.at),
            person: text::visible(&row.person).into_owned(),
            address: text::visible(&row.address).into_owned(),
            action: text::words(&row.action),
            query: text::visible(&row.query).into_owned(),
            rows: row.rows.map(text::count).unwrap_or_default(),
            result: text::words(&row.result),
            tone: match row.result.as_str() {
                "ok" => "ok",
                "started" => "none",
                _ => "error",
            },
        }
    }
}
