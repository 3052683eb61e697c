//! A compliance officer's way through the pages, in a real browser.

use std::process::Command;

use fantoccini::Locator;
use whence_e2e::whence::program;
use whence_e2e::{Api, Browser, Whence, eventually};
use whence_testkit::{MariaDb, Via};

use crate::database::{grant, prepare, run};

/// An account and a statement that would do harm where they were not escaped.
const HOSTILE_USER: &str = "=<img src=x onerror=alert(1)>";
const HOSTILE_SQL: &str = "SELECT '</td><script>document.title=\\'owned\\'</script>'";

async fn sign_in(browser: &Browser, whence: &Whence) {
    browser.page.goto(whence.url()).await.unwrap();
    browser.fill("name", "admin").await.unwrap();
    browser.fill("password", "wrong").await.unwrap();
    browser.click("button[type=submit]").await.unwrap();
    eventually("a wrong password is refused", || async {
        Ok(browser.text().await?.contains("password").then_some(()))
    })
    .await;
    browser.fill("name", "admin").await.unwrap();
    browser.fill("password", &whence.password().unwrap()).await.unwrap();
    browser.click("button[type=submit]").await.unwrap();
    browser.page.wait().for_element(Locator::Css("[name='client_host']")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_searches_looks_closer_and_exports() {
    let server = MariaDb::start().unwrap();
    prepare(&server);
    let data = tempfile::tempdir().unwrap();
    let whence = Whence::start(data.path(), &[]).unwrap();
    let browser = Browser::open(1400, 1000).await.unwrap();
    sign_in(&browser, &whence).await;

    grant(&server, HOSTILE_USER);
    run(&server, "report", "SELECT 'from the night shift', customer FROM orders", Via::Tcp).unwrap();
    run(&server, HOSTILE_USER, HOSTILE_SQL, Via::Tcp).unwrap();

    // Who read from this account, from which hosts?
    let search = format!("{}/history?user=report&client_host=127.0.0.0/8&class=read", whence.url());
    eventually("the statement is on the page", || async {
        browser.page.goto(&search).await?;
        Ok(browser.text().await?.contains("from the night shift").then_some(()))
    })
    .await;
    assert!(!browser.text().await.unwrap().contains("UPDATE"));
    browser.click("a[href^='/events/']").await.unwrap();
    eventually("the event in full", || async {
        let text = browser.text().await?;
        Ok((text.contains("from the night shift") && text.contains("127.0.0.1")).then_some(()))
    })
    .await;

    // What strangers wrote is shown, and does nothing.
    let hostile = format!("{}/history?text=owned", whence.url());
    eventually("the hostile statement is on the page", || async {
        browser.page.goto(&hostile).await?;
        Ok(browser.text().await?.contains("<script>").then_some(()))
    })
    .await;
    assert!(browser.text().await.unwrap().contains(HOSTILE_USER));
    assert_ne!(browser.page.title().await.unwrap(), "owned");
    assert!(browser.page.find_all(Locator::Css("img[src='x']")).await.unwrap().is_empty());

    // The export is an archive with the same rows, harmless in a spreadsheet, and a manifest that anybody can check.
    browser.click("a[href^='/export.csv']").await.unwrap();
    let archive = eventually("the export is a file", || async {
        let files = std::fs::read_dir(browser.downloads())?.filter_map(Result::ok).map(|entry| entry.path());
        let mut archives = files.filter(|path| path.extension().is_some_and(|extension| extension == "zip"));
        Ok(archives.next())
    })
    .await;
    let keys = Api::new(&whence).unwrap().get("/api/v1/keys", &[]).await.unwrap();
    let key = keys["keys"][0]["public_key"].as_str().unwrap();
    let verify =
        Command::new(program().unwrap()).arg("verify").arg(&archive).args(["--key", key]).output().unwrap();
    let told = String::from_utf8_lossy(&[verify.stdout, verify.stderr].concat()).into_owned();
    assert!(verify.status.success() && told.contains("verified 1 rows of "), "{told}");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(archive).unwrap()).unwrap();
    let csv = std::io::read_to_string(archive.by_index(0).unwrap()).unwrap();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.starts_with("event_id,"), "{csv}");
    assert!(csv.contains(&format!("'{HOSTILE_USER}")), "{csv}");

    // The access report.
    browser.page.goto(&format!("{}/report?user=report&from=-1h", whence.url())).await.unwrap();
    let report = browser.text().await.unwrap();
    assert!(report.contains("127.0.0.1") && report.contains("not watched"), "{report}");

    browser.close().await.unwrap();
    assert!(whence.stop().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_fit_a_phone() {
    let data = tempfile::tempdir().unwrap();
    let whence = Whence::start(data.path(), &[]).unwrap();
    let browser = Browser::open(500, 900).await.unwrap();
    sign_in(&browser, &whence).await;
    for path in ["/history", "/report", "/coverage"] {
        browser.page.goto(&format!("{}{path}", whence.url())).await.unwrap();
        let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let pixels = browser.page.execute(overflow, Vec::new()).await.unwrap();
        assert_eq!(pixels, 0, "{path} is wider than the screen");
    }
    browser.close().await.unwrap();
    assert!(whence.stop().unwrap().success());
}
