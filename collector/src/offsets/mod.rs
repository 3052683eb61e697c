//! Where a server keeps what an audit needs: the path of its binary goes in, the places for function probes come out.
//!
//! Offsets differ between builds of one version, so they are derived from the binary itself: from its debug information
//! ([`dwarf`]) or, where it has none, from the machine code of small functions that it exports ([`accessors`], which
//! asks [`facts`], which follows the code with [`walk`]). Nothing is ever guessed: a binary that does not prove what is needed is refused, and what
//! is not needed and not proven stays [`ABSENT`](whence_abi::layout::ABSENT).

mod accessors;
mod dwarf;
mod facts;
mod image;
mod walk;

use std::fmt;
use std::io;
use std::path::Path;

use whence_abi::layout::{ABSENT, Layout, dispatch};

use crate::probe::FunctionTargets;
use image::{Image, with_image};

/// What a binary told.
#[derive(Clone, Debug)]
pub struct Derived {
    pub targets: FunctionTargets,
    pub product: Product,
    /// As compiled in, where it can be told, such as `10.11.19-MariaDB`. What a server reports may have more behind it.
    pub version: Option<String>,
    /// What [`FunctionTargets::layout`] was read from.
    pub source: Source,
}

impl Derived {
    /// Names of what this binary does not give, for people.
    pub fn absent(&self) -> Vec<&'static str> {
        let layout = &self.targets.layout;
        let fields = [
            ("database", layout.database),
            ("text of prepared statements", layout.query),
            ("client port", layout.peer_port),
            ("rows sent", layout.rows_sent),
            ("login user", layout.login_user.offset),
            ("client host", layout.host.offset),
            ("client address", layout.ip.offset),
            ("error message", layout.error_message.offset),
            ("SQLSTATE", layout.sqlstate.offset),
            ("rows affected", layout.affected_rows),
        ];
        let mut absent: Vec<_> =
            fields.iter().filter(|(_, offset)| *offset == ABSENT).map(|&(name, _)| name).collect();
        if self.targets.acl_authenticate.is_none() {
            absent.push("logins");
        }
        if self.targets.close_connection.is_none() {
            absent.push("disconnects");
        }
        absent
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    MySql,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The binary's debug information.
    Dwarf,
    /// The machine code of functions that the binary exports.
    MachineCode,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dwarf => "debug information",
            Self::MachineCode => "machine code",
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

/// Reads from the server's `binary` where its functions and its fields are.
pub fn derive(binary: &Path) -> Result<Derived, OffsetsError> {
    with_image(binary, of_image)
}

fn of_image(image: &Image<'_>) -> Result<Derived, OffsetsError> {
    let dispatch_command = image.function("dispatch_command", &["_Z16dispatch_command"])?;
    let dispatch_command = dispatch_command.ok_or(OffsetsError::NoFunction("dispatch_command"))?;
    let by_packet = dispatch_command.name.starts_with("_Z16dispatch_command19enum_server_commandP3THDPcj");
    let by_data =
        dispatch_command.name.starts_with("_Z16dispatch_commandP3THDPK8COM_DATA19enum_server_command");
    if !by_packet && !by_data {
        let reason = format!("the arguments of dispatch_command are not known ({})", dispatch_command.name);
        return Err(Unproven::new("the command", reason).into());
    }
    let product = if image.has_symbol_with("8ha_maria") { Product::MariaDb } else { Product::MySql };
    let (source, mut layout) = layout(image, product, by_data)?;
    layout.dispatch = if by_data { dispatch::COM_DATA } else { dispatch::PACKET };

    let offset = |address| {
        image.file_offset(address).ok_or_else(|| Unproven::new("a function", "it lies outside of the file"))
    };
    let login = image.function("acl_authenticate", &["_Z16acl_authenticateP3THD"])?;
    let close = image.function("close_connection", &["_Z16close_connectionP3THD"])?;
    let mut stmt_execute = Vec::new();
    if layout.query != ABSENT {
        // The second serves MariaDB's COM_STMT_BULK_EXECUTE.
        for prefix in ["_Z19mysqld_stmt_executeP3THD", "_Z24mysqld_stmt_bulk_executeP3THD"] {
            if let Some(function) = image.function("mysqld_stmt_execute", &[prefix])? {
                stmt_execute.push(offset(function.address)?);
            }
        }
    }
    Ok(Derived {
        targets: FunctionTargets {
            layout,
            dispatch_command: offset(dispatch_command.address)?,
            acl_authenticate: login.map(|function| offset(function.address)).transpose()?,
            close_connection: close.map(|function| offset(function.address)).transpose()?,
            stmt_execute,
        },
        product,
        version: accessors::version(image),
        source,
    })
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
