//! Waiting for what another process does, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Emulated processors are slow.
const DEADLINE: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` gives something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", DEADLINE.as_secs());
        }
        std::thread::sleep(POLL);
    }
}
