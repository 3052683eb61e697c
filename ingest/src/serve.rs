//! The service on a listener: HTTP/1.1, and HTTP/2 by prior knowledge, until it is told to stop.

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::IngestConfig;
use crate::router::router_until;

/// Serves until `shutdown`; then takes in nothing new, and gives what is under way `config.drain` to end.
pub async fn serve(
    config: IngestConfig,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let drain = config.drain;
    let address = listener.local_addr().context("the listener has no address")?;
    let router = router_until(config, shutdown.clone());
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let abort = server.abort_handle();
    tracing::info!(%address, "ingest takes batches");
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended.context("the server failed")??),
        () = shutdown.cancelled() => tracing::info!("stopping"),
    }
    let Ok(ended) = tokio::time::timeout(drain, server).await else {
        abort.abort();
        bail!("some requests did not end within {} s; their collectors send them again", drain.as_secs());
    };
    Ok(ended.context("the server failed")??)
}
