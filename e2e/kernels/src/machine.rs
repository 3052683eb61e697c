//! The virtual machine: a bare kernel in, one that programs can run on out; and its end.

use std::convert::Infallible;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Mounts what programs expect, and brings loopback up. The file system for pinned probes is left to the collector.
pub fn prepare() -> Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {at}"))?;
    }
    let up = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "loopback does not come up");
    Ok(nix::unistd::sethostname("guest")?)
}

/// Does not return, unless the kernel does not know how.
pub fn power_off() {
    let failed: nix::Result<Infallible> = reboot(RebootMode::RB_POWER_OFF);
    println!("the machine does not go off: {failed:?}");
}
