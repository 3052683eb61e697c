//! The table of offsets: what is known of servers that do not tell it themselves, and how their entry points look.
//!
//! It is data. One part is shipped (`table.toml`); more comes from files that `whence doctor --learn` writes and the
//! setting `--offsets` names. An entry belongs to one build of a server: to the build id that its linker gave it or,
//! where it has none, to the SHA-256 of its section `.text`, which stripping leaves as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_abi::layout::{Layout, dispatch};

use super::Product;
use super::fields::{FIELDS, Field, Place, TextPlace};

/// What is shipped.
const SHIPPED: &str = include_str!("table.toml");
/// No object that a server keeps is larger.
const MOST_OFFSET: u32 = 1 << 20;

/// The table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("cannot read the table of offsets {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "every user of this host can change the table of offsets {path}; take away the permission with: chmod o-w {path}"
    )]
    WorldWritable { path: PathBuf },
    #[error("the table of offsets {path} is malformed: {source}")]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error("the table of offsets {path}: {key} has two entries that differ; remove one")]
    Contradictory { path: PathBuf, key: Key },
    #[error("cannot write the table of offsets {path}: {source}")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("cannot write the entry: {0}")]
    Unwritten(#[from] toml::ser::Error),
}

/// What an entry belongs to, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    BuildId(String),
    TextSha256(String),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BuildId(id) => write!(f, "build id {id}"),
            Self::TextSha256(hash) => write!(f, "the code with SHA-256 {hash}"),
        }
    }
}

/// One build of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub key: Key,
    pub product: Product,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For people: what it was learnt from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub learnt_from: String,
    /// Addresses in the program, as its symbols would have them.
    pub functions: Functions,
    pub layout: Fields,
}

/// Addresses of functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Functions {
    pub dispatch_command: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl_authenticate: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_connection: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stmt_execute: Vec<u64>,
}

/// A layout as text: each field that is known, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Fields(pub Layout);

#[derive(Serialize, Deserialize)]
struct Written {
    dispatch: Arguments,
    #[serde(flatten)]
    fields: BTreeMap<String, Place>,
}

/// How `dispatch_command` takes its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arguments {
    /// Command, THD, packet, length.
    Packet,
    /// THD, data, command.
    Data,
}

impl Arguments {
    pub fn as_abi(self) -> u32 {
        match self {
            Self::Packet => dispatch::PACKET,
            Self::Data => dispatch::COM_DATA,
        }
    }
}

/// A function that is watched, by its mangled name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryPoint {
    pub function: Function,
    /// What its name begins with.
    pub symbol: String,
    /// Of `dispatch_command`.
    #[serde(default)]
    pub arguments: Option<Arguments>,
}

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    DispatchCommand,
    AclAuthenticate,
    CloseConnection,
    StmtExecute,
}

/// Everything that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(default)]
    entry_point: Vec<EntryPoint>,
    #[serde(default)]
    binary: Vec<Entry>,
}

impl Table {
    /// What is shipped and, where `more` is given, what that file holds, or the files `*.toml` in that directory.
    pub fn load(more: Option<&Path>) -> Result<Self, TableError> {
        let mut table = Self::default();
        table.add(Path::new("table.toml"), SHIPPED)?;
        for path in more.map(files).transpose()?.unwrap_or_default() {
            table.add(&path, &read(&path)?)?;
        }
        Ok(table)
    }

    /// The same without what is known of single builds.
    #[must_use]
    pub fn without_builds(mut self) -> Self {
        self.binary.clear();
        self
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), TableError> {
        let table: Self = toml::from_str(text)
            .map_err(|source| TableError::Malformed { path: path.into(), source: Box::new(source) })?;
        self.entry_point.extend(table.entry_point);
        for entry in table.binary {
            match self.entry(&entry.key) {
                Some(known) if known.functions != entry.functions || known.layout != entry.layout => {
                    return Err(TableError::Contradictory { path: path.into(), key: entry.key });
                }
                Some(_) => {}
                None => self.binary.push(entry),
            }
        }
        Ok(())
    }

    /// What is known of the build with this key.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.binary.iter().find(|entry| entry.key == *key)
    }

    /// Whether any build is known by its code.
    pub fn knows_by_code(&self) -> bool {
        self.binary.iter().any(|entry| matches!(entry.key, Key::TextSha256(_)))
    }

    /// The names that `function` may have.
    pub fn entry_points(&self, function: Function) -> impl Iterator<Item = &EntryPoint> {
        self.entry_point.iter().filter(move |point| point.function == function)
    }
}

/// The files that `path` stands for, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, TableError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |source| TableError::Unreadable { path: path.into(), source };
    let entries =
        fs::read_dir(path).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort_unstable();
    Ok(files)
}

fn read(path: &Path) -> Result<String, TableError> {
    use std::os::unix::fs::PermissionsExt as _;

    const WRITABLE_BY_OTHERS: u32 = 0o002;
    let unreadable = |source| TableError::Unreadable { path: path.into(), source };
    if fs::metadata(path).map_err(unreadable)?.permissions().mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(TableError::WorldWritable { path: path.into() });
    }
    fs::read_to_string(path).map_err(unreadable)
}

impl Entry {
    /// The entry as a file has it.
    pub fn text(&self) -> Result<String, TableError> {
        #[derive(Serialize)]
        struct One<'a> {
            binary: [&'a Entry; 1],
        }
        Ok(toml::to_string(&One { binary: [self] })?)
    }

    /// Adds it to the file at `path`, which need not be there. The answer is whether it was not in it already.
    pub fn add_to(&self, path: &Path) -> Result<bool, TableError> {
        let before = if path.exists() { read(path)? } else { String::new() };
        let mut table = Table::default();
        table.add(path, &before)?;
        if table.entry(&self.key).is_some() {
            // Refuses it when it differs.
            table.add(path, &self.text()?)?;
            return Ok(false);
        }
        let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
        let unwritable = |source| TableError::Unwritable { path: path.into(), source };
        let partial = path.with_extension("partial");
        fs::write(&partial, format!("{before}{gap}{}", self.text()?)).map_err(unwritable)?;
        fs::rename(&partial, path).map_err(unwritable)?;
        Ok(true)
    }
}

impl From<Fields> for Written {
    fn from(Fields(layout): Fields) -> Self {
        let dispatch =
            if layout.dispatch == dispatch::COM_DATA { Arguments::Data } else { Arguments::Packet };
        let known = FIELDS.iter().filter_map(|field| Some((field.key.to_owned(), field.get(&layout)?)));
        Self { dispatch, fields: known.collect() }
    }
}

impl TryFrom<Written> for Fields {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut layout = Layout { dispatch: written.dispatch.as_abi(), ..Layout::EMPTY };
        for (key, &place) in &written.fields {
            let field = Field::of(key).ok_or_else(|| {
                let known: Vec<_> = FIELDS.iter().map(|field| field.key).collect();
                format!("unknown field `{key}`; known here: dispatch, {}", known.join(", "))
            })?;
            let (Place::Number(number) | Place::Text(TextPlace::Pointer(number) | TextPlace::Inline(number))) =
                place;
            if number > MOST_OFFSET {
                return Err(format!("`{key}` is {number}, more than any offset ({MOST_OFFSET})"));
            }
            if !field.set(&mut layout, place) {
                let right = "a number, or for text { pointer = … } or { inline = … }";
                return Err(format!("`{key}` is of the wrong form; it takes {right}"));
            }
        }
        let missing: Vec<_> = FIELDS
            .iter()
            .filter(|field| field.is_needed && !written.fields.contains_key(field.key))
            .map(|field| field.key)
            .collect();
        if !missing.is_empty() {
            return Err(format!("these fields are missing: {}", missing.join(", ")));
        }
        if !matches!(layout.thread_id_bytes, 4 | 8) {
            return Err(format!("`thread_id_bytes` is 4 or 8, not {}", layout.thread_id_bytes));
        }
        let (ok_first, ok_last) = (layout.status_ok_first, layout.status_ok_last);
        if ok_first > ok_last || (ok_first..=ok_last).contains(&layout.status_error) {
            return Err("`status_error` is outside of `status_ok_first` to `status_ok_last`".to_owned());
        }
        Ok(Self(layout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let mut layout = Layout { thread_id_bytes: 8, ..Layout::EMPTY };
        for (number, field) in (0..).zip(FIELDS).filter(|(_, field)| field.is_needed) {
            let number = if field.key == "thread_id_bytes" { 8 } else { number };
            let text = Place::Text(TextPlace::Inline(number));
            assert!(field.set(&mut layout, Place::Number(number)) || field.set(&mut layout, text));
        }
        (layout.status_ok_first, layout.status_ok_last, layout.status_error) = (1, 2, 3);
        Entry {
            key: Key::BuildId("00ff".into()),
            product: Product::MariaDb,
            version: Some("10.11.19-MariaDB".into()),
            learnt_from: "debug information".into(),
            functions: Functions {
                dispatch_command: 0x1234,
                acl_authenticate: None,
                close_connection: Some(0x5678),
                stmt_execute: vec![1, 2],
            },
            layout: Fields(layout),
        }
    }

    #[test]
    fn what_is_shipped_can_be_read() {
        let table = Table::load(None).unwrap();
        assert!(table.entry_points(Function::DispatchCommand).count() >= 2);
    }

    #[test]
    fn an_entry_is_read_back_and_added_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        fs::write(&path, "# by hand\n").unwrap();
        let entry = entry();
        assert!(entry.add_to(&path).unwrap());
        assert!(!entry.add_to(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# by hand\n"), "{text}");
        let table = Table::load(Some(directory.path())).unwrap();
        assert_eq!(table.entry(&entry.key), Some(&entry), "{text}");

        let mut other = entry;
        other.functions.dispatch_command += 1;
        let error = other.add_to(&path).unwrap_err();
        assert!(error.to_string().contains("build id 00ff has two entries that differ"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        let whole = entry().text().unwrap();
        for (from, to, reason) in [
            ("thread_id_bytes = 8", "thread_id_bytes = 5", "`thread_id_bytes` is 4 or 8, not 5"),
            ("security_context = ", "security_contxt = ", "unknown field `security_contxt`"),
            ("security_context = ", "# ", "these fields are missing: security_context"),
            ("security_context = 0", "security_context = 99999999", "more than any offset"),
            ("dispatch = \"packet\"", "dispatch = \"both\"", "unknown variant `both`"),
            ("status_error = 3", "status_error = 1", "`status_error` is outside"),
            ("dispatch_command = ", "dispatch_commnd = ", "unknown field `dispatch_commnd`"),
        ] {
            fs::write(&path, whole.replace(from, to)).unwrap();
            let error = Table::load(Some(&path)).unwrap_err();
            let text = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
            assert!(text.contains(reason), "{from}: {error} {text}");
        }
    }

    #[test]
    fn a_file_that_everyone_can_change_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(Table::load(Some(&path)), Err(TableError::WorldWritable { .. })));
    }
}
