//! A real Chromium, driven through its `WebDriver` (Debian's packages `chromium` and `chromium-driver`).

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// A browser window. [`Browser::close`] ends it.
pub struct Browser {
    pub page: Client,
    driver: Child,
    profile: TempDir,
}

impl Browser {
    /// Opens a window of this size; what it downloads goes to [`Browser::downloads`].
    pub async fn open(width: u32, height: u32) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("there is no chromedriver on this machine: install the package chromium-driver")?;
        let mut browser = Self { page: connect(port, &profile, width, height).await?, driver, profile };
        browser.page.set_window_size(width, height).await?;
        browser.driver.try_wait()?;
        Ok(browser)
    }

    /// Directory of downloads.
    pub fn downloads(&self) -> &std::path::Path {
        self.profile.path()
    }

    /// Fills the form field called `name`.
    pub async fn fill(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let field = self.page.wait().for_element(Locator::Css(&format!("[name='{name}']"))).await?;
        if field.tag_name().await? == "select" {
            field.select_by_value(text).await?;
            return Ok(());
        }
        field.clear().await?;
        field.send_keys(text).await?;
        Ok(())
    }

    /// Clicks the first thing that matches.
    pub async fn click(&self, css: &str) -> anyhow::Result<()> {
        let found = self.page.wait().for_element(Locator::Css(css)).await;
        found.with_context(|| css.to_owned())?.click().await?;
        Ok(())
    }

    /// The text that is shown.
    pub async fn text(&self) -> anyhow::Result<String> {
        Ok(self.page.find(Locator::Css("body")).await?.text().await?)
    }

    /// Ends browser and driver.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.page.clone().close().await?;
        self.driver.kill()?;
        self.driver.wait()?;
        Ok(())
    }
}

async fn connect(port: u16, profile: &TempDir, width: u32, height: u32) -> anyhow::Result<Client> {
    let directory = profile.path().display();
    let options = json!({
        "goog:chromeOptions": {
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                format!("--user-data-dir={directory}/profile"), format!("--window-size={width},{height}"),
            ],
            "prefs": { "download.default_directory": directory.to_string() },
        }
    });
    let options = options.as_object().cloned().unwrap_or_default();
    let until = Instant::now() + DEADLINE;
    loop {
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(options.clone());
        match builder.connect(&format!("http://127.0.0.1:{port}")).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > until => return Err(error).context("cannot open a browser"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
