//! Reads SQL as MySQL and MariaDB do, as far as an audit needs it: what sort of statement it is, its shape, the
//! tables it names, and its text without secrets.
//!
//! SQL comes from strangers: any bytes are taken, and none make it fail. What is not understood is
//! [`StatementClass::Unknown`], never left out.

mod classify;
mod fingerprint;
mod lexer;
mod mask;
mod secrets;
mod tables;

use lexer::Token;
use secrets::Secrets;
use whence_model::{StatementClass, Text};

/// How much of the text is kept. Credentials are masked in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Full,
    /// Every literal becomes `?`, comments are left out.
    LiteralsMasked,
    /// No text.
    Fingerprint,
    /// Neither text nor fingerprint.
    None,
}

/// How [`analyze`] works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub mode: Mode,
    /// Longest text kept, in bytes.
    pub max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Mode::Full, max_bytes: 64 << 10 }
    }
}

/// What is kept of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    pub class: StatementClass,
    /// Masked. None in the modes that keep no text.
    pub text: Option<Text>,
    /// None in [`Mode::None`].
    pub fingerprint: Option<u64>,
    /// Sorted, without repeats, at most 64 with at most 516 bytes each; a name that was cut ends with `…`.
    pub tables: Vec<String>,
}

/// A statement that has been read, before it is decided how much of it is kept.
pub struct Reading<'a> {
    sql: &'a [u8],
    tokens: Vec<Token>,
    pub class: StatementClass,
}

/// Reads `sql`.
pub fn read(sql: &[u8]) -> Reading<'_> {
    let tokens = lexer::tokens(sql);
    Reading { sql, class: classify::classify(sql, &tokens), tokens }
}

impl Reading<'_> {
    /// What `config` keeps of the statement, which may be only the beginning of what had `original_bytes` bytes at the
    /// source.
    pub fn keep(&self, original_bytes: u64, config: &Config) -> Analysis {
        let (sql, tokens) = (self.sql, self.tokens.as_slice());
        let secrets = Secrets::find(sql, tokens);
        let text = match config.mode {
            Mode::Full => Some(mask::credentials(sql, tokens, &secrets)),
            Mode::LiteralsMasked => Some(mask::literals(sql, tokens, &secrets)),
            Mode::Fingerprint | Mode::None => None,
        };
        let shown = secrets.shown(tokens);
        Analysis {
            class: self.class,
            text: text.map(|text| kept(text, sql.len(), original_bytes, config.max_bytes)),
            fingerprint: (config.mode != Mode::None).then(|| fingerprint::fingerprint(sql, &shown)),
            tables: tables::tables(sql, &shown),
        }
    }
}

/// Reads `sql`, which may be only the beginning of what had `original_bytes` bytes at the source.
pub fn analyze(sql: &[u8], original_bytes: u64, config: &Config) -> Analysis {
    read(sql).keep(original_bytes, config)
}

/// Masks what a message of the server quotes of a statement, when that may hold a credential.
pub fn mask_message(message: &[u8], truncated: bool) -> Text {
    let text = whence_model::escape_invalid_utf8(&mask::message(message), truncated);
    Text { text, original_bytes: message.len() as u64, truncated }
}

/// Masks all that a message of the server quotes: from the first quote to the last, as what is between them may hold
/// quotes of its own.
pub fn mask_quotes(message: &[u8], truncated: bool) -> Text {
    let text = whence_model::escape_invalid_utf8(&mask::quotes(message, truncated), truncated);
    Text { text, original_bytes: message.len() as u64, truncated }
}

fn kept(mut masked: Vec<u8>, source_bytes: usize, original_bytes: u64, max_bytes: usize) -> Text {
    let original_bytes = original_bytes.max(source_bytes as u64);
    let truncated = original_bytes > source_bytes as u64 || masked.len() > max_bytes;
    masked.truncate(max_bytes);
    Text { text: whence_model::escape_invalid_utf8(&masked, truncated), original_bytes, truncated }
}

/// Whether the token is the unquoted word `word` (given in lower case).
fn is_word(sql: &[u8], token: &Token, word: &str) -> bool {
    is_any(sql, token, &[word])
}

/// Whether the token is one of these unquoted words.
fn is_any(sql: &[u8], token: &Token, words: &[&str]) -> bool {
    let bytes = token.bytes(sql);
    token.kind == lexer::Kind::Word && words.iter().any(|word| bytes.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests;
