//! The initial file system: programs of this build and of this machine go in, with the libraries they are linked to and a
//! fresh data directory; an archive that kernels unpack comes out.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::build::{run, target};
use crate::toolchain::cargo;

/// Programs of this machine, where they lie here and there.
const PROGRAMS: [&str; 3] = ["/usr/sbin/mariadbd", "/usr/bin/mariadb", "/bin/busybox"];
/// What MariaDB reads when it starts.
const MESSAGES: &str = "/usr/share/mysql/charsets";

/// Builds it below `scratch`.
pub fn build(checkout: &Path, scratch: &Path) -> Result<PathBuf> {
    let root = scratch.join("root");
    for directory in ["bin", "usr/bin", "usr/sbin", "spool"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let built = compile(checkout)?;
    strip(&built.join("whence-kernel-guest"), &root.join("init"))?;
    strip(&built.join("whence"), &root.join("usr/bin/whence"))?;
    compile_static_probes(checkout, &root.join("usr/bin/usdt-server"))?;
    let mut linked = vec![root.join("init"), root.join("usr/bin/whence"), root.join("usr/bin/usdt-server")];
    for program in PROGRAMS {
        ensure!(
            Path::new(program).is_file(),
            "there is no {program}: install mariadb-server, mariadb-client and busybox-static"
        );
        add(Path::new(program), &root)?;
        linked.push(program.into());
    }
    for program in &linked {
        for library in libraries(program)? {
            add(&library, &root)?;
        }
    }
    run(Command::new("cp").args(["--recursive", "--parents", MESSAGES]).arg(&root))?;
    install_database(&root.join("data"), scratch)?;
    pack(&root, &scratch.join("initramfs"))
}

fn compile(checkout: &Path) -> Result<PathBuf> {
    let mut build = Command::new(cargo());
    // As `cargo test --workspace` does, so that `./test` builds nothing twice.
    build.current_dir(checkout).args(["build", "--locked", "--workspace", "--bins", "--tests"]);
    // What cargo told this program of itself makes build scripts run again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&*name);
        }
    }
    run(&mut build)?;
    Ok(target(checkout).join("debug"))
}

fn compile_static_probes(checkout: &Path, to: &Path) -> Result<()> {
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-pthread", "-o"]).arg(to).arg(checkout.join("e2e/usdt/usdt-server.c"));
    run(&mut compiler)
}

fn strip(program: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").arg("-o").arg(to).arg(program))
}

/// Copies a file to the same place below `root`.
fn add(file: &Path, root: &Path) -> Result<()> {
    let to = root.join(file.strip_prefix("/")?);
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    fs::copy(file, to).map(drop).with_context(|| format!("cannot copy {}", file.display()))
}

/// The shared libraries of `program`, the loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    // A static program has none, and ldd fails.
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    Ok(told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn install_database(data: &Path, scratch: &Path) -> Result<()> {
    let log = scratch.join("install.log");
    let installed = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg("--innodb-log-file-size=4M")
        .arg(format!("--datadir={}", data.display()))
        // Two at once disturb each other in a common one.
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(Stdio::null())
        .status()
        .context("cannot run mariadb-install-db")?;
    ensure!(installed.success(), "mariadb-install-db failed: {}", fs::read_to_string(&log)?);
    Ok(())
}

/// Kernels unpack it at their start.
fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    if !root.join("lib64").exists() {
        symlink("lib", root.join("lib64"))?;
    }
    let mut find = Command::new("find")
        .current_dir(root)
        .args([".", "-print0"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run find")?;
    let names = find.stdout.take().context("find has no output")?;
    let packed = Command::new("cpio")
        .current_dir(root)
        .args(["--null", "--create", "--format=newc", "--quiet", "--owner=0:0"])
        .stdin(names)
        .stdout(File::create(archive)?)
        .status()
        .context("cannot run cpio")?;
    ensure!(packed.success() && find.wait()?.success(), "cannot pack {}", root.display());
    Ok(archive.to_owned())
}
