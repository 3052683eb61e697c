//! Offsets of real server binaries.

use std::path::Path;

use whence_abi::layout::{Layout, StringField};
use whence_collector::offsets::{OffsetsError, Product, Source, derive};
use whence_testkit::{MariaDb, MySql56};

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

/// MySQL 5.6 has not the accessors of later ones; without debug information it does not prove what is needed.
#[test]
fn a_server_that_proves_too_little_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let stripped = directory.path().join("mysqld");
    let strip = std::process::Command::new("strip")
        .arg("-o")
        .args([&stripped, &MySql56::program().unwrap()])
        .status()
        .expect("install the package binutils");
    assert!(strip.success());
    let refused = derive(&stripped).unwrap_err();
    assert!(matches!(refused, OffsetsError::Unproven(_)), "{refused}");
    assert!(refused.to_string().contains("security context: there is no function"), "{refused}");
}
