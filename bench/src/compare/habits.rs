//! What each record leaves out and adds.

use whence_model::{Event, EventKind};

use super::event::{
    UNKNOWN_STATEMENT, begins, code, is_error, is_mariadb_10_5, is_part, is_unknown, number, sql, trimmed,
    what,
};
use super::{Expected, Session, Side};
use crate::entry::What;

/// Errors that decide whether a record has the command.
const DENIED_DATABASE: u32 = 1044;
const NO_DATABASE: u32 = 1046;
const UNKNOWN_DATABASE: u32 = 1049;

impl Session<'_> {
    /// Why this record never has such an event.
    pub(super) fn never_written(&self, event: &Event) -> Option<&'static str> {
        let What::Command(command) = what(event) else {
            let is_end = self.side == Side::GeneralLog && event.kind == EventKind::Disconnect;
            return is_end.then_some("end of a connection: not logged");
        };
        match self.side {
            Side::Journal => None,
            Side::GeneralLog if is_unknown(event) => Some("command with an unknown number: not logged"),
            Side::GeneralLog => match (command, code(event)) {
                (number::PING, _) => Some("Ping: not logged"),
                (number::SET_OPTION, _) => Some("Set_option: not logged"),
                (number::RESET_CONNECTION, _) => Some("Reset_connection: not logged"),
                (number::INIT_DB, Some(code)) if code != DENIED_DATABASE => {
                    Some("Init_db to an unknown database: not logged")
                }
                (number::FIELD_LIST, Some(NO_DATABASE)) => Some("Field_list without a database: not logged"),
                (number::PREPARE, Some(_)) => Some("Prepare that failed: not logged"),
                (number::PROCESS_KILL, Some(_)) => Some("Process_kill that failed: not logged"),
                // Later ones log it before they know how it ends.
                (number::EXECUTE, Some(_)) if is_mariadb_10_5(event) => {
                    Some("Execute that failed: MariaDB 10.5 does not log it")
                }
                _ => None,
            },
            Side::ServerAudit => match command {
                number::QUERY | number::EXECUTE | number::CHANGE_USER => None,
                number::PREPARE if is_error(event) => None,
                number::PREPARE => Some("Prepare that went well: not logged"),
                _ => Some("command without SQL: not logged"),
            },
        }
    }

    /// Why this record may lack the event.
    pub(super) fn sometimes_not_written(&self, event: &Event) -> Option<&'static str> {
        match (self.side, what(event)) {
            (Side::GeneralLog, What::ConnectFailed) if code(event) == Some(UNKNOWN_DATABASE) => {
                Some("login to an unknown database: not logged")
            }
            // It logs the text of the statement that is executed, and knows none.
            (Side::ServerAudit, What::Command(number::QUERY))
                if code(event) == Some(UNKNOWN_STATEMENT)
                    && sql(event).is_some_and(|sql| begins(&sql.text, "execute")) =>
            {
                Some("EXECUTE of a statement that is not prepared: not logged")
            }
            _ => None,
        }
    }

    /// Why the entry is no event of its own beside the event `whole`.
    pub(super) fn added(&self, expected: &Expected<'_>, whole: &Event) -> Option<&'static str> {
        let entry = expected.entry;
        if self.side == Side::Journal {
            return None;
        }
        if self.side == Side::ServerAudit && entry.what == What::Disconnect {
            let is_refused = whole.kind == EventKind::ConnectFailed;
            return is_refused.then_some("end of a refused login: one event with the login");
        }
        let whole = trimmed(&sql(whole)?.text);
        let part = trimmed(&expected.sql.as_ref()?.text);
        match entry.what {
            What::Command(number::QUERY) if is_part(whole, part) => {
                Some("statement of several in one command: each is logged, one event")
            }
            What::Command(number::PREPARE) if begins(whole, "prepare") => {
                Some("statement within PREPARE: logged besides it")
            }
            // The type of a value has changed since.
            What::Command(number::PREPARE) if begins(whole, "execute") => {
                Some("statement within EXECUTE that the server prepared anew: logged besides it")
            }
            What::Command(number::EXECUTE) if begins(whole, "execute") => {
                Some("statement within EXECUTE: logged besides it")
            }
            What::Command(number::QUERY) if self.side == Side::ServerAudit && begins(whole, "call") => {
                Some("statement within CALL: logged besides it")
            }
            _ => None,
        }
    }
}
