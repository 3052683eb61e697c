//! Strangers' text made harmless for the eye and for spreadsheets, and figures for people.

use std::borrow::Cow;
use std::fmt::Write;

use whence_model::Timestamp;

/// Whether a character cannot be seen, or changes how others are seen: controls, and marks of direction and width.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            u32::from(c),
            0x00AD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
                | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
                | 0xFFF0..=0xFFFB | 0xE0000..=0xE0FFF
        )
}

/// `text` with every invisible character shown: controls as their pictures (␀ …), others as `⟨U+202E⟩`.
pub fn visible(text: &str) -> Cow<'_, str> {
    visible_but(text, &[])
}

/// [`visible`], but with line breaks and tabs as they are.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    visible_but(text, &['\n', '\t'])
}

fn visible_but<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let is_hidden = |c: char| is_invisible(c) && !kept.contains(&c);
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match u32::from(c) {
            _ if !is_hidden(c) => shown.push(c),
            code @ 0..=0x1F => shown.extend(char::from_u32(0x2400 + code)),
            0x7F => shown.push('\u{2421}'),
            // Writing to a String cannot fail.
            code => _ = write!(shown, "⟨U+{code:04X}⟩"),
        }
    }
    shown.into()
}

/// What a formula begins with.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// A cell of a CSV file that no spreadsheet takes for a formula: an apostrophe goes before what would begin one, at the
/// start of the cell or of a part of it. Spreadsheets that separate by other characters than commas break cells into parts,
/// whatever their quotes. Invisible characters other than line breaks and tabs are shown as [`visible`] shows them.
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let shown = visible_but(text, &['\n', '\r', '\t']);
    if !shown.starts_with(['\t', '\r']) && !shown.contains(FORMULA) {
        return shown;
    }
    let mut cell = String::with_capacity(shown.len() + 16);
    if shown.starts_with(['\t', '\r']) {
        cell.push('\'');
    }
    let mut is_start = true;
    for c in shown.chars() {
        if is_start && FORMULA.contains(&c) {
            cell.push('\'');
        }
        // What may stand before a formula and be dropped.
        is_start = matches!(c, ';' | '\t' | '\r' | '\n') || is_start && (c == '"' || c.is_whitespace());
        cell.push(c);
    }
    cell.into()
}

/// The first `chars` characters on one line, and whether that was all.
pub fn excerpt(text: &str, chars: usize) -> (String, bool) {
    let mut characters = text.chars();
    let beginning: String = characters.by_ref().take(chars).collect();
    (visible(&beginning).into_owned(), characters.next().is_none())
}

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 event`, `2 events`.
pub fn counted(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { several })
}

/// How long something took, with three figures or so: `820 ns`, `1.24 ms`, `3.1 s`, `2 min 5 s`.
pub fn duration(ns: u64) -> String {
    let tenths = |unit: u64| {
        let hundredths = u128::from(ns) * 100 / u128::from(unit);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        if whole >= 100 { whole.to_string() } else { format!("{whole}.{rest:02}") }
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", tenths(1_000)),
        1_000_000..1_000_000_000 => format!("{} ms", tenths(1_000_000)),
        1_000_000_000..60_000_000_000 => format!("{} s", tenths(1_000_000_000)),
        _ => long_duration(ns / 1_000_000_000),
    }
}

/// A span in its two largest units: `3 d 4 h`, `2 min 5 s`, `1 s`.
pub fn long_duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(largest) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else {
        return "under 1 s".into();
    };
    let (unit, name) = UNITS[largest];
    let whole = format!("{} {name}", seconds / unit);
    match UNITS.get(largest + 1).map(|(smaller, name)| (seconds % unit / smaller, name)) {
        Some((rest, name)) if rest > 0 => format!("{whole} {rest} {name}"),
        _ => whole,
    }
}

/// `2026-11-23 20:11:40` (UTC).
pub fn second(at: Timestamp) -> String {
    at.to_utc().format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-11-23 20:11:40.123` (UTC).
pub fn millisecond(at: Timestamp) -> String {
    at.to_utc().format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// `ring_full` as `ring full`.
pub fn words(name: &str) -> String {
    visible(name).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_shown() {
        assert_eq!(visible("plain 密码 ñ"), "plain 密码 ñ");
        assert_eq!(visible("a\0b\n\u{7f}\u{85}"), "a␀b␊␡⟨U+0085⟩");
        assert_eq!(visible("\u{202e}nimda\u{2066}\u{200b}"), "⟨U+202E⟩nimda⟨U+2066⟩⟨U+200B⟩");
        assert_eq!(visible_lines("a\n\tb\x1b[31m"), "a\n\tb␛[31m");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for wrong in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1"] {
            assert_eq!(csv_cell(wrong), format!("'{wrong}"));
        }
        // Where cells are separated by semicolons or tabs, the quotes of ours mean nothing to a spreadsheet.
        assert_eq!(csv_cell("x;=cmd|' /c calc'!A0;y"), "x;'=cmd|' /c calc'!A0;y");
        assert_eq!(csv_cell("x\t@a; +b;\"＝c"), "x\t'@a; '+b;\"'＝c");
        assert_eq!(csv_cell("SELECT 1\r\n-- =x"), "SELECT 1\r\n'-- =x");
        assert_eq!(csv_cell("\t=1"), "'\t'=1");
        assert_eq!(csv_cell("SELECT a-1; SELECT b=2"), "SELECT a-1; SELECT b=2");
        assert_eq!(csv_cell("\0=1"), "␀=1");
        assert_eq!(csv_cell(""), "");
    }

    #[test]
    fn excerpts_say_whether_they_are_all() {
        assert_eq!(excerpt("密码\nx", 3), ("密码␊".into(), false));
        assert_eq!(excerpt("密码", 2), ("密码".into(), true));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_240_000), "1.24 ms");
        assert_eq!(duration(250_000_000), "250 ms");
        assert_eq!(duration(125_000_000_000), "2 min 5 s");
        assert_eq!(duration(u64::MAX), "213503 d 23 h");
        assert_eq!(long_duration(0), "under 1 s");
        assert_eq!(long_duration(3600), "1 h");
    }
}
