//! Every form, and what is refused.

use whence_abi::usdt::index;

use super::*;

const RAX: u32 = 10 * 8;
const RBP: u32 = 4 * 8;
const RBX: u32 = 5 * 8;
const RDI: u32 = 14 * 8;
const RSI: u32 = 13 * 8;
const R8: u32 = 9 * 8;
const R12: u32 = 3 * 8;
const RIP: u32 = 16 * 8;
const RSP: u32 = 19 * 8;

fn program(machine: Machine, fixed: bool) -> Program<'static> {
    Program {
        machine,
        fixed,
        symbol: &|name| match name {
            "counter" => Ok(0x5008),
            "twice" => Err(NoSymbol::Ambiguous),
            _ => Err(NoSymbol::Unknown),
        },
    }
}

fn read(machine: Machine, fixed: bool, text: &str) -> Result<Argument, SpecError> {
    let mut arguments = parse(&program(machine, fixed), text, 0x1000);
    assert_eq!(arguments.len(), 1, "{text}");
    arguments.remove(0)
}

fn x86(text: &str) -> Result<Argument, SpecError> {
    read(Machine::X86_64, false, text)
}

fn arm(text: &str) -> Result<Argument, SpecError> {
    read(Machine::Aarch64, false, text)
}

fn sized(width: i8, place: Argument) -> Argument {
    Argument { bytes: width.unsigned_abs(), signed: u8::from(width < 0), ..place }
}

#[test]
fn every_form_of_x86_64_is_read() {
    let cases = [
        ("8@-24(%rbp)", sized(8, memory(RBP, NO_REGISTER, 0, -24))),
        ("8@-24+8(%rbp)", sized(8, memory(RBP, NO_REGISTER, 0, -16))),
        ("-4@%eax", sized(-4, in_register(RAX))),
        ("1@%al", sized(1, in_register(RAX))),
        ("1@%ah", sized(1, in_register(RAX + 1))),
        ("-1@%bh", sized(-1, in_register(RBX + 1))),
        ("2@%ax", sized(2, in_register(RAX))),
        ("8@%r8", sized(8, in_register(R8))),
        ("1@%r8b", sized(1, in_register(R8))),
        ("-4@%r12d", sized(-4, in_register(R12))),
        ("1@%sil", sized(1, in_register(RSI))),
        ("8@%rsp", sized(8, in_register(RSP))),
        ("-8@%eax", sized(-8, in_register(RAX))),
        ("8@$0", sized(8, constant(0))),
        ("-4@$-1", sized(-4, constant(-1))),
        ("8@$0xfffffffffffffff0", sized(8, constant(-16))),
        ("8@$-9223372036854775808", sized(8, constant(i64::MIN))),
        ("4@$4-1", sized(4, constant(3))),
        ("8@(%rsp)", sized(8, memory(RSP, NO_REGISTER, 0, 0))),
        ("8@(%rdi,%rsi,4)", sized(8, memory(RDI, RSI, 2, 0))),
        ("8@(%rdi, %rsi, 1)", sized(8, memory(RDI, RSI, 0, 0))),
        ("8@16(%rdi,%rsi)", sized(8, memory(RDI, RSI, 0, 16))),
        ("4@(,%rsi,8)", sized(4, memory(NO_REGISTER, RSI, 3, 0))),
        ("4@-8(,%rsi)", sized(4, memory(NO_REGISTER, RSI, 0, -8))),
        ("4@8(%rax,)", sized(4, memory(RAX, NO_REGISTER, 0, 8))),
        ("8@0x10(%rax)", sized(8, memory(RAX, NO_REGISTER, 0, 16))),
        ("4@counter(%rip)", sized(4, memory(RIP, NO_REGISTER, 0, 0x4008))),
        ("4@counter+8(%rip)", sized(4, memory(RIP, NO_REGISTER, 0, 0x4010))),
        ("4@8+counter(%rip)", sized(4, memory(RIP, NO_REGISTER, 0, 0x4010))),
        ("4@counter-8(%rip)", sized(4, memory(RIP, NO_REGISTER, 0, 0x4000))),
        ("4@counter", sized(4, memory(RIP, NO_REGISTER, 0, 0x4008))),
        ("4@counter(,1)", sized(4, memory(RIP, NO_REGISTER, 0, 0x4008))),
        ("4@4660", sized(4, memory(NO_REGISTER, NO_REGISTER, 0, 4660))),
        ("%rax", sized(8, in_register(RAX))),
    ];
    for (text, expected) in cases {
        assert_eq!(x86(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_symbol_is_a_number_only_where_the_program_runs_at_its_own_address() {
    let cases = [
        ("8@$counter", sized(8, constant(0x5008))),
        ("8@$counter+4", sized(8, constant(0x500c))),
        ("4@counter(,%rsi,4)", sized(4, memory(NO_REGISTER, RSI, 2, 0x5008))),
        ("4@counter-8(%rdi,%rsi,8)", sized(4, memory(RDI, RSI, 3, 0x5000))),
        ("4@counter(%rax)", sized(4, memory(RAX, NO_REGISTER, 0, 0x5008))),
    ];
    for (text, expected) in cases {
        assert_eq!(read(Machine::X86_64, true, text), Ok(expected), "{text}");
        assert!(matches!(x86(text), Err(SpecError::FixedAddress { .. })), "{text}");
    }
}

#[test]
fn what_a_server_built_with_dtrace_carries_is_read() {
    let start = parse(&program(Machine::X86_64, true), "8@7008(%rbx) 4@%r14d 8@%rdx 8@328(%rax)", 0x1000);
    assert_eq!(start[0], Ok(sized(8, memory(RBX, NO_REGISTER, 0, 7008))));
    assert_eq!(start[3], Ok(sized(8, memory(RAX, NO_REGISTER, 0, 328))));
    for text in [
        "8@7008(%rbx) 8@%rdx 8@328(%rax)",
        "-4@%r12d 8@7008(%rbx)",
        "8@80(%rbx) 8@7008(%rbx) 8@%rax 8@%rcx 8@328(%rdx)",
    ] {
        let read = parse(&program(Machine::X86_64, true), text, 0x1000);
        assert!(read.iter().all(Result::is_ok), "{text}");
    }
}

#[test]
fn every_form_of_arm64_is_read() {
    const X1: u32 = 8;
    const X2: u32 = 16;
    const SP: u32 = 31 * 8;
    let cases = [
        ("8@x0", sized(8, in_register(0))),
        ("8@x30", sized(8, in_register(240))),
        ("8@lr", sized(8, in_register(240))),
        ("-4@w21", sized(-4, in_register(21 * 8))),
        ("8@sp", sized(8, in_register(SP))),
        ("8@xzr", sized(8, constant(0))),
        ("-4@42", sized(-4, constant(42))),
        ("-4@#-42", sized(-4, constant(-42))),
        ("8@0x7fffffffffffffff", sized(8, constant(i64::MAX))),
        ("8@[x1]", sized(8, memory(X1, NO_REGISTER, 0, 0))),
        ("8@[sp, 16]", sized(8, memory(SP, NO_REGISTER, 0, 16))),
        ("8@[sp,#-16]", sized(8, memory(SP, NO_REGISTER, 0, -16))),
        ("8@[x1, x2]", sized(8, memory(X1, X2, 0, 0))),
        ("8@[x1, x2, lsl 3]", sized(8, memory(X1, X2, 3, 0))),
        ("8@[x1, x2, lsl #3]", sized(8, memory(X1, X2, 3, 0))),
        ("4@[x1, w2, sxtw 2]", sized(4, memory(X1, X2, 2 | index::SIGNED_WORD, 0))),
        ("1@[x1, w2, uxtw]", sized(1, memory(X1, X2, index::UNSIGNED_WORD, 0))),
        ("4@[x1, x2, sxtx 2]", sized(4, memory(X1, X2, 2, 0))),
        ("4@[x1, :lo12:counter]", sized(4, memory(X1, NO_REGISTER, 0, 8))),
        ("4@[x1, #:lo12:counter+8]", sized(4, memory(X1, NO_REGISTER, 0, 16))),
        ("4@counter", sized(4, memory(32 * 8, NO_REGISTER, 0, 0x4008))),
    ];
    for (text, expected) in cases {
        assert_eq!(arm(text), Ok(expected), "{text}");
    }
    assert_eq!(parse(&program(Machine::Aarch64, false), "8@[sp, 16] -4@w0", 0).len(), 2);
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in [
        "8@%ah",
        "2@%ah",
        "8@",
        "8@(%eax)",
        "8@(%rax,%rcx,3)",
        "8@()",
        "8@(,)",
        "8@16(%rip)",
        "8@(%rip)",
        "8@$9x",
        "8@$",
        "8@(%rax,%rsp)",
        "8@counter@GOTPCREL(%rip)",
        "8@%rip",
        "8@%es",
        "8@%cr0",
        "8@counter+counter(%rip)",
        "8@8(%rax",
        "8@*%rax",
        "8@(%ah)",
        "8@%",
    ] {
        assert!(matches!(x86(text), Err(SpecError::UnknownForm { .. })), "{text}: {:?}", x86(text));
    }
    for text in [
        "8@[w1]",
        "8@[x1, x2, lsl 9]",
        "8@[x1, x2, lsl 4]",
        "8@[x1",
        "8@x+1@",
        "8@[x1], 8",
        "8@[x1, 8]!",
        "8@[x1, w2]",
        "8@[x1, w2, lsl 3]",
        "8@[x1, x2, sxtw 3]",
        "8@[]",
        "8@[x1, sp]",
        "8@[x1, xzr]",
        "8@[x1, counter]",
        "8@[x1, x2, x3, x4]",
        "8@",
    ] {
        assert!(matches!(arm(text), Err(SpecError::UnknownForm { .. })), "{text}: {:?}", arm(text));
    }
    for text in ["3@%rax", "16@%rax", "x@%rax", "-128@%rax", "@%rax", "0@%rax", "f@%rax"] {
        assert!(matches!(x86(text), Err(SpecError::UnknownWidth { .. })), "{text}");
    }
    for text in ["8f@%xmm0", "4f@-8(%rbp)", "-8f@%rax", "16f@%st"] {
        assert!(matches!(x86(text), Err(SpecError::FloatingPoint { .. })), "{text}");
    }
    for text in ["8@%xmm0", "8@%xmm15", "8@%ymm3", "8@%st(1)", "8@%st", "8@%mm7"] {
        assert!(matches!(x86(text), Err(SpecError::VectorRegister { .. })), "{text}");
    }
    for text in ["8@d0", "4@s31", "8@v0.8b", "8@q7"] {
        assert!(matches!(arm(text), Err(SpecError::VectorRegister { .. })), "{text}");
    }
    for text in ["4@%fs:counter@tpoff", "8@%fs:40", "8@%gs:(%rax)"] {
        assert!(matches!(x86(text), Err(SpecError::ThreadStorage { .. })), "{text}");
    }
    for text in ["8@nothing(%rip)", "8@$nothing", "8@nothing"] {
        assert!(matches!(x86(text), Err(SpecError::UnknownSymbol { .. })), "{text}");
    }
    for text in ["8@x31", "8@w31", "8@x01", "8@x4000000000"] {
        assert!(matches!(arm(text), Err(SpecError::UnknownSymbol { .. })), "{text}");
    }
    assert!(matches!(x86("8@twice(%rip)"), Err(SpecError::AmbiguousSymbol { .. })));
    assert!(matches!(arm("8@[x0, :lo12:twice]"), Err(SpecError::AmbiguousSymbol { .. })));
}

#[test]
fn a_refusal_names_the_operand() {
    let error = x86("8f@%xmm0").unwrap_err().to_string();
    assert_eq!(error, "the argument \"8f@%xmm0\" is a floating-point number, which probes cannot read");
}

#[test]
fn one_that_cannot_be_read_does_not_hide_the_others() {
    let read = parse(&program(Machine::X86_64, false), "8@%rax 8f@%xmm0 4@%ecx", 0);
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn no_arguments_are_no_arguments() {
    assert_eq!(parse(&program(Machine::X86_64, false), "", 0), []);
    assert_eq!(parse(&program(Machine::X86_64, false), " ", 0), []);
}
