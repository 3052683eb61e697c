//! The database servers of the tests, with the accounts that they are used by.

use whence_testkit::{DatabaseServer, Via};

/// Password of every account.
pub const PASSWORD: &str = "correct horse";

/// Makes a database `shop` and the accounts `app`, `report` and `auditor`, who come from anywhere.
pub fn prepare(server: &DatabaseServer) {
    let tables = "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, customer VARCHAR(40));
        INSERT INTO shop.orders VALUES (1, 'Li'), (2, 'Zoë'), (3, 'Ana');";
    root(server, tables);
    for account in ["app", "report", "auditor"] {
        grant(server, account);
    }
}

/// Gives an account everything in `shop`, from anywhere.
pub fn grant(server: &DatabaseServer, account: &str) {
    // For both hosts: MySQL 5.6 has anonymous accounts on localhost, which would win over '%'.
    for host in ["%", "localhost"] {
        root(server, &format!("GRANT ALL ON shop.* TO '{account}'@'{host}' IDENTIFIED BY '{PASSWORD}'"));
    }
}

/// Runs a statement as the owner.
pub fn root(server: &DatabaseServer, statement: &str) -> String {
    server.sql("root", "", "", statement, Via::Socket).unwrap()
}

/// Runs a statement in `shop` as `user`.
pub fn run(server: &DatabaseServer, user: &str, statement: &str, via: Via) -> anyhow::Result<String> {
    server.sql(user, PASSWORD, "shop", statement, via)
}
