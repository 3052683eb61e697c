//! Who has an account, and which API tokens there are.

use askama::Template;
use whence_store::{CredentialRow, PersonRow};

use super::Shell;
use crate::text;

#[derive(Template)]
#[template(path = "people.html")]
pub struct PeoplePage {
    pub shell: Shell,
    people: Vec<Account>,
    tokens: Vec<Token>,
}

struct Account {
    name: String,
    role: String,
    is_disabled: bool,
    changed: String,
}

struct Token {
    person: String,
    label: String,
    created: String,
}

impl PeoplePage {
    pub fn new(shell: Shell, people: &[PersonRow], tokens: &[CredentialRow]) -> Self {
        let account = |row: &PersonRow| Account {
            name: text::visible(&row.name).into_owned(),
            role: text::words(&row.role),
            is_disabled: row.disabled,
            changed: text::second(row.changed_at),
        };
        let token = |row: &CredentialRow| Token {
            person: text::visible(&row.person).into_owned(),
            label: text::visible(&row.label).into_owned(),
            created: text::second(row.created_at),
        };
        Self {
            shell,
            people: people.iter().map(account).collect(),
            tokens: tokens.iter().map(token).collect(),
        }
    }
}
