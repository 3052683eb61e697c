//! Offsets from the machine code of functions that every server exports for its plugins and storage engines.
//!
//! Most facts are told by two functions or more, which must agree. MariaDB (10.5 to 11.8) has accessors in C for all that
//! its audit plugin needs; MySQL (5.7 and later) has `Security_context`'s own methods and fewer accessors of `THD`.

use whence_abi::layout::{ABSENT, Layout, StringField};

use super::facts::{Code, agree};
use super::image::Image;
use super::walk::Value;
use super::{Product, Unproven};

/// `DA_OK` and `DA_EOF` are 1 and 2 in every server; what a larger status means differs.
const STATUS_OK: u32 = 1;
/// Longest message in a diagnostics area, as `MYSQL_ERRMSG_SIZE` less its NUL.
const MESSAGE_BYTES: u64 = 511;

/// The layout of the server in `image`.
pub fn layout(image: &Image<'_>, product: Product) -> Result<Layout, Unproven> {
    let code = Code::of(image);
    let mut layout = Layout::EMPTY;
    match product {
        Product::MariaDb => mariadb(&code, &mut layout)?,
        Product::MySql => mysql(&code, &mut layout)?,
    }
    diagnostics(&code, &mut layout)?;
    layout.rows_sent = code
        .facts("rows sent", &["_ZN3THD18set_sent_row_countEy", "_ZN3THD18set_sent_row_countEm"])
        .and_then(|facts| facts.one("rows sent", facts.stored_arguments(1, 8)))
        .unwrap_or(ABSENT);
    Ok(layout)
}

/// The version that is compiled in, from the function that makes the reported one of it.
pub fn version(image: &Image<'_>) -> Option<String> {
    let code = Code::of(image);
    let facts = code.facts("version", &["_Z18set_server_version"]).ok()?;
    let texts = facts.calls().flatten().filter_map(|argument| match argument {
        Value::Constant(address) => image.text(*address),
        _ => None,
    });
    texts.into_iter().find(|text| is_version(text)).map(str::to_owned)
}

/// Whether the text begins with three numbers, with points between.
fn is_version(text: &str) -> bool {
    let numbers = text.split('-').next().unwrap_or_default();
    let parts: Vec<_> = numbers.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

fn mariadb(code: &Code<'_, '_>, layout: &mut Layout) -> Result<(), Unproven> {
    let field = "thread id";
    let facts = code.facts(field, &["thd_get_thread_id"])?;
    layout.thread_id = facts.one(field, facts.returned_fields(8))?;
    layout.thread_id_bytes = 8;

    // Five accessors go through the security context; they must agree on where it is.
    let field = "account";
    let facts = code.facts(field, &["thd_priv_user"])?;
    let (context, priv_user) = facts.one(field, facts.returned_addresses_behind())?;
    layout.security_context = context;
    layout.priv_user = StringField::inline(priv_user);
    let compared =
        code.facts(field, &["_ZNK16Security_context12is_priv_user", "_ZN16Security_context12is_priv_user"])?;
    compared.must_pass(field, &Value::argument(0).plus(priv_user.into()))?;
    for (field, name, place) in [
        ("login user", "thd_user_name", &mut layout.login_user),
        ("client host", "thd_client_host", &mut layout.host),
        ("client address", "thd_client_ip", &mut layout.ip),
    ] {
        let facts = code.facts(field, &[name])?;
        let (through, offset) = facts.one(field, facts.returned_fields_behind(8))?;
        agree(field, "thd_priv_user", name, context, through)?;
        *place = StringField::pointer(offset);
    }
    host_or_ip(code, layout);

    let field = "database";
    let facts = code.facts(field, &["thd_current_db"])?;
    let database = facts.one(field, facts.returned_addresses())?;
    let setter = code.facts(field, &["_ZN3THD6set_dbE"])?;
    setter.must_store(field, database)?;
    setter.must_store(field, database + 8)?;
    layout.database = database;
    layout.database_length = database + 8;

    let field = "query";
    let facts = code.facts(field, &["thd_query_string"])?;
    let query = facts.one(field, facts.returned_addresses())?;
    let setter = code.facts(field, &["_ZN3THD16set_query_and_idE"])?;
    agree(
        field,
        "thd_query_string",
        "THD::set_query_and_id",
        query,
        setter.one(field, setter.stored_arguments(1, 8))?,
    )?;
    setter.must_store(field, query + 8)?;
    layout.query = query;
    layout.query_length = query + 8;

    let field = "diagnostics area";
    let number = code.facts(field, &["thd_get_error_number"])?;
    let (area, error_code) = number.one(field, number.returned_fields_behind(4))?;
    let text = code.facts(field, &["thd_get_error_message"])?;
    let (through, message) = text.one(field, text.returned_addresses_behind())?;
    agree(field, "thd_get_error_number", "thd_get_error_message", area, through)?;
    let status = code.facts(field, &["thd_current_status"])?;
    let (through, status, error) = status.one(field, status.compared_behind())?;
    agree(field, "thd_get_error_number", "thd_current_status", area, through)?;
    layout.diagnostics = area;
    layout.error_code = error_code;
    layout.error_message = StringField::inline(message);
    layout.status = status;
    layout.status_error = error;

    layout.peer_port = code
        .facts("client port", &["_Z17thd_set_peer_addrP3THD"])
        .and_then(|facts| facts.one("client port", facts.stored_arguments(3, 2)))
        .unwrap_or(ABSENT);
    Ok(())
}

fn mysql(code: &Code<'_, '_>, layout: &mut Layout) -> Result<(), Unproven> {
    let field = "thread id";
    // Its name up to MySQL 5.7 is the second.
    let facts = code
        .facts(field, &["_Z13thd_thread_idPK3THD"])
        .or_else(|missing| code.facts(field, &["thd_get_thread_id"]).map_err(|_| missing))?;
    (layout.thread_id, layout.thread_id_bytes) = match facts.one(field, facts.returned_fields(4)) {
        Ok(offset) => (offset, 4),
        Err(_) => (facts.one(field, facts.returned_fields(8))?, 8),
    };

    let field = "security context";
    let facts = code.facts(field, &["_Z24thd_get_security_contextP3THD"])?;
    layout.security_context = facts.one(field, facts.stored_fields(8))?;
    let restored = code.facts(field, &["_ZN16Security_context24restore_security_contextE"])?;
    restored.must_store_in(field, &Value::argument(1).plus(layout.security_context.into()))?;

    let field = "account";
    let facts = code.facts(field, &["_ZNK16Security_context9priv_userEv"])?;
    let priv_user = facts.one(field, facts.returned_addresses())?;
    let setter = code.facts(field, &["_ZN16Security_context16assign_priv_userE"])?;
    setter.must_pass(field, &Value::argument(0).plus(priv_user.into()))?;
    layout.priv_user = StringField::inline(priv_user);
    for (field, getter, setter, place) in [
        (
            "login user",
            "_ZNK16Security_context4userEv",
            "_ZN16Security_context12set_user_ptrE",
            &mut layout.login_user,
        ),
        (
            "client host",
            "_ZNK16Security_context4hostEv",
            "_ZN16Security_context12set_host_ptrE",
            &mut layout.host,
        ),
        (
            "client address",
            "_ZNK16Security_context2ipEv",
            "_ZN16Security_context10set_ip_ptrE",
            &mut layout.ip,
        ),
    ] {
        let facts = code.facts(field, &[getter])?;
        let offset = facts.one(field, facts.returned_fields(8))?;
        let stored = code.facts(field, &[setter])?;
        agree(field, getter, setter, offset, stored.one(field, stored.stored_arguments(1, 8))?)?;
        *place = StringField::pointer(offset);
    }
    host_or_ip(code, layout);

    // The length is copied from the argument; in front of it is what a function returned that was given its text.
    let field = "database";
    let facts = code.facts(field, &["_ZN3THD6set_dbE"])?;
    let length = facts.one(
        field,
        facts.stores().filter_map(|(address, bytes, value)| {
            let copied = value.loaded_from(8)?.offset_in(&Value::argument(1))? == 8;
            address.offset_in(&Value::argument(0)).filter(|_| copied && bytes == 8)
        }),
    )?;
    let text = facts.one(
        field,
        facts.stores().filter_map(|(address, bytes, value)| {
            let made = facts.result_of_call_with(value, &Value::argument(1).load(8));
            address.offset_in(&Value::argument(0)).filter(|_| made && bytes == 8)
        }),
    )?;
    agree(field, "the text", "the length", text + 8, length)?;
    layout.database = text;
    layout.database_length = length;

    let field = "query";
    if let Ok(facts) = code.facts(field, &["_Z16thd_query_unsafeP3THD"]) {
        let query = facts.one(field, facts.returned_fields(8))?;
        layout.query = query;
        layout.query_length = query + 8;
    }

    let field = "diagnostics area";
    let facts = code.facts(field, &["_Z12thd_is_errorPK3THD"])?;
    (layout.diagnostics, layout.status, layout.status_error) = facts.one(field, facts.compared_behind())?;
    layout.peer_port = mysql_peer_port(code).unwrap_or(ABSENT);
    Ok(())
}

/// The place that is given to the connection's own `vio_peer_addr`, beside the length of a host name, and is then handed
/// on as two bytes: in a function without a name that `thd_prepare_connection` calls.
fn mysql_peer_port(code: &Code<'_, '_>) -> Result<u32, Unproven> {
    /// `NI_MAXHOST`
    const HOST_BYTES: u64 = 1025;

    let field = "client port";
    let thd = Value::argument(0);
    let facts = code.facts(field, &["_Z22thd_prepare_connectionP3THD"])?;
    for checks in code.callees_with(&facts, &thd) {
        let given = checks.calls().filter_map(|arguments| {
            arguments[2].offset_in(&thd).filter(|_| arguments[3] == Value::Constant(HOST_BYTES))
        });
        if let Ok(offset) = checks.one(field, given) {
            let handed_on = thd.plus(offset.into()).load(2);
            checks.must_pass(field, &handed_on)?;
            return Ok(offset);
        }
    }
    Err(Unproven::new(field, "the code of thd_prepare_connection does not show it"))
}

/// The text that stands for host and address until either is known: `Security_context::init` sets it.
fn host_or_ip(code: &Code<'_, '_>, layout: &mut Layout) {
    let Ok(facts) = code.facts("client", &["_ZN16Security_context4initEv"]) else {
        return;
    };
    let places = facts.stores().filter_map(|(address, bytes, value)| match value {
        Value::Constant(text) if bytes == 8 && code.text(*text) == Some("connecting host") => {
            address.offset_in(&Value::argument(0))
        }
        _ => None,
    });
    if let Ok(offset) = facts.one("client", places) {
        layout.host_or_ip = StringField::pointer(offset);
    }
}

/// What the methods of `Diagnostics_area` that set it tell: they must agree with the accessors.
fn diagnostics(code: &Code<'_, '_>, layout: &mut Layout) -> Result<(), Unproven> {
    let field = "status of a command";
    let area = Value::argument(0);
    let ok = code.facts(field, &["_ZN16Diagnostics_area13set_ok_statusE"])?;
    let mut good = Vec::new();
    for (address, bytes, value) in ok.stores() {
        if let (Some(offset), 4, Value::Constant(status)) = (address.offset_in(&area), bytes, value)
            && offset == layout.status
        {
            good.push(u32::try_from(*status).unwrap_or(u32::MAX));
        }
    }
    if !good.contains(&STATUS_OK) || good.contains(&layout.status_error) {
        return Err(Unproven::new(field, "Diagnostics_area::set_ok_status does not set it to OK"));
    }
    layout.status_ok_first = STATUS_OK;
    layout.status_ok_last = layout.status_error - 1;
    layout.affected_rows = ok.one("rows affected", ok.stored_arguments(1, 8)).unwrap_or(ABSENT);

    let field = "error of a command";
    let error = code.facts(field, &["_ZN16Diagnostics_area16set_error_statusEjPKc"])?;
    let sets = |(address, bytes, value): (&Value, usize, &Value)| {
        bytes == 4
            && address.offset_in(&area) == Some(layout.status)
            && *value == Value::Constant(layout.status_error.into())
    };
    if !error.stores().any(sets) {
        return Err(Unproven::new(field, "Diagnostics_area::set_error_status does not set the status to it"));
    }
    let error_code = error.one(field, error.stored_arguments(1, 4))?;
    if layout.error_code == ABSENT {
        layout.error_code = error_code;
    }
    agree(field, "its accessor", "Diagnostics_area::set_error_status", layout.error_code, error_code)?;

    // strmake(message, argument 2, 511), and four of the five characters at argument 3.
    let messages = error.calls().filter_map(|arguments| {
        let copies = arguments[1] == Value::argument(2) && arguments[2] == Value::Constant(MESSAGE_BYTES);
        arguments[0].offset_in(&area).filter(|_| copies)
    });
    if let Ok(message) = error.one("error message", messages) {
        if layout.error_message == StringField::ABSENT {
            layout.error_message = StringField::inline(message);
        }
        let accessor = layout.error_message.offset;
        agree("error message", "its accessor", "Diagnostics_area::set_error_status", accessor, message)?;
    }
    let states = error.stores().filter_map(|(address, bytes, value)| {
        let copied = value.loaded_from(4)? == &Value::argument(3);
        address.offset_in(&area).filter(|_| copied && bytes == 4)
    });
    if let Ok(state) = error.one("SQLSTATE", states) {
        layout.sqlstate = StringField::inline(state);
    }
    Ok(())
}
