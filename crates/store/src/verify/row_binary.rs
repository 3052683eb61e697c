//! Values as ClickHouse's format `RowBinary` has them. The bytes of an answer go in, values that lie in them come out.
//!
//! It is what the client asks for too. Read by the client, value by value through serde, an event's row cost as much as
//! everything else that verification does with it.

#![expect(
    clippy::inline_always,
    reason = "called, a value would be passed through memory: it took a fifth of verification"
)]

use std::net::Ipv6Addr;

use uuid::Uuid;
use whence_chain::Hash;
use whence_model::Timestamp;

/// Why a value was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes end before it does.
    Short,
    /// The bytes are no such value.
    Wrong,
}

/// What can be read off the beginning of some bytes, which are those behind it then.
pub trait Value<'a>: Sized {
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop>;
}

#[inline(always)]
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], Stop> {
    let (value, rest) = bytes.split_first_chunk().ok_or(Stop::Short)?;
    *bytes = rest;
    Ok(value)
}

/// Seven bits in each byte, the lowest first; the last byte has no eighth.
#[inline(always)]
fn length(bytes: &mut &[u8]) -> Result<usize, Stop> {
    let mut length = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = u8::read(bytes)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(length);
        }
    }
    Err(Stop::Wrong)
}

macro_rules! numbers {
    ($($number:ty),+) => {
        $(impl<'a> Value<'a> for $number {
            #[inline(always)]
            fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
                take(bytes).map(|bytes| Self::from_le_bytes(*bytes))
            }
        })+
    };
}
numbers!(u8, u16, u32, u64, i64);

impl<'a> Value<'a> for bool {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        match u8::read(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Stop::Wrong),
        }
    }
}

impl<'a> Value<'a> for Timestamp {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        i64::read(bytes).map(Self)
    }
}

impl<'a> Value<'a> for Uuid {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        Ok(Self::from_u64_pair(u64::read(bytes)?, u64::read(bytes)?))
    }
}

impl<'a> Value<'a> for Ipv6Addr {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        take(bytes).map(|octets: &[u8; 16]| Self::from(*octets))
    }
}

impl<'a> Value<'a> for Hash {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        take(bytes).copied()
    }
}

impl<'a> Value<'a> for &'a str {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        let length = length(bytes)?;
        let (text, rest) = bytes.split_at_checked(length).ok_or(Stop::Short)?;
        *bytes = rest;
        str::from_utf8(text).map_err(|_| Stop::Wrong)
    }
}

impl<'a, T: Value<'a>> Value<'a> for Option<T> {
    #[inline(always)]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        let is_null = bool::read(bytes)?;
        if is_null { Ok(None) } else { T::read(bytes).map(Some) }
    }
}

impl<'a, T: Value<'a>> Value<'a> for Vec<T> {
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Stop> {
        (0..length(bytes)?).map(|_| T::read(bytes)).collect()
    }
}

/// A row that is read whole, and the names of its columns.
macro_rules! row {
    ($(#[$doc:meta])* $name:ident<$life:lifetime> { $($field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        pub struct $name<$life> { $(pub $field: $type,)+ }

        impl $name<'_> {
            pub const COLUMNS: &'static [&'static str] = &[$(stringify!($field),)+];
        }

        impl<$life> Value<$life> for $name<$life> {
            fn read(bytes: &mut &$life [u8]) -> Result<Self, Stop> {
                Ok(Self { $($field: Value::read(bytes)?,)+ })
            }
        }
    };
}
pub(super) use row;

#[cfg(test)]
mod tests {
    use super::*;

    row! {
        Row<'a> { number: u32, text: Option<&'a str>, list: Vec<&'a str>, at: Timestamp, is: bool, id: Uuid, }
    }

    /// `SELECT 7::UInt32, 'naïve'::Nullable(String), ['a', ''], toDateTime64(1, 9), true,
    /// toUUID('00000000-0000-0001-0000-000000000002')`.
    const BYTES: &[u8] = b"\x07\0\0\0\0\x06na\xc3\xafve\x02\x01a\0\0\xca\x9a\x3b\0\0\0\0\x01\
        \x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0next";

    #[test]
    fn a_row_is_read_whole_or_not_at_all() {
        let mut bytes = BYTES;
        let row = Row::read(&mut bytes).ok().unwrap();
        assert_eq!((row.number, row.text, row.list), (7, Some("na\u{ef}ve"), vec!["a", ""]));
        assert_eq!((row.at, row.is), (Timestamp(1_000_000_000), true));
        assert_eq!((row.id.as_u64_pair(), bytes), ((1, 2), b"next".as_slice()));
        for length in 0..BYTES.len() - 4 {
            assert_eq!(Row::read(&mut &BYTES[..length]).err(), Some(Stop::Short), "{length} bytes");
        }
        assert_eq!(Row::COLUMNS, ["number", "text", "list", "at", "is", "id"]);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(<&str>::read(&mut b"\x01\xff".as_slice()), Err(Stop::Wrong));
        assert_eq!(bool::read(&mut b"\x02".as_slice()), Err(Stop::Wrong));
        assert_eq!(<&str>::read(&mut [0xff; 11].as_slice()), Err(Stop::Wrong));
        let long = [&b"\x80\x01"[..], &[b'a'; 128]].concat();
        assert_eq!(<&str>::read(&mut long.as_slice()), Ok("a".repeat(128).as_str()));
    }
}
