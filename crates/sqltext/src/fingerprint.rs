//! The shape of a statement: the same for statements that differ in literals, white space, comments, the case of
//! words, the length of lists and the number of rows inserted.

use crate::is_any;
use crate::lexer::{Kind, Token};

/// The first eight bytes of the BLAKE3 hash of the statement's shape.
pub fn fingerprint(sql: &[u8], tokens: &[Token]) -> u64 {
    let hash = blake3::hash(&shape(sql, tokens));
    hash.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Words behind which a sign belongs to the number that follows. Behind a name it is an operator.
const BEFORE_SIGNS: &[&str] = &[
    "select", "distinct", "all", "where", "having", "on", "and", "or", "xor", "not", "between", "in", "like",
    "div", "mod", "case", "when", "then", "else", "by", "limit", "offset", "return", "set", "values", "is",
    "default", "interval",
];

fn shape(sql: &[u8], tokens: &[Token]) -> Vec<u8> {
    let mut shape =
        Shape { text: Vec::with_capacity(sql.len().min(4096)), groups: Vec::new(), last: Vec::new() };
    let code: Vec<&Token> = tokens.iter().filter(|token| token.kind != Kind::Comment).collect();
    // Whether a sign that comes next would be an operator.
    let mut operand = false;
    for (at, token) in code.iter().enumerate() {
        let is_introducer = || {
            token.bytes(sql).starts_with(b"_")
                && code.get(at + 1).is_some_and(|next| next.kind == Kind::String)
        };
        match token.kind {
            Kind::Comment => {}
            Kind::Word if is_any(sql, token, &["null", "true", "false", "default"]) => shape.literal(),
            // `_utf8mb4'x'`
            Kind::Word if is_introducer() => {}
            Kind::Word | Kind::Name => shape.word(token.bytes(sql)),
            Kind::String | Kind::Number | Kind::Placeholder => shape.literal(),
            Kind::Symbol(b'-' | b'+') if !operand && is_signed(&code, at) => {}
            Kind::Symbol(b'(') => shape.open(),
            Kind::Symbol(b')') => shape.close(),
            Kind::Symbol(symbol) => shape.text.push(symbol),
        }
        operand = match token.kind {
            Kind::Word => !is_any(sql, token, BEFORE_SIGNS),
            Kind::Name | Kind::String | Kind::Number | Kind::Placeholder | Kind::Symbol(b')') => true,
            Kind::Symbol(_) | Kind::Comment => false,
        };
    }
    while shape.text.last() == Some(&b';') {
        shape.text.pop();
    }
    shape.text
}

/// Whether nothing but signs is between the sign at `at` and a number.
fn is_signed(code: &[&Token], at: usize) -> bool {
    let behind = code.get(at + 1..).unwrap_or_default();
    let number = behind.iter().find(|token| !matches!(token.kind, Kind::Symbol(b'-' | b'+')));
    number.is_some_and(|token| matches!(token.kind, Kind::Number | Kind::Placeholder))
}

struct Shape {
    text: Vec<u8>,
    /// Where each open parenthesis begins.
    groups: Vec<usize>,
    /// By depth, where the parentheses that were closed last begin.
    last: Vec<usize>,
}

impl Shape {
    fn word(&mut self, bytes: &[u8]) {
        self.text.push(b' ');
        self.text.extend(bytes.iter().filter(|byte| **byte != b'`').map(u8::to_ascii_lowercase));
    }

    /// A literal; a list of literals is one, and strings side by side are one string.
    fn literal(&mut self) {
        if self.text.ends_with(b"?,") {
            self.text.pop();
        } else if !self.text.ends_with(b"?") {
            self.text.push(b'?');
        }
    }

    fn open(&mut self) {
        self.groups.push(self.text.len());
        self.text.push(b'(');
    }

    fn close(&mut self) {
        self.text.push(b')');
        let Some(start) = self.groups.pop() else { return };
        // Another row like the one before.
        let depth = self.groups.len();
        let row = self.text.get(start..).unwrap_or_default();
        let before = self.last.get(depth).and_then(|before| self.text.get(*before..start));
        let is_repeated = before.and_then(|before| before.strip_suffix(b",")) == Some(row);
        self.last.truncate(depth + usize::from(is_repeated));
        if is_repeated {
            self.text.truncate(start - 1);
        } else {
            self.last.resize(depth, usize::MAX);
            self.last.push(start);
        }
    }
}
