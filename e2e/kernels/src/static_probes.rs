//! The program with static probes (`e2e/usdt/usdt-server.c`): lines of its own language go in, probes are hit.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::report::{Deed, Report};

pub struct StaticProbes {
    /// Ends with the machine.
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl StaticProbes {
    pub fn start() -> Result<Self> {
        let mut child = Command::new("/usr/bin/usdt-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run usdt-server")?;
        let input = child.stdin.take().context("usdt-server has no input")?;
        let output = child.stdout.take().context("usdt-server has no output")?;
        let mut server = Self { _child: child, input, output: BufReader::new(output).lines() };
        server.wait_for("ready for connections")?;
        Ok(server)
    }

    /// A session with a statement that works and one that fails, and a login that is refused.
    pub fn ordinary_work(&mut self, report: &Report) -> Result<()> {
        self.perform("connect\t7\tapp\tweb1.example")?;
        report.did(&deed("connect", Some("app"), None, "ok"))?;
        self.command(report, "SELECT name FROM customers WHERE id = 4")?;
        self.perform("command\t7\t3\tapp\tweb1.example\tshop\tSELECT broken\t1")?;
        report.did(&deed("command", Some("app"), Some("SELECT broken"), "error"))?;
        self.perform("disconnect\t7")?;
        self.perform("refuse\t8")?;
        report.did(&deed("connect_failed", None, None, "error"))
    }

    /// One statement, told as done.
    pub fn command(&mut self, report: &Report, sql: &str) -> Result<()> {
        self.perform(&format!("command\t7\t3\tapp\tweb1.example\tshop\t{sql}\t0"))?;
        report.did(&deed("command", Some("app"), Some(sql), "ok"))
    }

    fn perform(&mut self, action: &str) -> Result<()> {
        writeln!(self.input, "0\t{action}\nwait")?;
        self.wait_for("idle")
    }

    fn wait_for(&mut self, end: &str) -> Result<()> {
        for line in &mut self.output {
            if line? == end {
                return Ok(());
            }
        }
        bail!("usdt-server has ended")
    }
}

fn deed<'a>(kind: &'a str, user: Option<&'a str>, sql: Option<&'a str>, result: &str) -> Deed<'a> {
    let host = user.map(|_| "web1.example");
    Deed { server: "usdt-server", kind, user, host, sql, result: result.to_owned() }
}
