//! One virtual machine: a kernel and an initial file system go in, what was written to its second serial line comes out.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const DEADLINE: Duration = Duration::from_mins(10);
const POLL: Duration = Duration::from_millis(100);
/// The end of the console that is shown when something went wrong.
const CONSOLE_BYTES: usize = 2000;

/// Boots, and waits until the machine is off.
pub fn boot(kernel: &Path, image: &Path, directory: &Path, kvm: bool) -> Result<String> {
    let (console, report) = (directory.join("console"), directory.join("report"));
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-m",
        "1536",
        "-smp",
        "2",
    ]);
    if kvm {
        qemu.args(["-accel", "kvm", "-cpu", "host"]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    }
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 loglevel=4 panic=-1"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.arg("-serial").arg(format!("file:{}", report.display()));
    let said = directory.join("qemu");
    let mut qemu = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&said)?)
        .spawn()
        .context("cannot run qemu-system-x86_64: install qemu-system-x86")?;
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = qemu.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            qemu.kill()?;
            qemu.wait()?;
            bail!("the machine was not off within {} s: {}", DEADLINE.as_secs(), end_of(&console));
        }
        std::thread::sleep(POLL);
    };
    let report = fs::read_to_string(&report).unwrap_or_default();
    if !status.success() || report.is_empty() {
        bail!("qemu ended with {status}: {} {}", end_of(&said), end_of(&console));
    }
    Ok(report)
}

fn end_of(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let from = bytes.len().saturating_sub(CONSOLE_BYTES);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}
