//! Numbers and symbols, added up as an assembler does: `-16+8`, `table+0x20`, `4+counter-2`.

use super::{Program, Refused};

/// At most one symbol, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum<'a> {
    pub symbol: Option<&'a str>,
    pub number: i64,
}

impl<'a> Sum<'a> {
    /// Reads all of `text`; None when it is anything else. Nothing at all is 0.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut sum = Self { symbol: None, number: 0 };
        let mut rest = text.trim();
        let mut first = true;
        while !rest.is_empty() {
            let (negative, term) = match rest.as_bytes().first()? {
                b'-' => (true, &rest[1..]),
                b'+' => (false, &rest[1..]),
                _ if first => (false, rest),
                _ => return None,
            };
            let term = term.trim_start();
            let end = term.find(['+', '-']).unwrap_or(term.len());
            let (term, behind) = term.split_at(end);
            let term = term.trim_end();
            if let Some(number) = magnitude(term) {
                let number = number.cast_signed();
                sum.number = sum.number.wrapping_add(if negative { number.wrapping_neg() } else { number });
            } else if is_symbol(term) && !negative && sum.symbol.is_none() {
                sum.symbol = Some(term);
            } else {
                return None;
            }
            (rest, first) = (behind, false);
        }
        Some(sum)
    }

    /// The address that it stands for, as linked; None without a symbol.
    pub fn address(&self, program: &Program<'_>) -> Result<Option<u64>, Refused> {
        let Some(symbol) = self.symbol else { return Ok(None) };
        Ok(Some((program.symbol)(symbol)?.wrapping_add_signed(self.number)))
    }

    /// Its value as a number in the running program: a symbol has one only when the program runs where it was linked to.
    pub fn value(&self, program: &Program<'_>) -> Result<i64, Refused> {
        match self.address(program)? {
            None => Ok(self.number),
            Some(address) if program.fixed => Ok(address.cast_signed()),
            Some(_) => Err(Refused::FixedAddress),
        }
    }
}

/// A number as the assembler writes it: `12`, `0x1f`, `017`, `0b101`.
fn magnitude(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', _, ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    // `from_str_radix` would take a sign.
    digits.bytes().next().filter(u8::is_ascii_alphanumeric)?;
    u64::from_str_radix(digits, radix).ok()
}

fn is_symbol(text: &str) -> bool {
    let inside =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$') || byte >= 0x80;
    text.bytes().all(inside) && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit() && byte != b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_added_up() {
        for (text, symbol, number) in [
            ("", None, 0),
            ("16", None, 16),
            ("-16+8", None, -8),
            ("-0x10", None, -16),
            ("017 - 0b11", None, 12),
            ("0", None, 0),
            ("+7", None, 7),
            ("0xffffffffffffffff", None, -1),
            ("-9223372036854775808", None, i64::MIN),
            ("18446744073709551615", None, -1),
            ("counter", Some("counter"), 0),
            ("8+.LC0-2", Some(".LC0"), 6),
            ("a.1+4", Some("a.1"), 4),
            (" x + 1 ", Some("x"), 1),
        ] {
            assert_eq!(Sum::parse(text), Some(Sum { symbol, number }), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "a+b",
            "-a",
            "1 2",
            "a b",
            "4*2",
            "a@GOTPCREL",
            "--1",
            "+",
            "0x",
            "0xg",
            "09",
            "1f",
            "(1)",
            "$a",
            "99999999999999999999",
        ] {
            assert_eq!(Sum::parse(text), None, "{text}");
        }
    }
}
