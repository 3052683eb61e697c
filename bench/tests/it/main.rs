//! The truth test, short: as root, on the real kernel, with real servers.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use whence_bench::truth::run;
use whence_testkit::Product;

/// Commands to each server.
const COMMANDS: usize = 3000;
const SEED: u64 = 20_261_125;

async fn check(product: Product) {
    let report = run(product, COMMANDS, SEED, None).await.unwrap();
    println!("{report}");
    assert!(report.is_true(), "{report}");
    assert_eq!(report.lost, 0, "{report}");
    assert!(report.done >= COMMANDS as u64, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_10_5_and_whence_tell_the_same() {
    check(Product::MariaDb10_5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_10_11_and_whence_tell_the_same() {
    check(Product::MariaDb10_11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_11_8_and_whence_tell_the_same() {
    check(Product::MariaDb11_8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_5_6_and_whence_tell_the_same() {
    check(Product::MySql5_6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_9_7_and_whence_tell_the_same() {
    check(Product::MySql9_7).await;
}
