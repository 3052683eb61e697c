//! Secrets that come from files, so that they are in no process list and no environment.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// A secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the secret in {path} is empty")]
    Empty { path: PathBuf },
    #[error("cannot write the secret to {path}: {source}")]
    Unwritable { path: PathBuf, source: std::io::Error },
}

/// Reads a secret from a file, without the white space around it.
pub fn read(path: &Path) -> Result<SecretString, SecretError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::Unreadable { path: path.into(), source })?;
    match text.trim() {
        "" => Err(SecretError::Empty { path: path.into() }),
        secret => Ok(secret.into()),
    }
}

/// Writes a secret to a file that only its owner can read (mode 0600), all of it or nothing.
pub fn write(path: &Path, secret: &str) -> Result<(), SecretError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let unwritable = |source| SecretError::Unwritable { path: path.into(), source };
    let partial = path.with_extension("partial");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&partial).map_err(unwritable)?;
    writeln!(file, "{secret}").map_err(unwritable)?;
    file.sync_all().map_err(unwritable)?;
    std::fs::rename(&partial, path).map_err(unwritable)
}
