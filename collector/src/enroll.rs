//! Enrolment by hand: the collector of this host is made known to ingest before it runs.

use std::path::PathBuf;

use clap::Args;

use crate::identity::Identity;
use crate::ship::{Client, Enrolment, Transport};

/// Settings of `whence enroll`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// URL of an ingest service; of several the first that takes the collector is enough.
    #[arg(long, env = "WHENCE_INGEST_URL", value_name = "URL", value_delimiter = ',', required = true)]
    pub ingest_url: Vec<String>,
    /// File with the enrolment token of that service; `/dev/stdin` to type or pipe it.
    #[arg(long, env = "WHENCE_ENROLL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Directory of the collector's spool, where its identity is kept.
    #[arg(long, env = "WHENCE_SPOOL_DIR", value_name = "DIR", default_value = "/var/lib/whence/spool")]
    pub spool_dir: PathBuf,
    /// Name of this host in the audit; the host's own name by default.
    #[arg(long, env = "WHENCE_HOST", value_name = "NAME")]
    pub host: Option<String>,
    #[command(flatten)]
    pub transport: Transport,
}

/// Enrols; the answer is what to tell the person.
pub async fn run(settings: &Settings) -> anyhow::Result<String> {
    let token = whence_service::secret::read(&settings.token_file)?;
    let identity = Identity::load_or_create(&settings.spool_dir)?;
    let enrolment = Enrolment::of(&identity, host_name(settings.host.as_deref())?);
    let (id, host) = (enrolment.collector_id, enrolment.host.clone());
    let mut client = Client::new(&settings.ingest_url, &settings.transport, enrolment, Some(token))?;
    let mut problems = Vec::new();
    for _ in &settings.ingest_url {
        match client.enroll().await {
            Ok(()) => return Ok(format!("collector {id} of host {host} is enrolled at {}", client.url())),
            Err(error) => problems.push(format!("{}: {error}", client.url())),
        }
        client.fail_over(None);
    }
    anyhow::bail!("{}", problems.join("\n"))
}

/// The name that was given, or else the host's own.
pub fn host_name(given: Option<&str>) -> anyhow::Result<String> {
    match given {
        Some(host) => Ok(host.to_owned()),
        None => Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned()),
    }
}
