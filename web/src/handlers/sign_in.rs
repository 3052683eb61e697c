//! Signing in and out.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::Form;
use axum::extract::{RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use whence_model::Timestamp;

use crate::audit::{Action, Asker, Ending};
use crate::page::SignInPage;
use crate::people::{self, MAX_PASSWORD_BYTES};
use crate::problem::Problem;
use crate::query::Query;
use crate::state::{SharedWeb, Web};
use crate::visitor::{self, COOKIE, Visitor};

/// Attempts that are turned away unseen cost nothing; so many of them must not flood the audit of reads.
const DENIAL_EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub struct Credentials {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

pub async fn form(RawQuery(raw): RawQuery) -> SignInPage {
    let next = Query::parse(raw.as_deref()).first("next").to_owned();
    SignInPage::new(local(&next), "", None)
}

pub async fn sign_in(
    State(web): State<SharedWeb>,
    parts: Parts,
    Form(credentials): Form<Credentials>,
) -> Result<Response, Problem> {
    let name = Asker::kept_name(credentials.name.trim());
    let asker = visitor::asker(&parts, name.clone());
    let mut lane = web.sign_in_lanes[lane_of(&web, &asker)].lock().await;
    let window_ns = i64::try_from(web.config.sign_in_window.as_nanos()).unwrap_or(i64::MAX);
    let since = Timestamp::now().plus_ns(-window_ns);
    if web.store.failed_sign_ins(&name, &asker.address, since).await? >= web.config.sign_in_attempts {
        web.metrics.sign_ins_failed.inc();
        let is_repeated = lane.as_ref().is_some_and(|(name, address, at)| {
            *name == asker.person && *address == asker.address && at.elapsed() < DENIAL_EVERY
        });
        if !is_repeated {
            record(&web, &asker, Action::SignInFailed, Ending::Denied).await?;
            *lane = Some((asker.person.clone(), asker.address.clone(), Instant::now()));
        }
        let minutes = web.config.sign_in_window.as_secs().div_ceil(60);
        return Ok(refused(&credentials.next, &name, &Problem::Throttled { minutes }));
    }
    if !is_right(&web, &name, credentials.password).await? {
        web.metrics.sign_ins_failed.inc();
        record(&web, &asker, Action::SignInFailed, Ending::Failed).await?;
        let page =
            SignInPage::new(local(&credentials.next), &name, Some("Name or password is wrong.".into()));
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    record(&web, &asker, Action::SignIn, Ending::Ok).await?;
    let secret = people::open_session(&web.store, &name, web.config.session_lifetime).await?;
    let lifetime = web.config.session_lifetime.as_secs();
    let is_https = web.config.https_only || is_https(&parts);
    let mut response = Redirect::to(local(&credentials.next)).into_response();
    set_cookie(&mut response, &secret, lifetime, is_https)?;
    Ok(response)
}

/// Whether `password` is that of `name`. Takes as long for a name that nobody has.
async fn is_right(web: &Web, name: &str, password: String) -> Result<bool, Problem> {
    let person = web.store.person(name).await?;
    let _permit = web.hashers.acquire().await.map_err(|error| Problem::Internal(error.into()))?;
    let checked = tokio::task::spawn_blocking(move || {
        password.len() <= MAX_PASSWORD_BYTES && people::is_password_of(person.as_ref(), &password)
    });
    checked.await.map_err(|error| Problem::Internal(error.into()))
}

fn refused(next: &str, name: &str, problem: &Problem) -> Response {
    let page = SignInPage::new(local(next), name, Some(format!("{problem}.")));
    let mut response = (problem.facts().0, page).into_response();
    problem.add_headers(&mut response);
    response
}

async fn record(web: &Web, asker: &Asker, action: Action, ending: Ending) -> Result<(), Problem> {
    let recorded = asker.record(&web.store, action, "", None, ending).await;
    recorded.map_err(Problem::NotAudited)
}

/// Sign-ins in the same lane come one after another.
fn lane_of(web: &Web, asker: &Asker) -> usize {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);

    let hash = STATE.hash_one((&asker.person, &asker.address));
    usize::try_from(hash % web.sign_in_lanes.len() as u64).unwrap_or_default()
}

pub async fn sign_out(visitor: Visitor, parts: Parts) -> Result<Response, Problem> {
    if let Some(secret) = visitor::session_secret(&parts.headers) {
        people::revoke(&visitor.web.store, secret).await?;
    }
    visitor.record(Action::SignOut, "", None, Ending::Ok).await?;
    let mut response = Redirect::to("/sign-in").into_response();
    set_cookie(&mut response, "", 0, visitor.web.config.https_only || is_https(&parts))?;
    Ok(response)
}

fn set_cookie(response: &mut Response, secret: &str, lifetime: u64, is_https: bool) -> Result<(), Problem> {
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lifetime}{secure}");
    let cookie = HeaderValue::from_str(&cookie).map_err(|error| Problem::Internal(error.into()))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(())
}

/// Whether the browser says that it reached us over https, perhaps through a proxy that ends it.
fn is_https(parts: &Parts) -> bool {
    let origin = parts.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    origin.is_some_and(|origin| origin.starts_with("https://"))
}

/// An address of ours to go to; the history when `next` is none.
fn local(next: &str) -> &str {
    let is_local =
        next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\n', '\r', '\t']);
    if is_local && next.is_ascii() { next } else { "/history" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        assert_eq!(local("/history?user=a"), "/history?user=a");
        for wrong in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example"] {
            assert_eq!(local(wrong), "/history", "{wrong:?}");
        }
    }
}
