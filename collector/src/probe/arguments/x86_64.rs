//! AT&T syntax: `$1`, `%rax`, `-24(%rbp)`, `8(%rax,%rcx,4)`, `table(,%rcx,8)`, `name+4(%rip)`, `name`.
//!
//! `name(%rip)` is where the program has `name`, wherever it runs. A bare `16(%rip)` is refused: it counts from the next
//! instruction, whose address the note does not give.

use whence_abi::usdt::{Argument, NO_REGISTER};

use super::expression::Sum;
use super::{Program, Refused, constant, in_register, memory, relative};

/// Where `struct pt_regs` keeps the instruction pointer and the stack pointer.
const RIP: u32 = 16 * 8;
const RSP: u32 = 19 * 8;

/// The other registers in the order of `struct pt_regs`; each with its narrower names.
const REGISTERS: [[&str; 4]; 15] = [
    ["r15", "r15d", "r15w", "r15b"],
    ["r14", "r14d", "r14w", "r14b"],
    ["r13", "r13d", "r13w", "r13b"],
    ["r12", "r12d", "r12w", "r12b"],
    ["rbp", "ebp", "bp", "bpl"],
    ["rbx", "ebx", "bx", "bl"],
    ["r11", "r11d", "r11w", "r11b"],
    ["r10", "r10d", "r10w", "r10b"],
    ["r9", "r9d", "r9w", "r9b"],
    ["r8", "r8d", "r8w", "r8b"],
    ["rax", "eax", "ax", "al"],
    ["rcx", "ecx", "cx", "cl"],
    ["rdx", "edx", "dx", "dl"],
    ["rsi", "esi", "si", "sil"],
    ["rdi", "edi", "di", "dil"],
];
/// The second bytes of four of them.
const SECOND_BYTES: [(&str, &str); 4] = [("ah", "rax"), ("bh", "rbx"), ("ch", "rcx"), ("dh", "rdx")];
const VECTOR_REGISTERS: [&str; 5] = ["xmm", "ymm", "zmm", "mm", "st"];

pub fn place(program: &Program<'_>, text: &str, bytes: u8, address: u64) -> Result<Argument, Refused> {
    let text = text.trim();
    if let Some(number) = text.strip_prefix('$') {
        return Ok(constant(
            Sum::parse(number).filter(|_| !number.is_empty()).ok_or(Refused::Form)?.value(program)?,
        ));
    }
    if text.starts_with("%fs:") || text.starts_with("%gs:") {
        return Err(Refused::ThreadStorage);
    }
    if let Some(name) = text.strip_prefix('%') {
        return register_itself(name, bytes);
    }
    let Some((displacement, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
        // Without a register: an address.
        return absolute(
            program,
            Sum::parse(text).filter(|_| !text.is_empty()).ok_or(Refused::Form)?,
            address,
        );
    };
    let is_bare = displacement.trim().is_empty();
    let displacement = Sum::parse(displacement).ok_or(Refused::Form)?;
    if inner.trim() == "%rip" {
        let target = displacement.address(program)?.ok_or(Refused::Form)?;
        return Ok(relative(RIP, target, address));
    }
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let (base, index, scale) = match parts[..] {
        [base] if !base.is_empty() => (address_register(base)?, NO_REGISTER, 0),
        // `name(,1)`, the assembler's way to write a name that is no register.
        ["", "1"] => (NO_REGISTER, NO_REGISTER, 0),
        [base, index] => (address_register(base)?, index_register(index)?, 0),
        [base, index, scale] => (address_register(base)?, index_register(index)?, shift(scale)?),
        _ => return Err(Refused::Form),
    };
    if base == NO_REGISTER && index == NO_REGISTER {
        return if is_bare { Err(Refused::Form) } else { absolute(program, displacement, address) };
    }
    Ok(memory(base, index, scale, displacement.value(program)?))
}

/// What lies at an address: of a symbol anywhere, of a number only where the program was linked to run.
fn absolute(program: &Program<'_>, sum: Sum<'_>, address: u64) -> Result<Argument, Refused> {
    match sum.address(program)? {
        Some(target) => Ok(relative(RIP, target, address)),
        None => Ok(memory(NO_REGISTER, NO_REGISTER, 0, sum.number)),
    }
}

fn register_itself(name: &str, bytes: u8) -> Result<Argument, Refused> {
    if let Some(register) = general(name) {
        return Ok(in_register(register));
    }
    if let Some((_, whole)) = SECOND_BYTES.iter().find(|(second, _)| *second == name) {
        let first_byte = general(whole).ok_or(Refused::Form)?;
        return if bytes == 1 { Ok(in_register(first_byte + 1)) } else { Err(Refused::Form) };
    }
    let kind =
        name.trim_end_matches(|character: char| character.is_ascii_digit() || "()".contains(character));
    Err(if VECTOR_REGISTERS.contains(&kind) { Refused::VectorRegister } else { Refused::Form })
}

/// Offset in `struct pt_regs` of the register that `name`, of any width, is the low part of.
fn general(name: &str) -> Option<u32> {
    if ["rsp", "esp", "sp", "spl"].contains(&name) {
        return Some(RSP);
    }
    let at = REGISTERS.iter().position(|names| names.contains(&name))?;
    u32::try_from(at * 8).ok()
}

/// A register that holds an address, with its whole 64 bits, or none.
fn address_register(text: &str) -> Result<u32, Refused> {
    let Some(name) = text.strip_prefix('%') else {
        return if text.is_empty() { Ok(NO_REGISTER) } else { Err(Refused::Form) };
    };
    let whole = name == "rsp" || REGISTERS.iter().any(|names| names[0] == name);
    general(name).filter(|_| whole).ok_or(Refused::Form)
}

/// The same for an index, which the stack pointer cannot be.
fn index_register(text: &str) -> Result<u32, Refused> {
    if text == "%rsp" { Err(Refused::Form) } else { address_register(text) }
}

fn shift(scale: &str) -> Result<u32, Refused> {
    match scale {
        "" | "1" => Ok(0),
        "2" => Ok(1),
        "4" => Ok(2),
        "8" => Ok(3),
        _ => Err(Refused::Form),
    }
}
