//! The service on a listener, with TLS or without: HTTP/1.1 and HTTP/2, until it is told to stop.

use anyhow::{Context, bail};
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::IngestConfig;
use crate::router::router_until;
use crate::tls::TlsListener;

/// Serves until `shutdown`; then takes in nothing new, and gives what is under way `config.drain` to end.
pub async fn serve(
    config: IngestConfig,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    let tls = config.tls.clone();
    tracing::info!(%address, tls = tls.is_some(), "ingest takes batches");
    match tls {
        Some(acceptor) => run(config, TlsListener::new(listener, acceptor), shutdown).await,
        None => run(config, listener, shutdown).await,
    }
}

async fn run<L>(config: IngestConfig, listener: L, shutdown: CancellationToken) -> anyhow::Result<()>
where
    L: Listener<Addr: std::fmt::Debug>,
{
    let drain = config.drain;
    let router = router_until(config, shutdown.clone());
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let abort = server.abort_handle();
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
