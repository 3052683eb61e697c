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
        let answer = look().await;
        match answer {
            Ok(Some(found)) => return found,
            Ok(None) if Instant::now() < until => {}
            Err(_) if Instant::now() < until => {}
            Ok(None) => panic!("{what}: not within {} s", DEADLINE.as_secs()),
            Err(error) => panic!("{what}: {error:#}"),
        }
        tokio::time::sleep(POLL).await;
    }
}
