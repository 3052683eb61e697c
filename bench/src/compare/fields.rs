//! Which fields of an event are not as the record says, and which the record cannot be asked for.

use whence_model::{Event, EventKind, Outcome};

use super::event::{is_error, is_execute_in_sql, is_part, number, sql, trimmed, what};
use super::{Expected, Findings, Session, Side};
use crate::entry::{Entry, What};

impl Session<'_> {
    /// Names of the fields that are not as the record says.
    pub(super) fn differences(
        &self,
        event: &Event,
        expected: &Expected<'_>,
        findings: &mut Findings,
    ) -> Vec<&'static str> {
        let mut differences = Vec::new();
        if self.side == Side::ServerAudit && self.is_behind_change_of_user(event) {
            findings
                .set_aside("user, host and database from a change of user on: it goes on with those before");
        } else {
            self.who(event, expected.entry, &mut differences, findings);
        }
        self.result(event, expected, &mut differences, findings);
        differences
    }

    fn who(
        &self,
        event: &Event,
        entry: &Entry,
        differences: &mut Vec<&'static str>,
        findings: &mut Findings,
    ) {
        let mut check = |is_wrong: bool, name| {
            if is_wrong {
                differences.push(name);
            }
        };
        let principal = &event.principal;
        check(differs(entry.login_user.as_ref(), principal.login_user.as_ref()), "login user");
        check(differs(entry.account.as_ref(), principal.user.as_ref()), "user");
        check(differs(entry.client_host.as_ref(), principal.client_host.as_ref()), "client host");
        let is_wrong_ip = entry.client_ip.is_some_and(|ip| principal.client_ip != ip);
        check(is_wrong_ip, "client address");
        match (entry.client_port, principal.client_port) {
            (Some(Some(_)), None) => findings.set_aside("client port: this server does not give it"),
            (Some(told), seen) => check(told != seen, "client port"),
            (None, _) => {}
        }
        let database = event.session.database.as_ref();
        if entry.database.as_ref().is_some_and(|told| told.as_ref() != database) {
            match self.other_database(event) {
                Some(reason) => findings.set_aside(reason),
                None => check(true, "database"),
            }
        }
    }

    fn result(
        &self,
        event: &Event,
        expected: &Expected<'_>,
        differences: &mut Vec<&'static str>,
        findings: &mut Findings,
    ) {
        let entry = expected.entry;
        let texts = expected.sql.as_ref().zip(sql(event));
        if texts.is_some_and(|(told, seen)| trimmed(&told.text) != trimmed(&seen.text))
            && what(event) == What::Command(number::EXECUTE)
        {
            findings.set_aside("values of an executed statement: compared by fingerprint");
        }
        if self.side == Side::ServerAudit && is_execute_in_sql(event) {
            findings.set_aside("SQL of EXECUTE: it has the statement within in its place");
        }
        let is_one_of_several = self.side != Side::Journal
            && texts.is_some_and(|(told, seen)| is_part(trimmed(&seen.text), trimmed(&told.text)));
        if is_one_of_several {
            findings.set_aside(
                "result of several statements in one command: it has each one's, the event the last",
            );
        } else if let Some(told) = entry.code.filter(|_| event.kind != EventKind::Disconnect) {
            let seen = match &event.outcome {
                Some(Outcome::Ok { .. }) => Some(0),
                Some(Outcome::Error { code, .. }) => *code,
                Some(Outcome::Unfinished) | None => None,
            };
            if seen != Some(told) {
                differences.push("result");
            }
        }
        let Some(Outcome::Ok { rows_sent, rows_affected }) = event.outcome else {
            return;
        };
        let differ = |seen: Option<u64>, told: Option<u64>| seen.is_some() && told.is_some() && seen != told;
        if differ(rows_sent, entry.rows_sent) {
            if rows_sent == Some(0) && sql(event).is_some_and(|sql| is_uncounted(&sql.text)) {
                findings.set_aside("rows of SHOW WARNINGS and CHECK TABLE: the server counts none");
            } else {
                differences.push("rows sent");
            }
        }
        if differ(rows_affected, entry.rows_affected) {
            differences.push("rows affected");
        }
    }

    /// Whether the session had changed its user when the event was, or changes it with this.
    fn is_behind_change_of_user(&self, event: &Event) -> bool {
        let mut before = self.events.iter().take_while(|before| before.sequence <= event.sequence);
        before.any(|before| before.kind == EventKind::ChangeUser && !is_error(before))
    }

    /// Why the database of this record may be another than that of the event.
    fn other_database(&self, event: &Event) -> Option<&'static str> {
        match (self.side, event.kind) {
            (Side::GeneralLog, EventKind::ConnectFailed) => {
                Some("database of a refused login: it has the one that was asked for")
            }
            (Side::ServerAudit, EventKind::Command) => {
                Some("database: it has that of a table used before, or the one behind USE")
            }
            _ => None,
        }
    }
}

/// Whether the server counts no rows for it, though it sends some.
fn is_uncounted(sql: &str) -> bool {
    ["SHOW WARNINGS", "CHECK TABLE"].iter().any(|words| sql.starts_with(words))
}

fn differs(told: Option<&String>, seen: Option<&String>) -> bool {
    told.is_some() && told != seen
}
