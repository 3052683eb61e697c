//! One event.

use axum::extract::Path;
use whence_model::EventId;
use whence_store::Store;
use whence_store::row::EventRow;

use crate::audit::Action;
use crate::page::{EventPage, Shell};
use crate::problem::Problem;
use crate::text;
use crate::visitor::Visitor;

pub async fn page(visitor: Visitor, Path(id): Path<String>) -> Result<EventPage, Problem> {
    let row = read(&visitor, Action::Event, &id).await?;
    Ok(EventPage::new(Shell::new("Event", "history", &visitor), &row))
}

/// The event whose id is `text`.
pub async fn read(visitor: &Visitor, action: Action, id: &str) -> Result<EventRow, Problem> {
    let missing = || Problem::NoSuchEvent { id: text::excerpt(id, 64).0 };
    let query: String = id.chars().take(64).collect();
    let work = async {
        let id: EventId = id.parse().map_err(|_| missing())?;
        let row = find(&visitor.web.store, id).await?.ok_or_else(missing)?;
        Ok((row, 1))
    };
    visitor.read(action, &query, work).await
}

async fn find(store: &Store, id: EventId) -> Result<Option<EventRow>, Problem> {
    Ok(store.event(id).await?)
}
