//! The audit of the audit: who read what. A read that cannot be written down does not take place.

use uuid::Uuid;
use whence_model::Timestamp;
use whence_store::{ReadRow, Store, StoreError};

/// The most characters of a name that somebody tried to sign in with.
const MAX_PERSON_CHARS: usize = 64;

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    SignIn,
    SignInFailed,
    SignOut,
    /// An API token that is none.
    TokenRefused,
    /// A key that manifests are signed with was used for the first time.
    SigningKey,
    Search,
    /// A refresh of a search by the live view.
    Live,
    Event,
    Report,
    Coverage,
    Export,
    /// The manifest of an export, by itself.
    Manifest,
    People,
    /// Reading the audit of the audit.
    Reads,
    ApiSearch,
    ApiEvent,
    ApiHistogram,
    ApiReport,
    ApiCoverage,
    ApiInstances,
    ApiKeys,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::SignInFailed => "sign_in_failed",
            Self::SignOut => "sign_out",
            Self::TokenRefused => "token_refused",
            Self::SigningKey => "signing_key",
            Self::Search => "search",
            Self::Live => "live",
            Self::Event => "event",
            Self::Report => "report",
            Self::Coverage => "coverage",
            Self::Export => "export",
            Self::Manifest => "manifest",
            Self::People => "people",
            Self::Reads => "reads",
            Self::ApiSearch => "api_search",
            Self::ApiEvent => "api_event",
            Self::ApiHistogram => "api_histogram",
            Self::ApiReport => "api_report",
            Self::ApiCoverage => "api_coverage",
            Self::ApiInstances => "api_instances",
            Self::ApiKeys => "api_keys",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Ok,
    Denied,
    Failed,
    /// A stream began; another entry with the same request id says how it ended.
    Started,
    /// A stream ended before all of it was handed out.
    CutOff,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Started => "started",
            Self::CutOff => "cut_off",
        }
    }
}

/// Who asks, in which request, from where.
#[derive(Clone, Debug)]
pub struct Asker {
    pub person: String,
    pub address: String,
    pub request_id: Uuid,
}

impl Asker {
    /// The name as it is kept.
    pub fn kept_name(name: &str) -> String {
        name.chars().take(MAX_PERSON_CHARS).collect()
    }

    /// Writes an entry and returns when ClickHouse has it.
    pub async fn record(
        &self,
        store: &Store,
        action: Action,
        query: &str,
        rows: Option<u64>,
        ending: Ending,
    ) -> Result<(), StoreError> {
        let row = ReadRow {
            at: Timestamp::now(),
            request_id: self.request_id,
            person: self.person.clone(),
            address: self.address.clone(),
            action: action.as_str().into(),
            query: query.to_owned(),
            rows,
            result: ending.as_str().into(),
        };
        store.record_read(&row).await
    }
}
