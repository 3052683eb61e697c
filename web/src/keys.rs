//! The key of this service: known to everyone before it is used, so that a signature can be told from a forgery.

use whence_chain::PublicKey;

use crate::audit::{Action, Asker, Ending};
use crate::problem::Problem;
use crate::state::Web;

/// The public half, once it is in the store and its first use in the audit of reads.
pub async fn known(web: &Web, asker: &Asker) -> Result<PublicKey, Problem> {
    let key = web.config.signing_key.public();
    let known = web.key_known.get_or_try_init(async || {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let is_new = web.store.add_service_key(key.to_bytes(), &host.to_string_lossy()).await?;
        if is_new {
            let query = format!("public_key={key}");
            let recorded = asker.record(&web.store, Action::SigningKey, &query, None, Ending::Ok).await;
            recorded.map_err(Problem::NotAudited)?;
        }
        Ok::<(), Problem>(())
    });
    known.await.map(|()| key)
}
