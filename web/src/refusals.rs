//! API tokens that were refused, in the audit of reads. A stranger can try as often as he likes, and must not fill the
//! store: of an address the 1st, 2nd, 4th, 8th … refusal within an hour is written down, with their number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::audit::{Action, Asker, Ending};
use crate::state::Web;

const WINDOW: Duration = Duration::from_hours(1);
/// Addresses that are told apart within an hour; all others are counted together.
const MAX_ADDRESSES: usize = 256;
/// What these are called.
const OTHERS: &str = "others";

/// How often which address was refused, and since when.
#[derive(Default)]
pub struct Refusals(Mutex<HashMap<String, (Instant, u64)>>);

impl Refusals {
    /// Counts a refusal; gives the address and the count when it is to be written down.
    fn count(&self, address: &str, now: Instant) -> Option<(String, u64)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        let is_known = known.contains_key(address) || known.len() < MAX_ADDRESSES;
        let address = if is_known { address } else { OTHERS };
        let (_, count) = known.entry(address.to_owned()).or_insert((now, 0));
        *count += 1;
        count.is_power_of_two().then(|| (address.to_owned(), *count))
    }
}

/// Writes a refusal down. The answer does not depend on it: it is no either way.
pub async fn record(web: &Web, asker: &Asker) {
    let Some((address, count)) = web.refusals.count(&asker.address, Instant::now()) else { return };
    let asker = Asker { address, ..asker.clone() };
    let query = format!("refused={count}");
    if let Err(error) = asker.record(&web.store, Action::TokenRefused, &query, None, Ending::Failed).await {
        tracing::warn!(%error, "a refused token could not be written to the audit of reads");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_fill_the_store() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let written = (0..1000).filter_map(|_| refusals.count("10.0.0.1", now));
        let counts: Vec<u64> = written.map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        let many = (0..10_000).filter(|number| refusals.count(&number.to_string(), now).is_some()).count();
        assert!(many < MAX_ADDRESSES + 16, "{many}");
        assert_eq!(refusals.count("10.0.0.1", now + WINDOW), Some(("10.0.0.1".into(), 1)));
    }
}
