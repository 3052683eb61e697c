//! What of SQL and of messages may leave the host, by the settings.

use whence_model::{Statement, Text};
use whence_sqltext::{Config, Mode};

use crate::decode::TextPolicy;
use crate::settings::SqlMode;

/// The settings' part in decoding.
#[derive(Clone, Copy, Debug)]
pub struct Policy(Config);

impl Policy {
    pub fn new(mode: SqlMode, max_bytes: u32) -> Self {
        let mode = match mode {
            SqlMode::Full => Mode::Full,
            SqlMode::LiteralsMasked => Mode::LiteralsMasked,
            SqlMode::Fingerprint => Mode::Fingerprint,
            SqlMode::None => Mode::None,
        };
        Self(Config { mode, max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX) })
    }
}

impl TextPolicy for Policy {
    fn statement(&self, sql: &[u8], original_bytes: u64) -> Statement {
        let analysis = whence_sqltext::analyze(sql, original_bytes, &self.0);
        Statement {
            class: analysis.class,
            sql: analysis.text,
            fingerprint: analysis.fingerprint,
            tables: analysis.tables,
        }
    }

    /// Messages quote statements, so what is in quotes is masked even where SQL is kept in full.
    fn error_message(&self, message: &[u8], original_bytes: u64) -> Option<Text> {
        let keeps_text = matches!(self.0.mode, Mode::Full | Mode::LiteralsMasked);
        keeps_text.then(|| whence_sqltext::mask_message(message, original_bytes > message.len() as u64))
    }
}
