//! Other kernels: each is booted in qemu with the programs that are built here, and what the collector recorded there is
//! held against what was done (`e2e/kernels` is the program that runs inside).

mod check;
mod image;
mod machine;
mod package;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::build::checkout;

/// A kernel as Debian builds it for virtual machines, which need no modules to start.
pub struct Kernel {
    pub version: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
    /// Words that the collector says when it refuses this kernel; none when it captures.
    refusal: Option<&'static [&'static str]>,
}

/// Debian has no 5.15, the oldest that is captured on.
const KERNELS: [Kernel; 3] = [
    Kernel {
        version: "5.10",
        suite: "bullseye",
        refusal: Some(&["Linux 5.10", "bpf_get_attach_cookie", "BPF_LINK_CREATE", "Linux 5.15"]),
    },
    Kernel { version: "6.1", suite: "bookworm", refusal: None },
    Kernel { version: "6.12", suite: "trixie", refusal: None },
];

/// Tries the kernels of these versions, or all.
pub fn run(versions: &[String], kvm: bool) -> Result<()> {
    let kernels = choose(versions)?;
    let scratch = tempfile::Builder::new().prefix("whence-kernels-").tempdir()?;
    let image = image::build(checkout()?, scratch.path())?;
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let tries = kernels.into_iter().map(|kernel| {
            let (scratch, image) = (scratch.path(), &image);
            (kernel.version, scope.spawn(move || attempt(kernel, image, scratch, kvm)))
        });
        // All begin before one is waited for.
        for (version, attempt) in tries.collect::<Vec<_>>() {
            match attempt.join().unwrap_or_else(|_| Err(anyhow!("panicked"))) {
                Ok(told) => println!("kernel {version}: {told}"),
                Err(error) => {
                    println!("kernel {version}: FAILED: {error:#}");
                    failed.push(version);
                }
            }
        }
    });
    if !failed.is_empty() {
        bail!("kernels that failed: {}", failed.join(", "));
    }
    Ok(())
}

fn attempt(kernel: &Kernel, image: &Path, scratch: &Path, kvm: bool) -> Result<String> {
    let program = package::find_or_download(kernel)?;
    let began = Instant::now();
    let directory = scratch.join(kernel.version);
    std::fs::create_dir(&directory)?;
    let report = machine::boot(&program, image, &directory, kvm)?;
    let told = check::check(kernel, &report)?;
    Ok(format!("{told}; {} s", began.elapsed().as_secs()))
}

fn choose(versions: &[String]) -> Result<Vec<&'static Kernel>> {
    if versions.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let known = KERNELS.map(|kernel| kernel.version).join(", ");
    let find = |version: &String| {
        let found = KERNELS.iter().find(|kernel| kernel.version == version);
        found.with_context(|| format!("no kernel {version} is known here; there are {known}"))
    };
    versions.iter().map(find).collect()
}
