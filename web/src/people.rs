//! People's accounts: made by an administrator at the command line or by `whence up`, checked at sign-in.

use std::sync::LazyLock;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngCore;
use rand::rngs::OsRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use whence_model::Timestamp;
use whence_store::{CredentialRow, PersonRow, Store, StoreError};

/// The fewest characters of a password.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// More would only keep the hasher busy.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The most characters of a name or a label.
pub const MAX_NAME_CHARS: usize = 64;

/// Length of the salt of a new password hash, as RFC 9106 recommends.
const SALT_BYTES: usize = 16;
/// What every token begins with, so that scanners for leaked secrets know it.
const TOKEN_PREFIX: &str = "whence_";

/// What a person may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at the history and the coverage.
    Viewer,
    /// … and makes reports and exports.
    Auditor,
    /// … and sees the people and what they read.
    Admin,
}

impl Role {
    pub const ALL: &'static [Self] = &[Self::Viewer, Self::Auditor, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// The role spelled `text`, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = PeopleError;

    fn from_str(text: &str) -> Result<Self, PeopleError> {
        Self::parse(text).ok_or_else(|| PeopleError::UnknownRole { text: text.chars().take(64).collect() })
    }
}

/// Something is wrong with an account.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("{text:?} is no role; there are viewer, auditor and admin")]
    UnknownRole { text: String },
    #[error("{what} must have 1 to 64 characters, none of them a control character or a space at an end")]
    InvalidName { what: &'static str },
    #[error("a password must have at least 12 characters and at most 1024 bytes")]
    UnfitPassword,
    #[error("{name:?} has an account already")]
    Exists { name: String },
    #[error("nobody has the name {name:?}")]
    Unknown { name: String },
    #[error("the account {name:?} is disabled")]
    Disabled { name: String },
    #[error("a password cannot be hashed: {source}")]
    Hashing { source: argon2::password_hash::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether there is an account of this name, disabled or not.
pub async fn exists(store: &Store, name: &str) -> Result<bool, PeopleError> {
    Ok(store.person(name).await?.is_some())
}

/// Every account, by name.
pub async fn list(store: &Store) -> Result<Vec<PersonRow>, PeopleError> {
    Ok(store.people().await?)
}

/// Makes an account.
pub async fn add(store: &Store, name: &str, password: &SecretString, role: Role) -> Result<(), PeopleError> {
    check_name("a name", name)?;
    let password_text = password.expose_secret();
    let is_fit =
        password_text.chars().count() >= MIN_PASSWORD_CHARS && password_text.len() <= MAX_PASSWORD_BYTES;
    if !is_fit {
        return Err(PeopleError::UnfitPassword);
    }
    if exists(store, name).await? {
        return Err(PeopleError::Exists { name: name.into() });
    }
    let row = PersonRow {
        name: name.into(),
        password_hash: hash(password)?,
        role: role.as_str().into(),
        disabled: false,
        changed_at: Timestamp::now(),
    };
    Ok(store.put_person(&row).await?)
}

/// Takes an account away: its sessions and tokens end with it. Its name stays taken.
pub async fn disable(store: &Store, name: &str) -> Result<(), PeopleError> {
    let Some(row) = store.person(name).await? else {
        return Err(PeopleError::Unknown { name: name.into() });
    };
    let row = PersonRow { disabled: true, changed_at: Timestamp::now(), ..row };
    Ok(store.put_person(&row).await?)
}

/// Makes an API token for a person; the answer is the token, which is kept nowhere.
pub async fn issue_token(store: &Store, person: &str, label: &str) -> Result<String, PeopleError> {
    check_name("a label", label)?;
    match store.person(person).await? {
        None => return Err(PeopleError::Unknown { name: person.into() }),
        Some(row) if row.disabled => return Err(PeopleError::Disabled { name: person.into() }),
        Some(_) => {}
    }
    let token = format!("{TOKEN_PREFIX}{}", random_secret());
    put_credential(store, CredentialKind::ApiToken, &token, person, label, None).await?;
    Ok(token)
}

/// What a secret is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialKind {
    Session,
    ApiToken,
}

impl CredentialKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ApiToken => "api_token",
        }
    }
}

/// Makes a browser session; the answer is its secret.
pub(crate) async fn open_session(
    store: &Store,
    person: &str,
    lifetime: Duration,
) -> Result<String, StoreError> {
    let secret = random_secret();
    let lifetime_ns = i64::try_from(lifetime.as_nanos()).unwrap_or(i64::MAX);
    let expires_at = Timestamp::now().plus_ns(lifetime_ns);
    put_credential(store, CredentialKind::Session, &secret, person, "browser", Some(expires_at)).await?;
    Ok(secret)
}

/// Ends what `secret` opens.
pub(crate) async fn revoke(store: &Store, secret: &str) -> Result<(), StoreError> {
    match store.credential(secret_hash(secret)).await? {
        Some(row) => {
            store.put_credential(&CredentialRow { revoked: true, changed_at: Timestamp::now(), ..row }).await
        }
        None => Ok(()),
    }
}

/// The account and the role that `secret` stands for now.
pub(crate) async fn holder(
    store: &Store,
    kind: CredentialKind,
    secret: &str,
) -> Result<Option<(String, Role)>, StoreError> {
    let Some(credential) = store.credential(secret_hash(secret)).await? else {
        return Ok(None);
    };
    let is_expired = credential.expires_at.is_some_and(|at| at <= Timestamp::now());
    if credential.kind != kind.as_str() || credential.revoked || is_expired {
        return Ok(None);
    }
    let person = store.person(&credential.person).await?.filter(|person| !person.disabled);
    person.map(|person| role_of(&person).map(|role| (person.name, role))).transpose()
}

/// The role in an account's row.
pub(crate) fn role_of(person: &PersonRow) -> Result<Role, StoreError> {
    Role::parse(&person.role).ok_or_else(|| StoreError::Corrupt { what: "role", value: person.role.clone() })
}

/// Whether `password` is the one of this account. Takes as long when there is no such account.
pub(crate) fn is_password_of(person: Option<&PersonRow>, password: &str) -> bool {
    /// The hash of a password that nobody knows.
    static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash(&random_secret().into()).ok());

    let known = person.filter(|person| !person.disabled).map(|person| person.password_hash.as_str());
    let Some(hash) = known.or(NOBODY.as_deref()) else {
        return false;
    };
    let Ok(parsed) = PasswordHash::new(hash) else {
        return false;
    };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && known.is_some()
}

/// A password of 32 random characters that are hard to confuse.
pub fn generate_password() -> SecretString {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect::<String>().into()
}

/// 256 random bits as text.
pub(crate) fn random_secret() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

async fn put_credential(
    store: &Store,
    kind: CredentialKind,
    secret: &str,
    person: &str,
    label: &str,
    expires_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let row = CredentialRow {
        secret_hash: secret_hash(secret),
        kind: kind.as_str().into(),
        person: person.into(),
        label: label.into(),
        created_at: now,
        expires_at,
        revoked: false,
        changed_at: now,
    };
    store.put_credential(&row).await
}

/// The secrets have 256 random bits, so one round of SHA-256 keeps them.
fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Argon2id with the parameters that OWASP recommends, which are the defaults of the `argon2` crate.
fn hash(password: &SecretString) -> Result<String, PeopleError> {
    let mut salt = [0; SALT_BYTES];
    OsRng.fill_bytes(&mut salt);
    let hashed = SaltString::encode_b64(&salt).and_then(|salt| {
        let hash = Argon2::default().hash_password(password.expose_secret().as_bytes(), &salt)?;
        Ok(hash.to_string())
    });
    hashed.map_err(|source| PeopleError::Hashing { source })
}

fn check_name(what: &'static str, name: &str) -> Result<(), PeopleError> {
    let is_short = (1..=MAX_NAME_CHARS).contains(&name.chars().count());
    let is_plain = name.trim() == name && !name.chars().any(crate::text::is_invisible);
    if is_short && is_plain { Ok(()) } else { Err(PeopleError::InvalidName { what }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(password: &str) -> PersonRow {
        PersonRow {
            name: "ada".into(),
            password_hash: hash(&password.into()).unwrap(),
            role: "viewer".into(),
            disabled: false,
            changed_at: Timestamp(0),
        }
    }

    #[test]
    fn only_the_right_password_of_an_account_that_counts_is_taken() {
        let ada = person("correct horse battery");
        assert!(ada.password_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(is_password_of(Some(&ada), "correct horse battery"));
        assert!(!is_password_of(Some(&ada), "correct horse batter"));
        assert!(!is_password_of(Some(&PersonRow { disabled: true, ..ada }), "correct horse battery"));
        assert!(!is_password_of(None, ""));
    }

    #[test]
    fn names_are_what_people_can_read() {
        for name in ["ada", "密码", "ada lovelace", "ada@example.org", &"x".repeat(64)] {
            check_name("a name", name).unwrap();
        }
        for name in ["", " ada", "ada\n", "a\0b", "a\u{202e}b", &"x".repeat(65)] {
            assert!(check_name("a name", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn roles_are_ordered_by_what_they_may() {
        assert!(Role::Viewer < Role::Auditor && Role::Auditor < Role::Admin);
        assert_eq!("auditor".parse::<Role>().unwrap(), Role::Auditor);
        assert!("root".parse::<Role>().is_err());
    }
}
