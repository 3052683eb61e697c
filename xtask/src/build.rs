//! The source of the BPF programs goes in, their object comes out: the same bytes wherever the checkout lies.
//!
//! Two things would bring the checkout's path into the bytes. Debug information names source files: the compiler is
//! told to write shorter names. And cargo gives each crate an id made from its path, except from the part that leads to
//! the workspace; so the two crates, which lie in different workspaces, are copied to one workspace of their own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use toml::{Table, Value};

use crate::toolchain::{self, Toolchain};

const TARGET: &str = "bpfel-unknown-none";
const PROGRAMS: &str = "collector-ebpf";
/// What the programs share with the collector.
const SHARED: &str = "crates/abi";
const OBJECT: &str = "collector-ebpf/prebuilt/whence.bpfel.o";

/// Builds the object and writes it to its place, or only compares.
pub fn object(check: bool) -> Result<()> {
    let checkout = checkout()?;
    let toolchain = toolchain::find_or_install(checkout)?;
    let scratch = target(checkout).join("ebpf");
    stage(checkout, &scratch.join("source"))?;
    let built = compile(&toolchain, &scratch)?;
    let place = checkout.join(OBJECT);
    let before = fs::read(&place).unwrap_or_default();
    if before == built {
        println!("{OBJECT} is what the source builds to ({} bytes)", built.len());
        return Ok(());
    }
    if check {
        let fresh = scratch.join("whence.bpfel.o");
        fs::write(&fresh, &built).with_context(|| format!("cannot write {}", fresh.display()))?;
        bail!(
            "{OBJECT} ({} bytes) is not what the source builds to ({} bytes, in {}): run `cargo xtask ebpf` and commit \
             the object together with the source",
            before.len(),
            built.len(),
            fresh.display()
        );
    }
    fs::write(&place, &built).with_context(|| format!("cannot write {}", place.display()))?;
    println!("wrote {OBJECT} ({} bytes)", built.len());
    Ok(())
}

pub fn checkout() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no checkout")
}

/// Cargo's target directory.
pub fn target(checkout: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from);
    checkout.join(target)
}

/// Copies the crates to a workspace of their own at `to`.
fn stage(checkout: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    for part in [PROGRAMS, SHARED] {
        copy(&checkout.join(part).join("src"), &to.join(part).join("src"))?;
    }
    copy(&checkout.join(SHARED).join("Cargo.toml"), &to.join(SHARED).join("Cargo.toml"))?;
    copy(&checkout.join(PROGRAMS).join("Cargo.lock"), &to.join("Cargo.lock"))?;

    let mut programs = manifest(&checkout.join(PROGRAMS).join("Cargo.toml"))?;
    let mut root = manifest(&checkout.join("Cargo.toml"))?;
    programs.remove("workspace");
    let profile = programs.remove("profile").context("the BPF programs have no profile")?;
    root.insert("profile".into(), profile);
    let workspace = root.get_mut("workspace").and_then(Value::as_table_mut).context("no workspace")?;
    workspace.insert("members".into(), Value::Array(vec![PROGRAMS.into(), SHARED.into()]));
    for key in ["exclude", "dependencies"] {
        workspace.remove(key);
    }
    write(&to.join("Cargo.toml"), &root)?;
    write(&to.join(PROGRAMS).join("Cargo.toml"), &programs)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("cannot copy {} to {}", from.display(), to.display());
    if !from.is_dir() {
        fs::create_dir_all(to.parent().unwrap_or(to)).with_context(context)?;
        return fs::copy(from, to).map(drop).with_context(context);
    }
    for entry in fs::read_dir(from).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

fn manifest(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is no manifest", path.display()))
}

fn write(path: &Path, manifest: &Table) -> Result<()> {
    fs::write(path, toml::to_string(manifest)?).with_context(|| format!("cannot write {}", path.display()))
}

fn compile(toolchain: &Toolchain, scratch: &Path) -> Result<Vec<u8>> {
    let source = scratch.join("source");
    let target = scratch.join("target");
    let mut cargo = toolchain.cargo();
    cargo.current_dir(&source).args(["build", "--locked", "--release", "--target", TARGET]);
    // Unpacks what is missing, so that all the directories to be renamed are there.
    run(Command::new(toolchain::cargo()).current_dir(&source).args(["fetch", "--locked"]))?;
    cargo
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&source, &target, toolchain)?)
        .env_remove("RUSTFLAGS");
    run(&mut cargo)?;
    let object = target.join(TARGET).join("release/whence");
    fs::read(&object).with_context(|| format!("cannot read {}", object.display()))
}

/// The compiler's options, in the form that cargo takes when they may hold blanks.
fn flags(source: &Path, target: &Path, toolchain: &Toolchain) -> Result<OsString> {
    let mut renamed =
        vec![(target.to_owned(), "target"), (toolchain.compiler_root(), "compiler"), (source.to_owned(), "")];
    let registry = toolchain::cargo_home()?.join("registry/src");
    let context = || format!("cannot read {}", registry.display());
    // There is one for each registry and mirror that was ever used.
    for entry in fs::read_dir(&registry).with_context(context)? {
        renamed.push((entry.with_context(context)?.path(), "registry"));
    }
    let options = ["--cfg", "bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Clink-arg=--btf"];
    let mut flags = OsString::from(options.join("\x1f"));
    for (from, to) in renamed {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// Runs to the end; an error when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    ensure!(status.success(), "`{program} {}` ended with {status}", arguments.join(" "));
    Ok(())
}
