//! The tables that a statement names, as far as its words tell.

use std::collections::BTreeSet;

use crate::lexer::{Kind, Token};
use crate::{is_any, is_word};

const MOST: usize = 64;
/// Longest name that is kept, in bytes: a database and a table of 64 characters of four bytes each, and the dot.
/// No server takes a longer one.
const LONGEST_BYTES: usize = 2 * 64 * 4 + 1;
/// Words between the keyword and the name.
const MODIFIERS: &[&str] = &[
    "low_priority",
    "high_priority",
    "delayed",
    "quick",
    "ignore",
    "if",
    "not",
    "exists",
    "table",
    "into",
    "only",
];
/// Words that are no table where one could be.
const NO_TABLES: &[&str] = &[
    "select",
    "dual",
    "outfile",
    "dumpfile",
    "set",
    "values",
    "value",
    "lateral",
    "unnest",
    "json_table",
    "where",
];
/// Functions with a FROM of their own: `EXTRACT(YEAR FROM day)`.
const FROM_FUNCTIONS: &[&str] = &["extract", "trim", "substring", "substr", "mid", "overlay"];

/// Names as written, without backquotes, sorted. What is longer than any server takes is cut, and ends with `…`.
pub fn tables(sql: &[u8], tokens: &[Token]) -> Vec<String> {
    let code: Vec<&Token> = tokens.iter().filter(|token| token.kind != Kind::Comment).collect();
    let mut found = BTreeSet::new();
    let mut expressions = BTreeSet::new();
    // For each open parenthesis: whether a FROM in it belongs to a function.
    let mut functions = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| code.get(before));
        match token.kind {
            Kind::Symbol(b'(') => {
                functions.push(before.is_some_and(|name| is_any(sql, name, FROM_FUNCTIONS)));
            }
            Kind::Symbol(b')') => drop(functions.pop()),
            Kind::Word if introduces_tables(sql, token, before) => {
                let own = functions.last() == Some(&true) && is_word(sql, token, "from");
                if !own {
                    names(sql, code.get(at + 1..).unwrap_or_default(), &mut found);
                }
            }
            Kind::Word if is_word(sql, token, "as") && code.get(at + 1).is_some_and(|next| opens(next)) => {
                // `WITH name AS (…)` names no table.
                expressions.extend(before.map(|name| cut(unquoted(sql, name))));
            }
            _ => {}
        }
    }
    let is_with = code.first().is_some_and(|first| is_word(sql, first, "with"));
    found.into_iter().filter(|name| !(is_with && expressions.contains(name))).take(MOST).collect()
}

fn introduces_tables(sql: &[u8], token: &Token, before: Option<&&Token>) -> bool {
    if is_word(sql, token, "update") {
        // Not `FOR UPDATE`, `ON DUPLICATE KEY UPDATE`, `ON UPDATE`.
        return !before.is_some_and(|before| is_any(sql, before, &["for", "key", "on"]));
    }
    let starts = before.is_none_or(|before| before.kind == Kind::Symbol(b';'));
    is_any(sql, token, &["from", "join", "straight_join", "into", "table", "tables"])
        || (starts && is_any(sql, token, &["insert", "replace", "truncate", "describe", "desc"]))
}

fn opens(token: &Token) -> bool {
    token.kind == Kind::Symbol(b'(')
}

/// The names at the start of `tokens`: `a`, `b.c AS d, e`.
fn names(sql: &[u8], tokens: &[&Token], found: &mut BTreeSet<String>) {
    let mut at = tokens.iter().position(|token| !is_any(sql, token, MODIFIERS)).unwrap_or(tokens.len());
    while found.len() < MOST {
        let Some(name) = tokens.get(at).filter(|token| is_name(sql, token)) else { return };
        let mut full = unquoted(sql, name);
        at += 1;
        while let (Some(dot), Some(part)) = (tokens.get(at), tokens.get(at + 1)) {
            if dot.kind != Kind::Symbol(b'.') || !matches!(part.kind, Kind::Word | Kind::Name) {
                break;
            }
            // What is too long already is cut below.
            if full.len() <= LONGEST_BYTES {
                full = format!("{full}.{}", unquoted(sql, part));
            }
            at += 2;
        }
        // `TABLE(…)` and other functions name no table; a list of columns may follow one.
        found.insert(cut(full));
        at += usize::from(tokens.get(at).is_some_and(|token| is_word(sql, token, "as")));
        at +=
            usize::from(tokens.get(at).is_some_and(|token| token.kind == Kind::Name || is_alias(sql, token)));
        if tokens.get(at).is_none_or(|token| token.kind != Kind::Symbol(b',')) {
            return;
        }
        at += 1;
    }
}

fn is_name(sql: &[u8], token: &Token) -> bool {
    token.kind == Kind::Name || (token.kind == Kind::Word && !is_any(sql, token, NO_TABLES))
}

fn is_alias(sql: &[u8], token: &Token) -> bool {
    const FOLLOWING: &[&str] =
        &["set", "values", "select", "where", "join", "left", "right", "inner", "on", "order"];
    token.kind == Kind::Word && !is_any(sql, token, FOLLOWING)
}

/// The name, when it is too long only its beginning and a mark.
fn cut(mut name: String) -> String {
    if name.len() > LONGEST_BYTES {
        name.truncate(name.floor_char_boundary(LONGEST_BYTES));
        name.push('…');
    }
    name
}

fn unquoted(sql: &[u8], token: &Token) -> String {
    let text = whence_model::escape_invalid_utf8(token.bytes(sql), false);
    if token.kind != Kind::Name {
        return text;
    }
    let inner = text.strip_prefix('`').unwrap_or(&text);
    inner.strip_suffix('`').unwrap_or(inner).replace("``", "`")
}
