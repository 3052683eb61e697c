//! Servers without static probes: entry and return of their own functions, and offsets into their `THD`.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use whence_abi::{
    layout::{ABSENT, Layout, dispatch},
    record::{Thread, bit, kind, outcome, phase, provider::FUNCTIONS, string},
};

use crate::{
    maps::LAYOUTS,
    read::{counted, field, pair, string_field},
    thread::{
        self, Beginning, begin, beginning, clear_principal, current, ending, set_duration, submit,
        submit_unfinished,
    },
};

mod command {
    pub const QUERY: u32 = 3;
    pub const CHANGE_USER: u32 = 17;
    pub const STMT_PREPARE: u32 = 22;
    pub const STMT_EXECUTE: u32 = 23;
    pub const STMT_FETCH: u32 = 28;
    /// MariaDB's.
    pub const STMT_BULK_EXECUTE: u32 = 250;
}

/// What MariaDB's `dispatch_command` returns for a command that it will take up again.
const WOULD_BLOCK: u64 = 2;

#[inline(always)]
fn target(ctx: *mut core::ffi::c_void) -> u32 {
    // SAFETY: `ctx` is the program's own context.
    unsafe { bpf_get_attach_cookie(ctx) as u32 }
}

#[uprobe]
pub fn dispatch_entry(ctx: ProbeContext) -> u32 {
    let slot = target(ctx.as_ptr());
    let Some(layout) = LAYOUTS.get(slot) else {
        return 0;
    };
    let Some(thread) = beginning(slot, Beginning::Command) else {
        return 0;
    };
    submit_unfinished(thread);
    let by_data = layout.dispatch == dispatch::COM_DATA;
    let first = ctx.arg::<u64>(0).unwrap_or(0);
    let second = ctx.arg::<u64>(1).unwrap_or(0);
    let third = ctx.arg::<u64>(2).unwrap_or(0);
    let (thd, number) = if by_data { (first, third as u32) } else { (second, first as u32) };

    let connection = connection_of(layout, thd);
    let known = connection.is_of(thread, thd);
    if !known {
        clear_principal(thread);
    }
    let of_kind = if number == command::CHANGE_USER { kind::CHANGE_USER } else { kind::COMMAND };
    begin(thread, of_kind, FUNCTIONS, slot);
    thread.record.command = number;
    thread.record.present |= bit::COMMAND;
    if !known {
        read_principal(thread, layout, thd, connection);
    }
    set_connection(thread, connection);
    read_database(thread, layout, thd);
    if number == command::QUERY || number == command::STMT_PREPARE {
        let (text, length) = if by_data {
            // Both commands' data begin with `const char *query; unsigned int length`.
            (field::<u64>(second, 0).unwrap_or(0), u64::from(field::<u32>(second, 8).unwrap_or(0)))
        } else {
            (third, u64::from(ctx.arg::<u64>(3).unwrap_or(0) as u32))
        };
        thread::sql_counted(thread, text, length);
    }
    thread.phase = phase::COMMAND;
    0
}

#[uretprobe]
pub fn dispatch_return(ctx: RetProbeContext) -> u32 {
    let slot = target(ctx.as_ptr());
    let Some(thread) = ending(slot) else {
        return 0;
    };
    if ctx.ret::<u64>() & 0xff == WOULD_BLOCK {
        thread.phase = phase::IDLE;
        return 0;
    }
    let Some(layout) = LAYOUTS.get(slot) else {
        return 0;
    };
    let thd = thread.thd;
    if thread.record.command == command::CHANGE_USER {
        let connection = connection_of(layout, thd);
        clear_principal(thread);
        // The database was the old account's; its string went with the tail.
        thread.record.present &= !bit::of(string::DATABASE);
        thread.record.cut &= !bit::of(string::DATABASE);
        read_principal(thread, layout, thd, connection);
        read_database(thread, layout, thd);
    }
    read_result(thread, layout, thd);
    // Other commands leave the number of the one before them.
    let sends_rows = matches!(
        thread.record.command,
        command::QUERY | command::STMT_EXECUTE | command::STMT_FETCH | command::STMT_BULK_EXECUTE
    );
    if sends_rows && let Some(rows) = field::<u64>(thd, layout.rows_sent) {
        thread.record.rows_sent = rows;
        thread.record.present |= bit::ROWS_SENT;
    }
    set_duration(thread);
    submit(thread);
    0
}

/// At the end of a prepared statement's execution `THD` points to its text, once; on `dispatch_command`'s return it
/// does not any more.
#[uretprobe]
pub fn execute_return(ctx: RetProbeContext) -> u32 {
    let Some(thread) = current() else {
        return 0;
    };
    if thread.phase != phase::COMMAND || thread.record.present & bit::of(string::SQL) != 0 {
        return 0;
    }
    let Some(layout) = LAYOUTS.get(target(ctx.as_ptr())) else {
        return 0;
    };
    let text = field::<u64>(thread.thd, layout.query).unwrap_or(0);
    // The upper half of MySQL 5.5's length is padding.
    let length = field::<u32>(thread.thd, layout.query_length).unwrap_or(0);
    if text != 0 && length != 0 {
        thread::sql_counted(thread, text, u64::from(length));
    }
    0
}

#[uprobe]
pub fn login_entry(ctx: ProbeContext) -> u32 {
    let slot = target(ctx.as_ptr());
    let Some(thread) = beginning(slot, Beginning::Login) else {
        return 0;
    };
    // COM_CHANGE_USER logs in too; it is a command, and tells of it at its end.
    if thread.phase == phase::COMMAND {
        return 0;
    }
    clear_principal(thread);
    begin(thread, kind::CONNECT, FUNCTIONS, slot);
    thread.thd = ctx.arg::<u64>(0).unwrap_or(0);
    thread.phase = phase::LOGIN;
    0
}

#[uretprobe]
pub fn login_return(ctx: RetProbeContext) -> u32 {
    let Some(thread) = current() else {
        return 0;
    };
    if thread.phase != phase::LOGIN {
        return 0;
    }
    let Some(layout) = LAYOUTS.get(target(ctx.as_ptr())) else {
        return 0;
    };
    let thd = thread.thd;
    let connection = connection_of(layout, thd);
    read_principal(thread, layout, thd, connection);
    set_connection(thread, connection);
    read_database(thread, layout, thd);
    // `int` in MySQL, `bool` in MariaDB: the lowest byte is in both.
    if ctx.ret::<u64>() & 0xff == 0 {
        thread.record.outcome = outcome::OK;
        thread.connected = connection.id;
    } else {
        thread.record.kind = kind::CONNECT_FAILED;
        thread.refused = connection.id;
        read_result(thread, layout, thd);
        thread.record.outcome = outcome::ERROR;
    }
    set_duration(thread);
    submit(thread);
    0
}

#[uprobe]
pub fn close_entry(ctx: ProbeContext) -> u32 {
    let slot = target(ctx.as_ptr());
    let Some(layout) = LAYOUTS.get(slot) else {
        return 0;
    };
    let Some(thread) = beginning(slot, Beginning::End) else {
        return 0;
    };
    submit_unfinished(thread);
    let thd = ctx.arg::<u64>(0).unwrap_or(0);
    let connection = connection_of(layout, thd);
    if connection.known && connection.id == thread.refused {
        thread::forget(slot);
        return 0;
    }
    let known = connection.is_of(thread, thd);
    if !known {
        clear_principal(thread);
    }
    begin(thread, kind::DISCONNECT, FUNCTIONS, slot);
    if known {
        thread.record.present |= bit::SEEN_BEFORE;
    } else {
        read_principal(thread, layout, thd, connection);
    }
    set_connection(thread, connection);
    read_database(thread, layout, thd);
    submit(thread);
    thread::forget(slot);
    0
}

/// The server's number of a connection. Not an `Option`: its number would be undefined without a value, and the verifier
/// of kernels before 6.3 refuses programs that so much as copy such a number.
#[derive(Clone, Copy)]
struct Connection {
    known: bool,
    /// 0 where it is not known.
    id: u64,
}

impl Connection {
    /// Whether it is the one that the thread's principal was read for.
    #[inline(always)]
    fn is_of(self, thread: &Thread, thd: u64) -> bool {
        self.known && thread.thd == thd && self.id == thread.principal_connection
    }
}

#[inline(always)]
fn connection_of(layout: &Layout, thd: u64) -> Connection {
    let read = if layout.thread_id_bytes == 4 {
        field::<u32>(thd, layout.thread_id).map(u64::from)
    } else {
        field::<u64>(thd, layout.thread_id)
    };
    match read {
        Some(id) => Connection { known: true, id },
        None => Connection { known: false, id: 0 },
    }
}

#[inline(always)]
fn set_connection(thread: &mut Thread, connection: Connection) {
    if connection.known {
        thread.record.connection_id = connection.id;
        thread.record.present |= bit::CONNECTION_ID;
    }
}

/// Reads who the connection belongs to, to the start of an empty tail.
#[inline(always)]
fn read_principal(thread: &mut Thread, layout: &Layout, thd: u64, connection: Connection) {
    let context = field::<u64>(thd, layout.security_context).unwrap_or(0);
    string_field::<{ string::PRIV_USER }>(thread, context, layout.priv_user);
    string_field::<{ string::LOGIN_USER }>(thread, context, layout.login_user);
    string_field::<{ string::HOST }>(thread, context, layout.host);
    string_field::<{ string::IP }>(thread, context, layout.ip);
    // Points to one of the two before it, where they are known.
    if thread.record.present & bit::of(string::HOST) == 0 {
        string_field::<{ string::HOST_OR_IP }>(thread, context, layout.host_or_ip);
    }
    if let Some(port) = field::<u16>(thd, layout.peer_port) {
        thread.record.peer_port = u32::from(port);
        thread.record.present |= bit::PEER_PORT;
    }
    thread.thd = thd;
    // What could not be read, because its page was elsewhere just then, is read again with the next command.
    let is_read = thread.record.present & bit::of(string::PRIV_USER) != 0;
    thread.principal_connection = if is_read { connection.id } else { 0 };
    thread.principal_bytes = thread.record.tail_bytes;
}

#[inline(always)]
fn read_database(thread: &mut Thread, layout: &Layout, thd: u64) {
    // A read costs much the same whatever it reads: where the length is the pointer's neighbour one does.
    if layout.database_length == layout.database.wrapping_add(8) {
        if let Some((name, length)) = pair(thd, layout.database)
            && name != 0
        {
            counted::<{ string::DATABASE }>(thread, name, length);
        }
        return;
    }
    let Some(name) = field::<u64>(thd, layout.database) else {
        return;
    };
    if name == 0 {
        return;
    }
    if let Some(length) = field::<u64>(thd, layout.database_length) {
        counted::<{ string::DATABASE }>(thread, name, length);
    } else {
        crate::read::terminated::<{ string::DATABASE }>(thread, name);
    }
}

/// Reads how it ended from the statement's diagnostics area.
#[inline(always)]
fn read_result(thread: &mut Thread, layout: &Layout, thd: u64) {
    let area =
        if layout.diagnostics == ABSENT { 0 } else { field::<u64>(thd, layout.diagnostics).unwrap_or(0) };
    let Some((status, affected_rows)) = read_status(area, layout) else {
        return;
    };
    if status == layout.status_error {
        thread.record.outcome = outcome::ERROR;
        if let Some(code) = field::<u32>(area, layout.error_code) {
            thread.record.error_code = code;
            thread.record.present |= bit::ERROR_CODE;
        }
        if let Some(state) = field::<[u8; 5]>(area, layout.sqlstate.offset) {
            let mut padded = [0; 8];
            padded[0] = state[0];
            padded[1] = state[1];
            padded[2] = state[2];
            padded[3] = state[3];
            padded[4] = state[4];
            thread.record.sqlstate = padded;
            thread.record.present |= bit::SQLSTATE;
        }
        string_field::<{ string::ERROR_MESSAGE }>(thread, area, layout.error_message);
    } else if status <= layout.status_error + 1 {
        // A command that answers nothing (Stmt_close, Quit) leaves the area empty, or disabled, which is the highest
        // status: it went well. What is none of them says nothing.
        thread.record.outcome = outcome::OK;
        if status >= layout.status_ok_first {
            thread.record.present |= bit::ANSWERED;
        }
        if status == layout.status_ok_first
            && let Some(rows) = affected_rows
        {
            thread.record.affected_rows = rows;
            thread.record.present |= bit::AFFECTED_ROWS;
        }
    }
}

/// The status, and the rows affected, which mean something only when it went well. One read has both where they lie close.
#[inline(always)]
fn read_status(area: u64, layout: &Layout) -> Option<(u32, Option<u64>)> {
    const WORD: u32 = 4;
    let behind = layout.status.wrapping_sub(layout.affected_rows);
    if layout.affected_rows != ABSENT && behind == 5 * WORD {
        let words = field::<[u32; 6]>(area, layout.affected_rows)?;
        return Some((words[5], Some(u64::from(words[1]) << 32 | u64::from(words[0]))));
    }
    let status = field::<u32>(area, layout.status)?;
    let rows = if status == layout.status_ok_first { field::<u64>(area, layout.affected_rows) } else { None };
    Some((status, rows))
}
