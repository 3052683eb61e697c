//! `whence ingest`: the receiver of batches.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use whence_ingest::{Sources, TlsFiles};

use crate::database::ClickHouse;

#[derive(Args)]
pub struct Settings {
    /// Address that collectors send to.
    #[arg(long, env = "WHENCE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// File with the token that new collectors enrol with.
    #[arg(long, env = "WHENCE_ENROLL_TOKEN_FILE", value_name = "FILE")]
    enroll_token_file: PathBuf,
    /// PEM file with this service's certificate and those up to its authority: collectors then use https://.
    #[arg(long, env = "WHENCE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, env = "WHENCE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM file with the authorities that sign the certificates of collectors; with it no other may connect.
    #[arg(long, env = "WHENCE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Speak without TLS, also where the environment or the configuration file names a certificate.
    #[arg(long)]
    no_tls: bool,
    /// File of senders whose events are taken without a signature: a name and a token a line; none by default.
    #[arg(long, env = "WHENCE_EVENT_SOURCES_FILE", value_name = "FILE")]
    event_sources_file: Option<PathBuf>,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    let token = whence_service::secret::read(&settings.enroll_token_file)?;
    let listener = listen(settings.listen).await?;
    let mut config = whence_ingest::IngestConfig::new(settings.clickhouse.store()?, token);
    if let (Some(certificate), Some(key), false) = (&settings.tls_cert, &settings.tls_key, settings.no_tls) {
        let client_authority = settings.tls_client_ca.as_deref();
        config.tls = Some(TlsFiles { certificate, key, client_authority }.acceptor()?);
    }
    if let Some(path) = &settings.event_sources_file {
        config.sources = sources(path)?;
    }
    whence_service::notify::ready();
    whence_ingest::serve(config, listener, shutdown).await
}

fn sources(path: &Path) -> anyhow::Result<Sources> {
    let text = whence_service::secret::read(path)?;
    let sources = Sources::parse(text.expose_secret());
    sources.with_context(|| format!("the file of senders {} cannot be used", path.display()))
}

/// Binds `address`, with an error that names it.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
