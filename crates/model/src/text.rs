//! Text that came from a stranger, with what was lost when it was kept.

/// Text as kept, and how long it was.
///
/// Bytes that are not UTF-8 are kept as `\xHH`; `original_bytes` counts the bytes at the source. Where the
/// source or a limit cut the text, `truncated` says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text {
    pub text: String,
    /// Length at the source, in bytes.
    pub original_bytes: u64,
    /// Whether `text` is only the beginning of what the source had.
    pub truncated: bool,
}

impl Text {
    /// Keeps `bytes`, which were `original_bytes` long at the source.
    ///
    /// A UTF-8 character that the cut divided is dropped, not escaped.
    pub fn from_source(bytes: &[u8], original_bytes: u64) -> Self {
        let truncated = original_bytes > bytes.len() as u64;
        Self { text: escape_invalid_utf8(bytes, truncated), original_bytes, truncated }
    }
}

/// `bytes` as UTF-8, each byte that is not part of a character as `\xHH`.
///
/// With `cut`, an incomplete character at the very end is left out.
pub fn escape_invalid_utf8(bytes: &[u8], cut: bool) -> String {
    use std::fmt::Write;

    // Almost all is, and is found out much faster by itself.
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let is_last = chunks.peek().is_none();
        let incomplete = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if cut && is_last && incomplete {
            break;
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_kept_as_it_is() {
        let text = Text::from_source("SELECT '密码'".as_bytes(), 15);
        assert_eq!(text, Text { text: "SELECT '密码'".into(), original_bytes: 15, truncated: false });
    }

    #[test]
    fn other_bytes_are_escaped() {
        assert_eq!(Text::from_source(b"a\xff\x00b", 4).text, "a\\xFF\0b");
    }

    #[test]
    fn a_character_that_the_cut_divided_is_dropped() {
        let text = Text::from_source(&"ab密".as_bytes()[..4], 5);
        assert_eq!(text, Text { text: "ab".into(), original_bytes: 5, truncated: true });
    }

    #[test]
    fn an_incomplete_character_that_was_not_cut_is_escaped() {
        assert_eq!(Text::from_source(b"ab\xe5\xaf", 4).text, "ab\\xE5\\xAF");
    }
}
