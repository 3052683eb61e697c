//! The servers start, answer over both ways, come back after a restart, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use whence_testkit::{DatabaseServer, MariaDb, MySql56, Via};

fn lives(mut server: DatabaseServer, version: &str) {
    let ask = |server: &DatabaseServer, via| server.sql("root", "", "", "SELECT VERSION()", via).unwrap();
    assert!(ask(&server, Via::Tcp).starts_with(version));
    assert!(ask(&server, Via::Socket).starts_with(version));
    let refused = server.sql("root", "", "", "SELECT * FROM nowhere.nothing", Via::Tcp).unwrap_err();
    assert!(refused.to_string().contains("ERROR 1146"), "{refused}");

    server.sql("root", "", "", "CREATE DATABASE kept", Via::Socket).unwrap();
    let first = server.pid();
    server.restart().unwrap();
    assert_ne!(server.pid(), first);
    server.sql("root", "", "kept", "SELECT 1", Via::Tcp).unwrap();

    let (socket, data) = (server.socket(), server.data_directory());
    assert!(server.stop().unwrap().is_some_and(|status| status.success()));
    assert!(server.pid().is_none() && !socket.exists());
    drop(server);
    assert!(!data.exists());
}

#[test]
fn mariadb_lives() {
    lives(MariaDb::start().unwrap(), "10.");
}

#[test]
fn mysql_5_6_lives() {
    lives(MySql56::start().unwrap(), "5.6.24");
}
