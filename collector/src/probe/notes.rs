//! Static probes (USDT) of a binary: its `.note.stapsdt` goes in, places to attach and where the arguments are come out.
//!
//! Format: <https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>. Addresses in the notes are those of link
//! time; `.stapsdt.base` tells by how much prelink moved them since.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use object::read::elf::{ElfFile, FileHeader as _, ProgramHeader as _};
use object::read::{ReadCache, ReadRef};
use object::{Architecture, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, elf};

use super::arguments::{self, Machine, NoSymbol, Program};
use whence_abi::usdt::Argument;

type Elf<'data, R> = ElfFile<'data, elf::FileHeader64<Endianness>, R>;

/// One location of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub provider: String,
    pub name: String,
    /// What the note says, before it is adjusted and turned into file offsets.
    pub linked: Addresses,
    /// The arguments as the note has them.
    pub text: String,
    /// File offset of the instruction.
    pub offset: u64,
    /// File offset of the counter that must be raised while attached; 0: none.
    pub semaphore: u64,
    /// The arguments, each or why it cannot be read.
    pub arguments: Vec<Result<Argument, arguments::SpecError>>,
}

/// The addresses in a note, as of link time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub pc: u64,
    /// Where `.stapsdt.base` was.
    pub base: u64,
    /// 0: none.
    pub semaphore: u64,
}

impl Location {
    /// The first `count` arguments.
    pub fn first_arguments(&self, count: usize) -> Result<Vec<Argument>, arguments::SpecError> {
        self.arguments.iter().take(count).cloned().collect()
    }
}

/// The notes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    #[error("cannot read the binary: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("not a 64-bit ELF binary: {0}")]
    NotElf(object::Error),
    #[error("its section .note.stapsdt is damaged: {0}")]
    Damaged(&'static str),
    #[error("no static probes are known for its processor")]
    UnknownProcessor,
}

/// All locations of the probes of `provider` in the binary at `path`. Empty: it has none.
pub fn locations(path: &Path, provider: &str) -> Result<Vec<Location>, NotesError> {
    of_data(&ReadCache::new(File::open(path)?), Some(provider))
}

/// All locations of all probes in the binary at `path`.
pub fn all(path: &Path) -> Result<Vec<Location>, NotesError> {
    of_data(&ReadCache::new(File::open(path)?), None)
}

/// The same of a binary that is read already; without a provider, of all.
pub fn of_data<'data, R>(data: R, provider: Option<&str>) -> Result<Vec<Location>, NotesError>
where
    R: ReadRef<'data>,
{
    let file = Elf::parse(data).map_err(NotesError::NotElf)?;
    let sections: Vec<_> =
        file.sections().filter(|section| section.name_bytes() == Ok(b".note.stapsdt")).collect();
    if sections.is_empty() {
        return Ok(Vec::new());
    }
    let machine = match (file.architecture(), file.endian()) {
        (Architecture::X86_64, Endianness::Little) => Machine::X86_64,
        (Architecture::Aarch64, Endianness::Little) => Machine::Aarch64,
        _ => return Err(NotesError::UnknownProcessor),
    };
    // Few probes name symbols, and there are many.
    let symbols = OnceCell::new();
    let binary = Binary {
        base: file.section_by_name(".stapsdt.base").map_or(0, |section| section.address()),
        segments: Segments::of(&file),
        program: Program {
            machine,
            fixed: file.elf_header().e_type(file.endian()) == elf::ET_EXEC,
            symbol: &|name| symbols.get_or_init(|| Symbols::of(&file)).address(name),
        },
    };
    let mut found = Vec::new();
    for section in sections {
        let data = section.data().map_err(NotesError::NotElf)?;
        for note in (Notes { rest: data }) {
            let note = note?;
            if provider.is_none_or(|provider| note.provider == provider) {
                found.push(binary.location(&note)?);
            }
        }
    }
    Ok(found)
}

/// What the notes of a binary refer to.
struct Binary<'a> {
    /// Where `.stapsdt.base` is now; 0: there is none.
    base: u64,
    segments: Segments,
    program: Program<'a>,
}

impl Binary<'_> {
    fn location(&self, note: &Note<'_>) -> Result<Location, NotesError> {
        let moved = if note.base != 0 && self.base != 0 { self.base.wrapping_sub(note.base) } else { 0 };
        let address = note.pc.wrapping_add(moved);
        let offset = self.segments.file_offset(address);
        let semaphore = match note.semaphore {
            0 => Some(0),
            semaphore => self.segments.file_offset(semaphore.wrapping_add(moved)),
        };
        Ok(Location {
            provider: note.provider.to_owned(),
            name: note.name.to_owned(),
            linked: Addresses { pc: note.pc, base: note.base, semaphore: note.semaphore },
            text: note.arguments.to_owned(),
            offset: offset.ok_or(NotesError::Damaged("a probe lies outside of the program"))?,
            semaphore: semaphore.ok_or(NotesError::Damaged("a semaphore lies outside of the program"))?,
            arguments: arguments::parse(&self.program, note.arguments, address),
        })
    }
}

/// The binary's symbols that have an address.
struct Symbols<'data>(HashMap<&'data str, Result<u64, NoSymbol>>);

impl<'data> Symbols<'data> {
    /// Those of the full table, and when that was stripped, those of the dynamic one.
    fn of<R: ReadRef<'data>>(file: &Elf<'data, R>) -> Self {
        let mut symbols = HashMap::new();
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            let Ok(name) = symbol.name() else { continue };
            if name.is_empty() || symbol.is_undefined() {
                continue;
            }
            let address = symbol.address();
            let known = symbols.entry(name).or_insert(Ok(address));
            if *known != Ok(address) {
                *known = Err(NoSymbol::Ambiguous);
            }
        }
        Self(symbols)
    }

    fn address(&self, name: &str) -> Result<u64, NoSymbol> {
        self.0.get(name).copied().unwrap_or(Err(NoSymbol::Unknown))
    }
}

/// The loaded parts of the binary: (address, bytes in the file, file offset).
struct Segments {
    parts: Vec<(u64, u64, u64)>,
    file_bytes: u64,
}

impl Segments {
    fn of<'data, R: ReadRef<'data>>(file: &Elf<'data, R>) -> Self {
        let endian = file.endian();
        let loaded = file.elf_program_headers().iter().filter(|header| header.p_type(endian) == elf::PT_LOAD);
        let parts =
            loaded.map(|header| (header.p_vaddr(endian), header.p_filesz(endian), header.p_offset(endian)));
        let file_bytes = file.data().len().unwrap_or(0);
        Self { parts: parts.collect(), file_bytes }
    }

    fn file_offset(&self, address: u64) -> Option<u64> {
        let inside = |&&(start, bytes, _): &&(u64, u64, u64)| address >= start && address - start < bytes;
        let &(start, _, offset) = self.parts.iter().find(inside)?;
        (address - start).checked_add(offset).filter(|offset| *offset < self.file_bytes)
    }
}

/// One note as it stands in the section.
#[derive(Debug, PartialEq, Eq)]
struct Note<'a> {
    pc: u64,
    base: u64,
    semaphore: u64,
    provider: &'a str,
    name: &'a str,
    arguments: &'a str,
}

/// Walks through the section's notes. Notes of other owners and types are passed over.
struct Notes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Notes<'a> {
    type Item = Result<Note<'a>, NotesError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match take_note(&mut self.rest) {
                Ok(None) => {}
                Ok(Some(note)) => return Some(Ok(note)),
                Err(error) => {
                    self.rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn take_note<'a>(rest: &mut &'a [u8]) -> Result<Option<Note<'a>>, NotesError> {
    let short = NotesError::Damaged("a note is cut short");
    let Some((head, body)) = rest.split_at_checked(12) else {
        return Err(short);
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (owner_bytes, description_bytes, kind) = (word(0), word(4), word(8));
    let Some((owner, body)) = body.split_at_checked(owner_bytes.next_multiple_of(4)) else {
        return Err(short);
    };
    let Some(description) = body.get(..description_bytes) else {
        return Err(short);
    };
    // The last note may lack its padding.
    *rest = body.get(description_bytes.next_multiple_of(4)..).unwrap_or_default();
    if kind != 3 || !owner.starts_with(b"stapsdt\0") {
        return Ok(None);
    }
    let (addresses, strings) = description.split_at_checked(24).ok_or(short)?;
    let address = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&addresses[index * 8..index * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut parts = strings.split(|&byte| byte == 0).map(std::str::from_utf8);
    let mut text = || match parts.next() {
        Some(Ok(text)) => Ok(text),
        _ => Err(NotesError::Damaged("a note's text is not text")),
    };
    Ok(Some(Note {
        pc: address(0),
        base: address(1),
        semaphore: address(2),
        provider: text()?,
        name: text()?,
        arguments: text()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [owner.len(), description.len()] {
            bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
        }
        bytes.extend(kind.to_le_bytes());
        bytes.extend(owner);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(description);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn description(strings: &[u8]) -> Vec<u8> {
        let addresses = [0x1000_u64, 0x2000, 0x3000].into_iter().flat_map(u64::to_le_bytes);
        addresses.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn a_place_outside_of_the_file_is_none() {
        let segments = Segments { parts: vec![(0x1000, u64::MAX, 16)], file_bytes: 32 };
        assert_eq!(segments.file_offset(0x100f), Some(31));
        assert_eq!(segments.file_offset(0x1010), None);
        assert_eq!(segments.file_offset(u64::MAX), None);
        let overflowing = Segments { parts: vec![(0x1000, u64::MAX, u64::MAX)], file_bytes: 32 };
        assert_eq!(overflowing.file_offset(0x1001), None);
    }

    #[test]
    fn notes_are_read_and_others_passed_over() {
        let mut section = note(b"GNU\0", 3, b"other");
        section.extend(note(b"stapsdt\0", 3, &description(b"mysql\0command__done\0-4@%eax\0")));
        section.extend(note(b"stapsdt\0", 3, &description(b"mysql\0ping\0\0")));
        let notes: Vec<_> = Notes { rest: &section }.map(Result::unwrap).collect();
        assert_eq!(notes.len(), 2);
        assert_eq!((notes[0].pc, notes[0].base, notes[0].semaphore), (0x1000, 0x2000, 0x3000));
        assert_eq!((notes[0].name, notes[0].arguments), ("command__done", "-4@%eax"));
        assert_eq!((notes[1].name, notes[1].arguments), ("ping", ""));
    }

    #[test]
    fn every_cut_of_a_section_is_an_error_or_fewer_notes() {
        let section = note(b"stapsdt\0", 3, &description(b"mysql\0command__done\0-4@%eax\0"));
        for end in 1..section.len() {
            let read: Vec<_> = Notes { rest: &section[..end] }.collect();
            assert!(read.len() <= 1, "cut at {end}");
        }
        assert!(Notes { rest: &section[..40] }.next().unwrap().is_err());
    }

    #[test]
    fn lengths_beyond_the_section_are_an_error() {
        let mut section = note(b"stapsdt\0", 3, b"");
        section[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Notes { rest: &section }.next().unwrap().is_err());
    }
}
