//! The text without secrets. Where it is not sure that a literal is none, it is masked.

use crate::lexer::{Kind, Token};
use crate::{is_any, is_word};

/// What stands in the place of a secret.
const MASK: &[u8] = b"'***'";
const COMMENT_MASK: &[u8] = b"/* *** */";
/// A literal or a comment that holds one of these words may hold a statement with a credential.
const TELLING: &[&[u8]] = &[b"identified", b"password", b"passwd"];
/// Functions whose arguments hold keys.
const KEY_FUNCTIONS: &[&str] = &[
    "password",
    "old_password",
    "aes_encrypt",
    "aes_decrypt",
    "des_encrypt",
    "des_decrypt",
    "encrypt",
    "encode",
    "decode",
    "keyring_key_store",
    "ed25519_password",
    "sha2_password",
];

/// The text with every credential masked.
pub fn credentials(sql: &[u8], tokens: &[Token]) -> Vec<u8> {
    let secrets = Marker::new(sql, tokens).mark();
    // Where a server does not take `\'` for an escape, strings end elsewhere than we think.
    let ambiguous =
        tokens.iter().any(|token| token.kind == Kind::String && contains(token.bytes(sql), b"\\'"));
    let first_secret = tokens.iter().zip(&secrets).find(|(_, secret)| **secret).map(|(token, _)| token.start);
    let mut out = Vec::with_capacity(sql.len());
    let mut copied = 0;
    if let Some(start) = first_secret.filter(|_| ambiguous) {
        out.extend(sql.get(..start).unwrap_or_default());
        out.extend(MASK);
        return out;
    }
    for (token, secret) in tokens.iter().zip(secrets) {
        let is_telling_comment = token.kind == Kind::Comment && is_telling(token.bytes(sql));
        if !secret && !is_telling_comment {
            continue;
        }
        out.extend(sql.get(copied..token.start).unwrap_or_default());
        out.extend(if secret { MASK } else { COMMENT_MASK });
        copied = token.end;
    }
    out.extend(sql.get(copied..).unwrap_or_default());
    out
}

/// The text with every literal as `?`, without comments.
pub fn literals(sql: &[u8], tokens: &[Token]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sql.len());
    let mut copied = 0;
    for token in tokens {
        let instead: &[u8] = match token.kind {
            Kind::String | Kind::Number => b"?",
            Kind::Comment => b" ",
            _ => continue,
        };
        out.extend(sql.get(copied..token.start).unwrap_or_default());
        out.extend(instead);
        copied = token.end;
    }
    out.extend(sql.get(copied..).unwrap_or_default());
    out
}

/// An error message with what it quotes masked, when that could be a part of a statement with a credential.
pub fn message(message: &[u8]) -> Vec<u8> {
    // "… check the manual … for the right syntax to use near 'IDENTIFIED BY …' at line 1"
    let Some(near) = message.windows(6).position(|window| window == b"near '") else {
        return message.to_vec();
    };
    let (head, quoted) = message.split_at(near + 5);
    if !is_telling(quoted) && !contains(quoted, b"'") {
        return message.to_vec();
    }
    let tail = quoted.windows(9).rposition(|window| window == b"' at line").map(|at| at + 1);
    let tail = tail.and_then(|at| quoted.get(at..)).unwrap_or_default();
    [head, MASK, tail].concat()
}

struct Marker<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
    secret: Vec<bool>,
}

impl<'a> Marker<'a> {
    fn new(sql: &'a [u8], tokens: &'a [Token]) -> Self {
        Self { sql, tokens, secret: vec![false; tokens.len()] }
    }

    fn mark(mut self) -> Vec<bool> {
        for at in 0..self.tokens.len() {
            let Some(&token) = self.tokens.get(at) else { break };
            match token.kind {
                Kind::String if is_telling(token.bytes(self.sql)) => self.set(at),
                Kind::Word | Kind::Name => self.word(at, &token),
                _ => {}
            }
        }
        self.secret
    }

    fn word(&mut self, at: usize, token: &Token) {
        if is_word(self.sql, token, "identified") {
            self.until_semicolon(at + 1);
        } else if is_any(self.sql, token, KEY_FUNCTIONS)
            && self.code_after(at).is_some_and(|next| self.is(next, b'('))
        {
            self.arguments(at + 1);
        } else if is_telling(token.bytes(self.sql)) {
            self.value_of(at);
        } else if is_word(self.sql, token, "connection") {
            // `CREATE TABLE … CONNECTION = 'mysql://user:password@host/…'`
            self.assigned(at);
        }
    }

    /// Index of the token behind `at` that is no comment.
    fn code_after(&self, at: usize) -> Option<usize> {
        let rest = self.tokens.get(at + 1..)?;
        rest.iter().position(|token| token.kind != Kind::Comment).map(|position| at + 1 + position)
    }

    fn is(&self, at: usize, symbol: u8) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    fn set(&mut self, at: usize) {
        if let Some(secret) = self.secret.get_mut(at) {
            *secret = true;
        }
    }

    fn is_value(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| {
            let is_hexadecimal =
                token.kind == Kind::Number && matches!(token.bytes(self.sql), [b'0', b'x' | b'X', ..]);
            token.kind == Kind::String || is_hexadecimal
        })
    }

    /// Everything behind IDENTIFIED but account names, which have an `@` beside them.
    fn until_semicolon(&mut self, from: usize) {
        for at in from..self.tokens.len() {
            if self.is(at, b';') {
                return;
            }
            let before_host = self.code_after(at).is_some_and(|next| self.is(next, b'@'));
            let behind_name = at > 0 && self.is(at - 1, b'@');
            if self.is_value(at) && !before_host && !behind_name {
                self.set(at);
            }
        }
    }

    /// Every value up to the parenthesis that closes the next one to open.
    fn arguments(&mut self, from: usize) {
        let mut depth = 0_usize;
        for at in from..self.tokens.len() {
            if self.is(at, b'(') {
                depth += 1;
            } else if self.is(at, b')') {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return;
                }
            } else if self.is_value(at) {
                self.set(at);
            }
        }
    }

    /// `PASSWORD 'x'`, `password = 'x'`, `MASTER_PASSWORD = _utf8'x'`, `SET PASSWORD FOR 'a'@'b' = 'x'`.
    fn value_of(&mut self, at: usize) {
        let is_set = at > 0
            && self.tokens.get(..at).is_some_and(|before| {
                let before = before.iter().rev().find(|token| token.kind != Kind::Comment);
                before.is_some_and(|token| is_word(self.sql, token, "set"))
            });
        let next = self.code_after(at);
        if is_set
            && next.and_then(|next| self.tokens.get(next)).is_some_and(|next| is_word(self.sql, next, "for"))
        {
            let assigned = (at..self.tokens.len()).find(|at| self.is(*at, b'='));
            if let Some(assigned) = assigned {
                self.until_semicolon(assigned);
            }
            return;
        }
        self.assigned(at);
    }

    /// The literals that follow, behind `=`, `:=`, `(`, operators and introducers.
    fn assigned(&mut self, at: usize) {
        let mut next = self.code_after(at);
        while let Some(position) = next {
            let Some(token) = self.tokens.get(position) else { return };
            if self.is_value(position) {
                self.set(position);
            } else {
                let passes = match token.kind {
                    Kind::Symbol(symbol) => matches!(symbol, b'=' | b':' | b'(' | b'<' | b'>' | b'!'),
                    Kind::Word => {
                        token.bytes(self.sql).starts_with(b"_") || is_any(self.sql, token, &["like", "by"])
                    }
                    _ => false,
                };
                if !passes {
                    return;
                }
            }
            next = self.code_after(position);
        }
    }
}

fn is_telling(bytes: &[u8]) -> bool {
    TELLING.iter().any(|word| bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word)))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
