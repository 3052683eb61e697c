//! Who this collector is: an id and a signing key, made at its first start and kept with its spool.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use whence_chain::{KeyError, SigningKey};
use whence_model::CollectorId;

/// The identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{path} holds no collector id; without it this collector must enrol anew, with an empty spool")]
    Malformed { path: PathBuf },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    File(#[from] whence_service::secret::SecretError),
}

/// A collector's id and key.
pub struct Identity {
    pub id: CollectorId,
    pub key: SigningKey,
}

impl Identity {
    /// The identity in `directory`, which is made when it is not there.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        let error = |source| IdentityError::Directory { path: directory.into(), source };
        fs::create_dir_all(directory).map_err(error)?;
        let path = directory.join("collector-id");
        // The key comes first: an id without a key would have to enrol a second one.
        let key = SigningKey::load_or_create(&directory.join("signing-key"))?;
        if !path.exists() {
            whence_service::secret::write(&path, &Uuid::now_v7().to_string())?;
        }
        let text = fs::read_to_string(&path).map_err(error)?;
        let id = text.trim().parse().map_err(|_| IdentityError::Malformed { path })?;
        Ok(Self { id, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        let made = Identity::load_or_create(&path).unwrap();
        let read = Identity::load_or_create(&path).unwrap();
        assert_eq!((made.id, made.key.public()), (read.id, read.key.public()));
        fs::write(path.join("collector-id"), "x").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Malformed { .. })));
    }
}
