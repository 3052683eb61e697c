//! Offsets from the machine code of functions that every server exports for its plugins and storage engines.
//!
//! Most facts are told by two functions or more, which must agree.

mod mariadb;
mod mysql;

use whence_abi::layout::{ABSENT, Layout, StringField};

use super::facts::{Code, agree};
use super::image::Image;
use super::walk::Value;
use super::{Product, Unproven};

/// `DA_OK` and `DA_EOF` are 1 and 2 in every server; what a larger status means differs.
const STATUS_OK: u32 = 1;
/// Longest message in a diagnostics area, as `MYSQL_ERRMSG_SIZE` less its NUL.
const MESSAGE_BYTES: u64 = 511;

/// The layout of the server in `image`; `by_data` tells MySQL 5.7 and later from earlier ones.
pub fn layout(image: &Image<'_>, product: Product, by_data: bool) -> Result<Layout, Unproven> {
    let code = Code::of(image);
    let mut layout = Layout::EMPTY;
    match product {
        Product::MariaDb => mariadb::mariadb(&code, &mut layout)?,
        Product::MySql if by_data => mysql::mysql(&code, &mut layout)?,
        Product::MySql => mysql::mysql_5_6(&code, &mut layout)?,
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
