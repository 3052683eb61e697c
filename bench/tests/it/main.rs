//! The truth test, short: as root, on the real kernel, with real servers.

use whence_bench::truth::{Product, Report, run};

/// Commands to each server.
const COMMANDS: usize = 3000;
const SEED: u64 = 20_261_125;

fn check(report: &Report) {
    println!("{report}");
    assert!(report.is_true(), "{report}");
    assert_eq!(report.lost, 0, "{report}");
    assert!(report.done >= COMMANDS as u64, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_and_whence_tell_the_same() {
    check(&run(Product::MariaDb, COMMANDS, SEED, None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_5_6_and_whence_tell_the_same() {
    check(&run(Product::MySql56, COMMANDS, SEED, None).await.unwrap());
}
