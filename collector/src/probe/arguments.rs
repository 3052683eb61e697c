//! The argument text of a static probe (`8@-24(%rbp) -4@%eax`) goes in, what the BPF programs read comes out.
//!
//! An operand is what the compiler's assembler would take, with the width before it (negative: signed). A form that is
//! not understood is an error that names it: it is never read as something else.

use whence_abi::usdt::{ARGUMENTS, Argument, NO_REGISTER, form};

/// The processor whose operands these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

/// The arguments cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the argument {operand:?} is of a form that is not known")]
    UnknownForm { operand: String },
    #[error("the argument {operand:?} has a width other than 1, 2, 4 or 8")]
    UnknownWidth { operand: String },
    #[error("the symbol of the argument {operand:?} is not in the binary")]
    UnknownSymbol { operand: String },
}

/// Parses `text`, the arguments of a probe at `address` (as linked). `symbol` gives the address of a name.
///
/// More than [`ARGUMENTS`] are left out: no program reads them.
pub fn parse(
    machine: Machine,
    text: &str,
    address: u64,
    symbol: &dyn Fn(&str) -> Option<u64>,
) -> Result<Vec<Argument>, SpecError> {
    let operands = split(text);
    operands.into_iter().take(ARGUMENTS).map(|operand| one(machine, operand, address, symbol)).collect()
}

/// Cuts at blanks, but not within brackets: `8@[sp, 16]` is one.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut depth = 0_u32;
    let mut start = None;
    for (at, character) in text.char_indices() {
        match character {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if character.is_whitespace() && depth == 0 {
            parts.extend(start.take().map(|start| &text[start..at]));
        } else if start.is_none() {
            start = Some(at);
        }
    }
    parts.extend(start.map(|start| &text[start..]));
    parts
}

fn one(
    machine: Machine,
    operand: &str,
    address: u64,
    symbol: &dyn Fn(&str) -> Option<u64>,
) -> Result<Argument, SpecError> {
    let (width, place) = operand.split_once('@').unwrap_or(("8", operand));
    let unknown_width = || SpecError::UnknownWidth { operand: operand.to_owned() };
    let width: i8 = width.parse().map_err(|_| unknown_width())?;
    let bytes = width.unsigned_abs();
    if ![1, 2, 4, 8].contains(&bytes) {
        return Err(unknown_width());
    }
    let sized = Argument { bytes, signed: u8::from(width < 0), ..Argument::NONE };
    let read = match machine {
        Machine::X86_64 => x86_64(place, address, symbol),
        Machine::Aarch64 => aarch64(place),
    };
    match read {
        Ok(Some(place)) => Ok(Argument { bytes: sized.bytes, signed: sized.signed, ..place }),
        Ok(None) => Err(SpecError::UnknownForm { operand: operand.to_owned() }),
        Err(NoSuchSymbol) => Err(SpecError::UnknownSymbol { operand: operand.to_owned() }),
    }
}

struct NoSuchSymbol;

fn memory(register: u32, index: u32, scale: u32, value: i64) -> Argument {
    Argument { form: form::MEMORY, register, index, scale, value, ..Argument::NONE }
}

/// AT&T syntax: `$1`, `%rax`, `-24(%rbp)`, `8(%rax,%rcx,4)`, `(,%rcx,8)`, `name+4(%rip)`.
fn x86_64(
    place: &str,
    address: u64,
    symbol: &dyn Fn(&str) -> Option<u64>,
) -> Result<Option<Argument>, NoSuchSymbol> {
    if let Some(constant) = place.strip_prefix('$') {
        return Ok(number(constant).map(|value| Argument { form: form::CONSTANT, value, ..Argument::NONE }));
    }
    if let Some(name) = place.strip_prefix('%') {
        // `%ah` and its like, the second byte of their register, are not among the names.
        return Ok(x86_64_register(name).map(|register| Argument {
            form: form::REGISTER,
            register,
            ..Argument::NONE
        }));
    }
    let Some((displacement, inner)) = place.strip_suffix(')').and_then(|place| place.split_once('(')) else {
        return Ok(None);
    };
    if inner.trim() == "%rip" {
        return x86_64_relative(displacement, address, symbol);
    }
    let displacement = if displacement.is_empty() { Some(0) } else { number(displacement) };
    let Some(displacement) = displacement else {
        return Ok(None);
    };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let register = |text: &str| {
        if text.is_empty() {
            Some(NO_REGISTER)
        } else {
            text.strip_prefix('%').and_then(x86_64_wide_register)
        }
    };
    let (base, index, scale) = match parts[..] {
        [base] => (register(base), Some(NO_REGISTER), Some(0)),
        [base, index] => (register(base), register(index), Some(0)),
        [base, index, scale] => (register(base), register(index), shift(scale)),
        _ => (None, None, None),
    };
    let (Some(base), Some(index), Some(scale)) = (base, index, scale) else {
        return Ok(None);
    };
    if base == NO_REGISTER && index == NO_REGISTER {
        return Ok(None);
    }
    Ok(Some(memory(base, index, scale, displacement)))
}

/// `name(%rip)`, `name+4(%rip)`, `16+name(%rip)`: the program knows where it runs by its own instruction pointer, which at
/// the probe is `address` moved by where the binary was loaded.
fn x86_64_relative(
    text: &str,
    address: u64,
    symbol: &dyn Fn(&str) -> Option<u64>,
) -> Result<Option<Argument>, NoSuchSymbol> {
    const RIP: u32 = 16 * 8;
    let (name, extra) = match text.rfind(['+', '-']) {
        Some(at) if at > 0 => match number(text[at..].trim_start_matches('+')) {
            Some(extra) => (&text[..at], extra),
            None => match number(&text[..at]) {
                Some(extra) => (&text[at + 1..], extra),
                None => return Ok(None),
            },
        },
        _ => (text, 0),
    };
    if name.is_empty() || number(name).is_some() {
        // A bare displacement counts from the next instruction, whose address the note does not give.
        return Ok(None);
    }
    let target = symbol(name).ok_or(NoSuchSymbol)?;
    let distance = target.wrapping_sub(address).cast_signed().wrapping_add(extra);
    Ok(Some(memory(RIP, NO_REGISTER, 0, distance)))
}

fn shift(scale: &str) -> Option<u32> {
    match scale {
        "1" => Some(0),
        "2" => Some(1),
        "4" => Some(2),
        "8" => Some(3),
        _ => None,
    }
}

/// Offset in `struct pt_regs` of the register that `name`, of any width, is the low part of.
fn x86_64_register(name: &str) -> Option<u32> {
    // In the order of `struct pt_regs`; each with its narrower names.
    const NAMES: [&[&str]; 15] = [
        &["r15", "r15d", "r15w", "r15b"],
        &["r14", "r14d", "r14w", "r14b"],
        &["r13", "r13d", "r13w", "r13b"],
        &["r12", "r12d", "r12w", "r12b"],
        &["rbp", "ebp", "bp", "bpl"],
        &["rbx", "ebx", "bx", "bl"],
        &["r11", "r11d", "r11w", "r11b"],
        &["r10", "r10d", "r10w", "r10b"],
        &["r9", "r9d", "r9w", "r9b"],
        &["r8", "r8d", "r8w", "r8b"],
        &["rax", "eax", "ax", "al"],
        &["rcx", "ecx", "cx", "cl"],
        &["rdx", "edx", "dx", "dl"],
        &["rsi", "esi", "si", "sil"],
        &["rdi", "edi", "di", "dil"],
    ];
    const RSP: u32 = 19 * 8;
    if ["rsp", "esp", "sp", "spl"].contains(&name) {
        return Some(RSP);
    }
    let at = NAMES.iter().position(|names| names.contains(&name))?;
    u32::try_from(at * 8).ok()
}

/// The same for a register that holds an address: its whole 64 bits.
fn x86_64_wide_register(name: &str) -> Option<u32> {
    let wide = name.starts_with('r') && !name.ends_with(['d', 'w', 'b']);
    x86_64_register(name).filter(|_| wide)
}

/// `x0`, `w1`, `sp`, `42`, `[x0]`, `[sp, 16]`, `[x0, x1]`, `[x0, x1, lsl 3]`.
#[expect(clippy::unnecessary_wraps, reason = "the other processor's places can fail")]
fn aarch64(place: &str) -> Result<Option<Argument>, NoSuchSymbol> {
    let Some(inner) = place.strip_prefix('[').and_then(|place| place.strip_suffix(']')) else {
        if let Some(register) = aarch64_register(place, true) {
            return Ok(Some(Argument { form: form::REGISTER, register, ..Argument::NONE }));
        }
        let constant = number(place.trim_start_matches('#'));
        return Ok(constant.map(|value| Argument { form: form::CONSTANT, value, ..Argument::NONE }));
    };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let address = |text: &str| aarch64_register(text, false);
    Ok(match parts[..] {
        [base] => address(base).map(|base| memory(base, NO_REGISTER, 0, 0)),
        [base, second] => address(base).and_then(|base| {
            let displacement =
                number(second.trim_start_matches('#')).map(|value| memory(base, NO_REGISTER, 0, value));
            displacement.or_else(|| address(second).map(|index| memory(base, index, 0, 0)))
        }),
        [base, index, scale] => address(base).zip(address(index)).and_then(|(base, index)| {
            let scale = scale.strip_prefix("lsl")?.trim().trim_start_matches('#').parse().ok()?;
            (scale <= 3).then(|| memory(base, index, scale, 0))
        }),
        _ => None,
    })
}

/// Offset in `struct user_pt_regs`. With `narrow`, `w0` to `w30` are allowed too.
fn aarch64_register(name: &str, narrow: bool) -> Option<u32> {
    if name == "sp" {
        return Some(31 * 8);
    }
    let digits = name.strip_prefix('x').or_else(|| name.strip_prefix('w').filter(|_| narrow))?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = digits.parse().ok().filter(|_| plain)?;
    (number <= 30).then_some(number * 8)
}

/// A decimal or `0x` number with an optional sign.
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    let value = magnitude.cast_signed();
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAX: u32 = 10 * 8;
    const RBP: u32 = 4 * 8;
    const RBX: u32 = 5 * 8;
    const RDI: u32 = 14 * 8;
    const RSI: u32 = 13 * 8;
    const R12: u32 = 3 * 8;

    fn x86(text: &str) -> Result<Vec<Argument>, SpecError> {
        parse(Machine::X86_64, text, 0x1000, &|name| (name == "counter").then_some(0x5000))
    }

    fn arm(text: &str) -> Result<Vec<Argument>, SpecError> {
        parse(Machine::Aarch64, text, 0x1000, &|_| None)
    }

    fn sized(width: i8, place: Argument) -> Argument {
        Argument { bytes: width.unsigned_abs(), signed: u8::from(width < 0), ..place }
    }

    fn register(register: u32) -> Argument {
        Argument { form: form::REGISTER, register, ..Argument::NONE }
    }

    fn constant(value: i64) -> Argument {
        Argument { form: form::CONSTANT, value, ..Argument::NONE }
    }

    #[test]
    fn every_form_of_x86_64_is_read() {
        let cases = [
            ("8@-24(%rbp)", sized(8, memory(RBP, NO_REGISTER, 0, -24))),
            ("-4@%eax", sized(-4, register(RAX))),
            ("1@%al", sized(1, register(RAX))),
            ("-4@%r12d", sized(-4, register(R12))),
            ("8@$0", sized(8, constant(0))),
            ("-4@$-1", sized(-4, constant(-1))),
            ("8@(%rdi,%rsi,4)", sized(8, memory(RDI, RSI, 2, 0))),
            ("8@16(%rdi,%rsi)", sized(8, memory(RDI, RSI, 0, 16))),
            ("4@(,%rsi,8)", sized(4, memory(NO_REGISTER, RSI, 3, 0))),
            ("8@0x10(%rax)", sized(8, memory(RAX, NO_REGISTER, 0, 16))),
            ("4@counter(%rip)", sized(4, memory(128, NO_REGISTER, 0, 0x4000))),
            ("4@counter+8(%rip)", sized(4, memory(128, NO_REGISTER, 0, 0x4008))),
            ("4@8+counter(%rip)", sized(4, memory(128, NO_REGISTER, 0, 0x4008))),
            ("4@counter-8(%rip)", sized(4, memory(128, NO_REGISTER, 0, 0x3ff8))),
            ("%rax", sized(8, register(RAX))),
        ];
        for (text, expected) in cases {
            assert_eq!(x86(text), Ok(vec![expected]), "{text}");
        }
    }

    #[test]
    fn what_a_server_built_with_dtrace_carries_is_read() {
        let start = x86("8@7008(%rbx) 4@%r14d 8@%rdx 8@328(%rax)").unwrap();
        assert_eq!(start[0], sized(8, memory(RBX, NO_REGISTER, 0, 7008)));
        assert_eq!(start[3], sized(8, memory(RAX, NO_REGISTER, 0, 328)));
        for text in [
            "8@7008(%rbx) 8@%rdx 8@328(%rax)",
            "-4@%r12d 8@7008(%rbx)",
            "8@80(%rbx) 8@7008(%rbx) 8@%rax 8@%rcx 8@328(%rdx)",
        ] {
            assert!(x86(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn every_form_of_arm64_is_read() {
        let cases = [
            ("8@x0", sized(8, register(0))),
            ("-4@w21", sized(-4, register(21 * 8))),
            ("8@sp", sized(8, register(31 * 8))),
            ("-4@42", sized(-4, constant(42))),
            ("8@[x1]", sized(8, memory(8, NO_REGISTER, 0, 0))),
            ("8@[sp, 16]", sized(8, memory(31 * 8, NO_REGISTER, 0, 16))),
            ("8@[x1, x2, lsl 3]", sized(8, memory(8, 16, 3, 0))),
        ];
        for (text, expected) in cases {
            assert_eq!(arm(text), Ok(vec![expected]), "{text}");
        }
        assert_eq!(arm("8@[sp, 16] -4@w0").unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "8@%ah",
            "8@%xmm0",
            "8@",
            "8@(%eax)",
            "8@4",
            "8@(%rax,%rcx,3)",
            "8@()",
            "8@16(%rip)",
            "8@%fs:40",
            "8@$x",
        ] {
            assert!(matches!(x86(text), Err(SpecError::UnknownForm { .. })), "{text}: {:?}", x86(text));
        }
        for text in ["3@%rax", "16@%rax", "x@%rax", "8f@%xmm0", "-128@%rax"] {
            assert!(matches!(x86(text), Err(SpecError::UnknownWidth { .. })), "{text}");
        }
        assert!(matches!(x86("8@nothing(%rip)"), Err(SpecError::UnknownSymbol { .. })));
        for text in ["8@x31", "8@d0", "8@[w1]", "8@[x1, x2, lsl 9]", "8@[x1", "8@x+1"] {
            assert!(arm(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_arguments_are_no_arguments() {
        assert_eq!(x86(""), Ok(Vec::new()));
    }
}
