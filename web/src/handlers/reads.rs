//! The audit of the audit, which is itself written to it.

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use whence_model::Timestamp;

use crate::audit::Action;
use crate::page::{ReadsPage, Shell};
use crate::people::Role;
use crate::problem::Problem;
use crate::query::Query;
use crate::visitor::Visitor;

/// Entries on the page.
const PAGE_ROWS: u32 = 500;

pub async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    visitor.require(Role::Admin, Action::Reads, &query.to_string()).await?;
    let mut problems = query.check(&["from", "to"]);
    let window = query.window(Timestamp::now()).map_err(|mut wrong| problems.append(&mut wrong)).ok();
    let window = window.filter(|_| problems.is_empty());
    let work = async {
        let Some(window) = window else {
            return Ok((Vec::new(), 0));
        };
        let entries = visitor.web.store.reads(window, PAGE_ROWS).await?;
        let rows = entries.len() as u64;
        Ok((entries, rows))
    };
    let entries = visitor.read(Action::Reads, &query.to_string(), work).await?;
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let shell = Shell::new("Reads of the audit", "reads", &visitor);
    Ok((status, ReadsPage::new(shell, &query, &entries, PAGE_ROWS, problems)).into_response())
}
