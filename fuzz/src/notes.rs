//! Static probes of a binary, and the operands in them.

use whence_abi::usdt::{ARGUMENTS, form};
use whence_collector::probe::arguments::{self, Machine, NoSymbol, Program};
use whence_collector::probe::notes;

/// Of `pt_regs` on arm64, the longer one.
const REGISTERS_BYTES: u32 = 34 * 8;

pub fn binary(bytes: &[u8]) {
    let Ok(locations) = notes::of_data(bytes, None) else { return };
    for location in locations {
        assert!(location.offset < bytes.len() as u64, "a probe outside of the file");
        assert!(location.arguments.len() <= ARGUMENTS);
    }
}

/// The first byte chooses the machine and whether the program is at a fixed address.
pub fn arguments(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let program = Program {
        machine: if choice & 1 == 0 { Machine::X86_64 } else { Machine::Aarch64 },
        fixed: choice & 2 != 0,
        symbol: &|name| if name.len().is_multiple_of(2) { Ok(0x1234) } else { Err(NoSymbol::Unknown) },
    };
    for argument in arguments::parse(&program, text, 0x4000).into_iter().flatten() {
        assert!([1, 2, 4, 8].contains(&argument.bytes));
        // What the program in the kernel reads is within the registers.
        let within = |register: u32| register == u32::MAX || register + 8 <= REGISTERS_BYTES;
        assert!(within(argument.register) && within(argument.index), "{argument:?}");
        assert!(argument.form <= form::MEMORY);
    }
}
