//! The data directory of `whence up`: everything that is kept, and the lock that keeps a second supervisor away.

use std::fs::{DirBuilder, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use rand::RngCore;
use uuid::Uuid;
use whence_chain::SigningKey;

/// The paths in the data directory.
pub struct DataDirectory {
    root: PathBuf,
    /// Held while we run.
    _lock: Flock<File>,
}

impl DataDirectory {
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let make = |path: &Path| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.with_context(|| format!("cannot make the directory {}", path.display()))
        };
        make(root)?;
        let root = root.canonicalize()?;
        for part in ["run", "secrets", "log"] {
            make(&root.join(part))?;
        }
        let lock_path = root.join("run/up.lock");
        let file =
            File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!("another `whence up` is running on {}; stop it, or choose another --data", root.display());
        };
        Ok(Self { root, _lock: lock })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Path of the named secret, made at the first call.
    pub fn secret(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path("secrets").join(name);
        if !path.exists() {
            whence_service::secret::write(&path, &random_text())?;
        }
        Ok(path)
    }

    /// Path of the key that signs exports and declares what expired, made at the first call.
    pub fn service_key(&self) -> anyhow::Result<PathBuf> {
        let path = self.path("secrets").join("service-key");
        SigningKey::load_or_create(&path)?;
        Ok(path)
    }

    /// Where the probes of this data directory's collector are pinned: another one has others.
    pub fn pin_directory(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/whence-{}", self.id()))
    }

    /// Where the demo's server keeps its data. Root's runs as another user, which cannot get into this directory.
    pub fn demo_directory(&self) -> PathBuf {
        if nix::unistd::geteuid().is_root() {
            PathBuf::from(format!("/var/lib/whence-demo-{}", self.id()))
        } else {
            self.path("demo")
        }
    }

    /// A name that no other data directory has.
    fn id(&self) -> uuid::fmt::Simple {
        Uuid::new_v5(&Uuid::NAMESPACE_URL, self.root.as_os_str().as_encoded_bytes()).simple()
    }

    /// The port that was used under this name before, while it is free; else any free one, which is kept.
    pub fn port(&self, name: &str) -> anyhow::Result<u16> {
        let path = self.path("run").join(format!("{name}.port"));
        let kept = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let free =
            |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr());
        let address = kept.and_then(|port| free(port).ok()).map_or_else(|| free(0), Ok)?;
        std::fs::write(&path, format!("{}\n", address.port()))?;
        Ok(address.port())
    }
}

/// 160 random bits in 32 characters that are hard to confuse.
pub fn random_text() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}
