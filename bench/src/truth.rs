//! The truth test of one server: start it with its logs on, watch it, load it, read all records back, compare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use whence_e2e::Whence;
use whence_model::Timestamp;
use whence_testkit::{DatabaseServer, MariaDb, MySql56};

use crate::compare::{Findings, Side, compare};
use crate::entry::{Entry, What};
use crate::load;
use crate::record::{Sessions, general_log, server_audit, whence::Reader};

/// A server that the test knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    MariaDb,
    MySql56,
}

impl Product {
    pub const ALL: [Self; 2] = [Self::MariaDb, Self::MySql56];

    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql56 => "mysql56",
        }
    }

    fn start(self, logs: &Path) -> anyhow::Result<DatabaseServer> {
        let mut options = vec![
            "--general-log=1".to_owned(),
            "--log-output=FILE".to_owned(),
            format!("--general-log-file={}", logs.join("general.log").display()),
            "--max-connections=500".to_owned(),
            "--max-connect-errors=1000000000".to_owned(),
            "--innodb-flush-log-at-trx-commit=0".to_owned(),
            "--innodb-lock-wait-timeout=2".to_owned(),
        ];
        match self {
            Self::MariaDb => options.extend([
                "--plugin-load-add=server_audit".to_owned(),
                "--server-audit-logging=ON".to_owned(),
                "--server-audit-events=CONNECT,QUERY".to_owned(),
                "--server-audit-query-log-limit=4194304".to_owned(),
                "--server-audit-file-rotate-size=9223372036854775807".to_owned(),
                format!("--server-audit-file-path={}", logs.join("audit.log").display()),
            ]),
            // Otherwise it rewrites statements with passwords, and leaves out what it cannot parse.
            Self::MySql56 => options.push("--log-raw".to_owned()),
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        match self {
            Self::MariaDb => MariaDb::start_with(&options),
            Self::MySql56 => MySql56::start_with(&options),
        }
    }
}

/// What came of one server.
#[derive(Debug)]
pub struct Report {
    pub product: Product,
    pub seed: u64,
    /// Everything that the load did: commands, logins, ends of connections.
    pub done: u64,
    pub missing: u64,
    pub extra: u64,
    pub wrong: u64,
    pub lost: u64,
    pub commands_per_second: f64,
    pub findings: Vec<(Side, Findings)>,
}

impl Report {
    pub fn is_true(&self) -> bool {
        self.missing + self.extra + self.wrong == 0
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.product.name();
        for (side, findings) in &self.findings {
            writeln!(
                f,
                "{name}: against {}: {} compared, {} missing, {} extra, {} wrong",
                side.name(),
                findings.compared,
                findings.missing,
                findings.extra.len(),
                findings.wrong.len()
            )?;
            for (reason, count) in &findings.set_aside {
                writeln!(f, "{name}:     set aside {count:>8}  {reason}")?;
            }
            for example in &findings.examples {
                writeln!(f, "{name}:     {example}")?;
            }
        }
        writeln!(
            f,
            "{name}: {:.0} commands/s with Whence on, {} events lost, seed {}",
            self.commands_per_second, self.lost, self.seed
        )?;
        let Self { missing, extra, wrong, done, .. } = self;
        write!(f, "{name}: missing {missing} extra {extra} wrong {wrong} of {done}")
    }
}

/// Runs it all. `commands` is about how many are sent; the records stay behind in a directory in `keep`.
pub async fn run(
    product: Product,
    commands: usize,
    seed: u64,
    keep: Option<&Path>,
) -> anyhow::Result<Report> {
    let mut directory = tempfile::Builder::new();
    directory.prefix("whence-truth-").disable_cleanup(keep.is_some());
    let directory = match keep {
        Some(keep) => directory.tempdir_in(keep)?,
        None => directory.tempdir()?,
    };
    if keep.is_some() {
        println!("{}: records are kept in {}", product.name(), directory.path().display());
    }
    let from = Timestamp::now();
    let server = product.start(directory.path())?;
    load::prepare(&server)?;
    let data = directory.path().join("whence");
    let mut command = Command::new(program()?);
    command.arg("up").arg(format!("--data={}", data.display())).arg("--listen=127.0.0.1:0");
    let mut whence = Whence::start_command(command, &data)?;
    whence.wait_for_server("watched", &format!(":{} ", server.port()))?;

    let sent = tokio::task::block_in_place(|| load::send(&server, commands, seed))?;
    let pid = server.pid().context("the server has ended")?;
    let reader = Reader::open(&data, pid, from).await?;
    let last = sent.journals.last().context("nothing was sent")?.connection_id;
    let arrived = reader.wait_for_end(last).await?;
    let stored = reader.read().await?;
    whence.stop()?;
    drop(server);

    let journal: Sessions =
        sent.journals.into_iter().map(|journal| (journal.connection_id, journal.entries)).collect();
    let first = journal.keys().next().copied().unwrap_or_default();
    let read = |name: &str| {
        let path = directory.path().join(name);
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    let mut records = vec![(Side::GeneralLog, general_log::parse(&read("general.log")?))];
    if product == Product::MariaDb {
        records.push((Side::ServerAudit, server_audit::parse(&read("audit.log")?)));
    }
    let by_programs: Sessions = records[0]
        .1
        .iter()
        .filter(|(_, entries)| is_by_program(entries))
        .map(|(&id, entries)| (id, entries.clone()))
        .collect();
    let unrecorded: BTreeSet<u64> = by_programs.keys().copied().collect();
    let done = count(&journal, |_| true) + count(&by_programs, |_| true);
    let commands = count(&journal, is_command) + count(&by_programs, is_command);
    let mut findings =
        vec![(Side::Journal, compare(Side::Journal, &stored.sessions, &journal, &unrecorded, first))];
    for (side, record) in &records {
        findings.push((*side, compare(*side, &stored.sessions, record, &BTreeSet::new(), first)));
    }
    if !arrived {
        println!("{}: the last event did not arrive; what did is compared", product.name());
    }
    let commands_per_second = rate(commands, sent.duration);
    let unplaced = stored.unplaced.len();
    Ok(summary(product, seed, done, unplaced, stored.lost, commands_per_second, findings))
}

/// Whether a session of the general log is of a program, by its account.
fn is_by_program(entries: &[Entry]) -> bool {
    let user = entries.first().and_then(|entry| entry.login_user.as_deref());
    user.is_some_and(|user| load::programs::ACCOUNTS.contains(&user))
}

fn is_command(entry: &Entry) -> bool {
    matches!(entry.what, What::Command(_))
}

fn count(sessions: &Sessions, is_it: impl Fn(&Entry) -> bool) -> u64 {
    sessions.values().flatten().filter(|entry| is_it(entry)).count() as u64
}

#[expect(clippy::cast_precision_loss, reason = "a rate to show")]
fn rate(commands: u64, duration: Duration) -> f64 {
    commands as f64 / duration.as_secs_f64()
}

/// Whence, built as this program is.
fn program() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let directory = this.parent().context("this program lies in no directory")?;
    let profile = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    let profile = profile.context("this program lies in no target directory")?;
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "whence"])
        .args(profile.ends_with("release").then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !built.success() {
        bail!("cannot build whence");
    }
    Ok(profile.join("whence"))
}

/// Each event counts once, however many records disagree with it.
fn summary(
    product: Product,
    seed: u64,
    done: u64,
    unplaced: usize,
    lost: u64,
    commands_per_second: f64,
    findings: Vec<(Side, Findings)>,
) -> Report {
    let mut missing: BTreeMap<u64, u64> = BTreeMap::new();
    let mut extra = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    for (_, findings) in &findings {
        for (&connection, &count) in &findings.missing_by_connection {
            let known = missing.entry(connection).or_default();
            *known = count.max(*known);
        }
        extra.extend(findings.extra.iter().copied());
        wrong.extend(findings.wrong.iter().copied());
    }
    Report {
        product,
        seed,
        done,
        missing: missing.values().sum(),
        extra: (extra.len() + unplaced) as u64,
        wrong: wrong.len() as u64,
        lost,
        commands_per_second,
        findings,
    }
}
