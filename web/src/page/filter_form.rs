//! The form that narrows a search, filled with what was asked.

use whence_model::{EventKind, StatementClass};
use whence_store::read::{Facets, InstanceRow};

use super::{Choice, Link};
use crate::query::{FieldProblem, Query, WINDOW_PRESETS};
use crate::{statement, text};

/// The form of the history and of the reports.
pub struct FilterForm {
    /// Where it leads.
    pub action: &'static str,
    pub users: Vec<String>,
    pub client_host: String,
    pub instances: Vec<Choice>,
    pub host: String,
    pub database: String,
    pub commands: Vec<String>,
    pub classes: Vec<Choice>,
    pub kinds: Vec<Choice>,
    pub results: Vec<Choice>,
    pub text: String,
    pub from: String,
    pub to: String,
    /// Fields without a control of their own, which the form keeps.
    pub kept: Vec<(&'static str, String)>,
    pub presets: Vec<Link>,
    /// Whether a field of the folded part is used.
    pub is_unfolded: bool,
    pub problems: Vec<FieldProblem>,
    pub suggested: Facets,
}

impl FilterForm {
    pub fn new(
        action: &'static str,
        query: &Query,
        instances: &[InstanceRow],
        suggested: Facets,
        problems: Vec<FieldProblem>,
    ) -> Self {
        let first = |name: &str| query.first(name).to_owned();
        let kept = ["connection_id", "server_started_at", "limit"].map(|name| (name, first(name)));
        let folded = ["host", "database", "command", "class", "kind", "result"];
        Self {
            action,
            users: at_least_one(query, "user"),
            client_host: first("client_host"),
            instances: instance_choices(instances, query.first("instance")),
            host: first("host"),
            database: first("database"),
            commands: at_least_one(query, "command"),
            classes: choices(StatementClass::ALL.iter().map(|class| class.as_str()), query, "class"),
            kinds: choices(EventKind::ALL.iter().map(|kind| kind.as_str()), query, "kind"),
            results: choices(["ok", "error", "unfinished"].into_iter(), query, "result"),
            text: first("text"),
            from: first("from"),
            to: first("to"),
            kept: kept.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            presets: presets(action, query),
            is_unfolded: folded.iter().any(|name| !query.first(name).is_empty()),
            problems,
            suggested,
        }
    }

    /// What is wrong with the field `name`, if anything.
    pub fn problem(&self, name: &str) -> Option<&str> {
        self.problems.iter().find(|problem| problem.field == name).map(|problem| problem.message.as_str())
    }
}

/// Links to the same question over other windows.
pub fn presets(action: &str, query: &Query) -> Vec<Link> {
    let is_now = query.first("to").is_empty();
    let chosen = match query.first("from") {
        "" => "-24h",
        from => from,
    };
    let preset = |(value, label): &(&str, &str)| {
        let query = query.without(&["from", "to", "cursor"]).with("from", *value);
        Link {
            href: format!("{action}?{query}"),
            label: (*label).into(),
            current: is_now && chosen == *value,
        }
    };
    WINDOW_PRESETS.iter().map(preset).collect()
}

fn at_least_one(query: &Query, name: &str) -> Vec<String> {
    let mut values: Vec<String> = query.all(name).map(str::to_owned).collect();
    if values.is_empty() {
        values.push(String::new());
    }
    values
}

fn choices<'a>(all: impl Iterator<Item = &'a str>, query: &Query, name: &str) -> Vec<Choice> {
    let choice = |value: &str| Choice {
        value: value.into(),
        label: text::words(value),
        chosen: query.all(name).any(|chosen| chosen == value),
    };
    all.map(choice).collect()
}

/// The servers by name, the chosen one among them even when it is not known.
fn instance_choices(instances: &[InstanceRow], chosen: &str) -> Vec<Choice> {
    let choice = |server: &InstanceRow| {
        let value = server.instance_id.to_string();
        let label =
            statement::server_label(&server.host, &server.product, server.server_ip, server.server_port);
        Choice { chosen: value == chosen, value, label }
    };
    let mut choices: Vec<Choice> = instances.iter().map(choice).collect();
    if !chosen.is_empty() && !choices.iter().any(|choice| choice.chosen) {
        choices.push(Choice {
            value: chosen.into(),
            label: text::visible(chosen).into_owned(),
            chosen: true,
        });
    }
    choices
}
