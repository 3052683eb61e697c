//! Arguments in every place that a note can name: what the kernel reads is what the program passed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};
use tempfile::TempDir;
use whence_collector::probe::{Config, ProbeError, notes};

use crate::watch::Watch;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/usdt");
const FIXED: [&str; 3] = ["-O2", "-fno-pie", "-no-pie"];
const ANYWHERE: [&str; 3] = ["-O2", "-fPIE", "-pie"];

/// A program that passes values, while it runs.
struct Passing {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Passing {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut passing = Self { child, output };
        assert_eq!(passing.line(), "ready");
        passing
    }

    /// Passes the probes; the answer is what their first arguments were.
    fn pass(&mut self) -> Vec<u64> {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut values = Vec::new();
        loop {
            match self.line().as_str() {
                "idle" => return values,
                value => values.push(value.parse().unwrap()),
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the program has ended");
        line.trim_end().to_owned()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compiles a program of `e2e/usdt` into `directory`.
fn compiled(directory: &TempDir, options: &[&str], sources: &[&str]) -> std::path::PathBuf {
    let program = directory.path().join("passing");
    let output = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror"])
        .args(options)
        .arg("-o")
        .arg(&program)
        .args(sources.iter().map(|source| Path::new(SOURCES).join(source)))
        .output()
        .expect("this test needs a C compiler (Debian's package gcc)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Watches the program while it passes its probes, and compares.
fn assert_read_as_passed(program: &Path) -> usize {
    let passing = &mut Passing::start(program);
    let mut watch = Watch::new(&Config::default());
    watch.know_process(passing.child.id());
    let _attachment = watch.probes.attach_usdt(program).unwrap();
    let passed = passing.pass();
    let read: Vec<_> = watch.events(passed.len()).iter().map(|event| event.session.connection_id).collect();
    let mut probes = notes::locations(program, "mysql").unwrap();
    probes.retain(|location| location.name == "command__start");
    assert_eq!(probes.len(), passed.len());
    let wrong = passed.iter().zip(&read).enumerate().filter(|(_, (passed, read))| **read != Some(**passed));
    // Notes are in the order of the source, which the compiler may have changed.
    let wrong: Vec<_> = wrong.map(|(at, values)| (values, &probes[at].text)).collect();
    assert_eq!(wrong, []);
    passed.len()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_form_is_read_as_the_processor_reads_it() {
    for (options, cases) in [(FIXED, 164), (ANYWHERE, 9)] {
        let directory = TempDir::new().unwrap();
        let program = compiled(&directory, &options, &["operands.c", "operands.S"]);
        assert_eq!(assert_read_as_passed(&program), cases);
    }
}

#[test]
fn what_a_compiler_chooses_is_read() {
    // Constants may then be addresses. Of a program that runs anywhere: see below.
    let options = ["-O2", "-fno-pie", "-no-pie", "-DSTAP_SDT_ARG_CONSTRAINT=g"];
    let directory = TempDir::new().unwrap();
    assert!(assert_read_as_passed(&compiled(&directory, &options, &["passed.c"])) > 40);
}

/// A program that was moved after it was linked, as prelink does: the addresses in its notes are older than the rest.
#[test]
fn notes_of_a_moved_program_are_adjusted() {
    const MOVED: u64 = 0x3000_0000;
    let directory = TempDir::new().unwrap();
    let program = compiled(&directory, &ANYWHERE, &["passed.c"]);
    let before = notes::all(&program).unwrap();
    let mut bytes = std::fs::read(&program).unwrap();
    let (at, length) = {
        let file = ElfFile64::<object::Endianness>::parse(&*bytes).unwrap();
        let (at, length) = file.section_by_name(".note.stapsdt").unwrap().file_range().unwrap();
        (usize::try_from(at).unwrap(), usize::try_from(length).unwrap())
    };
    let section = &mut bytes[at..at + length];
    let mut note = 0;
    while note < section.len() {
        let description = u32::from_le_bytes(section[note + 4..note + 8].try_into().unwrap()) as usize;
        let addresses = note + 12 + 8;
        for address in section[addresses..addresses + 24].chunks_mut(8) {
            let value = u64::from_le_bytes(address.try_into().unwrap());
            if value != 0 {
                address.copy_from_slice(&value.wrapping_sub(MOVED).to_le_bytes());
            }
        }
        note = addresses + description.next_multiple_of(4);
    }
    std::fs::write(&program, bytes).unwrap();
    let after = notes::all(&program).unwrap();
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.linked.pc, before.linked.pc.wrapping_sub(MOVED));
        assert!(after.semaphore != 0);
        assert_eq!((after.offset, after.semaphore), (before.offset, before.semaphore));
        assert_eq!(after.arguments, before.arguments);
    }
    assert_read_as_passed(&program);
}

#[test]
fn a_floating_point_argument_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("floating.c");
    let text = r"
        #include <sys/sdt.h>
        int main(int count, char **arguments)
        {
            volatile double half = count / 2.0;
            STAP_PROBE4(mysql, command__start, half, count, arguments[0], arguments[0]);
            STAP_PROBE1(mysql, command__done, 0);
            STAP_PROBE3(mysql, query__start, arguments[0], count, arguments[0]);
            return 0;
        }";
    std::fs::write(&source, text).unwrap();
    let options = ["-O2", "-DSTAP_SDT_ARG_CONSTRAINT=norx"];
    let program = compiled(&directory, &options, &[source.to_str().unwrap()]);
    let mut watch = Watch::new(&Config::default());
    let error = watch.probes.attach_usdt(&program).err().unwrap();
    assert!(matches!(error, ProbeError::Arguments { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("command__start") && said.contains("8f@"), "{said}");
}
