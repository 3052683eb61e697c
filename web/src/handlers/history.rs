//! Access history.

use std::time::Duration;

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use whence_model::Timestamp;
use whence_store::Store;
use whence_store::read::{Facets, InstanceRow, Window};

use crate::audit::Action;
use crate::page::{FilterForm, Found, HistoryPage, Results, ResultsPage, Shell};
use crate::people::Role;
use crate::problem::Problem;
use crate::query::{FieldProblem, Query, Search};
use crate::statement;
use crate::visitor::Visitor;

/// Events on a page.
const PAGE_ROWS: u32 = 50;
/// Bars of the drawing above them.
const BARS: u32 = 60;
/// Suggestions are a help, not worth more waiting.
const SUGGESTION_DEADLINE: Duration = Duration::from_secs(1);

pub async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    let store = &visitor.web.store;
    let asked = Search::page(&query, Timestamp::now(), PAGE_ROWS);
    let window = asked.as_ref().ok().map(|search| search.filter.window);
    let work = async {
        let (instances, suggested) = around_form(store, window).await?;
        let found = match asked {
            Ok(search) => match find(store, &search).await {
                Ok(found) => Ok((found, search)),
                Err(problem @ Problem::TooBig) => {
                    Err((problem.facts().0, vec![FieldProblem::new("window", problem.to_string())]))
                }
                Err(problem) => return Err(problem),
            },
            Err(problems) => Err((StatusCode::BAD_REQUEST, problems)),
        };
        let rows = found.as_ref().map_or(0, |(found, _)| found.page.rows.len() as u64);
        Ok(((instances, suggested, found), rows))
    };
    let (instances, suggested, found) = visitor.read(Action::Search, &query.to_string(), work).await?;
    let shell = Shell::new("Access history", "history", &visitor).with_silence(&visitor).await?;
    let form = |problems| FilterForm::new("/history", &query, &instances, suggested, problems);
    let (found, search) = match found {
        Ok(found) => found,
        Err((status, problems)) => {
            let page = HistoryPage { shell, form: form(problems), results: None, live: None };
            return Ok((status, page).into_response());
        }
    };
    let is_changing = query.first("to").is_empty() && query.first("cursor").is_empty();
    let may_export = visitor.role >= Role::Auditor;
    let page = HistoryPage {
        shell,
        form: form(Vec::new()),
        results: Some(Results::new(&found, &query, search.filter.window, may_export)),
        live: is_changing.then(|| format!("/history/results?{query}")),
    };
    Ok(page.into_response())
}

/// The part of the page that changes, for the live view.
pub async fn results(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<ResultsPage, Problem> {
    let query = Query::parse(raw.as_deref());
    let search = Search::page(&query, Timestamp::now(), PAGE_ROWS)?;
    let work = async {
        let found = find(&visitor.web.store, &search).await?;
        let rows = found.page.rows.len() as u64;
        Ok((found, rows))
    };
    let found = visitor.read(Action::Live, &query.to_string(), work).await?;
    let may_export = visitor.role >= Role::Auditor;
    Ok(ResultsPage { results: Results::new(&found, &query, search.filter.window, may_export) })
}

async fn find(store: &Store, search: &Search) -> Result<Found, Problem> {
    let filter = &search.filter;
    let (page, buckets, coverage) = tokio::try_join!(
        store.events_page(filter, search.limit, search.cursor),
        store.histogram(filter, BARS),
        store.coverage(filter.window, filter.instance),
    )?;
    Ok(Found { page, buckets, coverage: statement::meant(coverage, filter) })
}

/// The servers to choose from, and what occurs in the window.
pub async fn around_form(
    store: &Store,
    window: Option<Window>,
) -> Result<(Vec<InstanceRow>, Facets), Problem> {
    let suggested = async {
        let Some(window) = window else {
            return Facets::default();
        };
        match timeout(SUGGESTION_DEADLINE, store.facets(window)).await {
            Ok(Ok(facets)) => facets,
            Ok(Err(_)) | Err(_) => Facets::default(),
        }
    };
    let (instances, suggested) = tokio::join!(store.instances(), suggested);
    Ok((instances?, suggested))
}
