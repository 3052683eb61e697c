//! Reads what a small function does out of its machine code: it is followed along each of its ways with symbols in place
//! of its arguments, and what comes out are the addresses it reads and writes, as sums and loads over those arguments.

use std::collections::HashMap;
use std::rc::Rc;

use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// The machine code that is read.
pub trait Memory {
    /// Up to `most` bytes at `address`.
    fn bytes(&self, address: u64, most: u64) -> Option<&[u8]>;
    /// Whether a function with a name begins at `address`.
    fn is_function_start(&self, address: u64) -> bool;
}

/// Most ways through one function that are followed.
const PATHS: usize = 512;
/// Most instructions that are followed in one function, over all ways.
const INSTRUCTIONS: usize = 40_000;
/// Code that is decoded at once: no instruction is longer.
const INSTRUCTION_BYTES: u64 = 15;

/// What a register or a place in memory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Unknown,
    Constant(u64),
    /// Something and a number.
    Sum(Rc<Base>, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The function's argument, from 0.
    Argument(usize),
    /// The stack pointer at the function's start.
    Stack,
    /// What the call at this address returned.
    Result(u64),
    /// This many bytes at an address.
    Load(Value, usize),
}

impl Value {
    pub fn argument(number: usize) -> Self {
        Self::Sum(Rc::new(Base::Argument(number)), 0)
    }

    /// The `bytes` wide value that lies at this address.
    pub fn load(self, bytes: usize) -> Self {
        Self::Sum(Rc::new(Base::Load(self, bytes)), 0)
    }

    pub fn plus(&self, number: i64) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Constant(value) => Self::Constant(value.wrapping_add_signed(number)),
            Self::Sum(base, sum) => Self::Sum(base.clone(), sum.wrapping_add(number)),
        }
    }

    /// The distance to `object`, for an address within it.
    pub fn offset_in(&self, object: &Self) -> Option<u32> {
        match (self, object) {
            (Self::Sum(base, sum), Self::Sum(other, start)) if base == other => {
                u32::try_from(sum - start).ok()
            }
            _ => None,
        }
    }

    /// For an address within an object that is pointed to: the address where the object begins.
    pub fn object(&self) -> Option<Self> {
        match self {
            Self::Sum(base, _) => Some(Self::Sum(base.clone(), 0)),
            _ => None,
        }
    }

    /// Whether this is what the call at `address` returned.
    pub fn is_result_of(&self, address: u64) -> bool {
        matches!(self, Self::Sum(base, 0) if **base == Base::Result(address))
    }

    /// For what was loaded as `bytes` bytes: the address.
    pub fn loaded_from(&self, bytes: usize) -> Option<&Self> {
        match self {
            Self::Sum(base, 0) => match &**base {
                Base::Load(address, width) if *width == bytes => Some(address),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Something that the function does.
#[derive(Clone, Debug)]
pub enum Event {
    /// It writes `bytes` bytes to memory that is not its stack.
    Store { address: Value, bytes: usize, value: Value },
    /// It compares two values.
    Compare { left: Value, right: Value },
    /// It calls another function, or goes on as it, with these first six arguments. No target: it is computed.
    Call { at: u64, target: Option<u64>, arguments: [Value; 6] },
    /// It returns this.
    Return(Value),
}

/// All that the function at `address` does, over all its ways.
pub fn events(memory: &dyn Memory, address: u64) -> Vec<Event> {
    let mut walk = Walk { memory, events: Vec::new(), instructions: 0, info: InstructionInfoFactory::new() };
    let mut open = vec![State::new(address)];
    let mut paths = 0;
    while let Some(state) = open.pop() {
        paths += 1;
        walk.follow(state, &mut open);
        if paths >= PATHS || walk.instructions >= INSTRUCTIONS {
            break;
        }
    }
    walk.events
}

/// Arguments come in these, and are spoilt by calls, as `CALL_SPOILT`.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
const CALL_SPOILT: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// A way through the function, up to an instruction.
#[derive(Clone)]
struct State {
    next: u64,
    registers: [Value; 16],
    /// Values on the stack, by their distance from the stack pointer at the start, with their widths.
    stack: HashMap<i64, (usize, Value)>,
    /// How often each instruction was passed: loops are left after the second time.
    passed: HashMap<u64, u8>,
    /// What the last instruction that set the flags compared with zero.
    tested: Option<Value>,
}

impl State {
    fn new(next: u64) -> Self {
        let mut registers = [const { Value::Unknown }; 16];
        for (number, register) in ARGUMENTS.into_iter().enumerate() {
            registers[register.number()] = Value::argument(number);
        }
        registers[Register::RSP.number()] = Value::Sum(Rc::new(Base::Stack), 0);
        Self { next, registers, stack: HashMap::new(), passed: HashMap::new(), tested: None }
    }

    fn register(&self, register: Register) -> Value {
        if register.is_gpr32() || register.is_gpr64() || register.is_gpr16() {
            self.registers[register.full_register().number()].clone()
        } else {
            Value::Unknown
        }
    }

    fn set(&mut self, register: Register, value: Value) {
        if !register.is_gpr() {
            return;
        }
        // A narrow write leaves the rest of the register as it was: what is in it then is not followed.
        let whole = register.is_gpr32() || register.is_gpr64();
        self.registers[register.full_register().number()] = if whole { value } else { Value::Unknown };
    }

    /// Goes on where the value that was tested is zero: what is made of a null pointer tells nothing.
    fn take_as_zero(&mut self) {
        let Some(tested) = self.tested.take().filter(|tested| *tested != Value::Unknown) else {
            return;
        };
        for register in &mut self.registers {
            if *register == tested {
                *register = Value::Constant(0);
            }
        }
    }

    fn stack_place(address: &Value) -> Option<i64> {
        match address {
            Value::Sum(base, sum) if **base == Base::Stack => Some(*sum),
            _ => None,
        }
    }

    fn load(&self, address: Value, bytes: usize) -> Value {
        match Self::stack_place(&address) {
            Some(place) => match self.stack.get(&place) {
                Some((width, value)) if *width == bytes => value.clone(),
                _ => Value::Unknown,
            },
            None if address == Value::Unknown => Value::Unknown,
            None => address.load(bytes),
        }
    }
}

struct Walk<'a> {
    memory: &'a dyn Memory,
    events: Vec<Event>,
    instructions: usize,
    info: InstructionInfoFactory,
}

impl Walk<'_> {
    /// Follows one way to its end; where it forks, the other way goes to `open`.
    fn follow(&mut self, mut state: State, open: &mut Vec<State>) {
        while self.instructions < INSTRUCTIONS {
            self.instructions += 1;
            let passed = state.passed.entry(state.next).or_default();
            *passed += 1;
            if *passed > 2 {
                return;
            }
            let Some(code) = self.memory.bytes(state.next, INSTRUCTION_BYTES) else {
                return;
            };
            let instruction = Decoder::with_ip(64, code, state.next, DecoderOptions::NONE).decode();
            state.next = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::Next => self.compute(&mut state, &instruction, open),
                FlowControl::ConditionalBranch => {
                    let mut other = state.clone();
                    other.next = instruction.near_branch_target();
                    match instruction.condition_code() {
                        ConditionCode::e => other.take_as_zero(),
                        ConditionCode::ne => state.take_as_zero(),
                        _ => {}
                    }
                    open.push(other);
                }
                FlowControl::UnconditionalBranch => state.next = instruction.near_branch_target(),
                FlowControl::Call => {
                    self.call(&mut state, instruction.ip(), Some(instruction.near_branch_target()));
                }
                FlowControl::IndirectCall => self.call(&mut state, instruction.ip(), None),
                FlowControl::Return => {
                    self.events.push(Event::Return(state.register(Register::RAX)));
                    return;
                }
                _ => return,
            }
            if instruction.flow_control() == FlowControl::UnconditionalBranch
                && self.memory.is_function_start(state.next)
            {
                // It ends as another function, which is followed like a part of it.
                self.note_call(&state, instruction.ip(), Some(state.next));
            }
        }
    }

    fn note_call(&mut self, state: &State, at: u64, target: Option<u64>) {
        let arguments = ARGUMENTS.map(|register| state.register(register));
        self.events.push(Event::Call { at, target, arguments });
    }

    fn call(&mut self, state: &mut State, at: u64, target: Option<u64>) {
        self.note_call(state, at, target);
        for register in CALL_SPOILT {
            state.set(register, Value::Unknown);
        }
        state.set(Register::RAX, Value::Sum(Rc::new(Base::Result(at)), 0));
    }

    /// The address of the instruction's memory operand.
    fn address(state: &State, instruction: &Instruction) -> Value {
        if instruction.segment_prefix() == Register::FS || instruction.segment_prefix() == Register::GS {
            return Value::Unknown;
        }
        if instruction.is_ip_rel_memory_operand() {
            return Value::Constant(instruction.ip_rel_memory_address());
        }
        if instruction.memory_index() != Register::None {
            return Value::Unknown;
        }
        let displacement = instruction.memory_displacement64().cast_signed();
        match instruction.memory_base() {
            Register::None => Value::Constant(displacement.cast_unsigned()),
            base => state.register(base).plus(displacement),
        }
    }

    fn operand(state: &State, instruction: &Instruction, number: u32) -> Value {
        match instruction.op_kind(number) {
            OpKind::Register => state.register(instruction.op_register(number)),
            OpKind::Memory => state.load(Self::address(state, instruction), instruction.memory_size().size()),
            _ => match instruction.try_immediate(number) {
                Ok(immediate) => Value::Constant(immediate),
                Err(_) => Value::Unknown,
            },
        }
    }

    fn store(&mut self, state: &mut State, address: Value, bytes: usize, value: Value) {
        match State::stack_place(&address) {
            Some(place) => {
                state.stack.retain(|&start, &mut (width, _)| {
                    start + width.cast_signed() as i64 <= place || start >= place + bytes.cast_signed() as i64
                });
                state.stack.insert(place, (bytes, value));
            }
            None => self.events.push(Event::Store { address, bytes, value }),
        }
    }

    fn write(&mut self, state: &mut State, instruction: &Instruction, value: Value) {
        if instruction.op0_kind() == OpKind::Memory {
            let address = Self::address(state, instruction);
            self.store(state, address, instruction.memory_size().size(), value);
        } else {
            // The high half of the register is cleared.
            let value = match value {
                Value::Constant(number) if instruction.op0_register().is_gpr32() => {
                    Value::Constant(number & u64::from(u32::MAX))
                }
                value => value,
            };
            state.set(instruction.op0_register(), value);
        }
    }

    fn compute(&mut self, state: &mut State, instruction: &Instruction, open: &mut Vec<State>) {
        if instruction.rflags_modified() != 0 {
            state.tested = None;
        }
        let left = || Self::operand(state, instruction, 0);
        let right = || Self::operand(state, instruction, 1);
        match instruction.mnemonic() {
            // A narrow value in a wide register: as loaded.
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
                let value = right();
                self.write(state, instruction, value);
            }
            Mnemonic::Lea => {
                let value = Self::address(state, instruction);
                self.write(state, instruction, value);
            }
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => {
                let value = arithmetic(instruction, &left(), &right());
                self.write(state, instruction, value);
            }
            // All ones or all zeros, as the carry says.
            Mnemonic::Sbb if is_same_register(instruction) => {
                let mut other = state.clone();
                self.write(&mut other, instruction, Value::Constant(u64::MAX));
                open.push(other);
                self.write(state, instruction, Value::Constant(0));
            }
            Mnemonic::Cmp => {
                let (left, right) = (left(), right());
                self.events.push(Event::Compare { left, right });
            }
            Mnemonic::Test => {
                if is_same_register(instruction) {
                    state.tested = Some(left());
                }
            }
            Mnemonic::Push => {
                let value = left();
                let top = state.register(Register::RSP).plus(-8);
                state.set(Register::RSP, top.clone());
                self.store(state, top, 8, value);
            }
            Mnemonic::Pop => {
                let top = state.register(Register::RSP);
                let value = state.load(top.clone(), 8);
                state.set(Register::RSP, top.plus(8));
                self.write(state, instruction, value);
            }
            Mnemonic::Leave => {
                let frame = state.register(Register::RBP);
                let value = state.load(frame.clone(), 8);
                state.set(Register::RSP, frame.plus(8));
                state.set(Register::RBP, value);
            }
            _ if is_conditional_move(instruction) => {
                let mut other = state.clone();
                let value = right();
                self.write(&mut other, instruction, value);
                open.push(other);
            }
            _ => self.spoil(state, instruction),
        }
    }

    /// An instruction that is not followed: what it writes is unknown from here on.
    fn spoil(&mut self, state: &mut State, instruction: &Instruction) {
        let writes = |access| {
            matches!(
                access,
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            )
        };
        let info = self.info.info(instruction);
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            let register = used.register();
            if register.is_gpr() && register.full_register() != Register::RSP {
                state.registers[register.full_register().number()] = Value::Unknown;
            }
        }
        if info.used_memory().iter().any(|used| writes(used.access())) {
            let address = Self::address(state, instruction);
            self.store(state, address, instruction.memory_size().size(), Value::Unknown);
        }
    }
}

fn is_same_register(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
}

/// Other conditional instructions that do not jump set single bytes.
fn is_conditional_move(instruction: &Instruction) -> bool {
    instruction.condition_code() != ConditionCode::None
        && instruction.op0_kind() == OpKind::Register
        && !instruction.op0_register().is_gpr8()
}

fn arithmetic(instruction: &Instruction, left: &Value, right: &Value) -> Value {
    let mnemonic = instruction.mnemonic();
    if is_same_register(instruction) && matches!(mnemonic, Mnemonic::Xor | Mnemonic::Sub) {
        return Value::Constant(0);
    }
    match (mnemonic, left, right) {
        (Mnemonic::Add, left, &Value::Constant(number)) => left.plus(number.cast_signed()),
        (Mnemonic::Add, &Value::Constant(number), right) => right.plus(number.cast_signed()),
        (Mnemonic::Sub, left, &Value::Constant(number)) => left.plus(number.cast_signed().wrapping_neg()),
        (Mnemonic::And, &Value::Constant(left), &Value::Constant(right)) => Value::Constant(left & right),
        (Mnemonic::Or, &Value::Constant(left), &Value::Constant(right)) => Value::Constant(left | right),
        (Mnemonic::Xor, &Value::Constant(left), &Value::Constant(right)) => Value::Constant(left ^ right),
        _ => Value::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;

    /// Code that lies at [`START`], where a function begins.
    struct Code(&'static [u8]);

    impl Memory for Code {
        fn bytes(&self, address: u64, most: u64) -> Option<&[u8]> {
            let within = usize::try_from(address.checked_sub(START)?).ok()?;
            let rest = self.0.get(within..).filter(|rest| !rest.is_empty())?;
            Some(&rest[..rest.len().min(usize::try_from(most).ok()?)])
        }

        fn is_function_start(&self, address: u64) -> bool {
            address == START
        }
    }

    fn returned(code: &'static [u8]) -> Vec<Value> {
        let events = events(&Code(code), START).into_iter();
        let returned = events.filter_map(|event| match event {
            Event::Return(value) => Some(value),
            _ => None,
        });
        returned.collect()
    }

    fn stored(code: &'static [u8]) -> Vec<(Value, usize, Value)> {
        let events = events(&Code(code), START).into_iter();
        let stored = events.filter_map(|event| match event {
            Event::Store { address, bytes, value } => Some((address, bytes, value)),
            _ => None,
        });
        stored.collect()
    }

    /// `thd_get_thread_id` of MariaDB 10.11: `mov rax,[rdi+0x3f18]; ret`.
    #[test]
    fn a_field_is_a_load() {
        let code = b"\x48\x8b\x87\x18\x3f\x00\x00\xc3";
        assert_eq!(returned(code), [Value::argument(0).plus(0x3f18).load(8)]);
    }

    /// `thd_priv_user` of MariaDB 10.11: an address behind a pointer, kept over a call; nothing where that is null.
    #[test]
    fn a_null_pointer_tells_nothing() {
        let code =
            b"\x55\x48\x89\xe5\x41\x54\x49\x89\xf4\x53\x48\x8b\x9f\xf8\x25\x00\x00\x48\x85\xdb\x74\x1a\
            \x48\x83\xc3\x18\x48\x89\xdf\xe8\x9e\x4c\xea\xff\x49\x89\x04\x24\x48\x89\xd8\x5b\x41\x5c\x5d\xc3\
            \x66\x90\x31\xc0\xeb\xee";
        let context = Value::argument(0).plus(0x25f8).load(8);
        assert_eq!(returned(code), [context.plus(0x18), Value::Constant(0)]);
        // The length goes to where the second argument points, which was kept in a register meanwhile.
        assert!(stored(code).iter().all(|(address, bytes, _)| *address == Value::argument(1) && *bytes == 8));
    }

    /// `thd_current_status` of MariaDB 10.11: what the status is compared with means an error.
    #[test]
    fn a_comparison_is_told() {
        let code =
            b"\x48\x8b\x87\xe0\x62\x00\x00\x31\xd2\x48\x85\xc0\x74\x0c\x83\xb8\x34\x02\x00\x00\x05\x75\x03\
            \x8b\x50\x08\x89\xd0\xc3";
        let status = Value::argument(0).plus(0x62e0).load(8).plus(0x234).load(4);
        let events = events(&Code(code), START);
        let told = events.iter().any(|event| match event {
            Event::Compare { left, right } => *left == status && *right == Value::Constant(5),
            _ => false,
        });
        assert!(told, "{events:?}");
    }

    /// The part of `Diagnostics_area::set_ok_status` of MariaDB 10.11 that computes the status without a jump:
    /// `cmp byte [rdi+0x238],1; sbb ecx,ecx; and ecx,-2; add ecx,3; mov [rdi+0x234],ecx; ret`.
    #[test]
    fn what_depends_on_the_carry_is_both() {
        let code =
            b"\x80\xbf\x38\x02\x00\x00\x01\x19\xc9\x83\xe1\xfe\x83\xc1\x03\x89\x8f\x34\x02\x00\x00\xc3";
        let status = Value::argument(0).plus(0x234);
        let both = [3, 1].map(|number| (status.clone(), 4, Value::Constant(number)));
        assert_eq!(stored(code), both);
    }

    /// `push rsi; mov [rsp-0x10],rdi; pop rax; mov rcx,[rsp-0x18]; mov [rcx+8],rax; ret`
    #[test]
    fn values_are_followed_over_the_stack() {
        let code = b"\x56\x48\x89\x7c\x24\xf0\x58\x48\x8b\x4c\x24\xe8\x48\x89\x41\x08\xc3";
        assert_eq!(stored(code), [(Value::argument(0).plus(8), 8, Value::argument(1))]);
    }

    /// `mov ax,[rdi]; ret` leaves the upper part of the register; `lea rax,[rdi+rsi]; ret` adds two arguments.
    #[test]
    fn what_is_not_followed_is_unknown() {
        assert_eq!(returned(b"\x66\x8b\x07\xc3"), [Value::Unknown]);
        assert_eq!(returned(b"\x48\x8d\x04\x37\xc3"), [Value::Unknown]);
    }

    /// `jmp $` is left, and so is code that ends.
    #[test]
    fn it_comes_to_an_end() {
        assert!(returned(b"\xeb\xfe").is_empty());
        assert!(returned(b"\x90").is_empty());
    }
}
