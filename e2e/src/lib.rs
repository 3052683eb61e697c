//! Drives Whence as its users do: `whence up` as a process, the API over HTTP, the pages in a real browser.

pub mod api;
pub mod browser;
pub mod whence;

pub use api::Api;
pub use browser::Browser;
pub use whence::Whence;

use std::time::{Duration, Instant};

/// Longest time that a test waits for anything to become so.
pub const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Asks until `look` has an answer.
///
/// # Panics
///
/// When there is none within [`DEADLINE`].
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let until = Instant::now() + DEADLINE;
    loop {
        let why = match look().await {
            Ok(Some(found)) => return found,
            Ok(None) => "it is not so".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        assert!(Instant::now() < until, "{what}: not within {} s: {why}", DEADLINE.as_secs());
        tokio::time::sleep(POLL).await;
    }
}
