//! Offsets from a binary's debug information (DWARF 2 to 5).
//!
//! Only the compilation units of a few functions are read. A class with virtual functions, as `THD` is, may be described
//! in full only where those are.

use gimli::{AttributeValue, EndianSlice, Reader as _, RunTimeEndian, UnitOffset};
use whence_abi::layout::{ABSENT, Layout, StringField};

use super::Unproven;
use super::image::Image;

type Slice<'data> = EndianSlice<'data, RunTimeEndian>;
type Entry<'unit, 'data> = gimli::DebuggingInformationEntry<'unit, 'unit, Slice<'data>>;

/// Deepest nesting of types that is followed.
const DEPTH: usize = 16;
const FIELD: &str = "debug information";

/// The layout by the units that hold the functions called `anchors`; None when there is no debug information for them.
pub fn layout(image: &Image<'_>, anchors: &[&'static str]) -> Result<Option<Layout>, Unproven> {
    if image.section(".debug_info").is_none() {
        return Ok(None);
    }
    let unreadable = |error: gimli::Error| Unproven::new(FIELD, error.to_string());
    let endian = if image.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let load = |section: gimli::SectionId| {
        Ok::<_, gimli::Error>(EndianSlice::new(image.section(section.name()).unwrap_or_default(), endian))
    };
    let dwarf = gimli::Dwarf::load(load).map_err(unreadable)?;
    let mut layout = Layout::EMPTY;
    let mut missing = vec!["THD", "Security_context", "Diagnostics_area"];
    for anchor in anchors {
        let Some(symbol) = image.starting_with(anchor).find(|symbol| symbol.is_function) else {
            continue;
        };
        let Some(unit) = unit_of(&dwarf, symbol.address).map_err(unreadable)? else {
            continue;
        };
        let types = Types { dwarf: &dwarf, unit: &unit };
        for (name, of_type) in types.named(&missing).map_err(unreadable)? {
            match name {
                "THD" => types.thd(of_type, &mut layout)?,
                "Security_context" => types.security_context(of_type, &mut layout)?,
                _ => types.diagnostics_area(of_type, &mut layout)?,
            }
            missing.retain(|&known| known != name);
        }
        if missing.is_empty() {
            return Ok(Some(layout));
        }
    }
    Err(Unproven::new(FIELD, format!("it lacks the type {}", missing.join(", "))))
}

/// The compilation unit of the code at `address`.
fn unit_of<'data>(
    dwarf: &gimli::Dwarf<Slice<'data>>,
    address: u64,
) -> gimli::Result<Option<gimli::Unit<Slice<'data>>>> {
    let mut tables = dwarf.debug_aranges.headers();
    while let Some(table) = tables.next()? {
        let mut entries = table.entries();
        while let Some(entry) = entries.next()? {
            if entry.address() <= address && address - entry.address() < entry.length() {
                let header = dwarf.debug_info.header_from_offset(table.debug_info_offset())?;
                return dwarf.unit(header).map(Some);
            }
        }
    }
    // Some compilers write no such table.
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        let unit = dwarf.unit(header)?;
        let mut ranges = dwarf.unit_ranges(&unit)?;
        while let Some(range) = ranges.next()? {
            if (range.begin..range.end).contains(&address) {
                return Ok(Some(unit));
            }
        }
    }
    Ok(None)
}

/// A member of a type, by its distance from the start of the outermost one.
#[derive(Clone, Copy, Debug)]
struct Member {
    offset: u32,
    of_type: UnitOffset,
}

/// What sort of thing a type is.
enum Kind {
    Pointer,
    Array,
    Struct,
    /// A number, of this many bytes.
    Number(u64),
    /// An enumeration, with names and values.
    Enumeration(Vec<(String, u32)>),
}

/// The types of one unit.
struct Types<'unit, 'data> {
    dwarf: &'unit gimli::Dwarf<Slice<'data>>,
    unit: &'unit gimli::Unit<Slice<'data>>,
}

impl<'data> Types<'_, 'data> {
    fn thd(&self, thd: UnitOffset, layout: &mut Layout) -> Result<(), Unproven> {
        let pointer =
            |field, paths: &[&[&str]]| self.typed(field, thd, paths, |kind| matches!(kind, Kind::Pointer));
        let number = |field, paths: &[&[&str]], bytes| {
            self.typed(field, thd, paths, |kind| matches!(kind, Kind::Number(width) if *width == bytes))
        };
        layout.security_context =
            pointer("security context", &[&["security_ctx"], &["m_security_ctx"], &["_security_ctx"]])?;
        layout.diagnostics = pointer("diagnostics area", &[&["m_stmt_da"], &["stmt_da"]])?;
        let thread_id: &[&[&str]] = &[&["thread_id"], &["m_thread_id"]];
        (layout.thread_id, layout.thread_id_bytes) = match number("thread id", thread_id, 8) {
            Ok(offset) => (offset, 8),
            Err(_) => (number("thread id", thread_id, 4)?, 4),
        };
        // `db` is text alone up to MySQL 5.6, text with length later.
        let database = pointer("database", &[&["db"], &["db", "str"], &["m_db", "str"]]);
        let length = number("database", &[&["db_length"], &["db", "length"], &["m_db", "length"]], 8);
        if let (Ok(database), Ok(length)) = (database, length) {
            (layout.database, layout.database_length) = (database, length);
        }
        let of_query = |part: &'static str| -> [&[&str]; 2] {
            match part {
                "str" => [&["query_string", "string", "str"], &["m_query_string", "str"]],
                _ => [&["query_string", "string", "length"], &["m_query_string", "length"]],
            }
        };
        if let (Ok(text), Ok(length)) =
            (pointer("query", &of_query("str")), number("query", &of_query("length"), 8))
        {
            (layout.query, layout.query_length) = (text, length);
        }
        layout.peer_port = number("client port", &[&["peer_port"]], 2).unwrap_or(ABSENT);
        layout.rows_sent =
            number("rows sent", &[&["m_sent_row_count"], &["sent_row_count"]], 8).unwrap_or(ABSENT);
        Ok(())
    }

    fn security_context(&self, context: UnitOffset, layout: &mut Layout) -> Result<(), Unproven> {
        layout.priv_user = self.string("account", context, &["priv_user", "m_priv_user"])?;
        layout.host = self.string("client host", context, &["host", "m_host"])?;
        layout.ip = self.string("client address", context, &["ip", "m_ip"])?;
        layout.login_user =
            self.string("login user", context, &["user", "m_user"]).unwrap_or(StringField::ABSENT);
        layout.host_or_ip =
            self.string("client", context, &["host_or_ip", "m_host_or_ip"]).unwrap_or(StringField::ABSENT);
        Ok(())
    }

    fn diagnostics_area(&self, area: UnitOffset, layout: &mut Layout) -> Result<(), Unproven> {
        let field = "status of a command";
        let status = self.member(field, area, &["m_status"])?;
        let Kind::Enumeration(values) = self.kind(field, status.of_type)? else {
            return Err(Unproven::new(field, "it is no enumeration"));
        };
        let value = |name: &str| {
            let found = values.iter().find(|(known, _)| known == name);
            found.map(|&(_, value)| value).ok_or_else(|| Unproven::new(field, format!("it has no {name}")))
        };
        layout.status = status.offset;
        layout.status_error = value("DA_ERROR")?;
        layout.status_ok_first = value("DA_OK")?;
        layout.status_ok_last = value("DA_EOF_BULK").or_else(|_| value("DA_EOF"))?;

        let code: &[&[&str]] = &[&["m_sql_errno"], &["m_mysql_errno"]];
        layout.error_code = self.typed("error code", area, code, |kind| matches!(kind, Kind::Number(4)))?;
        let text = |field, names: &[&str]| {
            let found = self.string(field, area, names).unwrap_or(StringField::ABSENT);
            if found.form == StringField::INLINE { found } else { StringField::ABSENT }
        };
        layout.error_message = text("error message", &["m_message", "m_message_text"]);
        layout.sqlstate = text("SQLSTATE", &["m_sqlstate", "m_returned_sqlstate"]);
        let rows: &[&[&str]] = &[&["m_affected_rows"]];
        layout.affected_rows =
            self.typed("rows affected", area, rows, |kind| matches!(kind, Kind::Number(8))).unwrap_or(ABSENT);
        Ok(())
    }

    /// The offset of the first of `paths` that is there and is of the right sort.
    fn typed(
        &self,
        field: &'static str,
        of_type: UnitOffset,
        paths: &[&[&str]],
        fits: impl Fn(&Kind) -> bool,
    ) -> Result<u32, Unproven> {
        for path in paths {
            if let Ok(member) = self.member(field, of_type, path)
                && fits(&self.kind(field, member.of_type)?)
            {
                return Ok(member.offset);
            }
        }
        Err(Unproven::new(field, "no member of the right name and type"))
    }

    /// The first of the members `names` that holds text: a `char *`, an array, or a `String`.
    fn string(
        &self,
        field: &'static str,
        of_type: UnitOffset,
        names: &[&str],
    ) -> Result<StringField, Unproven> {
        for name in names {
            let Ok(member) = self.member(field, of_type, &[name]) else {
                continue;
            };
            match self.kind(field, member.of_type)? {
                Kind::Pointer => return Ok(StringField::pointer(member.offset)),
                Kind::Array => return Ok(StringField::inline(member.offset)),
                Kind::Struct => {
                    let text: &[&[&str]] = &[&["Ptr"], &["m_ptr"], &["str"]];
                    let within =
                        self.typed(field, member.of_type, text, |kind| matches!(kind, Kind::Pointer))?;
                    return Ok(StringField::pointer(member.offset + within));
                }
                Kind::Number(_) | Kind::Enumeration(_) => {}
            }
        }
        Err(Unproven::new(field, "no member of the right name and type"))
    }

    /// The member that `path` leads to, through bases and structures.
    fn member(&self, field: &'static str, of_type: UnitOffset, path: &[&str]) -> Result<Member, Unproven> {
        let mut found = Member { offset: 0, of_type };
        for name in path {
            let next = self
                .find(found.of_type, name, DEPTH)
                .map_err(|error| Unproven::new(field, error.to_string()))?
                .ok_or_else(|| Unproven::new(field, format!("there is no member {name}")))?;
            found = Member { offset: found.offset + next.offset, of_type: next.of_type };
        }
        Ok(found)
    }

    fn find(&self, of_type: UnitOffset, name: &str, depth: usize) -> gimli::Result<Option<Member>> {
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(None);
        };
        let mut tree = self.unit.entries_tree(Some(self.plain(of_type)?))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            let is_base = entry.tag() == gimli::DW_TAG_inheritance;
            if !is_base && entry.tag() != gimli::DW_TAG_member {
                continue;
            }
            let (Some(offset), Some(of_type)) = (location(entry)?, type_of(entry)?) else {
                continue;
            };
            let known = self.name(entry)?;
            if known.is_some_and(|known| known == name.as_bytes()) {
                return Ok(Some(Member { offset, of_type }));
            }
            // Members of a base, and of an unnamed structure or union, are the type's own.
            if known.is_none()
                && let Some(member) = self.find(of_type, name, depth)?
            {
                return Ok(Some(Member { offset: offset + member.offset, of_type: member.of_type }));
            }
        }
        Ok(None)
    }

    fn kind(&self, field: &'static str, of_type: UnitOffset) -> Result<Kind, Unproven> {
        let read = || {
            let entry = self.unit.entry(self.plain(of_type)?)?;
            Ok(match entry.tag() {
                gimli::DW_TAG_pointer_type => Some(Kind::Pointer),
                gimli::DW_TAG_array_type => Some(Kind::Array),
                gimli::DW_TAG_base_type => {
                    entry.attr(gimli::DW_AT_byte_size)?.and_then(|size| size.udata_value()).map(Kind::Number)
                }
                gimli::DW_TAG_enumeration_type => Some(Kind::Enumeration(self.enumeration(entry.offset())?)),
                tag if is_struct(tag) => Some(Kind::Struct),
                _ => None,
            })
        };
        read()
            .map_err(|error: gimli::Error| Unproven::new(field, error.to_string()))?
            .ok_or_else(|| Unproven::new(field, "its type is not understood"))
    }

    fn enumeration(&self, of_type: UnitOffset) -> gimli::Result<Vec<(String, u32)>> {
        let mut values = Vec::new();
        let mut tree = self.unit.entries_tree(Some(of_type))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            let value = entry.attr(gimli::DW_AT_const_value)?.and_then(|value| value.udata_value());
            if let (Some(name), Some(Ok(value))) = (self.name(entry)?, value.map(u32::try_from)) {
                values.push((String::from_utf8_lossy(name).into_owned(), value));
            }
        }
        Ok(values)
    }

    /// The definitions of the types called `names` that are at the unit's outermost level.
    fn named(&self, names: &[&'static str]) -> gimli::Result<Vec<(&'static str, UnitOffset)>> {
        let mut found: Vec<(&str, UnitOffset)> = Vec::new();
        let mut tree = self.unit.entries_tree(None)?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if !is_struct(entry.tag()) || entry.attr(gimli::DW_AT_declaration)?.is_some() {
                continue;
            }
            let name = self.name(entry)?;
            let wanted = names.iter().find(|wanted| name == Some(wanted.as_bytes()));
            if let Some(wanted) = wanted
                && !found.iter().any(|(known, _)| known == wanted)
            {
                found.push((wanted, entry.offset()));
            }
        }
        Ok(found)
    }

    /// The type behind its other names and qualifiers.
    fn plain(&self, of_type: UnitOffset) -> gimli::Result<UnitOffset> {
        let mut plain = of_type;
        for _ in 0..DEPTH {
            let entry = self.unit.entry(plain)?;
            match entry.tag() {
                gimli::DW_TAG_typedef | gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type => {
                    match type_of(&entry)? {
                        Some(of_type) => plain = of_type,
                        None => break,
                    }
                }
                _ => break,
            }
        }
        Ok(plain)
    }

    fn name(&self, entry: &Entry<'_, 'data>) -> gimli::Result<Option<&'data [u8]>> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name)? else {
            return Ok(None);
        };
        self.dwarf.attr_string(self.unit, value).map(|text| Some(text.slice()))
    }
}

fn is_struct(tag: gimli::DwTag) -> bool {
    matches!(tag, gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type)
}

fn type_of(entry: &Entry<'_, '_>) -> gimli::Result<Option<UnitOffset>> {
    Ok(match entry.attr_value(gimli::DW_AT_type)? {
        Some(AttributeValue::UnitRef(offset)) => Some(offset),
        _ => None,
    })
}

/// Where a member lies in its structure; the members of a union say nothing.
fn location(entry: &Entry<'_, '_>) -> gimli::Result<Option<u32>> {
    Ok(match entry.attr_value(gimli::DW_AT_data_member_location)? {
        None => Some(0),
        // DWARF 2 has the operation that adds the offset.
        Some(AttributeValue::Exprloc(expression)) => {
            let mut code = expression.0;
            let is_sum = code.read_u8()? == gimli::DW_OP_plus_uconst.0;
            let offset = code.read_uleb128()?;
            if is_sum && code.is_empty() { u32::try_from(offset).ok() } else { None }
        }
        Some(value) => value.udata_value().and_then(|offset| u32::try_from(offset).ok()),
    })
}
