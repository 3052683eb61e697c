//! Who sent a request: a person with a session's cookie, or a program with an API token.

use std::future::Future;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use uuid::Uuid;

use crate::audit::{Action, Asker, Ending};
use crate::people::{self, CredentialKind, Role};
use crate::problem::Problem;
use crate::refusals;
use crate::state::SharedWeb;

/// Name of the session's cookie.
pub const COOKIE: &str = "whence_session";

/// The id of a request, which its answer, its line in the log and its entries in the audit carry.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(pub Uuid);

/// Somebody who may be here.
#[derive(Clone)]
pub struct Visitor {
    pub asker: Asker,
    pub role: Role,
    pub web: SharedWeb,
}

impl Visitor {
    /// Refuses, and writes that down, unless this person has the role `needed` or one that may do more.
    pub async fn require(&self, needed: Role, action: Action, query: &str) -> Result<(), Problem> {
        if self.role >= needed {
            return Ok(());
        }
        self.record(action, query, None, Ending::Denied).await?;
        Err(Problem::Forbidden { person: self.asker.person.clone(), role: self.role, needed })
    }

    /// Does `work`, which gives something and how many rows it holds, and hands it out once that was written down.
    pub async fn read<T>(
        &self,
        action: Action,
        query: &str,
        work: impl Future<Output = Result<(T, u64), Problem>>,
    ) -> Result<T, Problem> {
        match work.await {
            Ok((value, rows)) => {
                self.record(action, query, Some(rows), Ending::Ok).await?;
                Ok(value)
            }
            Err(problem) => {
                // Nothing is handed out; the first problem is the one to tell of.
                if let Err(problem) = self.record(action, query, None, Ending::Failed).await {
                    problem.log();
                }
                Err(problem)
            }
        }
    }

    /// Writes an entry to the audit of the audit.
    pub async fn record(
        &self,
        action: Action,
        query: &str,
        rows: Option<u64>,
        ending: Ending,
    ) -> Result<(), Problem> {
        let recorded = self.asker.record(&self.web.store, action, query, rows, ending).await;
        recorded.map_err(Problem::NotAudited)
    }
}

impl FromRequestParts<SharedWeb> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &SharedWeb) -> Result<Self, Problem> {
        let (kind, secret, missing) = if parts.headers.contains_key(header::AUTHORIZATION) {
            (CredentialKind::ApiToken, bearer(&parts.headers), Problem::TokenNeeded)
        } else if parts.uri.path().starts_with("/api/") && session_secret(&parts.headers).is_none() {
            return Err(Problem::TokenNeeded);
        } else {
            (CredentialKind::Session, session_secret(&parts.headers), Problem::SignInNeeded)
        };
        let holder = match secret {
            Some(secret) => people::holder(&web.store, kind, secret).await?,
            None => None,
        };
        let Some((person, role)) = holder else {
            if kind == CredentialKind::ApiToken {
                refusals::record(web, &asker(parts, String::new())).await;
            }
            return Err(missing);
        };
        Ok(Self { asker: asker(parts, person), role, web: web.clone() })
    }
}

/// Somebody who calls themself `person`.
pub fn asker(parts: &Parts, person: String) -> Asker {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let request_id = parts.extensions.get::<RequestId>();
    Asker {
        person,
        address: peer.map_or_else(String::new, |peer| peer.0.ip().to_canonical().to_string()),
        request_id: request_id.map_or_else(Uuid::now_v7, |id| id.0),
    }
}

/// The secret in the session's cookie.
pub fn session_secret(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
