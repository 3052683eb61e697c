//! The service on a listener: HTTP/1.1, and HTTP/2 by prior knowledge, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use whence_store::Store;

use crate::WebConfig;
use crate::routes::routes;
use crate::state::Web;

/// Serves until `shutdown`; then takes in nothing new, cuts exports off so that it shows, and gives the rest of what
/// is under way `config.drain` to end.
pub async fn serve(
    config: WebConfig,
    store: Store,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let drain = config.drain;
    let address = listener.local_addr().context("the listener has no address")?;
    let web = Arc::new(Web::new(config, store, shutdown.clone()));
    let service = routes(web.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let watching = web.clone();
    tokio::spawn(async move { watching.watch_collectors().await });
    let abort = server.abort_handle();
    tracing::info!(%address, "the pages and the API are served");
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended.context("the server failed")??),
        () = shutdown.cancelled() => tracing::info!("stopping"),
    }
    let drained = tokio::time::timeout(drain, async {
        web.exporting.close();
        web.exporting.wait().await;
        server.await
    });
    if let Ok(ended) = drained.await {
        return Ok(ended.context("the server failed")??);
    }
    // A browser may keep its connection open for long; there is nothing to lose in that.
    abort.abort();
    Ok(())
}
