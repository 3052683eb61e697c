//! The truth test of one server: start it with its logs on, watch it, load it, read all records back, compare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use whence_e2e::Whence;
use whence_model::Timestamp;
use whence_testkit::{DatabaseServer, Product};

use crate::compare::{Findings, Side, compare};
use crate::entry::{Entry, What};
use crate::load;
use crate::record::{Sessions, general_log, server_audit, whence::Reader};

/// Names of the logs, in the data directory.
const GENERAL_LOG: &str = "general.log";
const AUDIT_LOG: &str = "audit.log";

/// Starts the server with all its own logs on.
fn start(product: Product) -> anyhow::Result<DatabaseServer> {
    let general = format!("--general-log-file={GENERAL_LOG}");
    let audit = format!("--server-audit-file-path={AUDIT_LOG}");
    let mut options = vec![
        "--general-log=1",
        "--log-output=FILE",
        general.as_str(),
        "--max-connections=500",
        "--max-connect-errors=1000000000",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=2",
    ];
    if product.is_mariadb() {
        options.extend([
            "--plugin-load-add=server_audit",
            "--server-audit-logging=ON",
            "--server-audit-events=CONNECT,QUERY",
            "--server-audit-query-log-limit=4194304",
            "--server-audit-file-rotate-size=9223372036854775807",
            audit.as_str(),
        ]);
    } else {
        // Otherwise it rewrites statements with passwords, and leaves out what it cannot parse.
        options.push("--log-raw");
    }
    product.start_with(&options)
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
    let server = start(product)?;
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
    let logs = take_logs(&server, directory.path(), keep.is_some())?;
    drop(server);

    let journal: Sessions =
        sent.journals.into_iter().map(|journal| (journal.connection_id, journal.entries)).collect();
    let first = journal.keys().next().copied().unwrap_or_default();
    let mut records = vec![(Side::GeneralLog, general_log::parse(&logs.general))];
    records.extend(logs.audit.map(|audit| (Side::ServerAudit, server_audit::parse(&audit))));
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

/// What a server logged.
struct Logs {
    general: Vec<u8>,
    audit: Option<Vec<u8>>,
}

/// Reads the server's logs, and leaves them in `directory` when they are to be kept.
fn take_logs(server: &DatabaseServer, directory: &Path, keep: bool) -> anyhow::Result<Logs> {
    let read = |name: &str| {
        let path = server.data_directory().join(name);
        if keep {
            std::fs::copy(&path, directory.join(name)).with_context(|| path.display().to_string())?;
        }
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    let audit = server.product().is_mariadb().then(|| read(AUDIT_LOG)).transpose()?;
    Ok(Logs { general: read(GENERAL_LOG)?, audit })
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
