//! Accounts, credentials and the audit of the audit: the newest row counts, and every read is there.

use uuid::Uuid;
use whence_model::Timestamp;
use whence_store::read::Window;
use whence_store::{CredentialRow, PersonRow, ReadRow};
use whence_testkit::TestDatabase;

use crate::events::{HOSTILE, NOON, SECOND};

fn person(name: &str) -> PersonRow {
    PersonRow {
        name: name.into(),
        password_hash: "$argon2id$".into(),
        role: "admin".into(),
        disabled: false,
        changed_at: NOON,
    }
}

fn entry(at: Timestamp, action: &str, result: &str) -> ReadRow {
    ReadRow {
        at,
        request_id: Uuid::from_u128(5),
        person: HOSTILE.into(),
        address: "10.0.0.7".into(),
        action: action.into(),
        query: "user=a&text=b".into(),
        rows: None,
        result: result.into(),
    }
}

#[tokio::test]
async fn the_newest_row_of_a_person_counts() {
    let store = TestDatabase::new("people").await.store;
    store.put_person(&person("b")).await.unwrap();
    store.put_person(&person(HOSTILE)).await.unwrap();
    let disabled = PersonRow { disabled: true, changed_at: NOON.plus_ns(1), ..person("b") };
    store.put_person(&disabled).await.unwrap();
    assert_eq!(store.person("b").await.unwrap(), Some(disabled.clone()));
    assert_eq!(store.person("nobody").await.unwrap(), None);
    assert_eq!(store.people().await.unwrap(), [person(HOSTILE), disabled]);
}

#[tokio::test]
async fn a_credential_is_found_by_its_hash_only() {
    let store = TestDatabase::new("credentials").await.store;
    let token = CredentialRow {
        secret_hash: std::array::from_fn(|i| u8::try_from(i * 8).unwrap()),
        kind: "api_token".into(),
        person: "b".into(),
        label: HOSTILE.into(),
        created_at: NOON,
        expires_at: Some(NOON.plus_ns(SECOND)),
        revoked: false,
        changed_at: NOON,
    };
    store.put_credential(&token).await.unwrap();
    assert_eq!(store.credential(token.secret_hash).await.unwrap(), Some(token.clone()));
    assert_eq!(store.credential([0; 32]).await.unwrap(), None);
    assert_eq!(store.api_tokens().await.unwrap(), std::slice::from_ref(&token));
    let revoked = CredentialRow { revoked: true, changed_at: NOON.plus_ns(1), ..token.clone() };
    store.put_credential(&revoked).await.unwrap();
    assert_eq!(store.credential(token.secret_hash).await.unwrap(), Some(revoked));
    assert_eq!(store.api_tokens().await.unwrap(), []);
}

#[tokio::test]
async fn reads_are_kept_and_failed_sign_ins_counted_since_the_last_success() {
    let store = TestDatabase::new("audit_reads").await.store;
    let failed = |seconds: i64| entry(NOON.plus_ns(seconds * SECOND), "sign_in_failed", "failed");
    for seconds in 1..=3 {
        store.record_read(&failed(seconds)).await.unwrap();
    }
    let count = async |address: &str, since| store.failed_sign_ins(HOSTILE, address, since).await.unwrap();
    assert_eq!(count("10.0.0.7", NOON).await, 3);
    assert_eq!(count("10.0.0.7", NOON.plus_ns(2 * SECOND)).await, 2);
    assert_eq!(count("10.0.0.8", NOON).await, 0);
    store.record_read(&entry(NOON.plus_ns(4 * SECOND), "sign_in", "ok")).await.unwrap();
    store.record_read(&failed(5)).await.unwrap();
    assert_eq!(count("10.0.0.7", NOON).await, 1);

    let window = Window { from: NOON, to: NOON.plus_ns(5 * SECOND) };
    let reads = store.reads(window, 2).await.unwrap();
    assert_eq!(reads, [entry(NOON.plus_ns(4 * SECOND), "sign_in", "ok"), failed(3)]);
}
