//! A rule: from the configuration's text, and in words.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum as _;
use whence_abi::filter::NAME_BYTES;
use whence_model::{Command, EventKind, Principal, StatementClass};

use super::Facts;
use super::pattern::{AccountPattern, ClientError, ClientPattern};
use crate::settings::SqlMode;

const KEYS: &[&str] =
    &["name", "account", "client", "database", "kind", "command", "class", "action", "one_in", "sql"];
const EXAMPLE: &str = r#"{ name = "pings", command = ["Ping"], action = "skip" }"#;

/// What becomes of the events that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Keep,
    /// They are left out, and counted.
    Skip,
    /// One of so many is kept and marked; the others are left out, and counted.
    Sample {
        one_in: u32,
    },
}

/// A rule. It matches an event that is like one item of every list that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: Arc<str>,
    pub(super) accounts: Vec<AccountPattern>,
    pub(super) clients: Vec<ClientPattern>,
    pub(super) databases: Vec<String>,
    kinds: Vec<EventKind>,
    pub(super) commands: Vec<Command>,
    pub(super) classes: Vec<StatementClass>,
    pub action: Action,
    /// How much SQL text is kept; None: as without the rule.
    pub sql: Option<SqlMode>,
}

/// The text is no rule; says which one, where in it, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("a rule is a TOML table such as {EXAMPLE}: {0}")]
    NotToml(Box<toml::de::Error>),
    #[error("a rule needs a `name` of 1 to {NAME_BYTES} bytes without control characters, such as \"pings\"")]
    Name,
    #[error("rule {rule:?}: unknown key `{key}`; known here: {}", KEYS.join(", "))]
    UnknownKey { rule: String, key: String },
    #[error("rule {rule:?}: `{key}` must be {expected}")]
    WrongType { rule: String, key: &'static str, expected: &'static str },
    #[error("rule {rule:?}: `{key}` must not be empty; leave it out where it does not matter")]
    Empty { rule: String, key: &'static str },
    #[error("rule {rule:?}: `{key}` does not know {value:?}; known: {known}")]
    UnknownValue { rule: String, key: &'static str, value: String, known: String },
    #[error("rule {rule:?}: `client` {value:?} {source}")]
    Client { rule: String, value: String, source: ClientError },
    #[error("rule {rule:?}: {problem}")]
    Contradiction { rule: String, problem: &'static str },
}

impl Rule {
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.is_of_kind(facts.kind)
            && is_one(&self.commands, |command| facts.command == Some(*command))
            && is_one(&self.classes, |class| facts.class == Some(*class))
            && is_one(&self.databases, |database| facts.database == Some(database))
            && self.is_of(facts.principal)
    }

    /// Whether it is about connections of this one.
    pub(super) fn is_of(&self, principal: &Principal) -> bool {
        is_one(&self.clients, |client| client.matches(principal))
            && is_one(&self.accounts, |account| account.matches(principal))
    }

    /// A login that failed is matched only where the rule names it: who tries a name does not hide behind its rule.
    pub(super) fn is_of_kind(&self, kind: EventKind) -> bool {
        if self.kinds.is_empty() { kind != EventKind::ConnectFailed } else { self.kinds.contains(&kind) }
    }

    /// Whether it matches whatever comes, but for failed logins.
    pub(super) fn matches_all(&self) -> bool {
        let Self { accounts, clients, databases, kinds, commands, classes, .. } = self;
        accounts.is_empty()
            && clients.is_empty()
            && databases.is_empty()
            && kinds.is_empty()
            && commands.is_empty()
            && classes.is_empty()
    }
}

/// Whether one of `list` `is` so, or nothing is asked for.
fn is_one<T>(list: &[T], is: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(is)
}

/// From a TOML table on one line.
impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let not_toml = |error| RuleError::NotToml(Box::new(error));
        let document: toml::Table = toml::from_str(&format!("rule = {text}")).map_err(not_toml)?;
        let Some(toml::Value::Table(table)) = document.get("rule") else {
            // It is TOML, but a number, say.
            return Err(RuleError::Name);
        };
        let name = table.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(RuleError::Name);
        }
        Reader { rule: name, table }.rule()
    }
}

/// Reads the table of the rule with this name.
struct Reader<'a> {
    rule: &'a str,
    table: &'a toml::Table,
}

impl Reader<'_> {
    fn rule(&self) -> Result<Rule, RuleError> {
        if let Some(key) = self.table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(RuleError::UnknownKey { rule: self.name(), key: key.clone() });
        }
        let commands = Command::names().iter().map(|name| (*name).to_owned());
        let commands = commands.chain((250..=253).map(|number| Command(number).name()));
        let kinds = EventKind::ALL.iter().filter(|kind| **kind != EventKind::Gap);
        let rule = Rule {
            name: self.rule.into(),
            accounts: self.texts("account")?.iter().map(|text| AccountPattern::new(text)).collect(),
            clients: self.clients()?,
            databases: self.texts("database")?,
            kinds: self.named(
                "kind",
                |text| EventKind::parse(text).filter(|kind| *kind != EventKind::Gap),
                kinds.map(ToString::to_string),
            )?,
            commands: self.named("command", Command::parse, commands)?,
            classes: self.named(
                "class",
                StatementClass::parse,
                StatementClass::ALL.iter().map(ToString::to_string),
            )?,
            action: self.action()?,
            sql: self.sql()?,
        };
        let is_of_commands = !rule.commands.is_empty() || !rule.classes.is_empty();
        let has_command = |kind: &EventKind| matches!(kind, EventKind::Command | EventKind::ChangeUser);
        if is_of_commands && !rule.kinds.is_empty() && !rule.kinds.iter().any(has_command) {
            return Err(self.contradiction("events of this `kind` have no `command` and no `class`"));
        }
        if rule.kinds == [EventKind::ConnectFailed] && !rule.accounts.is_empty() {
            return Err(self.contradiction(
                "a failed login is not of any `account`, whatever name was tried; narrow it by `client`",
            ));
        }
        Ok(rule)
    }

    fn name(&self) -> String {
        self.rule.to_owned()
    }

    fn contradiction(&self, problem: &'static str) -> RuleError {
        RuleError::Contradiction { rule: self.name(), problem }
    }

    fn text(&self, key: &'static str) -> Result<Option<&str>, RuleError> {
        let wrong = || RuleError::WrongType { rule: self.name(), key, expected: "a text" };
        self.table.get(key).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    /// A text, or a list of them.
    fn texts(&self, key: &'static str) -> Result<Vec<String>, RuleError> {
        let texts = match self.table.get(key) {
            None => return Ok(Vec::new()),
            Some(toml::Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(single) => single.as_str().map(|text| vec![text.to_owned()]),
        };
        let wrong = || RuleError::WrongType { rule: self.name(), key, expected: "a text or a list of texts" };
        let texts: Vec<String> = texts.ok_or_else(wrong)?;
        if texts.is_empty() { Err(RuleError::Empty { rule: self.name(), key }) } else { Ok(texts) }
    }

    fn named<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        known: impl Iterator<Item = String>,
    ) -> Result<Vec<T>, RuleError> {
        let texts = self.texts(key)?;
        let unknown = texts.iter().find(|text| parse(text).is_none()).cloned();
        match unknown {
            Some(value) => Err(self.unknown(key, value, known)),
            None => Ok(texts.iter().filter_map(|text| parse(text)).collect()),
        }
    }

    fn unknown(&self, key: &'static str, value: String, known: impl Iterator<Item = String>) -> RuleError {
        RuleError::UnknownValue { rule: self.name(), key, value, known: known.collect::<Vec<_>>().join(", ") }
    }

    fn clients(&self) -> Result<Vec<ClientPattern>, RuleError> {
        let texts = self.texts("client")?.into_iter();
        let client = |text: String| {
            text.parse().map_err(|source| RuleError::Client { rule: self.name(), value: text, source })
        };
        texts.map(client).collect()
    }

    fn action(&self) -> Result<Action, RuleError> {
        let one_in = match self.table.get("one_in") {
            None => None,
            Some(value) => {
                let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
                let expected = "a whole number from 2 to 4294967295";
                let wrong = || RuleError::WrongType { rule: self.name(), key: "one_in", expected };
                Some(number.filter(|number| *number >= 2).ok_or_else(wrong)?)
            }
        };
        match (self.text("action")?.unwrap_or("keep"), one_in) {
            ("keep" | "skip", Some(_)) => {
                Err(self.contradiction("`one_in` belongs to `action = \"sample\"`"))
            }
            ("keep", None) => Ok(Action::Keep),
            ("skip", None) if self.table.contains_key("sql") => {
                Err(self.contradiction("`sql` says what is kept, and `action = \"skip\"` keeps nothing"))
            }
            ("skip", None) => Ok(Action::Skip),
            ("sample", Some(one_in)) => Ok(Action::Sample { one_in }),
            ("sample", None) => {
                Err(self.contradiction("`action = \"sample\"` needs `one_in = N`, to keep one of N"))
            }
            (other, _) => {
                let known = ["keep", "skip", "sample"].map(str::to_owned).into_iter();
                Err(self.unknown("action", other.to_owned(), known))
            }
        }
    }

    fn sql(&self) -> Result<Option<SqlMode>, RuleError> {
        let Some(text) = self.text("sql")? else { return Ok(None) };
        let known = || SqlMode::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
        let mode = SqlMode::from_str(text, false);
        mode.map(Some).map_err(|_| {
            self.unknown("sql", text.to_owned(), known().map(|value| value.get_name().to_owned()))
        })
    }
}

/// `pings: command Ping, account app@% — left out and counted`
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut conditions = Vec::new();
        any_of(&mut conditions, "kind", &self.kinds);
        any_of(
            &mut conditions,
            "command",
            &self.commands.iter().map(|command| command.name()).collect::<Vec<_>>(),
        );
        any_of(&mut conditions, "class", &self.classes);
        any_of(&mut conditions, "account", &self.accounts);
        any_of(&mut conditions, "client", &self.clients);
        any_of(&mut conditions, "database", &self.databases);
        if conditions.is_empty() {
            conditions.push("everything but failed logins".into());
        }
        write!(f, "{}: {}: ", self.name, conditions.join(", "))?;
        match self.action {
            Action::Keep => f.write_str("kept")?,
            Action::Skip => f.write_str("left out and counted")?,
            Action::Sample { one_in } => {
                write!(f, "one in {one_in} kept and marked, the others left out and counted")?;
            }
        }
        self.sql.map_or(Ok(()), |sql| write!(f, ", {}", sql.words()))
    }
}

fn any_of<T: fmt::Display>(conditions: &mut Vec<String>, what: &str, list: &[T]) {
    if !list.is_empty() {
        let items: Vec<String> = list.iter().map(ToString::to_string).collect();
        conditions.push(format!("{what} {}", items.join(" or ")));
    }
}
