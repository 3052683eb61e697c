//! `whence spool`: what lies in a collector's spool, for people, on the collector's host.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;
use whence_collector::spool::inspect::{Contents, Segment};
use whence_collector::spool::{Spool, Waiting};
use whence_model::{BatchId, Timestamp};
use whence_store::row::{EventRow, EventView};
use whence_wire::{Batch, Limits};

#[derive(Subcommand)]
pub enum Action {
    /// List the segments with their batches, and what is damaged, missing or put aside: exit status 0 when all is whole, 1
    /// when not. Changes nothing, and works while a collector runs.
    List(Directory),
    /// Cut off what a crash left half written, and say what is damaged. The collector counts that as a gap, unless ingest turns
    /// out to have it. Refused while a collector runs, which does the same when it starts.
    Repair(Directory),
    /// Write the events that are not confirmed, gaps too, as JSON lines with the fields of the API. Changes nothing, and
    /// works while a collector runs.
    Export(Export),
}

#[derive(Args)]
pub struct Directory {
    /// Directory of the spool.
    #[arg(long, env = "WHENCE_SPOOL_DIR", value_name = "DIR", default_value = "/var/lib/whence/spool")]
    spool_dir: PathBuf,
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    directory: Directory,
    /// File to write, which must not exist; only its owner can read it. The standard output by default.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Does it, and says how it went.
pub fn run(action: &Action) -> ExitCode {
    let done = match action {
        Action::List(directory) => list(&directory.spool_dir),
        Action::Repair(directory) => repair(&directory.spool_dir).map(|()| true),
        Action::Export(settings) => export(settings).map(|()| true),
    };
    match done {
        Ok(is_whole) => ExitCode::from(u8::from(!is_whole)),
        Err(error) => {
            eprintln!("whence: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn contents(directory: &Path) -> anyhow::Result<Contents> {
    ensure!(directory.is_dir(), "there is no spool at {}", directory.display());
    Ok(Contents::read(directory)?)
}

fn list(directory: &Path) -> anyhow::Result<bool> {
    let contents = contents(directory)?;
    let mut out = io::stdout().lock();
    for segment in &contents.segments {
        list_segment(&mut out, segment, contents.confirmed)?;
    }
    for missing in &contents.missing {
        let (first, last) = (missing.first, missing.last);
        match missing.not_counted {
            0 => writeln!(out, "missing: batches {first} to {last}, counted as lost")?,
            events => writeln!(
                out,
                "missing: batches {first} to {last} with {events} events; the collector counts them as lost unless ingest has them"
            )?,
        }
    }
    for put_aside in &contents.quarantine {
        writeln!(out, "in quarantine: batch {}: {}", put_aside.number, put_aside.path.display())?;
    }
    let (batches, events) = contents
        .waiting()
        .fold((0_u64, 0_u64), |(batches, events), record| (batches + 1, events + u64::from(record.events)));
    writeln!(
        out,
        "{} batches in {} segments; confirmed up to {}; {batches} batches with {events} events wait",
        contents.segments.iter().map(|segment| segment.records.len()).sum::<usize>(),
        contents.segments.len(),
        contents.confirmed
    )?;
    if contents.in_use {
        writeln!(out, "a collector uses it: its last segment may be in the making")?;
    }
    let is_whole = contents.is_whole();
    writeln!(out, "{}", if is_whole { "all of it is whole" } else { "it is damaged" })?;
    Ok(is_whole)
}

fn list_segment(out: &mut impl Write, segment: &Segment, confirmed: u64) -> io::Result<()> {
    let name = segment.path.file_name().unwrap_or_default().to_string_lossy();
    let held = match (segment.records.first(), segment.records.last()) {
        (Some(first), Some(last)) => {
            let events: u64 = segment.records.iter().map(|record| u64::from(record.events)).sum();
            let state = if last.number <= confirmed {
                "confirmed"
            } else if first.number > confirmed {
                "waiting"
            } else {
                "partly confirmed"
            };
            format!("batches {} to {}, {events} events, {state}", first.number, last.number)
        }
        _ => "no batches".into(),
    };
    writeln!(out, "{name}  {} bytes  {held}", segment.bytes)?;
    segment.damaged.iter().try_for_each(|(from, to)| writeln!(out, "  damaged: bytes {from} to {to}"))
}

fn repair(directory: &Path) -> anyhow::Result<()> {
    let before = contents(directory)?;
    ensure!(
        !before.in_use,
        "a collector uses {}; it has repaired what it found when it started",
        directory.display()
    );
    let (_, recovery) = Spool::open(directory, u64::MAX)?;
    let after = contents(directory)?;
    let bytes = |contents: &Contents| contents.segments.iter().map(|segment| segment.bytes).sum::<u64>();
    println!("{} bytes that hold no batch were cut off", bytes(&before).saturating_sub(bytes(&after)));
    let damaged: u64 = after.missing.iter().map(|missing| missing.not_counted).sum();
    if damaged > 0 {
        println!("{damaged} events were damaged; the collector counts them as lost unless ingest has them");
    }
    println!("the next batch is {}", recovery.link.number);
    Ok(())
}

fn export(settings: &Export) -> anyhow::Result<()> {
    let contents = contents(&settings.directory.spool_dir)?;
    let mut out: Box<dyn Write> = match &settings.to {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let file = File::options().write(true).create_new(true).mode(0o600).open(path);
            Box::new(BufWriter::new(file.with_context(|| format!("cannot make {}", path.display()))?))
        }
    };
    let (mut events, mut unreadable) = (0_u64, 0_u64);
    for waiting in contents.read_waiting() {
        let batch = match waiting.map_err(Into::into).and_then(|waiting| decode(&waiting)) {
            Ok(batch) => batch,
            Err(error) => {
                eprintln!("whence: a batch was passed over: {error:#}");
                unreadable += 1;
                continue;
            }
        };
        let id = BatchId::derive(batch.manifest.collector, batch.manifest.number);
        for event in &batch.events {
            let row = EventRow::new(event, id, Timestamp(0), whence_chain::event_hash(event));
            let mut line = serde_json::to_value(EventView(&row))?;
            // Nobody has received it.
            line["received_at"] = Value::Null;
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
            events += 1;
        }
    }
    out.flush()?;
    eprintln!("{events} events that are not confirmed were written");
    ensure!(unreadable == 0, "{unreadable} batches could not be read");
    Ok(())
}

fn decode(waiting: &Waiting) -> anyhow::Result<Batch> {
    Ok(whence_wire::decode(&waiting.bytes, &Limits::default())?)
}
