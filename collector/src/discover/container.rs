//! The container of a process, by the names of its control groups.
//!
//! Runtimes name a container's group after its id, 64 hexadecimal digits, and put their own words around it:
//!
//! | runtime | the group's path ends with |
//! | --- | --- |
//! | Docker | `/docker/ID`, `/docker-ID.scope` |
//! | containerd and CRI-O under Kubernetes | `/kubepods/…/ID`, `/cri-containerd-ID.scope`, `/crio-ID.scope`, `…:cri-containerd:ID` |
//! | Podman | `/libpod-ID.scope`, `/libpod-ID.scope/container` |

use std::fs;

const DIGITS: usize = 64;

/// Id of the container that process `tgid` runs in.
pub fn id(tgid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?;
    of_groups(&groups)
}

/// Lines are `hierarchy:controllers:path`. Of containers in one another it is the innermost.
fn of_groups(groups: &str) -> Option<String> {
    let mut paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find_map(|path| path.rsplit('/').find_map(of_name))
}

fn of_name(name: &str) -> Option<String> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c9a52e7d84b60a1f2c3d4e5f60718293a4b5c6d7e8f901234567890abcdef";

    #[test]
    fn every_runtime_s_names_are_read() {
        for path in [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("12:pids:/docker/{ID}\n0::/"),
            format!("1:name=systemd:/kubepods/burstable/pod0b1e5a6c-5b7e-4c9e-9c56-d0a2d2f1f0aa/{ID}"),
            format!("0::/kubepods.slice/kubepods-pod0b1e.slice/cri-containerd-{ID}.scope"),
            format!("0::/kubepods.slice/kubepods-pod0b1e.slice/crio-{ID}.scope"),
            format!(
                "0::/system.slice/containerd.service/kubepods-besteffort-pod0b1e.slice:cri-containerd:{ID}"
            ),
            format!("0::/machine.slice/libpod-{ID}.scope/container"),
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
        ] {
            assert_eq!(of_groups(&path).as_deref(), Some(ID), "{path}");
        }
    }

    #[test]
    fn other_groups_are_no_containers() {
        let upper = ID.to_uppercase();
        for path in [
            "0::/",
            "0::/system.slice/mariadb.service",
            "",
            "damaged",
            &format!("0::/docker/{}", &ID[1..]),
            &format!("0::/docker/{upper}"),
            &format!("0::/docker/{ID}0"),
        ] {
            assert_eq!(of_groups(path), None, "{path}");
        }
    }

    #[test]
    fn of_containers_in_one_another_it_is_the_innermost() {
        let inner = ID.replace('3', "4");
        let path = format!("0::/docker/{ID}/docker/{inner}/init.scope");
        assert_eq!(of_groups(&path), Some(inner));
    }
}
