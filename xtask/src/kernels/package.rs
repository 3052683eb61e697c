//! Kernels from Debian's archive: the machine's own mirror is asked for the suite, apt checks signatures, and the kernel is
//! taken out of its package into the cache. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Kernel;
use crate::build::run;
use crate::toolchain::cache_directory;

/// Depends on the newest kernel of the suite, by its full name.
const NEWEST: &str = "linux-image-cloud-amd64";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The kernel's file. What is in the cache is used as it is; remove it there to get the suite's newest.
pub fn find_or_download(kernel: &Kernel) -> Result<PathBuf> {
    let home = cache_directory().join(format!("kernel-{}", kernel.version));
    if let Some(found) = kernel_in(&home) {
        return Ok(found);
    }
    eprintln!("downloading Linux {} of Debian {}", kernel.version, kernel.suite);
    fs::create_dir_all(cache_directory())?;
    let scratch = tempfile::Builder::new().prefix("kernel-").tempdir_in(cache_directory())?;
    download(kernel, scratch.path())
        .with_context(|| format!("cannot get Linux {} of Debian {}", kernel.version, kernel.suite))?;
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    // Whole when it is there.
    fs::rename(scratch.path().join("root/boot"), &home)?;
    kernel_in(&home).with_context(|| format!("{} holds no kernel", home.display()))
}

fn kernel_in(home: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(home).ok()?;
    let mut kernels = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")));
    kernels.next()
}

fn download(kernel: &Kernel, scratch: &Path) -> Result<()> {
    let sources = scratch.join("sources.list");
    let line = format!("deb [signed-by={KEYS}] {} {} main\n", mirror()?, kernel.suite);
    fs::write(&sources, line)?;
    for directory in ["lists/partial", "archives/partial", "root"] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    run(apt("apt-get", scratch).args(["--quiet=2", "update"]))?;
    let package = newest(kernel, scratch)?;
    run(apt("apt-get", scratch).args(["--quiet=2", "download", &package]))?;
    let files = fs::read_dir(scratch)?.filter_map(|file| Some(file.ok()?.path()));
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let file = file.with_context(|| format!("apt downloaded no {package}"))?;
    run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(scratch.join("root")))
}

/// The name of the package that the newest kernel is in.
fn newest(kernel: &Kernel, scratch: &Path) -> Result<String> {
    let told = output(apt("apt-cache", scratch).args(["depends", "--important", NEWEST]))?;
    let packages = told.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let wanted = format!("linux-image-{}.", kernel.version);
    let found = packages.into_iter().find(|name| name.starts_with(&wanted));
    found.map(str::to_owned).with_context(|| format!("{NEWEST} depends on no {wanted}*: {told}"))
}

/// Where this machine gets Debian from.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let told = output(&mut targets)?;
    let uri = told.lines().find_map(|line| line.strip_prefix("Debian "));
    uri.map(str::to_owned)
        .context("apt has no source with the label Debian: kernels come from Debian's archive")
}

/// apt with directories of its own, so that the machine's stay as they are.
fn apt(program: &str, scratch: &Path) -> Command {
    let mut apt = Command::new(program);
    apt.current_dir(scratch).stdin(Stdio::null());
    let mut option = |name: &str, value: &Path| {
        apt.arg("--option").arg(format!("{name}={}", value.display()));
    };
    option("Dir::Etc::sourcelist", &scratch.join("sources.list"));
    option("Dir::Etc::sourceparts", Path::new("-"));
    option("Dir::State::lists", &scratch.join("lists"));
    option("Dir::State::status", Path::new("/dev/null"));
    option("Dir::Cache", scratch);
    // Its sandbox's user may not write here.
    option("APT::Sandbox::User", Path::new("root"));
    apt
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
