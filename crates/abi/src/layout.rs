//! Where a server keeps what we want to know: offsets into its `THD` and the objects it points to.
//!
//! Filled by the collector from the server's own binary (DWARF, or the machine code of exported accessors), read
//! by the BPF programs. Every offset is in bytes; [`ABSENT`] marks what this server cannot give.

/// No such field in this server.
pub const ABSENT: u32 = u32::MAX;

/// A NUL-terminated string at `offset` in its object.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringField {
    /// Bytes from the start of the object, or [`ABSENT`].
    pub offset: u32,
    /// One of [`StringField::POINTER`], [`StringField::INLINE`].
    pub form: u32,
}

impl StringField {
    /// The object holds a `char *` (or a `String`, whose first member is one).
    pub const POINTER: u32 = 0;
    /// The object holds the characters.
    pub const INLINE: u32 = 1;
    pub const ABSENT: Self = Self { offset: ABSENT, form: 0 };

    pub const fn pointer(offset: u32) -> Self {
        Self { offset, form: Self::POINTER }
    }

    pub const fn inline(offset: u32) -> Self {
        Self { offset, form: Self::INLINE }
    }
}

/// How `dispatch_command` takes its arguments.
pub mod dispatch {
    /// `(enum_server_command command, THD *thd, char *packet, uint length, …)`: MySQL 5.5/5.6, MariaDB.
    pub const PACKET: u32 = 0;
    /// `(THD *thd, const COM_DATA *data, enum_server_command command)`: MySQL 5.7 and later.
    pub const COM_DATA: u32 = 1;
}

/// Offsets for one server binary.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// One of [`dispatch`].
    pub dispatch: u32,

    // In THD.
    /// `Security_context *security_ctx`.
    pub security_context: u32,
    /// `my_thread_id thread_id`: what clients see as the connection id; `thread_id_bytes` wide.
    pub thread_id: u32,
    pub thread_id_bytes: u32,
    /// `char *` of the current database, and its `size_t` length.
    pub database: u32,
    pub database_length: u32,
    /// `char *` of the statement being executed, and its length (`size_t`).
    pub query: u32,
    pub query_length: u32,
    /// `Diagnostics_area *` of the statement.
    pub diagnostics: u32,
    /// `uint16 peer_port`.
    pub peer_port: u32,
    /// `ha_rows` sent to the client so far, 8 bytes.
    pub rows_sent: u32,

    // In Security_context.
    pub login_user: StringField,
    pub host: StringField,
    pub ip: StringField,
    pub host_or_ip: StringField,
    pub priv_user: StringField,

    // In Diagnostics_area.
    /// `enum_diagnostics_status`, 4 bytes.
    pub status: u32,
    /// The value of `status` that means an error.
    pub status_error: u32,
    /// The lowest and highest value of `status` that mean success (OK, EOF, …).
    pub status_ok_first: u32,
    pub status_ok_last: u32,
    /// `uint sql_errno`, 4 bytes.
    pub error_code: u32,
    /// Inline message.
    pub error_message: StringField,
    /// Inline SQLSTATE of five characters.
    pub sqlstate: StringField,
    /// `ulonglong affected_rows`.
    pub affected_rows: u32,
    /// Not of the server: how the attachment stands that has this layout, see [`ready`]. Keeps the size a multiple of 8.
    pub ready: u32,
}

/// What [`Layout::ready`] says: 0 while an attachment's probes are put on and when they are off.
pub mod ready {
    /// In the number of an attachment, which no other has: all its probes are on. While they are taken off it is the number
    /// without this.
    pub const ON: u32 = 1;

    /// Whether an attachment is one whose probes are being taken off.
    pub const fn is_leaving(ready: u32) -> bool {
        ready != 0 && ready & ON == 0
    }
}

impl Layout {
    /// A layout that knows nothing yet.
    pub const EMPTY: Self = Self {
        dispatch: 0,
        security_context: ABSENT,
        thread_id: ABSENT,
        thread_id_bytes: 8,
        database: ABSENT,
        database_length: ABSENT,
        query: ABSENT,
        query_length: ABSENT,
        diagnostics: ABSENT,
        peer_port: ABSENT,
        rows_sent: ABSENT,
        login_user: StringField::ABSENT,
        host: StringField::ABSENT,
        ip: StringField::ABSENT,
        host_or_ip: StringField::ABSENT,
        priv_user: StringField::ABSENT,
        status: ABSENT,
        status_error: 0,
        status_ok_first: 0,
        status_ok_last: 0,
        error_code: ABSENT,
        error_message: StringField::ABSENT,
        sqlstate: StringField::ABSENT,
        affected_rows: ABSENT,
        ready: 0,
    };
}
