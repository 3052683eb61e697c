//! Coverage.

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use whence_model::Timestamp;

use crate::audit::Action;
use crate::page::{CoverageFound, CoveragePage, Shell};
use crate::problem::Problem;
use crate::query::Query;
use crate::visitor::Visitor;

pub async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    let store = &visitor.web.store;
    let now = Timestamp::now();
    let mut problems = query.check(&["from", "to"]);
    let window = query.window(now).map_err(|mut wrong| problems.append(&mut wrong)).ok();
    let window = window.filter(|_| problems.is_empty());
    let work = async {
        let collectors = visitor.web.heard().await?;
        let Some(window) = window else {
            return Ok(((collectors, None), 0));
        };
        let (coverage, instances, turns) =
            tokio::try_join!(store.coverage(window, None), store.instances(), store.collector_turns(window))?;
        let rows = coverage.len() as u64;
        Ok(((collectors, Some(CoverageFound { window, coverage, instances, turns })), rows))
    };
    let (collectors, found) = visitor.read(Action::Coverage, &query.to_string(), work).await?;
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let shell = Shell::new("Coverage", "coverage", &visitor).with_silence(&visitor).await?;
    let page = CoveragePage::new(shell, &query, found.as_ref(), &collectors, problems, now);
    Ok((status, page).into_response())
}
