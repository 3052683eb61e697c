//! MySQL: the methods of `Security_context`, and fewer accessors of `THD`.

use whence_abi::layout::{ABSENT, Layout, StringField};

use super::super::Unproven;
use super::super::facts::{Code, agree, behind};
use super::super::walk::Value;
use super::host_or_ip;

/// MySQL 5.7 and later.
pub fn mysql(code: &Code<'_, '_>, layout: &mut Layout) -> Result<(), Unproven> {
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
    layout.peer_port = peer_port(code).unwrap_or(ABSENT);
    Ok(())
}

/// The place that is given to the connection's own `vio_peer_addr`, beside the length of a host name, and is then handed
/// on as two bytes: in a function without a name that `thd_prepare_connection` calls.
fn peer_port(code: &Code<'_, '_>) -> Result<u32, Unproven> {
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

/// MySQL up to 5.6.
pub fn mysql_5_6(code: &Code<'_, '_>, layout: &mut Layout) -> Result<(), Unproven> {
    let thd = Value::argument(0);
    let field = "thread id";
    let facts = code.facts(field, &["thd_get_thread_id"])?;
    layout.thread_id = facts.one(field, facts.returned_fields(8))?;
    layout.thread_id_bytes = 8;

    // strcmp(definer_user->str, thd->security_ctx->priv_user)
    let field = "account";
    let facts = code.facts(field, &["_ZN16Security_context23change_security_contextEP3THD"])?;
    let compared = facts.calls().filter_map(|arguments| {
        let context = arguments[1].object()?;
        let through = context.loaded_from(8)?.offset_in(&Value::argument(1))?;
        let is_it = arguments[0] == Value::argument(2).load(8);
        Some((through, arguments[1].offset_in(&context)?)).filter(|_| is_it)
    });
    let (context, priv_user) = facts.one(field, compared)?;
    let restored = code.facts(field, &["_ZN16Security_context24restore_security_contextE"])?;
    restored.must_store_in(field, &Value::argument(1).plus(context.into()))?;
    layout.security_context = context;
    layout.priv_user = StringField::inline(priv_user);

    // strcmp(user, other->user)
    let field = "login user";
    let facts = code.facts(field, &["_ZN16Security_context12user_matchesE"])?;
    let compared = facts.calls().filter_map(|arguments| {
        let own = arguments[0].loaded_from(8)?.offset_in(&Value::argument(0))?;
        let other = arguments[1].loaded_from(8)?.offset_in(&Value::argument(1))?;
        Some(own).filter(|_| own == other)
    });
    layout.login_user = StringField::pointer(facts.one(field, compared)?);
    for (field, getter, setter, place) in [
        (
            "client host",
            "_ZN16Security_context8get_hostEv",
            "_ZN16Security_context8set_hostEPKc",
            &mut layout.host,
        ),
        (
            "client address",
            "_ZN16Security_context6get_ipEv",
            "_ZN16Security_context6set_ipEPKc",
            &mut layout.ip,
        ),
    ] {
        let facts = code.facts(field, &[getter])?;
        let offset = facts.one(field, facts.returned_addresses())?;
        let stored = code.facts(field, &[setter])?;
        agree(field, getter, setter, offset, stored.one(field, stored.stored_arguments(1, 8))?)?;
        *place = StringField::pointer(offset);
    }
    host_or_ip(code, layout);

    let field = "query";
    let facts = code.facts(field, &["thd_query_string"])?;
    let query = facts.one(field, facts.returned_addresses())?;
    let setter = code.facts(field, &["_ZN3THD16set_query_and_idE"])?;
    let stored = setter.one(field, setter.stored_arguments(1, 8))?;
    agree(field, "thd_query_string", "THD::set_query_and_id", query, stored)?;
    layout.query = query;
    layout.query_length = query + 8;

    // thd->get_stmt_da()->reset_diagnostics_area(), thd->get_stmt_da()->inc_current_row_for_warning()
    let field = "diagnostics area";
    let facts = code.facts(field, &["_Z32mysql_reset_thd_for_next_commandP3THD"])?;
    let areas = code.given_to(&facts, "_ZN16Diagnostics_area22reset_diagnostics_areaEv");
    let area = facts.one(field, areas.filter_map(|area| area.loaded_from(8)?.offset_in(&thd)))?;
    let counted = code.facts(field, &["thd_inc_row_count"])?;
    let through = counted.stores().filter_map(|(address, _, _)| {
        let warnings = address.object()?;
        Some(behind(warnings.loaded_from(8)?)?.0)
    });
    agree(
        field,
        "mysql_reset_thd_for_next_command",
        "thd_inc_row_count",
        area,
        counted.one(field, through)?,
    )?;
    layout.diagnostics = area;

    let field = "status of a command";
    let disabled = code.facts(field, &["_ZN16Diagnostics_area14disable_statusEv"])?;
    let places = disabled.stores().filter_map(|(address, bytes, value)| match value {
        Value::Constant(_) if bytes == 4 => address.offset_in(&thd),
        _ => None,
    });
    layout.status = disabled.one(field, places)?;
    let failed = code.facts(field, &["_ZN16Diagnostics_area16set_error_statusEjPKc"])?;
    let errors = failed.stores().filter_map(|(address, bytes, value)| match value {
        Value::Constant(status) if bytes == 4 && address.offset_in(&thd) == Some(layout.status) => {
            u32::try_from(*status).ok()
        }
        _ => None,
    });
    layout.status_error = failed.one(field, errors)?;
    layout.peer_port = peer_port(code).unwrap_or(ABSENT);
    Ok(())
}
