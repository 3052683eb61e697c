//! A bucket for tests. Amazon's S3 cannot run here, so this is a mock of it: moto's server, which answers as S3 does, the
//! conditions of a PUT included.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The versions of these are pinned; those of what they need are not.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.1", "flask==3.1.3", "flask-cors==6.0.5"];
const DEADLINE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// A mock of S3 with one empty bucket. It ends with this value.
pub struct MockS3 {
    server: Child,
    /// Its address, `http://127.0.0.1:…`.
    pub endpoint: String,
}

impl MockS3 {
    /// Starts it with a bucket of this name, installing it into the cache the first time.
    pub async fn start(bucket: &str) -> anyhow::Result<Self> {
        let program = tokio::task::spawn_blocking(program).await??;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mock = Self { server, endpoint: format!("http://127.0.0.1:{port}") };
        let client = reqwest::Client::builder().no_proxy().build()?;
        // The mock wants to see a signature, and looks no closer.
        let signature = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x";
        let deadline = Instant::now() + DEADLINE;
        loop {
            let request = client.put(format!("{}/{bucket}", mock.endpoint));
            let request = request.header("authorization", signature).header("content-length", "0");
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(mock),
                Ok(answer) => bail!("the mock of S3 made no bucket: {}", answer.status()),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Drop for MockS3 {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The server's program, made in the cache when it is not there.
fn program() -> anyhow::Result<PathBuf> {
    let cache = whence_engine::cache_directory();
    std::fs::create_dir_all(&cache)?;
    let directory = cache.join("moto-5.2.1");
    let program = directory.join("bin/moto_server");
    let marker = directory.join("installed");
    // Others may be at it.
    let lock = std::fs::File::create(cache.join("moto.lock"))?;
    lock.lock()?;
    if !marker.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory))?;
        run(Command::new(directory.join("bin/pip")).args(["install", "--quiet"]).args(PACKAGES))?;
        std::fs::write(&marker, "")?;
    }
    Ok(program)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.context("python3 cannot be run: install the packages python3 and python3-venv")?;
    if !output.status.success() {
        bail!("moto cannot be installed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
