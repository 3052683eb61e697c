//! What is asked of an event again and again.

use whence_model::{Event, EventKind, Outcome, Text};

use crate::entry::What;

/// Numbers of commands that a record treats in its own way.
pub(super) mod number {
    pub const INIT_DB: u32 = 2;
    pub const QUERY: u32 = 3;
    pub const FIELD_LIST: u32 = 4;
    pub const PROCESS_KILL: u32 = 12;
    pub const PING: u32 = 14;
    pub const CHANGE_USER: u32 = 17;
    pub const PREPARE: u32 = 22;
    pub const EXECUTE: u32 = 23;
    pub const SET_OPTION: u32 = 27;
    pub const RESET_CONNECTION: u32 = 31;
}

/// Errors that decide whether a record has the command.
const UNKNOWN_COMMAND: u32 = 1047;
pub(super) const UNKNOWN_STATEMENT: u32 = 1243;

pub(super) fn what(event: &Event) -> What {
    match event.kind {
        EventKind::Connect => What::Connect,
        EventKind::ConnectFailed => What::ConnectFailed,
        EventKind::Disconnect | EventKind::Gap => What::Disconnect,
        EventKind::ChangeUser | EventKind::Command => {
            What::Command(event.command.map_or(u32::MAX, |command| command.0))
        }
    }
}

pub(super) fn sql(event: &Event) -> Option<&Text> {
    event.statement.as_ref().and_then(|statement| statement.sql.as_ref())
}

pub(super) fn begins(sql: &str, word: &str) -> bool {
    sql.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Whether it is the SQL statement EXECUTE, of a statement that there is.
pub(super) fn is_execute_in_sql(event: &Event) -> bool {
    what(event) == What::Command(number::QUERY)
        && code(event) != Some(UNKNOWN_STATEMENT)
        && sql(event).is_some_and(|sql| begins(&sql.text, "execute"))
}

/// The error's number.
pub(super) fn code(event: &Event) -> Option<u32> {
    match event.outcome {
        Some(Outcome::Error { code, .. }) => code,
        _ => None,
    }
}

pub(super) fn is_mariadb_10_5(event: &Event) -> bool {
    let version = event.server.version.as_deref();
    version.is_some_and(|version| version.starts_with("10.5.") && version.contains("MariaDB"))
}

pub(super) fn is_error(event: &Event) -> bool {
    matches!(event.outcome, Some(Outcome::Error { .. }))
}

/// Whether the server did not know the command's number. It then takes its own `COM_END` for it, which is another number
/// in every version.
pub(super) fn is_unknown(event: &Event) -> bool {
    code(event) == Some(UNKNOWN_COMMAND)
}

pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| {
        character.is_ascii_whitespace() || character == ';' || character == '\0'
    })
}

/// Whether `part` is one of several statements of `whole`.
pub(super) fn is_part(whole: &str, part: &str) -> bool {
    whole.len() > part.len() && whole.contains(';') && whole.contains(part)
}
