//! What happens around every handler: an id, a look at where a change comes from, security headers, and words for
//! every problem.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use tracing::Instrument;
use url::form_urlencoded;
use uuid::Uuid;

use crate::page;
use crate::problem::Problem;
use crate::query::FieldProblem;
use crate::state::SharedWeb;
use crate::visitor::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of every answer. Scripts and styles come from this service only; nothing is inline.
const SECURITY_HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    // With no-referrer browsers would send `Origin: null` with our own forms.
    ("referrer-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

pub async fn around(State(web): State<SharedWeb>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Uuid::now_v7();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("none", MatchedPath::as_str).to_owned();
    let uri = request.uri().clone();
    let is_for_programs =
        uri.path().starts_with("/api/") || request.headers().contains_key(header::AUTHORIZATION);
    let span = tracing::info_span!("request", id = %id, route);
    request.extensions_mut().insert(RequestId(id));

    let mut response = if is_from_elsewhere(request.method(), &uri, request.headers()) {
        Problem::CrossSite.into_response()
    } else {
        next.run(request).instrument(span.clone()).await
    };
    if is_unexplained(&response) {
        response = Problem::Malformed.into_response();
    }
    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
        span.in_scope(|| problem.log());
        let allow = response.headers_mut().remove(header::ALLOW);
        response = if is_for_programs { as_json(&problem, id) } else { as_page(&problem, id, &uri) };
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    web.metrics.answered(&route, response.status().as_u16());
    web.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    finish(&mut response, id);
    response
}

/// Whether axum itself refused the request: a form or a path that it cannot read.
fn is_unexplained(response: &Response) -> bool {
    response.status().is_client_error() && response.extensions().get::<Arc<Problem>>().is_none() && {
        let content_type = response.headers().get(header::CONTENT_TYPE);
        content_type.is_none_or(|content_type| content_type.as_bytes().starts_with(b"text/plain"))
    }
}

fn finish(response: &mut Response, id: Uuid) {
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    code: &'static str,
    message: String,
    request_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<FieldBody<'a>>>,
}

#[derive(Serialize)]
struct FieldBody<'a> {
    field: &'a str,
    message: &'a str,
}

fn as_json(problem: &Problem, id: Uuid) -> Response {
    let (status, code, _) = problem.facts();
    let fields = match problem {
        Problem::Invalid(problems) => {
            let fields = problems.iter().map(|FieldProblem { field, message }| FieldBody { field, message });
            Some(fields.collect())
        }
        _ => None,
    };
    let body = ProblemBody { code, message: problem.to_string(), request_id: id, fields };
    let mut response = (status, Json(body)).into_response();
    problem.add_headers(&mut response);
    response
}

fn as_page(problem: &Problem, id: Uuid, uri: &Uri) -> Response {
    if matches!(problem, Problem::SignInNeeded) && uri.path() != "/history/results" {
        let wanted = uri.path_and_query().map_or("/", |wanted| wanted.as_str());
        let next = form_urlencoded::Serializer::new(String::new()).append_pair("next", wanted).finish();
        return Redirect::to(&format!("/sign-in?{next}")).into_response();
    }
    let (status, _, title) = problem.facts();
    let page = page::ProblemPage::new(title, &problem.to_string(), status.as_u16(), id);
    let mut response = (status, page).into_response();
    problem.add_headers(&mut response);
    response
}

/// Whether a browser sends a change from a page that is not ours. Browsers tell by `Sec-Fetch-Site`, older ones by
/// `Origin`; what sends neither is no browser, and brings no cookie that it did not want to bring.
fn is_from_elsewhere(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(&HeaderName::from_static("sec-fetch-site")) {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(&header::ORIGIN) else {
        return false;
    };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    // HTTP/2 has no Host.
    let ours = text(&header::HOST).or_else(|| uri.authority().map(Authority::as_str));
    authority.is_none() || authority != ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_from_other_sites_are_seen() {
        let elsewhere = |method: Method, headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_from_elsewhere(&method, &Uri::from_static("/"), &headers.collect())
        };
        let host = ("host", "audit.example:8088");
        assert!(!elsewhere(Method::POST, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(!elsewhere(Method::POST, &[host, ("origin", "http://audit.example:8088")]));
        assert!(!elsewhere(Method::POST, &[host]));
        assert!(!elsewhere(Method::GET, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(elsewhere(Method::POST, &[host, ("sec-fetch-site", "cross-site")]));
        assert!(elsewhere(Method::POST, &[host, ("sec-fetch-site", "same-site")]));
        assert!(elsewhere(Method::POST, &[host, ("origin", "http://evil.example")]));
        assert!(elsewhere(Method::POST, &[host, ("origin", "null")]));
    }
}
