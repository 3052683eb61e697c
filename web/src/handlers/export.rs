//! Exports: the same filters as the history, all events, as a file.

use axum::extract::RawQuery;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use whence_model::Timestamp;

use crate::audit::Action;
use crate::export::{self, Format};
use crate::people::Role;
use crate::problem::Problem;
use crate::query::{Query, Search};
use crate::visitor::Visitor;

pub async fn csv(visitor: Visitor, raw: RawQuery) -> Result<Response, Problem> {
    export(visitor, raw, Format::Csv).await
}

pub async fn ndjson(visitor: Visitor, raw: RawQuery) -> Result<Response, Problem> {
    export(visitor, raw, Format::Ndjson).await
}

async fn export(visitor: Visitor, RawQuery(raw): RawQuery, format: Format) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    visitor.require(Role::Auditor, Action::Export, &query.to_string()).await?;
    let filter = Search::all(&query, Timestamp::now())?;
    let file_name = format.file_name(&filter);
    let body = export::begin(visitor, format, filter, query.to_string()).await?;
    let mut response = Response::new(body);
    add_file_headers(&mut response, format.content_type(), &file_name)?;
    Ok(response)
}

/// Makes the answer a file to keep.
pub fn add_file_headers(
    response: &mut Response,
    content_type: &'static str,
    file_name: &str,
) -> Result<(), Problem> {
    let disposition = format!("attachment; filename=\"{file_name}\"");
    let disposition = HeaderValue::from_str(&disposition).map_err(|error| Problem::Internal(error.into()))?;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    Ok(())
}
