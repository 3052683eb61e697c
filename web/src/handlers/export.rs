//! Exports: the same filters as the history, all events, as a file.

use axum::extract::{Path, RawQuery};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use uuid::Uuid;
use whence_model::Timestamp;
use whence_proof::export::MANIFEST_SUFFIX;

use crate::audit::Action;
use crate::export::{self, Format};
use crate::people::Role;
use crate::problem::Problem;
use crate::query::{Query, Search};
use crate::visitor::Visitor;

/// Content type of an archive.
pub const ZIP: &str = "application/zip";

pub async fn csv(visitor: Visitor, raw: RawQuery) -> Result<Response, Problem> {
    export(visitor, raw, Format::Csv, false).await
}

pub async fn csv_zip(visitor: Visitor, raw: RawQuery) -> Result<Response, Problem> {
    export(visitor, raw, Format::Csv, true).await
}

pub async fn ndjson(visitor: Visitor, raw: RawQuery) -> Result<Response, Problem> {
    export(visitor, raw, Format::Ndjson, false).await
}

pub async fn ndjson_zip(visitor: Visitor, raw: RawQuery) -> Result<Response, Problem> {
    export(visitor, raw, Format::Ndjson, true).await
}

async fn export(
    visitor: Visitor,
    RawQuery(raw): RawQuery,
    format: Format,
    zipped: bool,
) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    visitor.require(Role::Auditor, Action::Export, &query.to_string()).await?;
    let filter = Search::all(&query, Timestamp::now())?;
    let file_name = format.file_name(&filter);
    let body = export::begin(visitor, format, zipped, filter, query.to_string()).await?;
    let mut response = Response::new(body);
    if zipped {
        add_file_headers(&mut response, ZIP, &format!("{file_name}.zip"))?;
    } else {
        add_file_headers(&mut response, format.content_type(), &file_name)?;
    }
    Ok(response)
}

/// The signed manifest of an export, by the id of its request.
pub async fn manifest(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Problem> {
    visitor.require(Role::Auditor, Action::Manifest, &id).await?;
    let work = async {
        let export = match Uuid::parse_str(&id) {
            Ok(id) => visitor.web.store.export(id).await?,
            Err(_) => None,
        };
        let export = export.ok_or_else(|| Problem::NoSuchExport { id: id.chars().take(64).collect() })?;
        Ok((export, 1))
    };
    let export = visitor.read(Action::Manifest, &id, work).await?;
    let mut response = Response::new(export.manifest.into());
    let name = format!("{}{MANIFEST_SUFFIX}", export.file_name);
    add_file_headers(&mut response, "application/json", &name)?;
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
