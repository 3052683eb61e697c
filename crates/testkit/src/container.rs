//! A program in mount and PID namespaces of its own, under another Debian, in a control group named as Docker names them:
//! to the host it is what a container is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use uuid::Uuid;

/// How long the kernel may take to have a group's last process gone.
const DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Runs in mount namespace of its own. Arguments: the root, the directory that is shared, the control group, and the
/// program with its arguments.
const ENTER: &str = r#"
set -e
root=$1 shared=$2 group=$3
shift 3
[ -z "$group" ] || echo $$ >"$group/cgroup.procs"
mkdir -p "$shared/upper" "$shared/work" "$shared/merged"
mount -t overlay -o "lowerdir=$root,upperdir=$shared/upper,workdir=$shared/work" overlay "$shared/merged"
cp /etc/hosts /etc/resolv.conf "$shared/merged/etc"
mkdir -p "$shared/merged$shared"
mount --bind "$shared" "$shared/merged$shared"
mount --rbind /dev "$shared/merged/dev"
exec unshare --pid --fork --kill-child --mount-proc=/proc --root="$shared/merged" "$@"
"#;

/// Makes the Debian of `suite` with `packages` (divided by commas) in it, once, and gives its directory. `extra` is a file of a package that
/// is not installed, as `package:/path`.
pub(crate) fn debian(suite: &str, packages: &str, extra: Option<&str>) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/debian-root");
    let output = Command::new(&script)
        .args([suite, packages])
        .args(extra)
        .env("WHENCE_CACHE", whence_engine::cache_directory())
        .output()
        .with_context(|| script.display().to_string())?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

/// Gives `program` of `root`, to be run with the directory `shared` at the same path inside and outside, without a control
/// group of its own.
pub(crate) fn command(root: &Path, shared: &Path, program: &Path) -> Command {
    enter(root, shared, Path::new(""), program)
}

fn enter(root: &Path, shared: &Path, group: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", ENTER, "sh"]);
    command.arg(root).arg(shared).arg(group).arg(program);
    command
}

/// A container for one program at a time.
#[derive(Debug)]
pub(crate) struct Container {
    root: PathBuf,
    /// 64 hexadecimal digits, as Docker's.
    pub id: String,
    group: PathBuf,
}

impl Container {
    pub fn new(root: PathBuf) -> anyhow::Result<Self> {
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let group = groups()?.join(format!("docker-{id}.scope"));
        fs::create_dir(&group)
            .with_context(|| format!("cannot make the control group {}: this needs root", group.display()))?;
        Ok(Self { root, id, group })
    }

    /// `program` is its path in the container; `shared` is at the same path inside and outside.
    pub fn command(&self, shared: &Path, program: &Path) -> Command {
        enter(&self.root, shared, &self.group, program)
    }
}

impl Drop for Container {
    /// A group that stays because something still runs in it does no harm.
    fn drop(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = fs::remove_dir(&self.group) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Where control groups are: the unified hierarchy, else systemd's.
fn groups() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = |is_it: fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            is_it(fields.get(2)?, fields.get(3)?).then(|| PathBuf::from(fields[1]))
        })
    };
    mounted(|kind, _| kind == "cgroup2")
        .or_else(|| mounted(|kind, options| kind == "cgroup" && options.contains("name=systemd")))
        .context("no control groups are mounted")
}

/// The one process that `parent` started.
pub(crate) fn child_of(parent: u32) -> anyhow::Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    children
        .trim()
        .parse()
        .with_context(|| format!("process {parent} has the children {children:?}, not one"))
}
