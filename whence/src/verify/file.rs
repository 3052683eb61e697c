//! `whence verify FILE`: whether an exported file is what its signed manifest says.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use whence_chain::PublicKey;
use whence_proof::export::{self, ExportManifest, FileFinding, Gap, Unwatched};
use whence_store::verify::{KnownHead, Outside};

use super::{EXIT_FINDINGS, EXIT_NOT_VERIFIED, Output, Settings, counted};
use crate::terminal::printable;

/// What came of it.
enum Verified {
    Clean,
    Findings,
    /// All fits, but nobody said whose key it is.
    ByUnknownKey(PublicKey),
}

pub fn run(settings: &Settings, path: &Path) -> ExitCode {
    match verify(settings, path) {
        Ok(Verified::Clean) => ExitCode::SUCCESS,
        Ok(Verified::Findings) => ExitCode::from(EXIT_FINDINGS),
        Ok(Verified::ByUnknownKey(key)) => {
            eprintln!(
                "whence: not verified: the file is as {key} signed it; say with --key which key is Whence's, as \
                 /api/v1/keys shows it"
            );
            ExitCode::from(EXIT_NOT_VERIFIED)
        }
        Err(error) => {
            eprintln!("whence: not verified: {error:#}");
            ExitCode::from(EXIT_NOT_VERIFIED)
        }
    }
}

#[tokio::main]
async fn verify(settings: &Settings, path: &Path) -> anyhow::Result<Verified> {
    let store = match settings.clickhouse.clickhouse_url.as_str() {
        "" => None,
        _ => Some(settings.clickhouse.store()?),
    };
    let mut keys = settings.key.clone();
    if let Some(store) = store.as_ref().filter(|_| keys.is_empty()) {
        let known = store.service_keys().await?;
        keys.extend(known.iter().filter_map(|known| PublicKey::from_bytes(&known.public_key)));
    }
    let progress = progress();
    let read = export::verify(path, settings.manifest.as_deref(), &keys, |bytes| progress.inc(bytes));
    progress.finish_and_clear();
    let report = read?;
    let mut output = Output::new(settings.json, progress);
    let mut findings = report.findings.len() as u64;
    for finding in &report.findings {
        output.line(&file_finding(finding, settings.json));
    }
    if let Some(manifest) = &report.manifest {
        about(manifest, report.key, &mut output);
        if let Some(store) = &store {
            let outside = Outside { service_keys: keys.clone(), heads: heads(manifest)? };
            findings += store.verify_heads(&outside, |step| output.step(step)).await?.findings;
        }
    }
    // What fits a key that nobody vouched for is not called clean.
    if findings > 0 || !keys.is_empty() {
        summary(path, report.rows, findings, &mut output);
    }
    output.failed?;
    Ok(match report.key {
        _ if findings > 0 => Verified::Findings,
        Some(key) if keys.is_empty() => Verified::ByUnknownKey(key),
        _ => Verified::Clean,
    })
}

fn progress() -> ProgressBar {
    let bar = super::progress();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {binary_bytes} read, {binary_bytes_per_sec}") {
        bar.set_style(style);
    }
    bar
}

/// What the chains held when the export ended.
fn heads(manifest: &ExportManifest) -> anyhow::Result<Vec<KnownHead>> {
    let head = |chain: &export::ChainHead| {
        let source = format!("export {}", manifest.export_id);
        let key = chain.public_key.as_deref().and_then(PublicKey::parse);
        super::known(source, chain.collector_id, key, chain.batch, &chain.batch_hash)
    };
    manifest.chains.iter().map(head).collect::<Option<_>>().context("the manifest names no hash")
}

fn file_finding(finding: &FileFinding, json: bool) -> String {
    if json {
        return json!({ "finding": finding.to_string(), "tampering": true }).to_string();
    }
    printable(&format!("FINDING: {finding}"))
}

/// Says what the manifest says: what was exported, and what was never recorded.
fn about<W: std::io::Write>(manifest: &ExportManifest, key: Option<PublicKey>, output: &mut Output<W>) {
    if output.json {
        let mut about = json!(manifest);
        if let Some(fields) = about.as_object_mut() {
            fields.remove("row_hashes");
            fields.insert("public_key".into(), json!(key.map(|key| key.to_string())));
        }
        output.line(&json!({ "export": about }).to_string());
        return;
    }
    let ExportManifest { export_id, exported_by, exported_at, from, to, filter, rows, .. } = manifest;
    let key = key.map_or_else(String::new, |key| key.to_string());
    output.line(&printable(&format!(
        "export: {export_id} by {exported_by} at {exported_at}, {rows} rows from {from} to {to}, filter {filter:?}, \
         key {key}"
    )));
    for Gap { instance_id, host, reason, events, first, last } in &manifest.gaps {
        output.line(&printable(&format!(
            "note: events lost: {events} of instance {instance_id} on {host} from {first} to {last}: {reason}"
        )));
    }
    for Unwatched { instance_id, host, from, to } in &manifest.unwatched {
        output.line(&printable(&format!(
            "note: unwatched: instance {instance_id} on {host} was not watched from {from} to {to}"
        )));
    }
}

fn summary<W: std::io::Write>(path: &Path, rows: u64, findings: u64, output: &mut Output<W>) {
    if output.json {
        output.line(&json!({ "summary": { "rows": rows, "findings": findings } }).to_string());
    } else {
        output.line(&format!(
            "verified {rows} rows of {}: {}",
            printable(&path.display().to_string()),
            counted(findings)
        ));
    }
}
