//! Programs that people load servers with. They keep no journal, so only the servers' logs say what they did.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use whence_testkit::DatabaseServer;

/// Accounts that only these programs use.
pub const ACCOUNTS: &[&str] = &["slap", "bench"];

/// Runs each program that is on this machine, about `commands` commands in all.
pub fn run(server: &DatabaseServer, commands: usize) -> anyhow::Result<()> {
    let mut slap = Command::new("mariadb-slap");
    slap.args(["--no-defaults", "--skip-ssl", "--user=slap", "--protocol=socket", "--concurrency=3"])
        .args(["--auto-generate-sql", "--auto-generate-sql-load-type=mixed", "--create-schema=slap"])
        .arg(format!("--number-of-queries={}", commands / 2))
        .arg(format!("--socket={}", server.socket().display()));
    // One transaction is about twenty statements.
    let transactions = format!("--events={}", commands.div_ceil(40));
    let sysbench = |action: &str| {
        let mut sysbench = Command::new("sysbench");
        sysbench
            .args(["oltp_read_write", "--mysql-user=bench", "--mysql-db=bench", "--mysql-host=127.0.0.1"])
            .args(["--tables=1", "--table-size=300", "--threads=2", "--time=0", transactions.as_str()])
            .arg(format!("--mysql-port={}", server.port()))
            .arg(action);
        sysbench
    };
    for mut program in [slap, sysbench("prepare"), sysbench("run")] {
        let name = program.get_program().to_string_lossy().into_owned();
        let output = match program.stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("{name} is not on this machine: left out of the load");
                continue;
            }
            Err(error) => return Err(error).context(name),
        };
        if !output.status.success() {
            let told = [output.stdout, output.stderr].concat();
            bail!("{name} failed: {}", String::from_utf8_lossy(&told));
        }
    }
    Ok(())
}
