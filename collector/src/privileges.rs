//! What the collector may do: everything but that is given up before it does anything else.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// A capability, and what does not work without it.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub capability: Capability,
    pub why: &'static str,
}

/// What a collector needs as long as it runs, since servers start at any time.
pub const NEEDED: [Need; 3] = [
    Need {
        capability: Capability::CAP_SYS_ADMIN,
        why: "(without it the kernel takes neither BPF programs nor probes: CAP_BPF and CAP_PERFMON are not enough for those)",
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        why: "(without it processes of other users cannot be looked into, so that no server is found)",
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        why: "(without it a server whose program not everyone may read cannot be looked into)",
    },
];

/// The rights cannot be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] CapsError),
    #[error("cannot give up new privileges: {0}")]
    NewPrivileges(nix::Error),
}

/// Gives up for this process what a collector does not need that writes to `written`: capabilities, and to gain any by
/// running another program. To be called while the process has one thread: each has rights of its own.
pub fn give_up(written: &[&Path]) -> Result<(), PrivilegesError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet = NEEDED.iter().map(|need| need.capability).collect();
    if written.iter().any(|path| is_of_another(path)) {
        kept.insert(Capability::CAP_DAC_OVERRIDE);
    }
    kept.retain(|capability| held.contains(capability));
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    nix::sys::prctl::set_no_new_privs().map_err(PrivilegesError::NewPrivileges)
}

/// Whether `path`, or the directory that it will be made in, belongs to another user: `whence up` takes up with root's
/// rights what it began without them.
fn is_of_another(path: &Path) -> bool {
    let existing = path.ancestors().find_map(|path| path.metadata().ok());
    existing.is_some_and(|data| data.uid() != nix::unistd::geteuid().as_raw())
}
