//! SQL: what sort it is, its shape, and its text without secrets.

use whence_sqltext::{Config, Mode, analyze as read, mask_message};

/// Longest text kept.
const MAX_BYTES: usize = 512;

pub fn analyze(bytes: &[u8]) {
    let original_bytes = bytes.len() as u64;
    for mode in [Mode::Full, Mode::LiteralsMasked, Mode::Fingerprint, Mode::None] {
        let config = Config { mode, max_bytes: MAX_BYTES };
        let analysis = read(bytes, original_bytes, &config);
        assert_eq!(analysis, read(bytes, original_bytes, &config), "not the same twice");
        assert_eq!(analysis.text.is_some(), matches!(mode, Mode::Full | Mode::LiteralsMasked));
        assert!(analysis.tables.len() <= 64);
        if let Some(text) = analysis.text {
            // A byte that is not UTF-8 is written as four.
            assert!(text.text.len() <= 4 * MAX_BYTES);
        }
    }
    mask_message(bytes, bytes.len().is_multiple_of(2));
}
