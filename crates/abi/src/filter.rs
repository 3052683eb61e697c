//! What the kernel decides by itself of the collector's rules, so that a record that is left out costs no place in the ring.
//!
//! It knows a command's number and whether it has SQL: a [`Profile`] says what becomes of it. One profile holds for
//! connections of which it knows nothing more; the collector, which sees who a connection belongs to in its records, gives
//! it another for that connection, once. What neither decides goes out, and the collector decides.

/// Longest name of a rule, in bytes.
pub const NAME_BYTES: usize = 60;
/// A rule's name, filled up with zero bytes, in words: the kernel copies it.
pub type Name = [u32; NAME_BYTES / 4];

/// Rules that the kernel can hold of one configuration: so many fit a byte twice, with two values left.
pub const RULES: u32 = 127;
/// Profiles of one configuration.
pub const PROFILES: u32 = 64;

/// What a profile says of a command, besides the numbers of rules.
pub mod becomes {
    /// The kernel does not decide.
    pub const SENT: u8 = 0;
    /// It depends on who the connection belongs to.
    pub const ASKED: u8 = 255;
}

/// One rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: Name,
    /// 0: all are left out. Else one of so many goes out.
    pub one_in: u32,
}

/// The number of a rule, or one of [`becomes`], for each command: at [`Profile::place`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub places: [u8; Profile::PLACES],
}

impl Profile {
    /// Commands below 256, without and with SQL.
    pub const PLACES: usize = 512;
    pub const EMPTY: Self = Self { places: [becomes::SENT; Self::PLACES] };

    pub const fn place(command: u32, has_sql: bool) -> usize {
        (command & 0xff) as usize | ((has_sql as usize) << 8)
    }
}

/// Which profile holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// 0: none does.
    pub on: u32,
    /// Grows with each configuration. The rules and profiles of two in a row do not share places.
    pub generation: u32,
    /// The profile of connections of which nothing is known.
    pub profile: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// A connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub id: u64,
    pub tgid: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// What is known of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The configuration that the profile is of.
    pub generation: u32,
    /// Its profile, or [`Known::CHANGED`].
    pub profile: u32,
}

impl Known {
    /// It was given to another account: records of the one before may still be on their way, so that the collector must
    /// not say any more what holds for it.
    pub const CHANGED: u32 = u32::MAX;
}

/// Whose events were left out, by which rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered {
    pub rule: Name,
    pub tgid: u32,
}

// SAFETY: integers only; sizes are checked below.
unsafe impl crate::record::Plain for Rule {}
// SAFETY: as above.
unsafe impl crate::record::Plain for Profile {}
// SAFETY: as above.
unsafe impl crate::record::Plain for Active {}
// SAFETY: as above.
unsafe impl crate::record::Plain for Connection {}
// SAFETY: as above.
unsafe impl crate::record::Plain for Known {}
// SAFETY: as above.
unsafe impl crate::record::Plain for Filtered {}

const _: () = {
    assert!(size_of::<Rule>() == NAME_BYTES + 4);
    assert!(size_of::<Active>() == 16 && size_of::<Connection>() == 16 && size_of::<Known>() == 8);
    assert!(size_of::<Filtered>() == NAME_BYTES + 4);
};
