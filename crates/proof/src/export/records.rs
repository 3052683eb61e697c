//! Splits a file into its rows, each with the end of its line.

use std::io::{self, BufRead};

use super::Content;

/// No row that Whence writes is longer; a file whose quotes do not match any more is not read into memory as one.
const MAX_ROW_BYTES: usize = 64 << 20;

/// Reads the next row into `row`; false at the end of the file.
pub fn next(content: Content, file: &mut impl BufRead, row: &mut Vec<u8>) -> io::Result<bool> {
    row.clear();
    let mut quotes = 0;
    loop {
        let start = row.len();
        if file.read_until(b'\n', row)? == 0 {
            return Ok(!row.is_empty());
        }
        quotes += row[start..].split(|byte| *byte == b'"').count() - 1;
        let is_whole = match content {
            // Within quotes a line feed belongs to the cell.
            Content::Csv => quotes % 2 == 0,
            Content::Ndjson => true,
        };
        if is_whole || row.len() > MAX_ROW_BYTES {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(content: Content, mut text: &[u8]) -> Vec<String> {
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        while next(content, &mut text, &mut row).unwrap() {
            rows.push(String::from_utf8(row.clone()).unwrap());
        }
        rows
    }

    #[test]
    fn a_line_feed_in_quotes_ends_no_row() {
        let text = b"a,b\r\n\"1\n\"\"2\",x\r\n3,4";
        assert_eq!(rows(Content::Csv, text), ["a,b\r\n", "\"1\n\"\"2\",x\r\n", "3,4"]);
        assert_eq!(rows(Content::Ndjson, b"{\"\n{}\n"), ["{\"\n", "{}\n"]);
    }
}
