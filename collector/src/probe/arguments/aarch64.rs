//! `x0`, `w1`, `sp`, `xzr`, `42`, `#42`, `[x0]`, `[sp, 16]`, `[x0, x1]`, `[x0, x1, lsl 3]`, `[x0, w1, sxtw 2]`,
//! `[x0, :lo12:name]`, `name`.
//!
//! Forms that change their base (`[x0], 8` and `[x0, 8]!`) are refused: a probe does not, and which of the two addresses is
//! meant is not said.

use whence_abi::usdt::{Argument, NO_REGISTER, index};

use super::expression::Sum;
use super::{Program, Refused, constant, in_register, memory, relative};

/// Where `struct user_pt_regs` keeps the stack pointer and the program counter.
const SP: u32 = 31 * 8;
const PC: u32 = 32 * 8;
/// Names of registers that have a number too.
const NAMED: [(&str, u32); 4] = [("fp", 29), ("lr", 30), ("ip0", 16), ("ip1", 17)];

pub fn place(program: &Program<'_>, text: &str, address: u64) -> Result<Argument, Refused> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[') {
        return in_memory(program, inner.strip_suffix(']').ok_or(Refused::Form)?);
    }
    if let Some(register) = wide(text).or_else(|| narrow(text)) {
        return Ok(in_register(register));
    }
    match text {
        "xzr" | "wzr" => return Ok(constant(0)),
        "wsp" => return Ok(in_register(SP)),
        _ if is_vector_register(text) => return Err(Refused::VectorRegister),
        _ => {}
    }
    let sum = sum(text)?;
    match sum.address(program)? {
        Some(target) => Ok(relative(PC, target, address)),
        None => Ok(constant(sum.number)),
    }
}

fn in_memory(program: &Program<'_>, inner: &str) -> Result<Argument, Refused> {
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let (base, rest) = parts.split_first().ok_or(Refused::Form)?;
    let base = wide(base).ok_or(Refused::Form)?;
    match rest {
        [] => Ok(memory(base, NO_REGISTER, 0, 0)),
        [second] => match wide(second).filter(|register| *register != SP) {
            Some(index) => Ok(memory(base, index, 0, 0)),
            None => Ok(memory(base, NO_REGISTER, 0, displacement(program, second)?)),
        },
        [index, extension] => {
            let (name, amount) = extension.split_once([' ', '\t']).unwrap_or((extension, "0"));
            let amount = sum(amount.trim())?;
            let shift =
                u32::try_from(amount.number).ok().filter(|shift| *shift <= 3 && amount.symbol.is_none());
            let shift = shift.ok_or(Refused::Form)?;
            let (index, extended) = match name {
                // Of a whole register, `sxtx` is no more than `lsl`.
                "lsl" | "sxtx" => (wide(index).filter(|register| *register != SP), 0),
                "sxtw" => (narrow(index), index::SIGNED_WORD),
                "uxtw" => (narrow(index), index::UNSIGNED_WORD),
                _ => return Err(Refused::Form),
            };
            Ok(memory(base, index.ok_or(Refused::Form)?, shift | extended, 0))
        }
        _ => Err(Refused::Form),
    }
}

/// A number, or the low twelve bits of an address (`:lo12:name`), which are the same wherever the program runs.
fn displacement(program: &Program<'_>, text: &str) -> Result<i64, Refused> {
    let text = text.strip_prefix('#').unwrap_or(text);
    if let Some(name) = text.strip_prefix(":lo12:") {
        let target = sum(name)?.address(program)?.ok_or(Refused::Form)?;
        return Ok((target & 0xfff).cast_signed());
    }
    let sum = sum(text)?;
    if sum.symbol.is_some() { Err(Refused::Form) } else { Ok(sum.number) }
}

fn sum(text: &str) -> Result<Sum<'_>, Refused> {
    let text = text.strip_prefix('#').unwrap_or(text);
    Sum::parse(text).filter(|_| !text.is_empty()).ok_or(Refused::Form)
}

/// Offset in `struct user_pt_regs` of a register with its whole 64 bits.
fn wide(name: &str) -> Option<u32> {
    if name == "sp" {
        return Some(SP);
    }
    let named = NAMED.iter().find(|(other, _)| *other == name).map(|(_, number)| number * 8);
    named.or_else(|| numbered(name.strip_prefix('x')?, 30))
}

/// The same of its lower half, `w0` to `w30`.
fn narrow(name: &str) -> Option<u32> {
    numbered(name.strip_prefix('w')?, 30)
}

fn numbered(digits: &str, last: u32) -> Option<u32> {
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    let number: u32 = digits.parse().ok().filter(|_| plain)?;
    (number <= last).then(|| number * 8)
}

/// `d0`, `v1.16b` and their like.
fn is_vector_register(name: &str) -> bool {
    let number = name.strip_prefix(['b', 'h', 's', 'd', 'q', 'v', 'z', 'p']);
    number.and_then(|number| numbered(number.split('.').next()?, 31)).is_some()
}
