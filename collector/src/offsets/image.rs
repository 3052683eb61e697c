//! A server's ELF file: its functions by name, and its bytes by address. Mapped, so that only what is looked at is in
//! memory, and only as long as it is open.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use object::{
    Architecture, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SegmentFlags,
    SymbolKind,
};
use sha2::{Digest as _, Sha256};

use super::OffsetsError;
use super::table::Key;
use super::walk::Memory;

/// Where distributions put the debug information of installed programs.
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// The open file.
pub struct Image<'data> {
    bytes: &'data [u8],
    file: object::File<'data>,
    /// Its debug information and symbols, where they are in a file of their own.
    debug: Option<object::File<'data>>,
    /// Functions and data with a name, sorted by it.
    symbols: Vec<Symbol<'data>>,
    /// Where functions begin, sorted.
    function_starts: Vec<u64>,
    segments: Vec<Segment>,
}

/// A named function or variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol<'data> {
    pub name: &'data str,
    pub address: u64,
    pub bytes: u64,
    pub is_function: bool,
}

/// A loaded part of the file.
struct Segment {
    address: u64,
    offset: u64,
    bytes: u64,
    is_code: bool,
}

/// Opens `binary` and gives it to `use_it`.
pub fn with_image<T>(
    binary: &Path,
    use_it: impl FnOnce(&Image<'_>) -> Result<T, OffsetsError>,
) -> Result<T, OffsetsError> {
    use_it(&Image::open(&map(binary)?, None)?)
}

/// The same with the debug information that is in a file of its own: in `debug_file`, which must belong to it, or else
/// where the binary says or its build id leads to.
pub fn with_debug_file<T>(
    binary: &Path,
    debug_file: Option<&Path>,
    use_it: impl FnOnce(&Image<'_>) -> Result<T, OffsetsError>,
) -> Result<T, OffsetsError> {
    let bytes = map(binary)?;
    let image = Image::open(&bytes, None)?;
    if let Some(path) = debug_file {
        let debug = map(path)?;
        let file = object::File::parse(&*debug).map_err(OffsetsError::NotElf)?;
        if !image.is_debug_file(&debug, &file) {
            return Err(OffsetsError::OtherDebugFile(path.to_owned()));
        }
        return use_it(&Image::open(&bytes, Some(file))?);
    }
    if image.section(".debug_info").is_none() {
        for path in image.debug_paths(binary) {
            let Ok(debug) = map(&path) else { continue };
            let Ok(file) = object::File::parse(&*debug) else { continue };
            if image.is_debug_file(&debug, &file) {
                return use_it(&Image::open(&bytes, Some(file))?);
            }
        }
    }
    use_it(&image)
}

/// Maps the file at `path`.
pub fn map(path: &Path) -> Result<Mmap, OffsetsError> {
    let file = File::open(path)?;
    // SAFETY: the bytes are only read. Programs that run cannot be written to; of others, and of debug information, a
    // person who cuts them short while they are read ends this process, and nothing else.
    Ok(unsafe { Mmap::map(&file) }?)
}

/// Gives memory that is not used any more back to the system: what a large binary took stays with the allocator else.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no memory of ours; any thread may call it at any time.
    let _ = unsafe { libc::malloc_trim(0) };
}

fn build_id<'data>(file: &object::File<'data>) -> Option<&'data [u8]> {
    file.build_id().ok().flatten().filter(|id| !id.is_empty())
}

fn code<'data>(file: &object::File<'data>) -> Option<&'data [u8]> {
    file.section_by_name(".text")?.data().ok().filter(|code| !code.is_empty())
}

/// The symbol, where it is the name of something that is defined here.
fn symbol<'data>(symbol: &object::Symbol<'data, '_>) -> Option<Symbol<'data>> {
    let is_function = match symbol.kind() {
        SymbolKind::Text => true,
        SymbolKind::Data => false,
        _ => return None,
    };
    let name = symbol.name().ok().filter(|_| symbol.is_definition())?;
    Some(Symbol { name, address: symbol.address(), bytes: symbol.size(), is_function })
}

impl<'data> Image<'data> {
    fn open(bytes: &'data [u8], debug: Option<object::File<'data>>) -> Result<Self, OffsetsError> {
        let file = object::File::parse(bytes).map_err(OffsetsError::NotElf)?;
        let segments = file.segments().map(|segment| {
            let (offset, bytes) = segment.file_range();
            let is_code =
                matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0);
            Segment { address: segment.address(), offset, bytes, is_code }
        });
        let segments = segments.collect();
        let mut symbols: Vec<_> =
            file.dynamic_symbols().chain(file.symbols()).filter_map(|found| symbol(&found)).collect();
        if let Some(debug) = &debug {
            symbols.extend(debug.symbols().filter_map(|found| symbol(&found)));
        }
        symbols.sort_unstable();
        symbols.dedup();
        let functions = symbols.iter().filter(|symbol| symbol.is_function);
        let mut function_starts: Vec<_> = functions.map(|symbol| symbol.address).collect();
        function_starts.sort_unstable();
        Ok(Self { bytes, file, debug, symbols, function_starts, segments })
    }

    /// What the table of offsets knows this build by: its build id, or its code. None: it has neither.
    pub fn key(&self) -> Option<Key> {
        self.build_id_key().or_else(|| self.code_key())
    }

    pub fn build_id_key(&self) -> Option<Key> {
        build_id(&self.file).map(|id| Key::BuildId(hex::encode(id)))
    }

    pub fn code_key(&self) -> Option<Key> {
        code(&self.file).map(|code| Key::TextSha256(hex::encode(Sha256::digest(code))))
    }

    /// Where the debug information of `binary` may be.
    fn debug_paths(&self, binary: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if let Some(id) = build_id(&self.file) {
            let (first, rest) = id.split_at(1);
            let name = format!(".build-id/{}/{}.debug", hex::encode(first), hex::encode(rest));
            paths.push(Path::new(DEBUG_DIRECTORY).join(name));
        }
        let binary = binary.canonicalize().unwrap_or_else(|_| binary.to_owned());
        if let Ok(Some((name, _))) = self.file.gnu_debuglink()
            && let Ok(name) = std::str::from_utf8(name)
            && let Some(directory) = binary.parent()
        {
            paths.push(directory.join(name));
            paths.push(directory.join(".debug").join(name));
            let below_root = directory.strip_prefix("/").unwrap_or(directory);
            paths.push(Path::new(DEBUG_DIRECTORY).join(below_root).join(name));
        }
        paths.retain(|path| *path != binary);
        paths
    }

    /// Whether `file` (all of it: `bytes`) has the debug information of this binary: they have one build id, or the
    /// binary has its checksum, or they have the same code.
    fn is_debug_file(&self, bytes: &[u8], file: &object::File<'_>) -> bool {
        match (build_id(&self.file), build_id(file)) {
            (Some(own), Some(other)) => return own == other,
            (None, None) => {}
            _ => return false,
        }
        if code(file).is_some_and(|other| code(&self.file) == Some(other)) {
            return true;
        }
        let mut checksum = flate2::Crc::new();
        checksum.update(bytes);
        matches!(self.file.gnu_debuglink(), Ok(Some((_, wanted))) if wanted == checksum.sum())
    }

    pub fn is_x86_64(&self) -> bool {
        self.file.architecture() == Architecture::X86_64
    }

    pub fn is_little_endian(&self) -> bool {
        self.file.is_little_endian()
    }

    /// The symbol called `name`.
    pub fn symbol(&self, name: &str) -> Option<Symbol<'data>> {
        self.starting_with(name).find(|symbol| symbol.name == name)
    }

    /// The one function whose mangled name begins with one of `prefixes`; `name` is for messages.
    pub fn function(
        &self,
        name: &'static str,
        prefixes: &[&str],
    ) -> Result<Option<Symbol<'data>>, OffsetsError> {
        // A part that the compiler moved away (`.cold`, `.part.0`) is not the function.
        let mut found = prefixes
            .iter()
            .flat_map(|prefix| self.starting_with(prefix))
            .filter(|symbol| symbol.is_function && !symbol.name.contains('.'));
        let first = found.next();
        match found.next() {
            Some(second) if first.is_some_and(|first| first.address != second.address) => {
                Err(OffsetsError::SeveralFunctions(name))
            }
            _ => Ok(first),
        }
    }

    /// The symbols whose names begin with `prefix`.
    pub fn starting_with(&self, prefix: &str) -> impl Iterator<Item = Symbol<'data>> {
        let first = self.symbols.partition_point(|symbol| symbol.name < prefix);
        self.symbols[first..].iter().take_while(move |symbol| symbol.name.starts_with(prefix)).copied()
    }

    /// Whether some symbol's name contains `part`.
    pub fn has_symbol_with(&self, part: &str) -> bool {
        self.symbols.iter().any(|symbol| symbol.name.contains(part))
    }

    /// The section's data; None when there is none, or it is compressed.
    pub fn section(&self, name: &str) -> Option<&'data [u8]> {
        let debug = self.debug.as_ref().and_then(|debug| debug.section_by_name(name));
        let section = debug.or_else(|| self.file.section_by_name(name))?;
        match section.compressed_file_range().ok()?.format {
            object::CompressionFormat::None => section.data().ok().filter(|data| !data.is_empty()),
            _ => None,
        }
    }

    /// Whether there is debug information that is compressed, and so not read.
    pub fn has_compressed_debug_information(&self) -> bool {
        let files = [self.debug.as_ref(), Some(&self.file)];
        let sections = files.into_iter().flatten().filter_map(|file| file.section_by_name(".debug_info"));
        let mut formats = sections.filter_map(|section| section.compressed_file_range().ok());
        formats.any(|range| range.format != object::CompressionFormat::None)
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| address >= segment.address && address - segment.address < segment.bytes)
    }

    /// Where the byte at `address` lies in the file.
    fn file_offset(&self, address: u64) -> Option<u64> {
        self.segment(address).map(|segment| address - segment.address + segment.offset)
    }

    /// The same for the first instruction of a function.
    pub fn code_offset(&self, address: u64) -> Option<u64> {
        self.segment(address).filter(|segment| segment.is_code)?;
        self.file_offset(address)
    }

    fn read(&self, address: u64, most: u64) -> Option<&'data [u8]> {
        let segment = self.segment(address)?;
        let within = address - segment.address;
        let start = usize::try_from(segment.offset.checked_add(within)?).ok()?;
        let bytes = usize::try_from(most.min(segment.bytes - within)).ok()?;
        self.bytes.get(start..start.checked_add(bytes)?)
    }

    /// The text at `address`, up to its NUL.
    pub fn text(&self, address: u64) -> Option<&'data str> {
        let bytes = self.read(address, 256)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

impl Memory for Image<'_> {
    fn bytes(&self, address: u64, most: u64) -> Option<&[u8]> {
        self.read(address, most)
    }

    fn is_function_start(&self, address: u64) -> bool {
        self.function_starts.binary_search(&address).is_ok()
    }
}
