//! The text without secrets. Where it is not sure that a literal is none, it is masked.

use crate::lexer::{Kind, Token};
use crate::secrets::{Secrets, is_telling};

/// What stands in the place of a secret.
const MASK: &[u8] = b"'***'";
const COMMENT_MASK: &[u8] = b"/* *** */";

/// The text with every credential masked.
pub fn credentials(sql: &[u8], tokens: &[Token], secrets: &Secrets) -> Vec<u8> {
    write(sql, tokens, secrets, |_, secret| match secret {
        Some(Kind::Comment) => Some(COMMENT_MASK),
        Some(_) => Some(MASK),
        None => None,
    })
}

/// The text with every literal as `?`, without comments.
pub fn literals(sql: &[u8], tokens: &[Token], secrets: &Secrets) -> Vec<u8> {
    write(sql, tokens, secrets, |kind, secret| match (kind, secret) {
        (Kind::Comment, _) => Some(b" "),
        (Kind::String | Kind::Number, _) | (_, Some(_)) => Some(b"?"),
        _ => None,
    })
}

/// Copies the text but for the tokens that `instead` gives something for. What is behind the cut is one secret.
fn write(
    sql: &[u8],
    tokens: &[Token],
    secrets: &Secrets,
    instead: impl Fn(Kind, Option<Kind>) -> Option<&'static [u8]>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(sql.len());
    let mut copied = 0;
    let mut end = secrets.cut;
    for (at, token) in tokens.iter().enumerate() {
        let instead = instead(token.kind, secrets.is_secret(at).then_some(token.kind));
        if let Some(cut) = secrets.cut.filter(|cut| token.end > *cut) {
            // No part of what is masked.
            end = Some(if instead.is_some() { cut.min(token.start) } else { cut });
            break;
        }
        if let Some(instead) = instead {
            out.extend(sql.get(copied..token.start).unwrap_or_default());
            out.extend(instead);
            copied = token.end;
        }
    }
    let Some(end) = end else {
        out.extend(sql.get(copied..).unwrap_or_default());
        return out;
    };
    out.extend(sql.get(copied..end).unwrap_or_default());
    if !out.last().is_none_or(u8::is_ascii_whitespace) {
        out.push(b' ');
    }
    out.extend(instead(Kind::String, Some(Kind::String)).unwrap_or_default());
    out
}

/// An error message with what it quotes masked, when that could be a part of a statement with a credential.
pub fn message(message: &[u8]) -> Vec<u8> {
    // "… check the manual … for the right syntax to use near 'IDENTIFIED BY …' at line 1"
    let Some(near) = message.windows(6).position(|window| window == b"near '") else {
        return message.to_vec();
    };
    let (head, quoted) = message.split_at(near + 5);
    if !is_telling(quoted) && !quoted.contains(&b'\'') {
        return message.to_vec();
    }
    let tail = quoted.windows(9).rposition(|window| window == b"' at line").map(|at| at + 1);
    let tail = tail.and_then(|at| quoted.get(at..)).unwrap_or_default();
    [head, MASK, tail].concat()
}

/// An error message with all that it quotes masked. One that is cut may go on with what it quoted.
pub fn quotes(message: &[u8], truncated: bool) -> Vec<u8> {
    let is_letter =
        |at: Option<usize>| at.and_then(|at| message.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    // Between two letters it is an apostrophe: doesn't.
    let is_quote = |at: &usize| {
        matches!(message.get(*at), Some(b'\'' | b'"' | b'`'))
            && !(is_letter(at.checked_sub(1)) && is_letter(at.checked_add(1)))
    };
    let Some(first) = (0..message.len()).find(is_quote) else { return message.to_vec() };
    let last = (0..message.len()).rfind(is_quote).filter(|_| !truncated);
    let head = message.get(..first).unwrap_or_default();
    let tail = last.and_then(|last| message.get(last + 1..)).unwrap_or_default();
    [head, MASK, tail].concat()
}
