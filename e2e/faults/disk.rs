//! A disk of its own for one part, which can be filled.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

/// A tmpfs, mounted until it is dropped.
pub struct Disk {
    path: PathBuf,
    bytes: u64,
}

impl Disk {
    /// Mounts one of `bytes` on `path`, which is made.
    pub fn mount(path: PathBuf, bytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path)?;
        let options = format!("size={bytes},mode=0700");
        mount(Some("whence-faults"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .context("this test must run as root, to mount disks that it can fill")?;
        Ok(Self { path, bytes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room beyond what is used now.
    pub fn fill(&self) -> anyhow::Result<()> {
        let state = statvfs(&self.path)?;
        let used = (state.blocks() - state.blocks_free()) * state.fragment_size();
        self.resize(used.max(state.fragment_size()))
    }

    /// Gives the room back.
    pub fn empty(&self) -> anyhow::Result<()> {
        self.resize(self.bytes)
    }

    fn resize(&self, bytes: u64) -> anyhow::Result<()> {
        let options = format!("size={bytes}");
        let none = None::<&str>;
        mount(none, &self.path, none, MsFlags::MS_REMOUNT, Some(options.as_str()))
            .with_context(|| format!("cannot make {} {bytes} bytes big", self.path.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that still uses it keeps it until it ends.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}
