//! The collector's settings, each documented on its field.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::policy::{Policy, PolicyError, Rule};
use crate::ship::Transport;

/// What the kernel's side keeps at most, as clap wants it.
const MAX_SQL_BYTES: i64 = whence_abi::record::MAX_SQL_BYTES.cast_signed();

#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// URL of an ingest service; give it several times to fail over, in this order.
    #[arg(long, env = "WHENCE_INGEST_URL", value_name = "URL", value_delimiter = ',', required = true)]
    pub ingest_url: Vec<String>,
    /// File with the token that this collector enrols with; needed until it has enrolled.
    #[arg(long, env = "WHENCE_ENROLL_TOKEN_FILE", value_name = "FILE")]
    pub enroll_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub transport: Transport,
    /// Directory of the spool, of this collector's identity and of its quarantine.
    #[arg(long, env = "WHENCE_SPOOL_DIR", value_name = "DIR", default_value = "/var/lib/whence/spool")]
    pub spool_dir: PathBuf,
    /// Most bytes that the spool may hold; beyond it the oldest batches are given up and counted as lost.
    #[arg(long, env = "WHENCE_SPOOL_BYTES", value_name = "BYTES", default_value_t = 4 << 30)]
    pub spool_bytes: u64,
    /// Days for which batches that cannot be shipped are kept; then they are given up and counted as lost, but for the oldest
    /// file of the spool and the newest. Without it they are kept as long as there is room.
    #[arg(long, env = "WHENCE_SPOOL_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub spool_days: Option<u32>,
    /// Bytes of the ring between the kernel and the collector; a power of two.
    #[arg(long, env = "WHENCE_RING_BYTES", value_name = "BYTES", default_value_t = 16 << 20)]
    pub ring_bytes: u32,
    /// Directory in a BPF file system where probes are pinned, so that the kernel goes on recording while the
    /// collector is away.
    #[arg(long, env = "WHENCE_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/whence")]
    pub pin_dir: PathBuf,
    /// Leave the probes on when told to stop, so that a collector that starts again soon misses nothing. Without it they
    /// are taken off; after a crash they are on in any case.
    #[arg(long, env = "WHENCE_KEEP_PROBES")]
    pub keep_probes: bool,
    /// File, or directory of files `*.toml`, with offsets of server builds that do not tell them themselves, as
    /// `whence doctor --learn` writes them.
    #[arg(long, env = "WHENCE_OFFSETS", value_name = "PATH")]
    pub offsets: Option<PathBuf>,
    /// How much of the SQL text is kept where no rule says otherwise. Credentials are masked always.
    #[arg(long, env = "WHENCE_SQL", value_name = "MODE", value_enum, default_value_t = SqlMode::Full)]
    pub sql: SqlMode,
    /// Longest SQL text that is kept, in bytes, at most 65536; what is longer is cut and marked.
    #[arg(long, env = "WHENCE_SQL_BYTES", value_name = "BYTES", default_value_t = 64 << 10,
        value_parser = clap::value_parser!(u32).range(..=MAX_SQL_BYTES))]
    pub sql_bytes: u32,
    /// A rule that leaves events out, samples them, or keeps less of their text, as a TOML table; give it several times,
    /// the first that matches decides. In the file: [[collect.rule]]. See docs/rules.md.
    #[arg(long, value_name = "TABLE")]
    pub rule: Vec<Rule>,
    /// Name of this host in the audit; the host's own name by default.
    #[arg(long, env = "WHENCE_HOST", value_name = "NAME")]
    pub host: Option<String>,
    /// File that says what is attached, for `whence up` and `whence doctor`.
    #[arg(
        long,
        env = "WHENCE_STATUS_FILE",
        value_name = "FILE",
        default_value = "/run/whence/collector.json"
    )]
    pub status_file: PathBuf,
    /// Address for `/metrics`, `/live` and `/ready`; none by default.
    #[arg(long, env = "WHENCE_COLLECTOR_LISTEN", value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,
}

impl Settings {
    /// The rules, and what holds without one.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        Policy::new(self.rule.clone(), self.sql, self.sql_bytes)
    }
}

/// How much of the SQL text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SqlMode {
    /// All of it, but for credentials.
    Full,
    /// Every literal as `?`.
    LiteralsMasked,
    /// No text, only the statement's fingerprint, class and tables.
    Fingerprint,
    /// Neither text nor fingerprint.
    None,
}

impl SqlMode {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "SQL text in full but for credentials",
            Self::LiteralsMasked => "SQL text with every literal masked",
            Self::Fingerprint => "SQL without text, by fingerprint, class and tables only",
            Self::None => "SQL without text and fingerprint, by class and tables only",
        }
    }
}
