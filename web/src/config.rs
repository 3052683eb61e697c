//! What can be set about the service.

use std::sync::Arc;
use std::time::Duration;

use whence_chain::SigningKey;

/// Settings of the pages and the API.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Signs the manifests of exports. By default one that lives as long as the process.
    pub signing_key: Arc<SigningKey>,
    /// How long a person stays signed in.
    pub session_lifetime: Duration,
    /// Whether the pages are reached by https only, so that the session's cookie is never sent without it. Without
    /// this it is so for everyone whose browser says that it signed in over https.
    pub https_only: bool,
    /// Failed sign-ins of one name from one address within [`WebConfig::sign_in_window`] before it has to wait.
    pub sign_in_attempts: u64,
    /// How long a failed sign-in counts.
    pub sign_in_window: Duration,
    /// Exports that may run at once.
    pub exports: usize,
    /// How long requests under way may go on after the service was told to stop.
    pub drain: Duration,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            signing_key: Arc::new(SigningKey::generate()),
            session_lifetime: Duration::from_hours(12),
            https_only: false,
            sign_in_attempts: 5,
            sign_in_window: Duration::from_mins(15),
            exports: 8,
            drain: Duration::from_secs(5),
        }
    }
}
