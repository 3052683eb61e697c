//! Finding events among others, and reading what they tell.

use whence_model::{Command, Event, Outcome};

pub fn sql(event: &Event) -> &str {
    let statement = event.statement.as_ref().unwrap_or_else(|| panic!("no statement in {event:#?}"));
    &statement.sql.as_ref().unwrap().text
}

/// The command with this number, of which there is one.
pub fn only(events: &[Event], command: Command) -> &Event {
    let mut found = events.iter().filter(|event| event.command == Some(command));
    let first = found.next().unwrap_or_else(|| panic!("no {} in {events:#?}", command.name()));
    assert!(found.next().is_none(), "several {} in {events:#?}", command.name());
    first
}

pub fn query<'a>(events: &'a [Event], text: &str) -> &'a Event {
    events
        .iter()
        .find(|event| event.command == Some(Command::QUERY) && sql(event) == text)
        .unwrap_or_else(|| panic!("no {text} in {events:#?}"))
}

pub fn ok(event: &Event) -> (Option<u64>, Option<u64>) {
    match event.outcome {
        Some(Outcome::Ok { rows_sent, rows_affected }) => (rows_sent, rows_affected),
        _ => panic!("not good: {event:#?}"),
    }
}

pub fn error(event: &Event) -> (u32, &str, &str) {
    match &event.outcome {
        Some(Outcome::Error { code: Some(code), sqlstate: Some(state), message: Some(message) }) => {
            (*code, state, &message.text)
        }
        _ => panic!("no whole error: {event:#?}"),
    }
}
