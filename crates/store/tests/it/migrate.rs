//! Migrations.

use whence_store::{MIGRATIONS, MigrateError, Migration};
use whence_testkit::TestDatabase;

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let database = TestDatabase::empty("migrating_again").await;
    assert!(database.store.check_schema().await.is_err());
    database.store.migrate().await.unwrap();
    database.store.check_schema().await.unwrap();
    database.store.migrate().await.unwrap();
    database.store.check_schema().await.unwrap();
}

#[tokio::test]
async fn two_runners_at_once_are_harmless() {
    let database = TestDatabase::empty("two_runners").await;
    let (one, two) = tokio::join!(database.store.migrate(), database.store.migrate());
    one.unwrap();
    two.unwrap();
    database.store.check_schema().await.unwrap();
}

#[tokio::test]
async fn a_file_that_changed_after_it_was_applied_is_refused() {
    let database = TestDatabase::new("changed_file").await;
    let changed: Vec<Migration> =
        MIGRATIONS.iter().map(|migration| Migration { name: migration.name, sql: "SELECT 1" }).collect();
    let refused = database.store.migrate_with(&changed).await;
    assert!(matches!(refused, Err(MigrateError::Changed { name, .. }) if name == MIGRATIONS[0].name));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = TestDatabase::new("newer_schema").await;
    let older = &MIGRATIONS[..MIGRATIONS.len() - 1];
    let refused = database.store.migrate_with(older).await;
    assert!(matches!(refused, Err(MigrateError::Ahead { .. })));
}
