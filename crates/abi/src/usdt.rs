//! Where the arguments of a static probe (USDT) are, at one of its locations.

/// Most arguments that are read of one probe.
pub const ARGUMENTS: usize = 6;

/// How an argument is come by.
pub mod form {
    /// It is `value`.
    pub const CONSTANT: u16 = 0;
    /// It is in `register`.
    pub const REGISTER: u16 = 1;
    /// It is in memory at `register + (index << scale) + value`.
    pub const MEMORY: u16 = 2;
}

/// What is done to an index register, as bits of [`Argument::scale`].
pub mod index {
    /// Mask of the bits by which it is shifted left: 0 to 3.
    pub const SHIFT: u32 = 3;
    /// Only its lower 32 bits count, and their sign (arm64: `sxtw`).
    pub const SIGNED_WORD: u32 = 1 << 8;
    /// Only its lower 32 bits count (arm64: `uxtw`).
    pub const UNSIGNED_WORD: u32 = 1 << 9;
}

/// No such register.
pub const NO_REGISTER: u32 = u32::MAX;

/// One argument.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// One of [`form`].
    pub form: u16,
    /// Width in bytes: 1, 2, 4 or 8.
    pub bytes: u8,
    /// 1: extend the sign.
    pub signed: u8,
    /// Byte offset in `struct pt_regs` of what holds it, or its base address: a register, or its second byte.
    pub register: u32,
    /// The same of the index register, or [`NO_REGISTER`].
    pub index: u32,
    /// The index is shifted left by this; with the other bits of [`index`].
    pub scale: u32,
    /// The constant, or the displacement.
    pub value: i64,
}

impl Argument {
    /// A place for an argument that the probe does not have.
    pub const NONE: Self =
        Self { form: 0, bytes: 8, signed: 0, register: NO_REGISTER, index: NO_REGISTER, scale: 0, value: 0 };
}

/// All arguments at one location.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Slot of the attachment.
    pub target: u32,
    pub count: u32,
    /// Keeps the arguments where they are when more is to be said.
    pub reserved: u64,
    pub arguments: [Argument; ARGUMENTS],
}
