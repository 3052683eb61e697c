//! Pinned maps and probes: with them the kernel goes on recording while the collector is away.
//!
//! In the pin directory there is one directory for each build of the BPF object, named by its hash: `maps/` holds the
//! maps, `links/` the probes, each named by what it is on, so that a new collector finds and takes up what the one
//! before it left. What another build left is removed: its records have another form.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::ProbeError;
use crate::discover::BinaryId;

/// Places of the tables that belong to pinned probes.
#[derive(Debug, Default)]
pub struct Used {
    pub layouts: BTreeSet<u32>,
    pub specs: BTreeSet<u32>,
}

/// The directory of this build.
#[derive(Debug)]
pub struct PinDirectory {
    path: PathBuf,
    /// On the root: two collectors would read one ring.
    _lock: Flock<File>,
}

const MAPS: [&str; 11] = [
    "RING",
    "THREADS",
    "LAYOUTS",
    "SPECS",
    "COUNTERS",
    "OWNERS",
    "ACTIVE",
    "RULES",
    "PROFILES",
    "CONNECTIONS",
    "FILTERED",
];
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

impl PinDirectory {
    /// Makes the directory for `object` below `root`, mounting a BPF file system there when there is none.
    pub fn open(root: &Path, object: &[u8]) -> Result<Self, ProbeError> {
        let error = |source| ProbeError::Pin { path: root.into(), source };
        mount(root).map_err(error)?;
        let lock = Flock::lock(File::open(root).map_err(error)?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| ProbeError::InUse { path: root.into() })?;
        let path = root.join(format!("{:08x}-{:x}", crc32c::crc32c(object), object.len()));
        fs::create_dir_all(path.join("maps")).map_err(error)?;
        fs::create_dir_all(path.join("links")).map_err(error)?;
        let pins = Self { path, _lock: lock };
        pins.remove_other_builds(root).map_err(error)?;
        Ok(pins)
    }

    /// Takes off what a collector of another build left on: its records have another form, and nobody reads them.
    fn remove_other_builds(&self, root: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path != self.path && path.join("maps").is_dir() {
                tracing::warn!(pins = %path.display(), "taking off the probes of another build");
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// Lets go of everything that is pinned: with nobody left who has it open, it is gone.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)?;
        // The root is ours unless it holds something else, or a file system is mounted on it.
        let _ = self.path.parent().map(fs::remove_dir);
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where each map is pinned.
    pub fn map_paths(&self) -> Vec<(&'static str, PathBuf)> {
        MAPS.iter().map(|&name| (name, self.path.join("maps").join(name))).collect()
    }

    /// The directory for the probes on `binary`: named by file system and inode.
    pub fn of_binary(&self, binary: &Path) -> io::Result<PathBuf> {
        Ok(self.path.join("links").join(BinaryId::of(binary)?.to_string()))
    }

    /// The places that pinned probes use.
    pub fn used(&self) -> Result<Used, ProbeError> {
        let links = self.path.join("links");
        let error = |source| ProbeError::Pin { path: links.clone(), source };
        let mut used = Used::default();
        for binary in fs::read_dir(&links).map_err(error)? {
            for link in fs::read_dir(binary.map_err(error)?.path()).map_err(error)? {
                let name = link.map_err(error)?.file_name();
                if let Some(link) = LinkName::parse(&name.to_string_lossy()) {
                    used.layouts.insert(link.slot);
                    used.specs.extend(link.spec);
                }
            }
        }
        Ok(used)
    }
}

/// The name of a pinned probe: program, file offset, slot and argument spec, all that is needed to take it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkName {
    pub program: String,
    pub offset: u64,
    pub slot: u32,
    pub spec: Option<u32>,
}

impl LinkName {
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let link = Self {
            program: parts.next()?.to_owned(),
            offset: u64::from_str_radix(parts.next()?, 16).ok()?,
            slot: parts.next()?.parse().ok()?,
            spec: parts.next().map(str::parse).transpose().ok()?,
        };
        parts.next().is_none().then_some(link)
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:x}-{}", self.program, self.offset, self.slot)?;
        self.spec.map_or(Ok(()), |spec| write!(f, "-{spec}"))
    }
}

/// Makes sure that `root` is in a BPF file system.
fn mount(root: &Path) -> io::Result<()> {
    // `/sys/fs/bpf` is there before a file system is mounted on it, and cannot hold directories then.
    let mount_point = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    if !is_bpf(mount_point)? {
        let at = if mount_point == Path::new("/sys/fs/bpf") {
            mount_point
        } else {
            fs::create_dir_all(root)?;
            root
        };
        nix::mount::mount(Some("bpf"), at, Some("bpf"), nix::mount::MsFlags::empty(), Some("mode=0700"))?;
    }
    fs::create_dir_all(root)
}

/// Whether `path` is in a BPF file system.
pub fn is_bpf(path: &Path) -> io::Result<bool> {
    Ok(nix::sys::statfs::statfs(path)?.filesystem_type().0 == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pinned_probes_are_read_back() {
        for spec in [None, Some(17)] {
            let link = LinkName { program: "dispatch_entry".into(), offset: 0x1f_00d0, slot: 3, spec };
            assert_eq!(LinkName::parse(&link.to_string()), Some(link));
        }
        for name in ["", "a", "a-b", "a-zz-1", "a-1-x", "a-1-1-1-1"] {
            assert_eq!(LinkName::parse(name), None, "{name}");
        }
    }
}
