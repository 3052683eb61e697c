//! Where a server keeps what an audit needs: the path of its binary goes in, the places for function probes come out.
//!
//! Offsets differ between builds of one version, so they are derived from the binary itself: from its debug information
//! ([`dwarf`]) or, where it has none, from the machine code of small functions that it exports ([`accessors`], which
//! asks [`facts`], which follows the code with [`walk`]). What neither tells comes from the [`table`], where a build is
//! in it; [`learn`] makes its entries. Nothing is ever guessed: a binary that does not prove what is needed is refused,
//! and what is not needed and not proven stays [`ABSENT`].

mod accessors;
mod dwarf;
mod facts;
pub mod fields;
mod image;
mod learn;
pub mod table;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_abi::layout::{ABSENT, Layout, StringField};

use crate::probe::FunctionTargets;
use fields::FIELDS;
use image::{Image, with_image};
pub use image::{give_back_memory, map};
pub use learn::learn;
use table::{Arguments, Entry, Function, Functions, Key};
pub use table::{Table, TableError};

/// What a binary told.
#[derive(Clone, Debug)]
pub struct Derived {
    pub targets: FunctionTargets,
    pub product: Product,
    /// As compiled in, where it can be told, such as `10.11.19-MariaDB`. What a server reports may have more behind it.
    pub version: Option<String>,
    /// What [`FunctionTargets::layout`] was read from.
    pub source: Source,
    /// The fields that come from the table nevertheless, by their keys.
    pub added: Vec<&'static str>,
}

impl Derived {
    /// What is from the table: the binary itself proves it not.
    pub fn by_table(&self) -> ByTable {
        let all = self.source == Source::Table;
        ByTable { all, port: all || self.added.contains(&"peer_port") }
    }

    /// Names of what this binary does not give, for people.
    pub fn absent(&self) -> Vec<&'static str> {
        let layout = &self.targets.layout;
        let unknown = FIELDS.iter().filter(|field| field.get(layout).is_none());
        let mut absent: Vec<_> = unknown.filter_map(|field| field.name).collect();
        if self.targets.acl_authenticate.is_none() {
            absent.push("logins");
        }
        if self.targets.close_connection.is_none() {
            absent.push("disconnects");
        }
        absent
    }
}

/// Which offsets are from the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByTable {
    pub all: bool,
    /// Of the client's port.
    pub port: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Product {
    #[serde(rename = "MySQL")]
    MySql,
    #[serde(rename = "MariaDB")]
    MariaDb,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        })
    }
}

/// How the offsets were learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The binary's debug information.
    Dwarf,
    /// The machine code of functions that the binary exports.
    MachineCode,
    /// The [`Table`].
    Table,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dwarf => "debug information",
            Self::MachineCode => "machine code",
            Self::Table => "the table of offsets",
        })
    }
}

/// The binary cannot be watched by its functions.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    #[error("cannot read the binary: {0}")]
    Unreadable(#[from] io::Error),
    #[error("not an ELF binary: {0}")]
    NotElf(object::Error),
    /// Not a database server, or one that hides its functions.
    #[error("it has no function {0}: no MySQL or MariaDB server, or one without symbols")]
    NoFunction(&'static str),
    #[error("several functions are called {0}")]
    SeveralFunctions(&'static str),
    #[error("{0} does not belong to this binary: build id, checksum and code are others")]
    OtherDebugFile(PathBuf),
    #[error(
        "its debug information is compressed; uncompress it with: objcopy --decompress-debug-sections FILE"
    )]
    Compressed,
    /// Nothing that an entry of the table could belong to.
    #[error("it has neither a build id nor a section .text")]
    NoKey,
    #[error("its offsets can be derived on x86-64 only, unless it has debug information")]
    UnknownProcessor,
    /// Something that is needed was not proven.
    #[error("its offsets are not certain: {0}")]
    Unproven(#[from] Unproven),
    /// Neither way led to all that is needed.
    #[error("its offsets are not certain: by its machine code, {code}; by its debug information, {debug}")]
    UnprovenTwice { code: Unproven, debug: Unproven },
}

/// Which field could not be proven, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Unproven {
    pub field: &'static str,
    pub reason: String,
}

impl Unproven {
    fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// Reads from the server's `binary`, and from `table` what it does not tell, where its functions and its fields are.
pub fn derive(binary: &Path, table: &Table) -> Result<Derived, OffsetsError> {
    let derived = with_image(binary, |image| of_image(image, table));
    give_back_memory();
    derived
}

/// What the table knows `binary` by, for people who want to learn of it.
pub fn key(binary: &Path) -> Option<Key> {
    with_image(binary, |image| Ok(image.key())).ok().flatten()
}

fn of_image(image: &Image<'_>, table: &Table) -> Result<Derived, OffsetsError> {
    let entry = known(image, table);
    let (mut derived, entry) = match (by_itself(image, table), entry) {
        (Ok(derived), Some(entry)) if derived.source == Source::MachineCode => (derived, entry),
        (Err(_), Some(entry)) => return by_table(image, entry),
        (result, _) => return result,
    };
    for field in FIELDS {
        let layout = &mut derived.targets.layout;
        match (field.get(layout), field.get(&entry.layout.0)) {
            (None, Some(place)) => {
                field.set(layout, place);
                derived.added.push(field.key);
            }
            (Some(own), Some(other)) if own != other => return Err(contradiction(field.key)),
            _ => {}
        }
    }
    let functions = functions(image, entry)?;
    let own = &derived.targets;
    if own.dispatch_command != functions.dispatch_command || own.layout.dispatch != entry.layout.0.dispatch {
        return Err(contradiction("dispatch_command"));
    }
    if own.stmt_execute.is_empty() {
        derived.targets.stmt_execute = functions.stmt_execute;
    }
    Ok(derived)
}

fn contradiction(field: &'static str) -> OffsetsError {
    Unproven::new(field, "the table of offsets says otherwise than the binary itself; remove its entry")
        .into()
}

/// The table's entry for this build.
fn known<'table>(image: &Image<'_>, table: &'table Table) -> Option<&'table Entry> {
    match image.build_id_key() {
        Some(key) => table.entry(&key),
        // To hash the code takes its time.
        None if table.knows_by_code() => table.entry(&image.code_key()?),
        None => None,
    }
}

/// All that is needed from the table; what the binary's symbols tell must agree.
fn by_table(image: &Image<'_>, entry: &Entry) -> Result<Derived, OffsetsError> {
    if entry.layout.0.login_user == StringField::ABSENT {
        return Err(Unproven::new(
            "login user",
            "without it nothing shows that its entry of the table holds",
        )
        .into());
    }
    let targets = functions(image, entry)?;
    if let Some(symbol) = dispatch_command(image)?
        && symbol.address != entry.functions.dispatch_command
    {
        return Err(contradiction("dispatch_command"));
    }
    Ok(Derived {
        targets,
        product: entry.product,
        version: entry.version.clone(),
        source: Source::Table,
        added: Vec::new(),
    })
}

/// An entry's addresses as places in the file.
fn functions(image: &Image<'_>, entry: &Entry) -> Result<FunctionTargets, OffsetsError> {
    let offset = |address: &u64| code_offset(image, *address);
    let of = &entry.functions;
    Ok(FunctionTargets {
        layout: entry.layout.0,
        dispatch_command: offset(&of.dispatch_command)?,
        acl_authenticate: of.acl_authenticate.as_ref().map(offset).transpose()?,
        close_connection: of.close_connection.as_ref().map(offset).transpose()?,
        stmt_execute: of.stmt_execute.iter().map(offset).collect::<Result<_, _>>()?,
    })
}

fn code_offset(image: &Image<'_>, address: u64) -> Result<u64, Unproven> {
    image.code_offset(address).ok_or_else(|| Unproven::new("a function", "it lies outside of the code"))
}

fn by_itself(image: &Image<'_>, table: &Table) -> Result<Derived, OffsetsError> {
    let (arguments, of) = addresses(image, table)?;
    let product = if image.has_symbol_with("8ha_maria") { Product::MariaDb } else { Product::MySql };
    let by_data = arguments == Arguments::Data;
    let (source, mut layout) = layout(image, product, by_data)?;
    layout.dispatch = arguments.as_abi();
    let offset = |address| code_offset(image, address);
    Ok(Derived {
        targets: FunctionTargets {
            layout,
            dispatch_command: offset(of.dispatch_command)?,
            acl_authenticate: of.acl_authenticate.map(offset).transpose()?,
            close_connection: of.close_connection.map(offset).transpose()?,
            stmt_execute: match layout.query {
                ABSENT => Vec::new(),
                _ => of.stmt_execute.into_iter().map(offset).collect::<Result<_, _>>()?,
            },
        },
        product,
        version: accessors::version(image),
        source,
        added: Vec::new(),
    })
}

/// The functions by their symbols, and how `dispatch_command` takes its arguments.
fn addresses(image: &Image<'_>, table: &Table) -> Result<(Arguments, Functions), OffsetsError> {
    let dispatch_command = dispatch_command(image)?.ok_or(OffsetsError::NoFunction("dispatch_command"))?;
    let name = dispatch_command.name;
    let known = table.entry_points(Function::DispatchCommand).find(|point| name.starts_with(&point.symbol));
    let arguments = known.and_then(|point| point.arguments).ok_or_else(|| {
        Unproven::new("the command", format!("the arguments of dispatch_command are not known ({name})"))
    })?;
    let all = |function, name| {
        let points = table.entry_points(function);
        let found = points.filter_map(move |point| image.function(name, &[&point.symbol]).transpose());
        found.map(|symbol| symbol.map(|symbol| symbol.address))
    };
    let functions = Functions {
        dispatch_command: dispatch_command.address,
        acl_authenticate: all(Function::AclAuthenticate, "acl_authenticate").next().transpose()?,
        close_connection: all(Function::CloseConnection, "close_connection").next().transpose()?,
        stmt_execute: all(Function::StmtExecute, "mysqld_stmt_execute").collect::<Result<_, _>>()?,
    };
    Ok((arguments, functions))
}

fn dispatch_command<'data>(image: &Image<'data>) -> Result<Option<image::Symbol<'data>>, OffsetsError> {
    image.function("dispatch_command", &["_Z16dispatch_command"])
}

/// Functions in whose compilation units the types are described.
const ANCHORS: [&str; 4] =
    ["_ZN3THDD2Ev", "_ZN3THDC2E", "_Z16dispatch_command", "_ZN16Diagnostics_area13set_ok_statusE"];

fn layout(image: &Image<'_>, product: Product, by_data: bool) -> Result<(Source, Layout), OffsetsError> {
    let debug = match dwarf::layout(image, &ANCHORS) {
        Ok(Some(layout)) => return Ok((Source::Dwarf, layout)),
        Ok(None) => None,
        Err(unproven) => Some(unproven),
    };
    if !image.is_x86_64() {
        return Err(debug.map_or(OffsetsError::UnknownProcessor, OffsetsError::Unproven));
    }
    match (accessors::layout(image, product, by_data), debug) {
        (Ok(layout), _) => Ok((Source::MachineCode, layout)),
        (Err(code), Some(debug)) => Err(OffsetsError::UnprovenTwice { code, debug }),
        (Err(code), None) => Err(code.into()),
    }
}
