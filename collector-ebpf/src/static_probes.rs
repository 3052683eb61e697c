//! Servers with static probes (USDT): the arguments are where the probe's own note says.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_attach_cookie, bpf_probe_read_user as read_raw},
    },
    macros::uprobe,
    programs::ProbeContext,
};
use whence_abi::{
    record::{Thread, bit, kind, outcome, phase, provider::USDT, string},
    usdt::{ARGUMENTS, Argument, NO_REGISTER, Spec, form, index},
};

use crate::{
    maps::{SPECS, count_unreadable},
    read::terminated,
    thread::{
        self, Beginning, begin, beginning, clear_principal, current, ending, set_duration, sql_terminated,
        submit, submit_unfinished,
    },
};

const CHANGE_USER: u32 = 17;

/// An argument's value. Not an `Option`: its number would be undefined without a value, and the verifier refuses
/// programs that so much as copy such a number.
#[derive(Clone, Copy)]
struct Value {
    known: bool,
    /// 0 where it is not known.
    number: u64,
}

/// The current location's arguments.
struct Arguments<'a> {
    registers: u64,
    spec: &'a Spec,
}

impl Arguments<'_> {
    #[inline(always)]
    fn new(ctx: &ProbeContext) -> Option<Self> {
        // SAFETY: the program's own context.
        let index = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) } as u32;
        Some(Self { registers: ctx.as_ptr() as u64, spec: SPECS.get(index)? })
    }

    #[inline(always)]
    fn register(&self, offset: u32) -> u64 {
        // SAFETY: the helper checks the address; the offset was checked against `pt_regs` when the spec was made.
        unsafe { bpf_probe_read_kernel((self.registers + u64::from(offset)) as *const u64) }.unwrap_or(0)
    }

    /// What is added to the base address.
    #[inline(always)]
    fn index(&self, argument: &Argument) -> u64 {
        let register = self.register(argument.index);
        let index = if argument.scale & index::SIGNED_WORD != 0 {
            register as i32 as u64
        } else if argument.scale & index::UNSIGNED_WORD != 0 {
            u64::from(register as u32)
        } else {
            register
        };
        index << (argument.scale & index::SHIFT)
    }

    /// Argument `N`, extended to 64 bits by its width and sign.
    #[inline(always)]
    fn get<const N: usize>(&self) -> Value {
        const { assert!(N < ARGUMENTS) };
        if N as u32 >= self.spec.count {
            return Value { known: false, number: 0 };
        }
        let argument = &self.spec.arguments[N];
        let mut value = if argument.form == form::CONSTANT {
            argument.value as u64
        } else if argument.form == form::REGISTER {
            self.register(argument.register)
        } else {
            let mut address = argument.value as u64;
            if argument.register != NO_REGISTER {
                address = address.wrapping_add(self.register(argument.register));
            }
            if argument.index != NO_REGISTER {
                address = address.wrapping_add(self.index(argument));
            }
            let mut value = 0_u64;
            // Not a byte more, which may be on a page that is not there.
            let bytes = u32::from(argument.bytes);
            // SAFETY: at most the eight bytes of `value`; the helper checks the address.
            if bytes > 8 || unsafe { read_raw((&raw mut value).cast(), bytes, address as *const _) } != 0 {
                count_unreadable();
                return Value { known: false, number: 0 };
            }
            value
        };
        let shift = (64 - 8 * u32::from(argument.bytes)) & 63;
        value <<= shift;
        let number = if argument.signed != 0 { ((value as i64) >> shift) as u64 } else { value >> shift };
        Value { known: true, number }
    }
}

#[inline(always)]
fn set_connection(thread: &mut Thread, connection: Value) {
    if connection.known {
        thread.record.connection_id = connection.number;
        thread.record.present |= bit::CONNECTION_ID;
    }
}

#[inline(always)]
fn read_principal(thread: &mut Thread, connection: Value, user: Value, host: Value) {
    // A null pointer is no string, and is taken as such.
    terminated::<{ string::PRIV_USER }>(thread, user.number);
    terminated::<{ string::HOST_OR_IP }>(thread, host.number);
    set_connection(thread, connection);
    thread.principal_connection = connection.number;
    thread.principal_bytes = thread.record.tail_bytes;
}

/// `connection__start(conn_id, user, host)`: only after a login that was let in.
#[uprobe]
pub fn connection_start(ctx: ProbeContext) -> u32 {
    let Some(arguments) = Arguments::new(&ctx) else {
        return 0;
    };
    let Some(thread) = beginning(arguments.spec.target, Beginning::Login) else {
        return 0;
    };
    submit_unfinished(thread);
    clear_principal(thread);
    begin(thread, kind::CONNECT, USDT, arguments.spec.target);
    read_principal(thread, arguments.get::<0>(), arguments.get::<1>(), arguments.get::<2>());
    thread.record.outcome = outcome::OK;
    submit(thread);
    0
}

/// `connection__done(status, conn_id)`: also after a login that was refused, which had no start.
#[uprobe]
pub fn connection_done(ctx: ProbeContext) -> u32 {
    let Some(arguments) = Arguments::new(&ctx) else {
        return 0;
    };
    let Some(thread) = beginning(arguments.spec.target, Beginning::End) else {
        return 0;
    };
    submit_unfinished(thread);
    let connection = arguments.get::<1>();
    let known = connection.number != 0 && connection.number == thread.principal_connection;
    if !known {
        clear_principal(thread);
    }
    begin(thread, kind::DISCONNECT, USDT, arguments.spec.target);
    if known {
        thread.record.present |= bit::SEEN_BEFORE;
    }
    set_connection(thread, connection);
    submit(thread);
    thread::forget(arguments.spec.target);
    0
}

/// `command__start(conn_id, command, user, host)`
#[uprobe]
pub fn command_start(ctx: ProbeContext) -> u32 {
    let Some(arguments) = Arguments::new(&ctx) else {
        return 0;
    };
    let Some(thread) = beginning(arguments.spec.target, Beginning::Command) else {
        return 0;
    };
    submit_unfinished(thread);
    clear_principal(thread);
    let command = arguments.get::<1>();
    let of_kind = if command.number as u32 == CHANGE_USER { kind::CHANGE_USER } else { kind::COMMAND };
    begin(thread, of_kind, USDT, arguments.spec.target);
    if command.known {
        thread.record.command = command.number as u32;
        thread.record.present |= bit::COMMAND;
    }
    read_principal(thread, arguments.get::<0>(), arguments.get::<2>(), arguments.get::<3>());
    thread.phase = phase::COMMAND;
    0
}

/// `query__start(query, conn_id, db, user, host)`, and `query__exec__start`, which begins like it and is the only one
/// that prepared statements have.
#[uprobe]
pub fn query_start(ctx: ProbeContext) -> u32 {
    let Some(thread) = current() else {
        return 0;
    };
    // The first one has the client's text; those after it are statements of a procedure or of the same text.
    if thread.phase != phase::COMMAND || thread.record.present & bit::of(string::SQL) != 0 {
        return 0;
    }
    let Some(arguments) = Arguments::new(&ctx) else {
        return 0;
    };
    if thread.record.present & bit::of(string::DATABASE) == 0 {
        terminated::<{ string::DATABASE }>(thread, arguments.get::<2>().number);
    }
    sql_terminated(thread, arguments.get::<0>().number);
    0
}

/// `command__done(status)`
#[uprobe]
pub fn command_done(ctx: ProbeContext) -> u32 {
    let Some(arguments) = Arguments::new(&ctx) else {
        return 0;
    };
    let Some(thread) = ending(arguments.spec.target) else {
        return 0;
    };
    let status = arguments.get::<0>();
    if status.known {
        thread.record.outcome = if status.number == 0 { outcome::OK } else { outcome::ERROR };
    }
    set_duration(thread);
    submit(thread);
    0
}
