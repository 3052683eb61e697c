//! The rules: which events are kept, and how much of their text may leave the host.
//!
//! What is known of an event goes in ([`Facts`]), what becomes of it comes out ([`Decision`]). The rules are asked in the
//! order of the configuration, and the first that matches decides. An event that no rule matches is kept.

pub mod kernel;
mod pattern;
mod rule;

use std::fmt;
use std::sync::Arc;

use whence_model::{Command, EventKind, Principal, StatementClass, Text};
use whence_sqltext::{Config, Mode};

pub use rule::{Action, Rule, RuleError};

use crate::settings::SqlMode;

/// The rules do not go together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error(
        "two rules are called {name:?}; give each a name of its own, by which what it leaves out is counted"
    )]
    SameName { name: Arc<str> },
    #[error(
        "rule {name:?} matches every event, so that {next:?} behind it never would; put it last, or narrow it"
    )]
    Unreachable { name: Arc<str>, next: Arc<str> },
}

/// What is known of an event when it is decided about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub kind: EventKind,
    pub principal: &'a Principal,
    pub database: Option<&'a str>,
    pub command: Option<Command>,
    /// None for what has no SQL.
    pub class: Option<StatementClass>,
}

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Keep {
        text: TextPolicy,
        /// Set where a rule keeps one of so many.
        sampled_one_in: Option<u32>,
    },
    /// It is left out, and counted by the name of this rule.
    Filter { rule: Arc<str> },
}

/// The rules and what holds without one.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    sql: SqlMode,
    sql_bytes: u32,
}

impl Policy {
    /// `sql` and `sql_bytes`: how much SQL text is kept where no rule says otherwise, and how many bytes at most.
    pub fn new(rules: Vec<Rule>, sql: SqlMode, sql_bytes: u32) -> Result<Self, PolicyError> {
        for (place, rule) in rules.iter().enumerate() {
            let behind = rules.get(place + 1..).unwrap_or_default();
            if behind.iter().any(|other| other.name == rule.name) {
                return Err(PolicyError::SameName { name: rule.name.clone() });
            }
            if let Some(next) = behind.first().filter(|_| rule.matches_all()) {
                return Err(PolicyError::Unreachable { name: rule.name.clone(), next: next.name.clone() });
            }
        }
        Ok(Self { rules, sql, sql_bytes })
    }

    /// Decides about an event. `sampled`: the kernel has chosen it already as one of so many.
    pub fn decide(&self, facts: &Facts<'_>, sampled: Option<u32>) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches(facts));
        let sampled_one_in = match rule.map(|rule| (rule, rule.action)) {
            Some((rule, Action::Skip)) => return Decision::Filter { rule: rule.name.clone() },
            // Each by itself and at random: a session that does much leaves a trace, and nobody can tell beforehand
            // which of its commands will. A choice by session would keep all of one long session, or nothing.
            Some((rule, Action::Sample { one_in })) if sampled.is_none() => {
                if !rand::random::<u32>().is_multiple_of(one_in) {
                    return Decision::Filter { rule: rule.name.clone() };
                }
                Some(one_in)
            }
            _ => sampled,
        };
        let mode = rule.and_then(|rule| rule.sql).unwrap_or(self.sql);
        Decision::Keep { text: TextPolicy::new(mode, self.sql_bytes), sampled_one_in }
    }
}

/// Everything is kept.
impl Default for Policy {
    fn default() -> Self {
        Self { rules: Vec::new(), sql: SqlMode::Full, sql_bytes: 64 << 10 }
    }
}

/// The rules in words, one to a line.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rules.is_empty() {
            writeln!(f, "rules, of which the first that matches decides:")?;
        }
        for (place, rule) in self.rules.iter().enumerate() {
            writeln!(f, "  {}. {rule}", place + 1)?;
        }
        let all = if self.rules.is_empty() { "every event" } else { "every other event" };
        write!(f, "{all} is kept, {}, at most {} bytes of it", self.sql.words(), self.sql_bytes)
    }
}

/// How much of an event's text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPolicy {
    mode: Mode,
    max_bytes: usize,
}

impl TextPolicy {
    fn new(mode: SqlMode, max_bytes: u32) -> Self {
        let mode = match mode {
            SqlMode::Full => Mode::Full,
            SqlMode::LiteralsMasked => Mode::LiteralsMasked,
            SqlMode::Fingerprint => Mode::Fingerprint,
            SqlMode::None => Mode::None,
        };
        Self { mode, max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX) }
    }

    /// Of a statement.
    pub fn sql(self) -> Config {
        Config { mode: self.mode, max_bytes: self.max_bytes }
    }

    /// What is kept of the server's error message, which may quote the statement: `message` is the beginning of what had
    /// `original_bytes` bytes.
    pub fn error_message(self, message: &[u8], original_bytes: u64) -> Option<Text> {
        let truncated = original_bytes > message.len() as u64;
        match self.mode {
            Mode::Full => Some(whence_sqltext::mask_message(message, truncated)),
            Mode::LiteralsMasked => Some(whence_sqltext::mask_quotes(message, truncated)),
            Mode::Fingerprint | Mode::None => None,
        }
    }
}

#[cfg(test)]
mod tests;
