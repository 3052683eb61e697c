//! What the kernel hands to the collector: one record per event, a fixed head and the strings behind it.
//!
//! Byte order and alignment are the machine's own: kernel and collector are on one host. `present` and `cut` are sets
//! of [`bit`]s: a field whose bit is not set in `present` could not be read and holds nothing.

/// What a record tells.
pub mod kind {
    /// A command of the protocol that has ended.
    pub const COMMAND: u32 = 1;
    /// A login that was let in.
    pub const CONNECT: u32 = 2;
    /// A login that was refused.
    pub const CONNECT_FAILED: u32 = 3;
    pub const DISCONNECT: u32 = 4;
    /// `COM_CHANGE_USER`, which is a command too.
    pub const CHANGE_USER: u32 = 5;
    /// SQL text too long for its own record; it comes before that, as a [`super::Overflow`].
    pub const OVERFLOW: u32 = 16;
}

/// How the record was made.
pub mod provider {
    pub const FUNCTIONS: u32 = 1;
    pub const USDT: u32 = 2;
}

/// How it ended.
pub mod outcome {
    /// The source does not say.
    pub const UNKNOWN: u32 = 0;
    pub const OK: u32 = 1;
    pub const ERROR: u32 = 2;
    /// The thread took up something else, or ended, before this was done.
    pub const UNFINISHED: u32 = 3;
}

/// Strings of a record, as indexes of [`Record::strings`].
pub mod string {
    /// The account that applied.
    pub const PRIV_USER: usize = 0;
    /// The name given at login.
    pub const LOGIN_USER: usize = 1;
    pub const HOST: usize = 2;
    pub const IP: usize = 3;
    pub const HOST_OR_IP: usize = 4;
    pub const DATABASE: usize = 5;
    pub const SQL: usize = 6;
    pub const ERROR_MESSAGE: usize = 7;
    pub const COUNT: usize = 8;

    /// Most bytes kept of each, with room for the NUL that the kernel's string reads write.
    ///
    /// The longest names: 128 characters of three bytes (MariaDB users), 255 (hosts), 64 of three bytes (databases).
    pub const LIMITS: [u64; COUNT] = [388, 388, 256, 48, 256, 200, super::INLINE_SQL_BYTES, 512];
}

/// Bits of `present` and `cut`: the first eight are the strings, by their index.
pub mod bit {
    pub const CONNECTION_ID: u32 = 1 << 8;
    pub const COMMAND: u32 = 1 << 9;
    pub const DURATION: u32 = 1 << 10;
    pub const ERROR_CODE: u32 = 1 << 11;
    pub const SQLSTATE: u32 = 1 << 12;
    pub const ROWS_SENT: u32 = 1 << 13;
    pub const AFFECTED_ROWS: u32 = 1 << 14;
    pub const PEER_PORT: u32 = 1 << 15;
    /// The whole SQL is in an [`super::Overflow`] with the same thread and start.
    pub const OVERFLOW: u32 = 1 << 16;
    /// Of a disconnect: this thread had seen the connection before (its login or a command).
    pub const SEEN_BEFORE: u32 = 1 << 17;
    /// Of a command: the server's status of it is not the one of before there was any.
    pub const ANSWERED: u32 = 1 << 18;

    /// The bit of a string.
    pub const fn of(string: usize) -> u32 {
        1 << string
    }
}

/// SQL up to this long travels in the record itself; of longer SQL this is the beginning.
pub const INLINE_SQL_BYTES: u64 = 1024;
/// Longest SQL that is kept.
pub const MAX_SQL_BYTES: u64 = 64 << 10;
/// Room for the strings of one record: all of [`string::LIMITS`].
pub const TAIL_BYTES: usize = 388 * 2 + 256 + 48 + 256 + 200 + 1024 + 512;

/// Where a string lies in the tail.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the start of the tail.
    pub offset: u16,
    /// Bytes, without a NUL.
    pub length: u16,
}

/// The fixed part of a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// One of [`kind`]; the first word of everything in the ring.
    pub kind: u32,
    /// One of [`provider`].
    pub provider: u32,
    /// Slot of the attachment that made it.
    pub target: u32,
    /// Process and thread, in the first PID namespace.
    pub tgid: u32,
    pub tid: u32,
    /// Sets of [`bit`].
    pub present: u32,
    /// Strings of which only the beginning was kept.
    pub cut: u32,
    /// One of [`outcome`].
    pub outcome: u32,
    /// `CLOCK_BOOTTIME`, ns.
    pub start_ns: u64,
    pub duration_ns: u64,
    pub connection_id: u64,
    pub rows_sent: u64,
    pub affected_rows: u64,
    /// Length of the SQL at the source in bytes; 0 where only its kept part is known.
    pub sql_bytes: u64,
    /// `enum_server_command`.
    pub command: u32,
    pub error_code: u32,
    pub peer_port: u32,
    /// Bytes of the tail in use.
    pub tail_bytes: u32,
    /// Set where the kernel left out the others of so many like it, by a rule.
    pub sampled_one_in: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    pub sqlstate: [u8; 8],
    pub strings: [Span; string::COUNT],
}

/// SQL that was too long for its record. The text follows, `length` bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    /// [`kind::OVERFLOW`].
    pub kind: u32,
    pub length: u32,
    pub tgid: u32,
    pub tid: u32,
    /// `start_ns` of the record that it belongs to.
    pub start_ns: u64,
}

/// What a thread is in the middle of.
pub mod phase {
    pub const IDLE: u32 = 0;
    pub const COMMAND: u32 = 1;
    pub const LOGIN: u32 = 2;
}

/// What the kernel keeps of each server thread: the record it is filling, and what spares reading it again.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// One of [`phase`].
    pub phase: u32,
    /// Bytes of the tail that hold the principal's strings, which stay from command to command.
    pub principal_bytes: u32,
    /// The number of the attachment that records this thread, see [`ready`](crate::layout::ready): what that begins here
    /// needs no look at whose the process is.
    pub owner: u32,
    /// Keeps what follows aligned.
    pub reserved: u32,
    /// The `THD` and connection whose principal that is. 0: none.
    pub thd: u64,
    pub principal_connection: u64,
    /// The connection that logged in, or was refused, on this thread last.
    pub connected: u64,
    pub refused: u64,
    pub record: Record,
    pub tail: [u8; TAIL_BYTES],
}

/// What became of the events of one process; one of these per CPU. `seen = submitted + filtered + ring_full +
/// table_full`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub seen: u64,
    pub submitted: u64,
    /// Left out by a rule.
    pub filtered: u64,
    /// Lost: the ring had no room.
    pub ring_full: u64,
    /// Lost: the table of threads had no room.
    pub table_full: u64,
    /// Fields that could not be read; their events are there without them.
    pub fields_unreadable: u64,
    /// Long SQL texts that were cut to their beginning because the ring had no room.
    pub sql_cut: u64,
    /// Ends without a beginning: what was under way when the probes were attached.
    pub unmatched: u64,
}

/// A type that is nothing but integers, without padding: any bytes are a value of it, and it is its bytes.
///
/// # Safety
/// The type is `repr(C)`, has only integer fields (or arrays and structs of them) and no padding.
pub unsafe trait Plain: Copy + 'static {
    /// The value's bytes.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the type has no padding, so that every byte is initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The value at the start of `bytes` and what follows it; None when they are too short.
    fn split_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_at_checked(size_of::<Self>())?;
        // SAFETY: `head` is as long as the type, any bytes are a value of it, and the read may be unaligned.
        Some((unsafe { core::ptr::read_unaligned(head.as_ptr().cast()) }, rest))
    }
}

// SAFETY: integers only; sizes are checked below.
unsafe impl Plain for Record {}
// SAFETY: as above.
unsafe impl Plain for Overflow {}
// SAFETY: as above.
unsafe impl Plain for Thread {}
// SAFETY: as above.
unsafe impl Plain for Counters {}
// SAFETY: as above.
unsafe impl Plain for crate::layout::Layout {}
// SAFETY: as above.
unsafe impl Plain for crate::usdt::Spec {}

const _: () = {
    assert!(size_of::<Record>() == 8 * 4 + 6 * 8 + 6 * 4 + 8 + 8 * 4);
    assert!(size_of::<Overflow>() == 24);
    assert!(size_of::<Thread>() == 16 + 4 * 8 + size_of::<Record>() + TAIL_BYTES);
    assert!(
        size_of::<crate::usdt::Spec>() == 16 + crate::usdt::ARGUMENTS * size_of::<crate::usdt::Argument>()
    );
    assert!(size_of::<crate::usdt::Argument>() == 24);
    let mut sum = 0;
    let mut index = 0;
    while index < string::COUNT {
        sum += string::LIMITS[index];
        index += 1;
    }
    assert!(sum == TAIL_BYTES as u64);
};
