//! The shape of a statement: the same for statements that differ in literals, white space, comments, the case of
//! words, the length of lists and the number of rows inserted.

use crate::is_any;
use crate::lexer::{Kind, Token};

/// The first eight bytes of the BLAKE3 hash of the statement's shape.
pub fn fingerprint(sql: &[u8], tokens: &[Token]) -> u64 {
    let mut first = [0; 8];
    blake3::Hasher::new().update(&shape(sql, tokens)).finalize_xof().fill(&mut first);
    u64::from_be_bytes(first)
}

fn shape(sql: &[u8], tokens: &[Token]) -> Vec<u8> {
    let mut shape = Vec::with_capacity(sql.len().min(4096));
    for token in tokens {
        match token.kind {
            Kind::Comment => {}
            Kind::Word if is_any(sql, token, &["null", "true", "false", "default"]) => literal(&mut shape),
            Kind::Word => {
                shape.push(b' ');
                shape.extend(token.bytes(sql).iter().map(u8::to_ascii_lowercase));
            }
            Kind::Name => {
                shape.push(b' ');
                shape.extend(
                    token.bytes(sql).iter().filter(|byte| **byte != b'`').map(u8::to_ascii_lowercase),
                );
            }
            Kind::String | Kind::Number | Kind::Placeholder => literal(&mut shape),
            Kind::Symbol(b')') => {
                shape.push(b')');
                // Another row like the one before.
                if shape.ends_with(b"(?),(?)") {
                    shape.truncate(shape.len() - b",(?)".len());
                }
            }
            Kind::Symbol(symbol) => shape.push(symbol),
        }
    }
    while shape.last() == Some(&b';') {
        shape.pop();
    }
    shape
}

/// A literal; a sign belongs to it, and a list of literals is one.
fn literal(shape: &mut Vec<u8>) {
    if let [.., before, b'-' | b'+'] = shape.as_slice()
        && matches!(before, b'(' | b',' | b'=' | b'<' | b'>')
    {
        shape.pop();
    }
    if shape.ends_with(b"?,") {
        shape.pop();
    } else if shape.ends_with(b"?") {
        // Strings side by side are one string.
    } else {
        shape.push(b'?');
    }
}
