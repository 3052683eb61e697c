//! Debian's packages of the compiler: downloaded by apt, checked against their pinned hashes, unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::build::run;

/// Of the compiler.
pub const RUST_VERSION: &str = "1.96.0+dfsg1-1~deb12u2";
const LLVM_VERSION: &str = "1:22.1.8-1~deb12u1";
/// The suite that has them.
const SUITE: &str = "bookworm-security";

struct Package {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
}

const PACKAGES: [Package; 5] = [
    Package {
        name: "rustc-web",
        version: RUST_VERSION,
        sha256: "8fefe1d6377fe4082f5a9d2a47e095e2d20319eaab9754bd2f0275155c9adf90",
    },
    Package {
        name: "libstd-rust-web-1.96",
        version: RUST_VERSION,
        sha256: "3755f30434ae29574c91b0beb86632bee401607b0ac35c3e52810f9a53fae0d1",
    },
    Package {
        name: "libstd-rust-web-dev",
        version: RUST_VERSION,
        sha256: "e38dbeaaad673fc63fb47c5140cf34da271ac71c3ecafc828b762c2fb01fe77a",
    },
    Package {
        name: "libstd-rust-web-dev-bpf",
        version: RUST_VERSION,
        sha256: "8f85e500d8ca459e5bb380b8c61ce026c2e0c0560b63f36e13fea94755d4d943",
    },
    Package {
        name: "libllvm22",
        version: LLVM_VERSION,
        sha256: "729ec3e943d320515c2bbdc96acfffd7ce34861e62bd5c42726bf586d644dfe2",
    },
];

/// Downloads the packages to `downloads` and unpacks them to `root`; neither needs to exist.
pub fn unpack(downloads: &Path, root: &Path) -> Result<()> {
    for directory in [downloads, root] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // The machine's lists may be older than the packages.
    if fetch(downloads).is_err() {
        run(apt(downloads).arg("update"))?;
        fetch(downloads).with_context(|| {
            format!(
                "apt has no {RUST_VERSION} of the compiler: it needs Debian's suite {SUITE} among its sources"
            )
        })?;
    }
    for package in &PACKAGES {
        let file = file_of(package, downloads)?;
        let found = hex::encode(Sha256::digest(fs::read(&file)?));
        ensure!(
            found == package.sha256,
            "{} has the SHA-256 {found}, not {}: it is not the package that was pinned",
            file.display(),
            package.sha256
        );
        run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(root))?;
    }
    Ok(())
}

/// apt downloads to its working directory.
fn fetch(downloads: &Path) -> Result<()> {
    let wanted = PACKAGES.iter().map(|package| format!("{}={}", package.name, package.version));
    run(apt(downloads).arg("download").args(wanted))
}

fn apt(downloads: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    apt.current_dir(downloads)
        .arg("--quiet")
        // Its sandbox's user may not write here.
        .args(["--option", "APT::Sandbox::User=root"])
        .stdin(Stdio::null());
    apt
}

fn file_of(package: &Package, downloads: &Path) -> Result<PathBuf> {
    // apt writes a version's colon as `%3a`.
    let prefix = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    for entry in fs::read_dir(downloads)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path());
        }
    }
    bail!("apt downloaded no {} {}", package.name, package.version)
}
