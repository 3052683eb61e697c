//! What `/proc` says of one server process: who it is, where it listens, since when it runs.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use whence_model::{InstanceId, Server, Timestamp};

use super::{container, product};

/// The port of MySQL's X protocol, which is not the one that clients are known by.
const X_PROTOCOL_PORT: u16 = 33060;

/// A clock tick, as the kernel shows times.
const NS_PER_TICK: u64 = 10_000_000;

/// One process, told from any other that had or will have its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    pub tgid: u32,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
}

/// A server process as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: ProcessId,
    pub server: Server,
    /// Whether clients can reach it. Before that its address, and with it its instance, is not known.
    pub listens: bool,
}

/// Where a process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listeners {
    tcp: Vec<(IpAddr, u16)>,
    unix: Vec<String>,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(tgid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{tgid}/stat"))?;
        // The name in parentheses may hold anything; what follows the last one is numbers. Start time is field 22.
        let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
        let start_ticks = ticks.and_then(|ticks| ticks.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { tgid, start_ticks })
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.tgid).is_ok_and(|now| now == self)
    }

    /// From boot to its start, rounded down to a clock tick.
    pub fn started_ns(self) -> u64 {
        self.start_ticks.saturating_mul(NS_PER_TICK)
    }

    /// Path by which its program can be opened, whatever happened to the file's name since, in containers too.
    pub fn executable(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.tgid))
    }
}

/// Looks at process `tgid` on the host called `host`.
pub fn inspect(tgid: u32, host: &str) -> io::Result<Process> {
    let id = ProcessId::of(tgid)?;
    let listeners = listeners(tgid)?;
    let (product, version) = product::of(id);
    let address = main_address(&listeners);
    let at = match (address, listeners.unix.iter().min()) {
        (Some((ip, port)), _) => format!("{ip}:{port}"),
        (None, Some(socket)) => socket.clone(),
        (None, None) => String::new(),
    };
    let instance = InstanceId::derive(host, &at, &data_directory(tgid));
    let server = Server {
        host: host.to_owned(),
        instance,
        product,
        version,
        address: address.map(|(ip, _)| ip),
        port: address.map(|(_, port)| port),
        process_id: tgid,
        process_started_at: started_at(id),
        container_id: container::id(tgid),
    };
    Ok(Process { id, server, listens: address.is_some() || !listeners.unix.is_empty() })
}

/// Servers work in their data directory. In another mount namespace than the host's the same path may be another
/// directory, so its place in the file system is part of its name. (The collector itself may be in one of its own.)
fn data_directory(tgid: u32) -> String {
    let link = PathBuf::from(format!("/proc/{tgid}/cwd"));
    let path = fs::read_link(&link).unwrap_or_default().display().to_string();
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    if namespace(&tgid.to_string()) == namespace("1").or_else(|| namespace("self")) {
        return path;
    }
    let place = fs::metadata(&link).map(|data| format!("@{:x}:{:x}", data.dev(), data.ino()));
    path + &place.unwrap_or_default()
}

/// To the precision of a clock tick. The kernel's idea of the boot's UTC moves with the wall clock, so this is asked
/// once for each process and then kept.
fn started_at(id: ProcessId) -> Timestamp {
    let boot =
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |at| at.tv_sec() * 1_000_000_000 + at.tv_nsec());
    let after_boot = i64::try_from(id.started_ns()).unwrap_or(i64::MAX);
    let at = Timestamp::now().plus_ns(-boot).plus_ns(after_boot);
    Timestamp(at.0 - at.0.rem_euclid(NS_PER_TICK.cast_signed()))
}

/// The address that clients use: not the X protocol's or an administrator's extra port, which are higher.
fn main_address(listeners: &Listeners) -> Option<(IpAddr, u16)> {
    let not_x = listeners.tcp.iter().filter(|(_, port)| *port != X_PROTOCOL_PORT);
    not_x.min_by_key(|(ip, port)| (*port, *ip)).or(listeners.tcp.first()).copied()
}

/// The clients that are connected to process `tgid` over TCP.
pub fn clients(tgid: u32) -> io::Result<HashSet<(IpAddr, u16)>> {
    let sockets = sockets(tgid)?;
    let mut clients = HashSet::new();
    for name in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{tgid}/net/{name}")).unwrap_or_default();
        clients.extend(text.lines().filter_map(|line| connected_tcp(line, |inode| sockets.contains(&inode))));
    }
    Ok(clients)
}

/// The inodes of a process's sockets.
fn sockets(tgid: u32) -> io::Result<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{tgid}/fd"))? {
        // A descriptor may be closed while we look.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        sockets.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(sockets)
}

fn listeners(tgid: u32) -> io::Result<Listeners> {
    let sockets = sockets(tgid)?;
    let read = |name: &str| fs::read_to_string(format!("/proc/{tgid}/net/{name}")).unwrap_or_default();
    let is_ours = |inode: u64| sockets.contains(&inode);
    let mut tcp: Vec<_> = read("tcp").lines().filter_map(|line| listening_tcp(line, is_ours)).collect();
    tcp.extend(read("tcp6").lines().filter_map(|line| listening_tcp(line, is_ours)));
    let unix = read("unix").lines().filter_map(|line| listening_unix(line, is_ours)).collect();
    Ok(Listeners { tcp, unix })
}

/// A line of `/proc/net/tcp` or `tcp6`: `0: 0100007F:0CEA 00000000:0000 0A … inode`.
fn listening_tcp(line: &str, is_ours: impl Fn(u64) -> bool) -> Option<(IpAddr, u16)> {
    const LISTEN: &str = "0A";
    const LOCAL: usize = 1;
    tcp_address(line, LISTEN, LOCAL, is_ours)
}

/// The same of a connection: the other end of it.
fn connected_tcp(line: &str, is_ours: impl Fn(u64) -> bool) -> Option<(IpAddr, u16)> {
    const ESTABLISHED: &str = "01";
    const REMOTE: usize = 2;
    tcp_address(line, ESTABLISHED, REMOTE, is_ours)
}

fn tcp_address(line: &str, state: &str, end: usize, is_ours: impl Fn(u64) -> bool) -> Option<(IpAddr, u16)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let inode = fields.get(9)?.parse().ok()?;
    if *fields.get(3)? != state || !is_ours(inode) {
        return None;
    }
    let (address, port) = fields.get(end)?.split_once(':')?;
    Some((parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of 32 bits in the machine's byte order, each in hexadecimal.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// A line of `/proc/net/unix`: `address: references protocol flags type state inode path`.
fn listening_unix(line: &str, is_ours: impl Fn(u64) -> bool) -> Option<String> {
    const ACCEPTS: u32 = 0x1_0000;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
    let inode = fields.get(6)?.parse().ok()?;
    (flags & ACCEPTS != 0 && is_ours(inode)).then(|| fields.get(7).map(|path| (*path).to_owned()))?
}

/// Name of the program's file, without the mark of one that was deleted.
pub fn program_name(id: ProcessId) -> String {
    let path = fs::read_link(id.executable()).unwrap_or_default();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(" (deleted)").map_or(name.clone(), str::to_owned)
}

/// Device and inode of a program: what probes are put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BinaryId {
    device: u64,
    inode: u64,
}

impl std::fmt::Display for BinaryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}", self.device, self.inode)
    }
}

impl BinaryId {
    pub fn of(path: &Path) -> io::Result<Self> {
        let data = fs::metadata(path)?;
        Ok(Self { device: data.dev(), inode: data.ino() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let line = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   102        0 17 1 0 100 0";
        assert_eq!(listening_tcp(line, |inode| inode == 17), Some((IpAddr::from([127, 0, 0, 1]), 3306)));
        assert_eq!(listening_tcp(line, |_| false), None);
        let client = "   1: 0100007F:0CEA 0200007F:D431 01 00000000:00000000 00:00000000 00000000   102        0 20 1 0 20";
        assert_eq!(connected_tcp(client, |inode| inode == 20), Some((IpAddr::from([127, 0, 0, 2]), 54321)));
        assert_eq!((listening_tcp(client, |_| true), connected_tcp(line, |_| true)), (None, None));
        let any = "   0: 00000000000000000000000000000000:0CEA 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 18 1";
        assert_eq!(listening_tcp(any, |inode| inode == 18), Some((IpAddr::V6(Ipv6Addr::UNSPECIFIED), 3306)));
        let unix = "0000000000000000: 00000002 00000000 00010000 0001 01 19 /run/mysqld/mysqld.sock";
        assert_eq!(listening_unix(unix, |inode| inode == 19).as_deref(), Some("/run/mysqld/mysqld.sock"));
        for damaged in ["", "x", "0: 0100007F:0CEA", "0: ZZ:1 0:0 0A 0 0 0 0 0 17"] {
            assert_eq!(listening_tcp(damaged, |_| true), None);
            assert_eq!(listening_unix(damaged, |_| true), None);
        }
    }

    #[test]
    fn the_x_protocol_is_not_the_address() {
        let ip = IpAddr::from([0, 0, 0, 0]);
        let tcp = |ports: &[u16]| Listeners {
            tcp: ports.iter().map(|port| (ip, *port)).collect(),
            unix: Vec::new(),
        };
        assert_eq!(main_address(&tcp(&[33060, 33100])), Some((ip, 33100)));
        assert_eq!(main_address(&tcp(&[33060])), Some((ip, 33060)));
        assert_eq!(main_address(&tcp(&[])), None);
    }

    #[test]
    fn a_process_is_told_from_others() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_ticks: own.start_ticks + 1, ..own }.is_alive());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let process = inspect(own.tgid, "db1").unwrap();
        assert!(process.listens);
        assert_eq!(process.server.port, Some(listener.local_addr().unwrap().port()));
        let age_ns = Timestamp::now().since_ns(process.server.process_started_at);
        assert!((0..600_000_000_000).contains(&age_ns), "{age_ns}");
    }
}
