//! The load: several clients at once, each drawing sessions, commands and failures from its own generator.

pub mod programs;
mod session;
mod statements;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use whence_testkit::{DatabaseServer, Via};

pub use session::{Journal, Login, Session, Tried};
use whence_testkit::client::Address;

/// Accounts that may do anything, from anywhere, without a password.
pub const ACCOUNTS: &[&str] = &["app", "report", "batch", "api_7", "zoë", "a_sixteen_letter"];
/// The number of no command.
pub const UNKNOWN_COMMAND: u8 = 99;
/// Clients at once.
const CLIENTS: u64 = 8;
/// Of this many commands one is a program's.
const PROGRAMS_SHARE: usize = 10;
/// Text of the statement that ends the load.
pub const MARK: &str = "SELECT 'the load has ended'";
/// How long the server may take to close the connections that clients left.
const SETTLE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What was sent.
pub struct Sent {
    pub journals: Vec<Journal>,
    /// How long it took, without set-up.
    pub duration: Duration,
}

/// Makes the accounts and tables that the load uses.
pub fn prepare(server: &DatabaseServer) -> anyhow::Result<()> {
    let mut sql = String::from(
        "CREATE DATABASE shop DEFAULT CHARACTER SET utf8mb4; CREATE DATABASE logs DEFAULT CHARACTER SET utf8mb4;
         CREATE TABLE shop.items (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(80));
         INSERT INTO shop.items (name) VALUES ('one'), ('two'), ('three'), ('four'), ('five'), ('six');
         CREATE PROCEDURE shop.few(most INT) SELECT id FROM shop.items WHERE id < most;\n",
    );
    let mut add = |statement: String| {
        sql.push_str(&statement);
        sql.push_str(";\n");
    };
    for host in ["%", "localhost"] {
        for account in ACCOUNTS.iter().chain(programs::ACCOUNTS) {
            add(format!("CREATE USER '{account}'@'{host}'"));
            add(format!("GRANT ALL ON *.* TO '{account}'@'{host}' WITH GRANT OPTION"));
        }
        add(format!("CREATE USER 'locked'@'{host}' IDENTIFIED BY 'secret'"));
        add(format!("CREATE USER 'narrow'@'{host}'"));
    }
    for client in 0..CLIENTS {
        add(format!("CREATE TABLE {} (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT)", table(client)));
    }
    sql.push_str("CREATE DATABASE bench;\n");
    server.sql("root", "", "", &sql, Via::Socket)?;
    Ok(())
}

fn table(client: u64) -> String {
    format!("logs.client{client}")
}

/// Sends about `commands` commands; those of the clients are the same for the same seed.
pub fn send(server: &DatabaseServer, commands: usize, seed: u64) -> anyhow::Result<Sent> {
    let started = Instant::now();
    let share = (commands - commands / PROGRAMS_SHARE).div_ceil(usize::try_from(CLIENTS)?);
    let (programs, results) = std::thread::scope(|scope| {
        let programs = scope.spawn(|| programs::run(server, commands / PROGRAMS_SHARE));
        let work = |client| move || work(server, client, share, seed);
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(work(client))).collect();
        let panicked = |_| Err(anyhow::anyhow!("a client of the load panicked"));
        let results: Vec<anyhow::Result<Vec<Journal>>> =
            clients.into_iter().map(|client| client.join().unwrap_or_else(panicked)).collect();
        (programs.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the programs' thread panicked"))), results)
    });
    let duration = started.elapsed();
    programs?;
    let mut journals = Vec::new();
    for result in results {
        journals.extend(result?);
    }
    journals.push(settle(server)?);
    Ok(Sent { journals, duration })
}

/// One client: sessions one after the other, until its share is sent.
fn work(server: &DatabaseServer, client: u64, share: usize, seed: u64) -> anyhow::Result<Vec<Journal>> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(CLIENTS).wrapping_add(client));
    let mut journals = Vec::new();
    let mut sent = 0;
    while sent < share {
        if random.gen_ratio(1, 12) {
            for _ in 0..random.gen_range(5..30) {
                journals.push(brief(server, client, &mut random)?);
            }
        } else if random.gen_ratio(1, 6) {
            journals.push(refused(server, client, &mut random)?);
        } else {
            let most = random.gen_range(1..120).min(share - sent);
            journals.push(long(server, client, most, &mut random)?);
        }
        sent = journals.iter().map(|journal| journal.entries.len()).sum();
    }
    Ok(journals)
}

fn address(server: &DatabaseServer, random: &mut StdRng) -> Address {
    match random.gen_range(0..10) {
        0..4 => Address::Socket(server.socket()),
        4..7 => Address::Tcp { from: Ipv4Addr::LOCALHOST.into(), port: server.port() },
        other => Address::Tcp { from: Ipv4Addr::new(127, 0, 0, other).into(), port: server.port() },
    }
}

fn open(server: &DatabaseServer, client: u64, random: &mut StdRng) -> anyhow::Result<Session> {
    let user = ACCOUNTS.choose(random).copied().unwrap_or("app");
    let database = ["", "shop", "logs"].choose(random).copied().unwrap_or_default();
    let login = Login { user, account: user, scramble: &[], database };
    match Session::open(&address(server, random), &login, table(client))? {
        Tried::In(session) => Ok(*session),
        Tried::Refused(journal) => bail!("{user} was refused: {:?}", journal.entries),
    }
}

/// A session of up to `most` commands, ended in one of the ways in which sessions end.
fn long(server: &DatabaseServer, client: u64, most: usize, random: &mut StdRng) -> anyhow::Result<Journal> {
    let mut session = open(server, client, random)?;
    while session.commands() < most {
        session.step(random).context("in a session")?;
    }
    Ok(match random.gen_range(0..20) {
        0..4 => session.drop_connection(),
        4 => session.kill()?,
        _ => session.quit()?,
    })
}

/// One of a storm: hardly connected and gone.
fn brief(server: &DatabaseServer, client: u64, random: &mut StdRng) -> anyhow::Result<Journal> {
    if random.gen_ratio(1, 5) {
        return refused(server, client, random);
    }
    let mut session = open(server, client, random)?;
    if random.gen_bool(0.5) {
        session.query(b"SELECT 1")?;
    }
    Ok(if random.gen_bool(0.5) { session.quit()? } else { session.drop_connection() })
}

/// A login that is refused (on MySQL 5.6, an unknown name is let in as the anonymous account, from its own host).
fn refused(server: &DatabaseServer, client: u64, random: &mut StdRng) -> anyhow::Result<Journal> {
    let stranger = format!("stranger{}", random.gen_range(0..50));
    let wrong = [7; 20];
    let login = |user, scramble, database| Login { user, account: "", scramble, database };
    let login = match random.gen_range(0..5) {
        0 => login("locked", &wrong, ""),
        1 => login("locked", &[], "shop"),
        2 => login("narrow", &[], "shop"),
        3 => login("app", &[], "nowhere"),
        _ => login(&stranger, &[], ""),
    };
    Ok(match Session::open(&address(server, random), &login, table(client))? {
        Tried::Refused(journal) => journal,
        Tried::In(mut session) => {
            session.query(b"SELECT USER(), CURRENT_USER()")?;
            session.quit()?
        }
    })
}

/// Waits until the server has closed every connection of the load, and marks the end in all records.
fn settle(server: &DatabaseServer) -> anyhow::Result<Journal> {
    let login = Login { user: "app", account: "app", scramble: &[], database: "" };
    let Tried::In(mut session) = Session::open(&Address::Socket(server.socket()), &login, table(0))? else {
        bail!("the load's last session was refused");
    };
    let until = Instant::now() + SETTLE;
    let others = b"SELECT id FROM information_schema.processlist WHERE user <> 'system user' \
                   AND command <> 'Daemon' AND id <> CONNECTION_ID()";
    while session.query(others)?.and_then(|answer| answer.rows).unwrap_or_default() > 0 {
        if Instant::now() > until {
            bail!("connections that were closed are still open on the server");
        }
        std::thread::sleep(POLL);
    }
    session.query(MARK.as_bytes())?;
    Ok(session.quit()?)
}
