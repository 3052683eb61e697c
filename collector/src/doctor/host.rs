//! The host: kernel, rights, and what limits them.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};

use super::{Check, State};
use crate::privileges::{self, Need};
use crate::probe::{kernel, pins};

/// Inode of the first PID namespace (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Descriptors that a collector with some servers needs.
const DESCRIPTORS: u64 = 1024;

pub fn look(pin_dir: &Path) -> Vec<Check> {
    let mut checks = vec![kernel_features(), capabilities(), probe(), bpf_files(pin_dir)];
    checks.extend(
        [lockdown(), confinement(), seccomp(), namespace(), processes(), descriptors()].into_iter().flatten(),
    );
    checks
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel_features() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match kernel::check() {
        Ok(()) => Check::new(State::Good, "kernel", format!("Linux {release} lacks nothing that is needed")),
        Err(unfit) => Check::new(State::Bad, "kernel", unfit.to_string()),
    }
}

fn capabilities() -> Check {
    let held = |need: &&Need| caps::has_cap(None, CapSet::Effective, need.capability).unwrap_or(false);
    let missing: Vec<_> = privileges::NEEDED.iter().filter(|need| !held(need)).collect();
    if missing.is_empty() {
        return Check::new(State::Good, "capabilities", "held: all that a collector needs");
    }
    let each: Vec<_> = missing.iter().map(|need| format!("{} {}", need.capability, need.why)).collect();
    let bad = missing.iter().any(|need| need.capability != Capability::CAP_DAC_READ_SEARCH);
    let remedy = if nix::unistd::geteuid().is_root() {
        "add them to the container or the unit"
    } else {
        "run it as root"
    };
    let state = if bad { State::Bad } else { State::Note };
    Check::new(state, "capabilities", format!("missing: {}; {remedy}", each.join("; ")))
}

fn probe() -> Check {
    match kernel::try_probe() {
        Ok(()) => {
            Check::new(State::Good, "probes", "one was put on a function of this program and taken off again")
        }
        Err(error) => {
            let paranoid = read("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
            let detail = format!(
                "the kernel does not let this process put probes on programs: {error} \
                 (kernel.perf_event_paranoid is {paranoid}; CAP_SYS_ADMIN is what it asks for)"
            );
            Check::new(State::Bad, "probes", detail)
        }
    }
}

fn bpf_files(pin_dir: &Path) -> Check {
    let place = pin_dir.display();
    let existing = pin_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    match pins::is_bpf(existing) {
        Ok(true) => Check::new(State::Good, "BPF file system", format!("{place} can hold pinned probes")),
        Ok(false) => {
            let detail = format!("none at {place}; a collector that has the right to mounts one there");
            Check::new(State::Note, "BPF file system", detail)
        }
        Err(error) => Check::new(State::Bad, "BPF file system", format!("{place}: {error}")),
    }
}

fn lockdown() -> Option<Check> {
    let modes = read("/sys/kernel/security/lockdown")?;
    let mode = modes.split('[').nth(1)?.split(']').next()?;
    Some(match mode {
        "confidentiality" => {
            let detail = "the kernel is locked down for confidentiality, which forbids to read registers and memory; \
                          start it with lockdown=integrity or none";
            Check::new(State::Bad, "lockdown", detail)
        }
        mode => Check::new(State::Good, "lockdown", format!("{mode}: not in the way")),
    })
}

fn confinement() -> Option<Check> {
    let profile = read("/proc/self/attr/apparmor/current").or_else(|| read("/proc/self/attr/current"))?;
    let profile = profile.trim_end_matches('\0');
    if profile.is_empty() || profile == "unconfined" || profile == "kernel" {
        return None;
    }
    let detail = format!(
        "this process runs under the profile {profile}, which may forbid to look into processes and to pin probes; \
         Docker's does: security_opt apparmor:unconfined"
    );
    Some(Check::new(State::Note, "AppArmor or SELinux", detail))
}

fn seccomp() -> Option<Check> {
    let status = read("/proc/self/status")?;
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?.trim();
    (mode != "0").then(|| {
        let detail =
            "system calls of this process are filtered; bpf and perf_event_open must be among those allowed";
        Check::new(State::Note, "seccomp", detail)
    })
}

fn namespace() -> Option<Check> {
    let own = fs::read_link("/proc/self/ns/pid").ok()?;
    (own != Path::new(FIRST_PID_NAMESPACE)).then(|| {
        let detail = "this process sees the processes of its container only; give the container the host's (pid: host)";
        Check::new(State::Bad, "process namespace", detail)
    })
}

/// Programs of others that may not be looked at.
fn processes() -> Option<Check> {
    let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let denied = |tgid: &u32| {
        fs::metadata(format!("/proc/{tgid}/exe"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let hidden = numbers.filter(denied).count();
    let may_look = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).unwrap_or(false);
    match (hidden, may_look) {
        (0, _) => None,
        (_, true) => Some(Check::new(
            State::Note,
            "processes",
            format!("{hidden} cannot be looked into by anybody here"),
        )),
        (_, false) => {
            let detail = format!(
                "{hidden} cannot be looked into (that takes CAP_SYS_PTRACE): servers among them are not found"
            );
            Some(Check::new(State::Bad, "processes", detail))
        }
    }
}

fn descriptors() -> Option<Check> {
    let (most, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
    (most < DESCRIPTORS).then(|| {
        let detail = format!("at most {most} files may be open; each server program takes some, {DESCRIPTORS} are plenty (ulimit -n)");
        Check::new(State::Note, "limits", detail)
    })
}
