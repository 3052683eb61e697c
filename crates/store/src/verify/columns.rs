//! The columns of an event that are not in its hash: each follows from one that is, or must be empty.

use whence_model::{CollectorId, Command, EventId};

use super::event::StoredEvent;

/// What a column must be and what it is, for the first that is wrong. The hash does not hold these; what it holds
/// of a column that may be set is compared by the hash itself.
pub fn check(row: &StoredEvent) -> Option<(String, String)> {
    let id = EventId::derive(CollectorId(row.collector_id), row.sequence).0;
    if row.event_id != id {
        return Some((format!("event_id {id}"), row.event_id.to_string()));
    }
    if !is_name(row.command, row.command_code) {
        let name = row.command_code.map(|code| Command(code).name());
        return Some((format!("command {name:?}"), format!("{:?}", row.command)));
    }
    let column = out_of_place(row)?;
    Some((format!("{column} to be set with what it belongs to, and null without"), "otherwise".into()))
}

fn is_name(name: Option<&str>, code: Option<u32>) -> bool {
    let Some(code) = code else { return name.is_none() };
    let known = usize::try_from(code).ok().and_then(|code| Command::names().get(code).copied());
    // A name that is not in the list costs an allocation; it is rare.
    name.is_some_and(|name| known.map_or_else(|| Command(code).name() == name, |known| known == name))
}

/// The first column that holds a value where the hash takes none, or none where it makes one up.
fn out_of_place(row: &StoredEvent) -> Option<&'static str> {
    let has_statement = row.statement_class.is_some();
    let has_sql = row.sql_text.is_some();
    let is_ok = row.result == Some("ok");
    let is_error = row.result == Some("error");
    let has_message = row.error_message.is_some();
    let columns = [
        ("result", is_ok || is_error || matches!(row.result, None | Some("unfinished"))),
        ("sql_text", has_statement || !has_sql),
        ("fingerprint", has_statement || row.fingerprint.is_none()),
        ("tables", has_statement || row.tables.is_empty()),
        ("sql_original_bytes", has_sql == row.sql_original_bytes.is_some()),
        ("sql_truncated", has_sql == row.sql_truncated.is_some()),
        ("rows_sent", is_ok || row.rows_sent.is_none()),
        ("rows_affected", is_ok || row.rows_affected.is_none()),
        ("error_code", is_error || row.error_code.is_none()),
        ("sqlstate", is_error || row.sqlstate.is_none()),
        ("error_message", is_error || !has_message),
        ("error_message_original_bytes", has_message == row.error_message_original_bytes.is_some()),
        ("error_message_truncated", has_message == row.error_message_truncated.is_some()),
        ("gap_events", row.gap_reason.is_some() == row.gap_events.is_some()),
    ];
    columns.into_iter().find(|(_, fits)| !fits).map(|(column, _)| column)
}
