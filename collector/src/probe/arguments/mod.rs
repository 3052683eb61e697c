//! The argument text of a static probe (`8@-24(%rbp) -4@%eax`) goes in, what the BPF programs read comes out.
//!
//! An operand is what the compiler's assembler would take, with the width before it (negative: signed, `f`: floating
//! point). The width counts, whatever part of a register the operand names. A form that is not understood is an error
//! that names it: it is never read as something else.

mod aarch64;
mod expression;
mod x86_64;

use whence_abi::usdt::{ARGUMENTS, Argument, NO_REGISTER, form};

/// The processor whose operands these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

/// An argument cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the argument {operand:?} is of a form that is not known")]
    UnknownForm { operand: String },
    #[error("the argument {operand:?} has a width other than 1, 2, 4 or 8")]
    UnknownWidth { operand: String },
    #[error("the argument {operand:?} is a floating-point number, which probes cannot read")]
    FloatingPoint { operand: String },
    #[error("the argument {operand:?} is in a vector register, which probes cannot read")]
    VectorRegister { operand: String },
    #[error("the argument {operand:?} is in the thread's own storage, which probes cannot find")]
    ThreadStorage { operand: String },
    #[error("the symbol of the argument {operand:?} is not in the binary: it was stripped")]
    UnknownSymbol { operand: String },
    #[error("the symbol of the argument {operand:?} stands for several places in the binary")]
    AmbiguousSymbol { operand: String },
    #[error(
        "the argument {operand:?} has an address that holds only where the binary was linked to run, \
             and this one runs anywhere"
    )]
    FixedAddress { operand: String },
}

/// Why a symbol has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSymbol {
    Unknown,
    Ambiguous,
}

/// What operands refer to.
pub struct Program<'a> {
    pub machine: Machine,
    /// Whether it runs at the addresses it was linked to (not PIE).
    pub fixed: bool,
    /// Address of a symbol, as linked.
    pub symbol: &'a dyn Fn(&str) -> Result<u64, NoSymbol>,
}

/// Why a place, an operand without its width, cannot be read.
enum Refused {
    Form,
    VectorRegister,
    ThreadStorage,
    Symbol(NoSymbol),
    FixedAddress,
}

impl From<NoSymbol> for Refused {
    fn from(no_symbol: NoSymbol) -> Self {
        Self::Symbol(no_symbol)
    }
}

/// Parses `text`, the arguments of a probe at `address`, as linked.
///
/// More than [`ARGUMENTS`] are left out: no program reads them.
pub fn parse(program: &Program<'_>, text: &str, address: u64) -> Vec<Result<Argument, SpecError>> {
    split(text).into_iter().take(ARGUMENTS).map(|operand| one(program, operand, address)).collect()
}

/// Cuts at blanks, but neither within brackets nor behind a comma: `8@[sp, 16]` is one.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut depth = 0_u32;
    let mut start = None;
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if character.is_whitespace() && depth == 0 && before != ',' {
            parts.extend(start.take().map(|start| &text[start..at]));
        } else if start.is_none() {
            start = Some(at);
        }
        before = character;
    }
    parts.extend(start.map(|start| &text[start..]));
    parts
}

fn one(program: &Program<'_>, text: &str, address: u64) -> Result<Argument, SpecError> {
    let operand = || text.to_owned();
    let (width, place) = text.split_once('@').unwrap_or(("8", text));
    if width.strip_suffix('f').is_some_and(|width| width.parse::<i8>().is_ok()) {
        return Err(SpecError::FloatingPoint { operand: operand() });
    }
    let width: i8 = width.parse().map_err(|_| SpecError::UnknownWidth { operand: operand() })?;
    let bytes = width.unsigned_abs();
    if ![1, 2, 4, 8].contains(&bytes) {
        return Err(SpecError::UnknownWidth { operand: operand() });
    }
    let read = match program.machine {
        Machine::X86_64 => x86_64::place(program, place, bytes, address),
        Machine::Aarch64 => aarch64::place(program, place, address),
    };
    let argument = read.map_err(|refused| match refused {
        Refused::Form => SpecError::UnknownForm { operand: operand() },
        Refused::VectorRegister => SpecError::VectorRegister { operand: operand() },
        Refused::ThreadStorage => SpecError::ThreadStorage { operand: operand() },
        Refused::Symbol(NoSymbol::Unknown) => SpecError::UnknownSymbol { operand: operand() },
        Refused::Symbol(NoSymbol::Ambiguous) => SpecError::AmbiguousSymbol { operand: operand() },
        Refused::FixedAddress => SpecError::FixedAddress { operand: operand() },
    })?;
    Ok(Argument { bytes, signed: u8::from(width < 0), ..argument })
}

fn constant(value: i64) -> Argument {
    Argument { form: form::CONSTANT, value, ..Argument::NONE }
}

fn in_register(register: u32) -> Argument {
    Argument { form: form::REGISTER, register, ..Argument::NONE }
}

/// At `register + (index << scale) + value`.
fn memory(register: u32, index: u32, scale: u32, value: i64) -> Argument {
    Argument { form: form::MEMORY, register, index, scale, value, ..Argument::NONE }
}

/// At `target`, as linked, of a program that may run elsewhere: the program counter, which at the probe is `address` and is
/// kept at `counter` of the registers, is as far away as it was when it was linked.
fn relative(counter: u32, target: u64, address: u64) -> Argument {
    memory(counter, NO_REGISTER, 0, target.wrapping_sub(address).cast_signed())
}

#[cfg(test)]
mod tests;
