//! Offsets of real server binaries.

use std::fs;
use std::path::Path;
use std::process::Command;

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use whence_abi::layout::{ABSENT, Layout, StringField};
use whence_collector::offsets::{Derived, OffsetsError, Product, Source, Table, learn};
use whence_testkit::{MariaDb, MySql56};

/// What a binary tells by itself.
fn derive(binary: &Path) -> Result<Derived, OffsetsError> {
    whence_collector::offsets::derive(binary, &Table::load(None).unwrap().without_builds())
}

/// As `gdb`'s `ptype /o` has them.
#[test]
fn mysql_5_6_tells_by_its_debug_information() {
    let derived = derive(&MySql56::program().unwrap()).unwrap();
    assert_eq!(derived.product, Product::MySql);
    assert_eq!(derived.source, Source::Dwarf);
    let expected = Layout {
        security_context: 4360,
        thread_id: 7024,
        thread_id_bytes: 8,
        database: 136,
        database_length: 144,
        query: 80,
        query_length: 88,
        diagnostics: 13032,
        peer_port: 4536,
        rows_sent: 6376,
        login_user: StringField::pointer(96),
        host: StringField::pointer(0),
        ip: StringField::pointer(32),
        host_or_ip: StringField::pointer(328),
        priv_user: StringField::inline(104),
        status: 548,
        status_error: 3,
        status_ok_first: 1,
        status_ok_last: 2,
        error_code: 516,
        error_message: StringField::inline(2),
        sqlstate: StringField::inline(520),
        affected_rows: 528,
        ..Layout::EMPTY
    };
    assert_eq!(derived.targets.layout, expected);
    assert!(derived.absent().is_empty());
}

#[test]
fn mariadb_tells_by_its_machine_code() {
    let derived = derive(&MariaDb::program().unwrap()).unwrap();
    assert_eq!(derived.product, Product::MariaDb);
    assert_eq!(derived.source, Source::MachineCode);
    assert!(derived.version.is_some_and(|version| version.ends_with("-MariaDB")));
    assert!(derived.targets.acl_authenticate.is_some() && derived.targets.close_connection.is_some());
    assert_eq!(derived.targets.stmt_execute.len(), 2);
    let layout = derived.targets.layout;
    assert_eq!((layout.status_error, layout.status_ok_first, layout.status_ok_last), (5, 1, 4));
}

#[test]
fn what_is_no_server_is_refused() {
    let shell = derive(Path::new("/bin/sh")).unwrap_err();
    assert!(matches!(shell, OffsetsError::NoFunction("dispatch_command")), "{shell}");
    let text = derive(Path::new(file!())).unwrap_err();
    assert!(matches!(text, OffsetsError::NotElf(_) | OffsetsError::Unreadable(_)), "{text}");
}

/// Runs a program of the binutils.
fn binutils(program: &str, arguments: &[&Path]) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} failed; it is in the package binutils");
}

/// The same binary tells the same by its machine code, but for what no function of its shows.
#[test]
fn machine_code_and_debug_information_agree() {
    let program = MySql56::program().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let stripped = directory.path().join("mysqld");
    binutils("strip", &["-o".as_ref(), &stripped, &program]);

    let by_debug = derive(&program).unwrap();
    let by_code = derive(&stripped).unwrap();
    assert_eq!(by_code.source, Source::MachineCode);
    assert_eq!(by_code.absent(), ["database", "client port"]);
    let mut expected = by_debug.targets.layout;
    (expected.database, expected.database_length, expected.peer_port) = (ABSENT, ABSENT, ABSENT);
    assert_eq!(by_code.targets.layout, expected);
    assert_eq!(by_code.targets.dispatch_command, by_debug.targets.dispatch_command);
}

/// A table that knows `binary`, which tells by itself or by `debug_file`.
fn table_of(binary: &Path, debug_file: Option<&Path>, directory: &Path) -> (Table, Derived) {
    let (entry, derived) = learn(binary, debug_file, &Table::load(None).unwrap()).unwrap();
    let path = directory.join("table.toml");
    assert!(entry.add_to(&path).unwrap());
    (Table::load(Some(&path)).unwrap(), derived)
}

/// Without a build id it is known by its code.
#[test]
fn a_stripped_mysql_5_6_is_known_by_what_was_learnt() {
    let program = MySql56::program().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let [stripped, debug] = ["mysqld", "mysqld.debug"].map(|name| directory.path().join(name));
    binutils("objcopy", &["--only-keep-debug".as_ref(), &program, &debug]);
    binutils("strip", &["-o".as_ref(), &stripped, &program]);
    let unlinked = learn(&stripped, Some(&debug), &Table::load(None).unwrap()).unwrap_err();
    assert!(matches!(unlinked, OffsetsError::OtherDebugFile(_)), "{unlinked}");
    let link = format!("--add-gnu-debuglink={}", debug.display());
    binutils("objcopy", &[link.as_ref(), &stripped]);

    let whole = derive(&program).unwrap();
    for debug_file in [None, Some(&*debug), Some(&*program)] {
        let directory = tempfile::tempdir().unwrap();
        let (table, learnt) = table_of(&stripped, debug_file, directory.path());
        assert_eq!((learnt.source, learnt.targets.layout), (Source::Dwarf, whole.targets.layout));
        let derived = whence_collector::offsets::derive(&stripped, &table).unwrap();
        assert_eq!(derived.source, Source::MachineCode);
        assert_eq!(derived.added, ["database", "database_length", "peer_port"]);
        assert_eq!(derived.targets, whole.targets);
    }
}

/// Copies a program, without the names that begin with these.
pub fn copy_without_names(program: &Path, copy: &Path, names: &[&str]) {
    let mut bytes = fs::read(program).unwrap();
    for name in names {
        let found = bytes.windows(name.len()).enumerate().filter(|(_, part)| *part == name.as_bytes());
        let places: Vec<_> = found.map(|(place, _)| place).collect();
        assert!(!places.is_empty(), "{name}");
        for place in places {
            bytes[place..place + 4].copy_from_slice(b"????");
        }
    }
    fs::write(copy, bytes).unwrap();
    fs::set_permissions(copy, fs::metadata(program).unwrap().permissions()).unwrap();
}

/// A build whose functions have no names any more, as one has that was linked without them.
#[test]
fn a_server_without_names_is_known_by_its_build_id() {
    let program = MariaDb::program().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let nameless = directory.path().join("mariadbd");
    let names = ["_Z16dispatch_command", "_Z16acl_authenticate", "_Z16close_connection", "thd_priv_user"];
    copy_without_names(&program, &nameless, &names);
    let error = derive(&nameless).unwrap_err();
    assert!(matches!(error, OffsetsError::NoFunction("dispatch_command")), "{error}");

    let (table, learnt) = table_of(&program, None, directory.path());
    let derived = whence_collector::offsets::derive(&nameless, &table).unwrap();
    assert_eq!(derived.source, Source::Table);
    assert_eq!(derived.targets, learnt.targets);
    assert_eq!(derived.version, learnt.version);
}

#[test]
fn a_table_that_contradicts_the_binary_is_refused() {
    let program = MariaDb::program().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (entry, derived) = learn(&program, None, &Table::load(None).unwrap()).unwrap();
    let path = directory.path().join("table.toml");
    let right = format!("rows_sent = {}", derived.targets.layout.rows_sent);
    fs::write(&path, entry.text().unwrap().replace(&right, "rows_sent = 8")).unwrap();
    let table = Table::load(Some(&path)).unwrap();
    let error = whence_collector::offsets::derive(&program, &table).unwrap_err();
    assert!(error.to_string().contains("rows_sent: the table of offsets says otherwise"), "{error}");
}

/// A copy of the MariaDB server whose function `name` has the byte at `at` changed.
fn changed(name: &str, at: usize, byte: u8) -> OffsetsError {
    let mut program = fs::read(MariaDb::program().unwrap()).unwrap();
    let place = {
        let file = object::File::parse(&*program).unwrap();
        let address = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name)).unwrap().address();
        let offset = file.segments().find_map(|segment| {
            let (offset, bytes) = segment.file_range();
            let within = address.checked_sub(segment.address())?;
            (within < bytes).then_some(offset + within)
        });
        usize::try_from(offset.unwrap()).unwrap()
    };
    let landing = if program[place..].starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    program[place + landing + at] = byte;
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("mariadbd");
    fs::write(&copy, program).unwrap();
    derive(&copy).unwrap_err()
}

#[test]
fn what_is_not_certain_is_refused() {
    // Returns at once.
    let silent = changed("thd_client_ip", 0, 0xc3);
    assert_eq!(
        silent.to_string(),
        "its offsets are not certain: client address: the code of thd_client_ip does not show it"
    );
    // Goes through another pointer than the other accessors.
    let other = changed("thd_client_host", 3, 0x08);
    assert!(other.to_string().contains("client host: thd_priv_user says "), "{other}");
}
