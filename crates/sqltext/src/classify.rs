//! What a statement does, by its verb. Of several statements the gravest counts.

use whence_model::StatementClass;

use crate::lexer::{Kind, Token};
use crate::{is_any, is_word};

/// From the gravest to the lightest. An unknown statement may be anything, so it hides behind changes only.
const GRAVITY: [StatementClass; 8] = [
    StatementClass::Privileges,
    StatementClass::Ddl,
    StatementClass::Write,
    StatementClass::Admin,
    StatementClass::Unknown,
    StatementClass::Read,
    StatementClass::Transaction,
    StatementClass::Other,
];

/// The class of the statement, or of the gravest of several.
pub fn classify(sql: &[u8], tokens: &[Token]) -> StatementClass {
    let code: Vec<&Token> = tokens.iter().filter(|token| token.kind != Kind::Comment).collect();
    let statements = code.split(|token| token.kind == Kind::Symbol(b';')).filter(|tokens| !tokens.is_empty());
    let classes = statements.map(|statement| class_of(sql, statement));
    classes
        .min_by_key(|class| GRAVITY.iter().position(|graver| graver == class))
        .unwrap_or(StatementClass::Unknown)
}

fn class_of(sql: &[u8], statement: &[&Token]) -> StatementClass {
    // `(SELECT …) UNION …`
    let statement = skip(statement, |token| token.kind == Kind::Symbol(b'('));
    let Some((verb, rest)) = statement.split_first() else { return StatementClass::Unknown };
    let word = verb.bytes(sql).to_ascii_lowercase();
    if verb.kind != Kind::Word {
        return StatementClass::Unknown;
    }
    match word.as_slice() {
        b"with" => with(sql, rest),
        // `EXPLAIN ANALYZE` and `ANALYZE` of MariaDB run the statement that they explain.
        b"explain" | b"describe" | b"desc" => match rest.first() {
            Some(next) if is_word(sql, next, "analyze") => explained(sql, rest),
            _ => StatementClass::Read,
        },
        b"analyze" => match explained(sql, statement) {
            StatementClass::Unknown => StatementClass::Admin,
            class => class,
        },
        b"select" | b"show" | b"table" | b"values" | b"help" | b"handler" | b"checksum" => {
            StatementClass::Read
        }
        b"insert" | b"update" | b"delete" | b"replace" | b"load" | b"import" => StatementClass::Write,
        b"grant" | b"revoke" => StatementClass::Privileges,
        b"create" | b"alter" | b"drop" | b"rename" => definition(sql, rest),
        b"truncate" => StatementClass::Ddl,
        b"begin" | b"commit" | b"rollback" | b"savepoint" | b"release" | b"xa" | b"lock" | b"unlock" => {
            StatementClass::Transaction
        }
        b"start" => match rest.first() {
            Some(next) if is_word(sql, next, "transaction") => StatementClass::Transaction,
            _ => StatementClass::Admin,
        },
        b"set" => set(sql, rest),
        b"flush" | b"kill" | b"shutdown" | b"reset" | b"purge" | b"change" | b"stop" | b"install"
        | b"uninstall" | b"cache" | b"optimize" | b"repair" | b"check" | b"binlog" | b"restart"
        | b"clone" | b"backup" => StatementClass::Admin,
        b"use" | b"prepare" | b"execute" | b"deallocate" | b"do" | b"call" | b"signal" | b"resignal"
        | b"get" | b"declare" | b"end" | b"return" | b"open" | b"fetch" | b"close" | b"leave"
        | b"iterate" => StatementClass::Other,
        _ => StatementClass::Unknown,
    }
}

/// `WITH … SELECT`, `WITH … UPDATE`: the verb behind the parentheses of the common table expressions.
fn with(sql: &[u8], rest: &[&Token]) -> StatementClass {
    let mut depth = 0_usize;
    for token in rest {
        match token.kind {
            Kind::Symbol(b'(') => depth += 1,
            Kind::Symbol(b')') => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ if is_any(sql, token, &["insert", "update", "delete", "replace"]) => {
                return StatementClass::Write;
            }
            _ if is_any(sql, token, &["select", "table", "values"]) => return StatementClass::Read,
            _ => {}
        }
    }
    StatementClass::Unknown
}

/// The class of what `ANALYZE [FORMAT = …]` runs.
fn explained(sql: &[u8], rest: &[&Token]) -> StatementClass {
    let verbs = ["select", "insert", "update", "delete", "replace", "with"];
    match rest.iter().position(|token| is_any(sql, token, &verbs)) {
        Some(position) => class_of(sql, rest.get(position..).unwrap_or_default()),
        None => StatementClass::Unknown,
    }
}

/// `CREATE`, `ALTER`, `DROP`, `RENAME`: of accounts, or of anything else.
fn definition(sql: &[u8], rest: &[&Token]) -> StatementClass {
    let rest = skip(rest, |token| is_any(sql, token, &["or", "replace", "default"]));
    match rest.first() {
        Some(what) if is_any(sql, what, &["user", "role"]) => StatementClass::Privileges,
        Some(what) if is_word(sql, what, "instance") => StatementClass::Admin,
        _ => StatementClass::Ddl,
    }
}

fn set(sql: &[u8], rest: &[&Token]) -> StatementClass {
    match rest.first() {
        Some(what) if is_any(sql, what, &["password", "role", "default"]) => StatementClass::Privileges,
        Some(what) if is_word(sql, what, "transaction") => StatementClass::Transaction,
        // Anywhere, since one SET may assign several variables.
        _ if rest.iter().any(|token| is_any(sql, token, &["global", "persist", "persist_only"])) => {
            StatementClass::Admin
        }
        _ => StatementClass::Other,
    }
}

fn skip<'a, 'b>(tokens: &'a [&'b Token], unwanted: impl Fn(&Token) -> bool) -> &'a [&'b Token] {
    let wanted = tokens.iter().position(|token| !unwanted(token)).unwrap_or(tokens.len());
    tokens.get(wanted..).unwrap_or_default()
}
