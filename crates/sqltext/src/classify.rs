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

/// Most places at which the verb is looked for.
const MOST_READINGS: usize = 64;
/// Most statements around one another.
const MOST_WRAPPERS: usize = 8;

/// The class of the statement, or of the gravest of several.
///
/// A version comment is code for one server and none for another: the gravest of both counts.
pub fn classify(sql: &[u8], tokens: &[Token]) -> StatementClass {
    let code: Vec<&Token> = tokens.iter().filter(|token| token.kind != Kind::Comment).collect();
    let statements = code.split(|token| token.kind == Kind::Symbol(b';')).filter(|tokens| !tokens.is_empty());
    gravest(statements.flat_map(|statement| readings(sql, statement))).unwrap_or(StatementClass::Unknown)
}

fn gravest(classes: impl Iterator<Item = StatementClass>) -> Option<StatementClass> {
    classes.min_by_key(|class| GRAVITY.iter().position(|graver| graver == class))
}

/// The classes that the statement has for servers of different versions. The verb is the first word outside of version
/// comments, or begins one of those before it.
fn readings(sql: &[u8], statement: &[&Token]) -> Vec<StatementClass> {
    let mut classes = vec![class_of(sql, statement)];
    if statement.iter().any(|token| token.versioned) {
        let certain = |statement: &[&Token]| {
            let tokens: Vec<_> = statement.iter().filter(|token| !token.versioned).copied().collect();
            if tokens.is_empty() { StatementClass::Unknown } else { class_of(sql, &tokens) }
        };
        let is_all_versioned = statement.iter().all(|token| token.versioned);
        if !is_all_versioned {
            classes.push(certain(statement));
        }
        let before_verb = statement.iter().position(|token| !token.versioned).unwrap_or(statement.len());
        for start in (1..=before_verb).take(MOST_READINGS) {
            let Some(rest) = statement.get(start..).filter(|rest| !rest.is_empty()) else { break };
            // A verb in the middle of a version comment is none.
            if follows_directly(statement, start) {
                continue;
            }
            classes.push(class_of(sql, rest));
            let verb = rest.get(..1).unwrap_or_default();
            let others = rest.iter().skip(1).filter(|token| !token.versioned);
            classes.push(class_of(sql, &verb.iter().chain(others).copied().collect::<Vec<_>>()));
        }
    }
    classes
}

/// Whether the token at `at` and the one before it are within one version comment: nothing but blanks is between them.
fn follows_directly(statement: &[&Token], at: usize) -> bool {
    let (Some(before), Some(token)) = (statement.get(at - 1), statement.get(at)) else { return false };
    before.versioned && token.versioned && before.comment == token.comment
}

fn class_of(sql: &[u8], statement: &[&Token]) -> StatementClass {
    let mut statement = statement;
    for _ in 0..MOST_WRAPPERS {
        match run_by(sql, statement) {
            Some(run) => statement = run,
            None => return class_of_plain(sql, statement),
        }
    }
    StatementClass::Unknown
}

/// What a statement of MariaDB runs that stands around others: `SET STATEMENT … FOR DELETE …`, `BEGIN NOT ATOMIC DROP …`.
fn run_by<'a, 'b>(sql: &[u8], statement: &'a [&'b Token]) -> Option<&'a [&'b Token]> {
    let [verb, next, rest @ ..] = statement else { return None };
    if is_word(sql, verb, "set") && is_word(sql, next, "statement") {
        let at = rest.iter().position(|token| is_word(sql, token, "for"))?;
        return rest.get(at + 1..);
    }
    (is_word(sql, verb, "begin") && is_word(sql, next, "not")).then(|| rest.get(1..)).flatten()
}

fn class_of_plain(sql: &[u8], statement: &[&Token]) -> StatementClass {
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
        b"load" if rest.first().is_some_and(|next| is_word(sql, next, "index")) => StatementClass::Admin,
        b"insert" | b"update" | b"delete" | b"replace" | b"load" => StatementClass::Write,
        b"grant" | b"revoke" => StatementClass::Privileges,
        b"create" | b"alter" | b"drop" | b"rename" => definition(sql, rest),
        b"truncate" | b"import" => StatementClass::Ddl,
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
        b"execute" => executed(sql, rest),
        b"use" | b"prepare" | b"deallocate" | b"do" | b"call" | b"signal" | b"resignal" | b"get"
        | b"declare" | b"end" | b"return" | b"open" | b"fetch" | b"close" | b"leave" | b"iterate" => {
            StatementClass::Other
        }
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
        // `DROP PREPARE` forgets a prepared statement.
        Some(what) if is_word(sql, what, "prepare") => StatementClass::Other,
        _ => StatementClass::Ddl,
    }
}

/// `EXECUTE IMMEDIATE 'DROP TABLE t'`: what the text does. What a name stands for, or an expression gives, is not known.
fn executed(sql: &[u8], rest: &[&Token]) -> StatementClass {
    let [immediate, text] = rest else { return StatementClass::Unknown };
    if !is_word(sql, immediate, "immediate") || text.kind != Kind::String {
        return StatementClass::Unknown;
    }
    let quoted = text.bytes(sql);
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    // It is read as it is quoted: what it quotes itself has no verb.
    classify(inner, &crate::lexer::tokens(inner))
}

fn set(sql: &[u8], rest: &[&Token]) -> StatementClass {
    match rest.first() {
        Some(what) if is_any(sql, what, &["password", "role", "default"]) => StatementClass::Privileges,
        Some(what) if is_word(sql, what, "transaction") => StatementClass::Transaction,
        Some(what)
            if is_word(sql, what, "session")
                && rest.get(1).is_some_and(|next| is_word(sql, next, "transaction")) =>
        {
            StatementClass::Transaction
        }
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
