//! The notes of real binaries, read by us and by `readelf`: the same list, field by field.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use whence_abi::usdt::{ARGUMENTS, form};
use whence_collector::probe::notes::{self, Addresses, Location};

use crate::server;

/// A note as `readelf` shows it.
#[derive(Debug, Default)]
struct Shown {
    provider: String,
    name: String,
    location: u64,
    base: u64,
    semaphore: u64,
    arguments: String,
}

fn readelf(option: &str, binary: &Path) -> String {
    let output = Command::new("readelf")
        .args([option, "--wide"])
        .arg(binary)
        .env("LC_ALL", "C")
        .output()
        .expect("this test needs readelf (Debian's package binutils)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap()
}

fn shown(binary: &Path) -> Vec<Shown> {
    let mut notes: Vec<Shown> = Vec::new();
    for line in readelf("--notes", binary).lines() {
        // On the same line as the note's owner, or on the next.
        if let Some((_, provider)) = line.split_once("Provider: ") {
            notes.push(Shown { provider: provider.trim().to_owned(), ..Shown::default() });
            continue;
        }
        let Some((key, value)) = line.trim().split_once(':') else {
            continue;
        };
        let Some(note) = notes.last_mut() else {
            continue;
        };
        match key {
            "Name" => value.trim().clone_into(&mut note.name),
            "Location" => {
                let mut numbers = line.split(',').map(|part| hex(part.rsplit(':').next().unwrap()));
                note.location = numbers.next().unwrap();
                note.base = numbers.next().unwrap();
                note.semaphore = numbers.next().unwrap();
            }
            "Arguments" => value.trim().clone_into(&mut note.arguments),
            _ => {}
        }
    }
    notes
}

/// Address of the section that tells whether prelink moved the binary.
fn base(binary: &Path) -> u64 {
    let sections = readelf("--sections", binary);
    let line = sections.lines().find(|line| line.contains(".stapsdt.base")).unwrap();
    let after = line.split_once("PROGBITS").unwrap().1;
    hex(after.split_whitespace().next().unwrap())
}

/// The loaded parts: file offset, address, bytes in the file.
fn segments(binary: &Path) -> Vec<(u64, u64, u64)> {
    let segments = readelf("--segments", binary);
    let loaded = segments.lines().filter_map(|line| line.trim().strip_prefix("LOAD"));
    let parts = loaded.map(|line| {
        let numbers: Vec<u64> = line.split_whitespace().take(5).map(hex).collect();
        (numbers[0], numbers[1], numbers[3])
    });
    parts.collect()
}

/// File offset of an address.
fn offset(segments: &[(u64, u64, u64)], address: u64) -> u64 {
    let inside = |&&(_, start, bytes): &&(u64, u64, u64)| address >= start && address < start + bytes;
    let (at, start, _) = segments.iter().find(inside).unwrap();
    address - start + at
}

/// How many notes the binary has.
fn compare(binary: &Path) -> usize {
    let shown = shown(binary);
    let read = notes::all(binary).unwrap();
    assert_eq!(read.len(), shown.len(), "{}", binary.display());
    let (base, segments) =
        if shown.is_empty() { Default::default() } else { (base(binary), segments(binary)) };
    for (note, location) in shown.iter().zip(&read) {
        assert_eq!((&location.provider, &location.name), (&note.provider, &note.name));
        let linked = Addresses { pc: note.location, base: note.base, semaphore: note.semaphore };
        assert_eq!((location.linked, &location.text), (linked, &note.arguments), "{note:?}");
        let moved = base.wrapping_sub(note.base);
        assert_eq!(location.offset, offset(&segments, note.location.wrapping_add(moved)), "{note:?}");
        let semaphore = match note.semaphore {
            0 => 0,
            semaphore => offset(&segments, semaphore.wrapping_add(moved)),
        };
        assert_eq!(location.semaphore, semaphore, "{note:?}");
        assert_arguments(location);
    }
    let mut providers: Vec<&str> = shown.iter().map(|note| note.provider.as_str()).collect();
    providers.sort_unstable();
    for provider in providers.chunk_by(|one, other| one == other) {
        let of_it = notes::locations(binary, provider[0]).unwrap();
        assert_eq!(of_it.len(), provider.len());
    }
    shown.len()
}

fn assert_arguments(location: &Location) {
    let texts: Vec<&str> = location.text.split_whitespace().collect();
    assert_eq!(location.arguments.len(), texts.len().min(ARGUMENTS), "{location:?}");
    for (argument, text) in location.arguments.iter().zip(texts) {
        let argument = match argument {
            Ok(argument) => argument,
            // Only what is known not to be readable; of a stripped library, symbols too.
            Err(error) => {
                let is_float = text.contains("%xmm") || text.contains("f@");
                assert!(is_float || text.contains("(%rip)"), "{text}: {error}");
                assert!(error.to_string().contains(text), "{error}");
                continue;
            }
        };
        let (width, place) = text.split_once('@').unwrap();
        let width: i8 = width.parse().unwrap();
        let expected = match place.as_bytes()[0] {
            b'$' => form::CONSTANT,
            b'%' if !place.contains('(') => form::REGISTER,
            _ => form::MEMORY,
        };
        assert_eq!((argument.bytes, argument.signed != 0), (width.unsigned_abs(), width < 0), "{text}");
        assert_eq!(argument.form, expected, "{text}");
    }
}

#[test]
fn notes_of_the_test_program_are_as_readelf_shows_them() {
    assert_eq!(compare(server::built()), 13);
}

/// What of these this system has: the C and C++ libraries and the compiler (everywhere), Python, a database, a JVM, and
/// whatever else of a Debian carries probes.
#[test]
#[cfg(target_arch = "x86_64")]
fn notes_of_the_systems_programs_are_as_readelf_shows_them() {
    const PLACES: [&str; 6] = [
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/gcc/x86_64-linux-gnu/12",
        "/usr/lib/postgresql/15/bin",
        "/usr/lib/jvm/java-17-openjdk-amd64/lib/server",
    ];
    let files = PLACES.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten();
    let files: Vec<PathBuf> =
        files.map(|entry| entry.unwrap().path()).filter(|path| is_program(path)).collect();
    let compared: Vec<(usize, &PathBuf)> = files.iter().map(|path| (compare(path), path)).collect();
    let with_notes: Vec<_> = compared.iter().filter(|(notes, _)| *notes > 0).collect();
    println!("{with_notes:#?}");
    assert!(with_notes.len() >= 3, "few programs of this system carry static probes: {with_notes:?}");
}

/// Whether the file is a program or library of this processor that names the section, and no link to another.
fn is_program(path: &Path) -> bool {
    let Ok(metadata) = path.symlink_metadata() else { return false };
    if !metadata.is_file() {
        return false;
    }
    let Ok(bytes) = std::fs::read(path) else { return false };
    let is_elf = bytes.starts_with(b"\x7fELF\x02\x01") && bytes.get(18..20) == Some(&[62, 0]);
    // The names of the sections are at the end.
    let tail = &bytes[bytes.len().saturating_sub(64 << 10)..];
    is_elf && tail.windows(13).any(|window| window == b".note.stapsdt")
}

/// There is no such machine here: what its assembler makes of notes is read, and not run.
#[test]
fn notes_of_a_program_for_arm64_are_as_readelf_shows_them() {
    let directory = TempDir::new().unwrap();
    let (object, program) = (directory.path().join("arm64.o"), directory.path().join("arm64"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/usdt/arm64.S");
    for (tool, input, output) in [("as", &source, &object), ("ld", &object, &program)] {
        let status =
            Command::new(format!("aarch64-linux-gnu-{tool}")).arg("-o").arg(output).arg(input).status();
        let status = status.expect("this test needs Debian's package binutils-aarch64-linux-gnu");
        assert!(status.success(), "{tool}");
    }
    let shown = shown(&program);
    let read = notes::all(&program).unwrap();
    let segments = segments(&program);
    assert_eq!(read.len(), 7);
    for (note, location) in shown.iter().zip(&read) {
        assert_eq!((&location.name, &location.text), (&note.name, &note.arguments));
        assert_eq!(location.offset, offset(&segments, note.location));
        assert_eq!(location.semaphore, offset(&segments, note.semaphore));
        let refused = location.arguments.iter().filter(|argument| argument.is_err()).count();
        assert_eq!(
            refused,
            if location.name == "refused" { location.arguments.len() } else { 0 },
            "{location:?}"
        );
    }
    // The distance from the probe, and the lowest bits, of `counter`.
    let symbols = readelf("--symbols", &program);
    let counter = symbols.lines().find(|line| line.ends_with(" counter")).unwrap();
    let counter = hex(counter.split_whitespace().nth(1).unwrap());
    let at = &read[4];
    let values: Vec<i64> = at.arguments.iter().map(|argument| argument.as_ref().unwrap().value).collect();
    let distance = counter.wrapping_sub(at.linked.pc).cast_signed();
    let low = (counter & 0xfff).cast_signed();
    assert_eq!(values, [distance, distance + 8, low, low + 8]);
}

#[test]
fn a_file_without_notes_has_none_and_a_text_is_an_error() {
    assert_eq!(notes::locations(&std::env::current_exe().unwrap(), "mysql").unwrap(), []);
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(matches!(notes::locations(&text, "mysql"), Err(notes::NotesError::NotElf(_))));
    assert!(matches!(
        notes::locations(Path::new("/nothing/here"), "mysql"),
        Err(notes::NotesError::Unreadable(_))
    ));
}
