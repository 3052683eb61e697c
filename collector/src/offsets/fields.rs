//! The fields of a [`Layout`] by name: how the table of offsets writes them, and what people call them.

use serde::{Deserialize, Serialize};
use whence_abi::layout::{ABSENT, Layout, StringField};

/// Where a field lies, or the value that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    Number(u32),
    Text(TextPlace),
}

/// Where text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextPlace {
    /// A pointer to it lies there.
    Pointer(u32),
    /// It lies there itself.
    Inline(u32),
}

#[derive(Clone, Copy)]
enum Member {
    Number(fn(&mut Layout) -> &mut u32),
    Text(fn(&mut Layout) -> &mut StringField),
}

/// One field of a layout.
#[derive(Clone, Copy)]
pub struct Field {
    /// As the table of offsets writes it.
    pub key: &'static str,
    /// As people call what an event lacks without it; None when that goes with another field.
    pub name: Option<&'static str>,
    /// Whether a server is refused without it.
    pub is_needed: bool,
    member: Member,
}

/// All fields, but for the form of `dispatch_command`.
pub const FIELDS: [Field; 23] = [
    needed("security_context", |layout| &mut layout.security_context),
    needed("thread_id", |layout| &mut layout.thread_id),
    needed("thread_id_bytes", |layout| &mut layout.thread_id_bytes),
    number("database", Some("database"), |layout| &mut layout.database),
    number("database_length", None, |layout| &mut layout.database_length),
    number("query", Some("text of prepared statements"), |layout| &mut layout.query),
    number("query_length", None, |layout| &mut layout.query_length),
    needed("diagnostics", |layout| &mut layout.diagnostics),
    number("peer_port", Some("client port"), |layout| &mut layout.peer_port),
    number("rows_sent", Some("rows sent"), |layout| &mut layout.rows_sent),
    text("login_user", Some("login user"), |layout| &mut layout.login_user),
    needed_text("host", |layout| &mut layout.host),
    needed_text("ip", |layout| &mut layout.ip),
    text("host_or_ip", None, |layout| &mut layout.host_or_ip),
    needed_text("priv_user", |layout| &mut layout.priv_user),
    needed("status", |layout| &mut layout.status),
    needed("status_error", |layout| &mut layout.status_error),
    needed("status_ok_first", |layout| &mut layout.status_ok_first),
    needed("status_ok_last", |layout| &mut layout.status_ok_last),
    needed("error_code", |layout| &mut layout.error_code),
    text("error_message", Some("error message"), |layout| &mut layout.error_message),
    text("sqlstate", Some("SQLSTATE"), |layout| &mut layout.sqlstate),
    number("affected_rows", Some("rows affected"), |layout| &mut layout.affected_rows),
];

const fn needed(key: &'static str, member: fn(&mut Layout) -> &mut u32) -> Field {
    Field { key, name: None, is_needed: true, member: Member::Number(member) }
}

const fn number(key: &'static str, name: Option<&'static str>, member: fn(&mut Layout) -> &mut u32) -> Field {
    Field { key, name, is_needed: false, member: Member::Number(member) }
}

const fn needed_text(key: &'static str, member: fn(&mut Layout) -> &mut StringField) -> Field {
    Field { key, name: None, is_needed: true, member: Member::Text(member) }
}

const fn text(
    key: &'static str,
    name: Option<&'static str>,
    member: fn(&mut Layout) -> &mut StringField,
) -> Field {
    Field { key, name, is_needed: false, member: Member::Text(member) }
}

impl Field {
    /// The field called `key`.
    pub fn of(key: &str) -> Option<Self> {
        FIELDS.into_iter().find(|field| field.key == key)
    }

    /// Where it lies; None where the layout does not know.
    pub fn get(self, layout: &Layout) -> Option<Place> {
        let mut layout = *layout;
        match self.member {
            Member::Number(member) => {
                Some(*member(&mut layout)).filter(|&at| at != ABSENT).map(Place::Number)
            }
            Member::Text(member) => {
                let StringField { offset, form } = *member(&mut layout);
                let place = if form == StringField::INLINE {
                    TextPlace::Inline(offset)
                } else {
                    TextPlace::Pointer(offset)
                };
                (offset != ABSENT).then_some(Place::Text(place))
            }
        }
    }

    /// Sets it; the answer is whether it can lie in such a place.
    pub fn set(self, layout: &mut Layout, place: Place) -> bool {
        match (self.member, place) {
            (Member::Number(member), Place::Number(offset)) => *member(layout) = offset,
            (Member::Text(member), Place::Text(TextPlace::Pointer(offset))) => {
                *member(layout) = StringField::pointer(offset);
            }
            (Member::Text(member), Place::Text(TextPlace::Inline(offset))) => {
                *member(layout) = StringField::inline(offset);
            }
            _ => return false,
        }
        true
    }
}
