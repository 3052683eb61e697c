//! Who may send events without signing them: names with their tokens, from a file.
//!
//! ```text
//! # one sender a line: its name, which is in the audit, and its token
//! backup-host 3f1c0e…
//! ```

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::refusal::Refusal;

const NAME_BYTES: usize = 64;
/// A shorter one could be guessed.
const TOKEN_BYTES: usize = 16;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    #[error("line {line}: it must be a name, a space and a token")]
    Malformed { line: usize },
    #[error("line {line}: a name has letters, digits, `-`, `_` and `.`, at most {NAME_BYTES} of them")]
    Name { line: usize },
    #[error("line {line}: the token is too short; it must have {TOKEN_BYTES} characters or more")]
    Token { line: usize },
    #[error("line {line}: the name or the token is that of an earlier line")]
    Repeated { line: usize },
}

/// The senders that are known; none by default.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<(String, SecretString)>);

impl Sources {
    pub fn parse(text: &str) -> Result<Self, SourcesError> {
        let mut sources = Self::default();
        for (text, line) in text.lines().map(str::trim).zip(1..) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.split_whitespace();
            let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
                return Err(SourcesError::Malformed { line });
            };
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if name.len() > NAME_BYTES || !name.chars().all(is_name) {
                return Err(SourcesError::Name { line });
            }
            if token.len() < TOKEN_BYTES {
                return Err(SourcesError::Token { line });
            }
            if sources.0.iter().any(|(known, secret)| known == name || secret.expose_secret() == token) {
                return Err(SourcesError::Repeated { line });
            }
            sources.0.push((name.to_owned(), token.into()));
        }
        Ok(sources)
    }

    /// The name of the sender whose token the request carries. Takes the same time for every wrong one of its length.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<&str, Refusal> {
        if self.0.is_empty() {
            return Err(Refusal::NoSources);
        }
        let value = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let (scheme, given) = value.split_at(value.len().min("Bearer ".len()));
        let given = given.trim_ascii();
        let is_of = |token: &SecretString| bool::from(given.ct_eq(token.expose_secret().as_bytes()));
        let known =
            self.0.iter().fold(None, |known, (name, token)| if is_of(token) { Some(name) } else { known });
        match known {
            Some(name) if scheme.eq_ignore_ascii_case(b"Bearer ") => Ok(name),
            _ => Err(Refusal::WrongSourceToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_sender_a_line() {
        let sources =
            Sources::parse("# senders\n\nbackup-1  0123456789abcdef\nvector.eu abcdef0123456789\n").unwrap();
        let headers = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(sources.authenticate(&headers("Bearer abcdef0123456789")).unwrap(), "vector.eu");
        for wrong in ["Bearer abcdef012345678", "abcdef0123456789", "Basic abcdef0123456789", "Bearer "] {
            assert!(sources.authenticate(&headers(wrong)).is_err(), "{wrong}");
        }
        for (wrong, line) in [("a", 1), ("\na b c", 2), ("a/b 0123456789abcdef", 1), ("a short", 1)] {
            let told = Sources::parse(wrong).unwrap_err().to_string();
            assert!(told.starts_with(&format!("line {line}: ")), "{told}");
        }
        assert!(Sources::parse("a 0123456789abcdef\nb 0123456789abcdef").is_err());
    }
}
