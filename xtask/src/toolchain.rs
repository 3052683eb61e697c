//! The compiler for BPF: installed once into the cache, outside of the checkout and beside the system, then found there.
//!
//! A stable Rust from rustup has no `core` for BPF. Debian's `rustc-web` has one, prebuilt; `bpf-linker` turns what it
//! compiles into one object, with the LLVM library of that same compiler.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::build::run;
use crate::packages;

const LINKER_VERSION: &str = "0.10.3";
const LLVM_LIBRARY: &str = "libLLVM.so.22.1";
const LIBRARIES: &str = "compiler/usr/lib/x86_64-linux-gnu";

/// The compiler and the linker in the cache.
pub struct Toolchain {
    path: PathBuf,
}

impl Toolchain {
    /// cargo, set to compile and link with this.
    pub fn cargo(&self) -> Command {
        let libraries = self.path.join(LIBRARIES);
        let mut cargo = Command::new(cargo());
        cargo
            .env("RUSTC", self.path.join("compiler/usr/bin/rustc"))
            // aya-ebpf declares its maps with features that stable Rust has not let in.
            .env("RUSTC_BOOTSTRAP", "aya_ebpf")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", self.path.join("bin/bpf-linker"))
            // For the compiler's own libraries, and for the linker, which opens the LLVM that it finds here.
            .env("LD_LIBRARY_PATH", libraries)
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        cargo
    }

    /// Where Debian's packages were unpacked to.
    pub fn compiler_root(&self) -> PathBuf {
        self.path.join("compiler")
    }

    fn is_whole(&self) -> bool {
        self.path.join("bin/bpf-linker").is_file()
    }
}

/// The toolchain in the cache; installed when it is not there. Safe to be called by several processes at once.
pub fn find_or_install(checkout: &Path) -> Result<Toolchain> {
    let cache = cache_directory();
    let name = format!("bpf-{}-linker-{LINKER_VERSION}", packages::RUST_VERSION);
    let toolchain = Toolchain { path: cache.join(&name) };
    if toolchain.is_whole() {
        return Ok(toolchain);
    }
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the BPF object is built on Linux on x86-64 only: the compiler's packages are pinned for it"
    );
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("cannot make {}", lock_path.display()))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if !toolchain.is_whole() {
        eprintln!("installing the BPF compiler into {} (once, about two minutes)", toolchain.path.display());
        install(checkout, &cache, &toolchain)?;
    }
    Ok(toolchain)
}

/// Installs beside the toolchain's place and renames, so that it is whole when it is there.
fn install(checkout: &Path, cache: &Path, toolchain: &Toolchain) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("bpf-").tempdir_in(cache)?;
    let root = scratch.path().join("toolchain");
    packages::unpack(&scratch.path().join("packages"), &root.join("compiler"))?;
    ensure!(
        root.join(LIBRARIES).join(LLVM_LIBRARY).is_file(),
        "the packages brought no {LLVM_LIBRARY}, which bpf-linker needs"
    );
    install_linker(checkout, scratch.path(), &root)?;
    if toolchain.path.exists() {
        fs::remove_dir_all(&toolchain.path)?;
    }
    fs::rename(&root, &toolchain.path)
        .with_context(|| format!("cannot move the toolchain to {}", toolchain.path.display()))
}

fn install_linker(checkout: &Path, scratch: &Path, root: &Path) -> Result<()> {
    let mut cargo = Command::new(cargo());
    cargo
        // rust-toolchain.toml there says which Rust compiles it.
        .current_dir(checkout)
        .args(["install", "bpf-linker", "--locked", "--no-track", "--version", LINKER_VERSION])
        .args(["--profile", "dev", "--root"])
        .arg(root)
        .env("CARGO_TARGET_DIR", scratch.join("target"))
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .stdin(Stdio::null());
    run(&mut cargo)
}

/// The cargo that runs this.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Where cargo keeps the source of crates.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(std::env::home_dir().context("no home directory")?.join(".cargo"))
}

/// Where downloads are kept: `WHENCE_CACHE`, else `/var/cache/whence` for root, else `~/.cache/whence`.
pub fn cache_directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("WHENCE_CACHE") {
        return directory.into();
    }
    if nix::unistd::geteuid().is_root() {
        return "/var/cache/whence".into();
    }
    std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache/whence")
}
