//! An Ed25519 key (RFC 8032), of a collector or of a service.

use std::path::{Path, PathBuf};

use ed25519_dalek::Signer;
use secrecy::ExposeSecret;

use crate::Hash;

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    File(#[from] whence_service::secret::SecretError),
    #[error(
        "{path} holds no signing key; it is 64 hexadecimal digits. Whoever lost it must be made known anew"
    )]
    Malformed { path: PathBuf },
}

/// The secret half. It stays on the host that made it.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// The half that everyone may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl SigningKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(ed25519_dalek::SigningKey::generate(&mut rand::rngs::OsRng))
    }

    /// The key in the file at `path`, which is made (mode 0600) when it is not there.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        if !path.exists() {
            let key = Self::generate();
            whence_service::secret::write(path, &hex::encode(key.0.to_bytes()))?;
            return Ok(key);
        }
        let text = whence_service::secret::read(path)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.expose_secret(), &mut bytes)
            .map_err(|_| KeyError::Malformed { path: path.into() })?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&bytes)))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub fn sign(&self, hash: &Hash) -> Signature {
        self.0.sign(hash).to_bytes()
    }
}

impl PublicKey {
    /// The key in these bytes; None when they are no point of the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        ed25519_dalek::VerifyingKey::from_bytes(bytes).ok().map(Self)
    }

    /// The key spelled in 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
        Self::from_bytes(&bytes)
    }

    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whether this key's owner signed `hash`. Refuses the malleable forms that plain verification lets through.
    pub fn verify(&self, hash: &Hash, signature: &Signature) -> bool {
        self.0.verify_strict(hash, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

/// Tells whose it is, never what it is.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

/// In hexadecimal digits.
impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}
