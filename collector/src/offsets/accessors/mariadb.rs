//! MariaDB: accessors in C for all that its audit plugin needs.

use whence_abi::layout::{ABSENT, Layout, StringField};

use super::super::Unproven;
use super::super::facts::{Code, agree};
use super::super::walk::Value;
use super::host_or_ip;

/// MariaDB 10.5 to 11.8.
pub fn mariadb(code: &Code<'_, '_>, layout: &mut Layout) -> Result<(), Unproven> {
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
