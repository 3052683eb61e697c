//! The notes of real binaries, read by us and by `readelf`.

use std::path::Path;
use std::process::Command;

use whence_abi::usdt::form;
use whence_collector::probe::notes;

use crate::server;

/// A note as `readelf` shows it.
#[derive(Debug, Default)]
struct Shown {
    provider: String,
    name: String,
    location: u64,
    base: u64,
    semaphore: u64,
    arguments: Vec<String>,
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
            "Arguments" => note.arguments = value.split_whitespace().map(str::to_owned).collect(),
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

/// File offset of an address.
fn offset(binary: &Path, address: u64) -> u64 {
    let segments = readelf("--segments", binary);
    let loaded = segments.lines().filter_map(|line| line.trim().strip_prefix("LOAD"));
    let mut parts = loaded.map(|line| {
        let numbers: Vec<u64> = line.split_whitespace().take(5).map(hex).collect();
        (numbers[0], numbers[1], numbers[3])
    });
    let inside = |&(_, start, bytes): &(u64, u64, u64)| address >= start && address < start + bytes;
    let (at, start, _) = parts.find(inside).unwrap();
    address - start + at
}

fn compare(binary: &Path) -> usize {
    let shown = shown(binary);
    for note in &shown {
        let read = notes::locations(binary, &note.provider).unwrap();
        let moved = base(binary).wrapping_sub(note.base);
        let place = offset(binary, note.location.wrapping_add(moved));
        let found = read.iter().find(|location| location.name == note.name && location.offset == place);
        let Some(location) = found else {
            panic!("{}: {note:?} is not among {read:#?}", binary.display());
        };
        let semaphore =
            if note.semaphore == 0 { 0 } else { offset(binary, note.semaphore.wrapping_add(moved)) };
        assert_eq!(location.semaphore, semaphore, "{note:?}");
        assert_eq!(location.provider, note.provider);
        let Ok(arguments) = &location.arguments else {
            // Only what the reader says itself that it does not know: vector registers, for one.
            assert!(
                note.arguments.iter().any(|text| text.contains("%xmm") || text.contains("f@")),
                "{location:?}"
            );
            continue;
        };
        assert_eq!(arguments.len(), note.arguments.len().min(whence_abi::usdt::ARGUMENTS));
        for (argument, text) in arguments.iter().zip(&note.arguments) {
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
    for provider in ["mysql", "libc", "libstdcxx", "rtld", "python"] {
        let count = shown.iter().filter(|note| note.provider == provider).count();
        assert_eq!(notes::locations(binary, provider).unwrap().len(), count, "{}", binary.display());
    }
    shown.len()
}

#[test]
fn notes_of_the_test_program_are_as_readelf_shows_them() {
    assert_eq!(compare(server::built()), 13);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn notes_of_the_systems_libraries_are_as_readelf_shows_them() {
    let libraries = ["libc.so.6", "libm.so.6", "libstdc++.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"];
    let paths = libraries.map(|name| Path::new("/usr/lib/x86_64-linux-gnu").join(name));
    let compared: usize = paths.iter().filter(|path| path.exists()).map(|path| compare(path)).sum();
    assert!(compared > 0, "no library of this system carries static probes");
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
