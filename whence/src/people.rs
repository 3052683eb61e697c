//! `whence people`: the accounts of those who use the pages, and the tokens of programs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret;
use whence_web::people;

use crate::database::ClickHouse;

#[derive(Subcommand)]
pub enum Action {
    /// Make an account; without --password-file a password is made and printed once.
    Add(Add),
    /// Make an API token, printed once.
    Token(Token),
    /// List the accounts.
    List(List),
    /// Take an account away; its sessions and tokens end at once, and its name stays taken.
    Disable(Disable),
}

#[derive(Args)]
pub struct Add {
    /// Name to sign in with.
    name: String,
    /// What the person may do.
    #[arg(long, value_enum)]
    role: Role,
    /// File with the password, of at least 12 characters.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

#[derive(Args)]
pub struct Token {
    /// Whose role the token has.
    name: String,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    label: String,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    clickhouse: ClickHouse,
}

#[derive(Args)]
pub struct Disable {
    /// Name of the account.
    name: String,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Looks at the history and the coverage.
    Viewer,
    /// Also makes reports and exports.
    Auditor,
    /// Also sees the people and what they read.
    Admin,
}

impl From<Role> for people::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Auditor => Self::Auditor,
            Role::Admin => Self::Admin,
        }
    }
}

pub async fn run(action: Action) -> anyhow::Result<()> {
    match action {
        Action::Add(settings) => add(settings).await,
        Action::Token(settings) => {
            let store = settings.clickhouse.store()?;
            let token = people::issue_token(&store, &settings.name, &settings.label).await?;
            println!("{token}");
            Ok(())
        }
        Action::List(settings) => list(settings).await,
        Action::Disable(settings) => {
            let store = settings.clickhouse.store()?;
            people::disable(&store, &settings.name).await?;
            println!("{} can no longer sign in", settings.name);
            Ok(())
        }
    }
}

async fn add(settings: Add) -> anyhow::Result<()> {
    let store = settings.clickhouse.store()?;
    let password = match &settings.password_file {
        Some(path) => whence_service::secret::read(path)?,
        None => people::generate_password(),
    };
    people::add(&store, &settings.name, &password, settings.role.into()).await?;
    if settings.password_file.is_none() {
        println!("password of {}: {} (shown this once)", settings.name, password.expose_secret());
    }
    Ok(())
}

async fn list(settings: List) -> anyhow::Result<()> {
    let store = settings.clickhouse.store()?;
    let rows = people::list(&store).await?;
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    for row in rows {
        let state = if row.disabled { "  disabled" } else { "" };
        println!("{:width$}  {:7}{state}", row.name, row.role);
    }
    Ok(())
}
