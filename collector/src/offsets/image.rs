//! A server's ELF file: its functions by name, and its bytes by address. Read as needed, never as a whole.

use std::fs::File;
use std::path::Path;

use object::read::{ReadCache, ReadRef as _};
use object::{
    Architecture, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind,
};

use super::OffsetsError;
use super::walk::Memory;

type Cache = ReadCache<File>;

/// The open file.
pub struct Image<'data> {
    cache: &'data Cache,
    file: object::File<'data, &'data Cache>,
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
}

/// Opens `binary` and gives it to `use_it`.
pub fn with_image<T>(
    binary: &Path,
    use_it: impl FnOnce(&Image<'_>) -> Result<T, OffsetsError>,
) -> Result<T, OffsetsError> {
    let cache = ReadCache::new(File::open(binary)?);
    let image = Image::open(&cache)?;
    use_it(&image)
}

impl<'data> Image<'data> {
    fn open(cache: &'data Cache) -> Result<Self, OffsetsError> {
        let file = object::File::parse(cache).map_err(OffsetsError::NotElf)?;
        let segments = file.segments().map(|segment| {
            let (offset, bytes) = segment.file_range();
            Segment { address: segment.address(), offset, bytes }
        });
        let segments = segments.collect();
        let mut symbols: Vec<_> = file
            .dynamic_symbols()
            .chain(file.symbols())
            .filter(object::ObjectSymbol::is_definition)
            .filter_map(|symbol| {
                let is_function = match symbol.kind() {
                    SymbolKind::Text => true,
                    SymbolKind::Data => false,
                    _ => return None,
                };
                let name = symbol.name().ok()?;
                Some(Symbol { name, address: symbol.address(), bytes: symbol.size(), is_function })
            })
            .collect();
        symbols.sort_unstable();
        symbols.dedup();
        let functions = symbols.iter().filter(|symbol| symbol.is_function);
        let mut function_starts: Vec<_> = functions.map(|symbol| symbol.address).collect();
        function_starts.sort_unstable();
        Ok(Self { cache, file, symbols, function_starts, segments })
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
        let section = self.file.section_by_name(name)?;
        match section.compressed_file_range().ok()?.format {
            object::CompressionFormat::None => section.data().ok().filter(|data| !data.is_empty()),
            _ => None,
        }
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| address >= segment.address && address - segment.address < segment.bytes)
    }

    /// Where the byte at `address` lies in the file.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segment(address).map(|segment| address - segment.address + segment.offset)
    }

    fn read(&self, address: u64, most: u64) -> Option<&'data [u8]> {
        let segment = self.segment(address)?;
        let within = address - segment.address;
        self.cache.read_bytes_at(segment.offset + within, most.min(segment.bytes - within)).ok()
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
