//! What a fault does to the parts, at its begin and at its end.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use whence_testkit::DatabaseServer;

use crate::link::{Link, Trouble};
use crate::schedule::{Fault, Kind};
use crate::stack::{Stack, TABLES};

const LATE: Duration = Duration::from_millis(120);
const BYTES_PER_SECOND: u32 = 20_000;
/// Room for a fraction of a round.
const SMALL_SPOOL_BYTES: u64 = 48 << 10;
/// Damage is done to the newest part of a segment: what is older is confirmed, and nobody misses it.
const DAMAGED_BYTES: u64 = 32 << 10;
const CLOCK_OFF_SECONDS: i64 = 1800;

const UNAVAILABLE: Trouble = Trouble::Answer { status: "503 Service Unavailable", body: "" };
const NEVER: Trouble = Trouble::Answer {
    status: "400 Bad Request",
    body: r#"{"code":"malformed","message":"an answer of the fault test","request_id":"0"}"#,
};
const STORE_FAILS: Trouble = Trouble::Answer {
    status: "500 Internal Server Error",
    body: "Code: 210. DB::Exception: an answer of the fault test. (NETWORK_ERROR)",
};

impl Fault {
    pub fn begin(&self, stack: &mut Stack, database: &mut DatabaseServer) -> anyhow::Result<()> {
        let side = self.side;
        match self.kind {
            Kind::KillCollector => stack.collector.kill(),
            Kind::KillIngest => stack.ingest[side].kill(),
            Kind::KillBothIngests => stack.ingest.iter_mut().try_for_each(super::process::Process::kill),
            Kind::KillWeb => stack.web.kill(),
            Kind::KillEngine => {
                stack.kill_engine();
                Ok(())
            }
            Kind::KillEngineAndSupervisor => stack.kill_engine_and_supervisor(),
            Kind::RestartCollector => stack.collector.stop().and_then(|()| stack.start_collector()),
            Kind::RestartIngest => stack.ingest[side].stop().and_then(|()| stack.ingest[side].start()),
            Kind::PauseCollector => stack.collector.pause(),
            Kind::PauseIngest => stack.ingest[side].pause(),
            Kind::PauseEngine => {
                stack.pause_engine();
                Ok(())
            }
            Kind::StoreRefuses => {
                // ClickHouse may be down already. Then it refuses everything.
                let _ = stack.refuse_rows(self.table());
                Ok(())
            }
            Kind::FillSpool => stack.spool_disk.fill(),
            Kind::FillEngine => stack.engine_disk.fill(),
            Kind::SmallSpool => {
                self.trouble(stack, Trouble::Cut);
                stack.restart_collector_with_spool(Some(SMALL_SPOOL_BYTES))
            }
            Kind::ClockAhead => stack.set_clock(CLOCK_OFF_SECONDS),
            Kind::ClockBehind => stack.set_clock(-CLOCK_OFF_SECONDS),
            Kind::RestartDatabase => database.restart(),
            Kind::KillDatabase => {
                database.kill();
                Ok(())
            }
            Kind::ResetIngest | Kind::ResetStore => {
                self.links(stack).for_each(Link::reset);
                Ok(())
            }
            Kind::CutIngest | Kind::CutBothIngests | Kind::CutStore | Kind::DamageSpool => {
                self.trouble(stack, Trouble::Cut);
                Ok(())
            }
            Kind::SlowIngest | Kind::SlowStore => {
                self.trouble(stack, Trouble::Slow(LATE));
                Ok(())
            }
            Kind::NarrowIngest | Kind::NarrowStore => {
                self.trouble(stack, Trouble::Narrow(BYTES_PER_SECOND));
                Ok(())
            }
            Kind::StallIngest | Kind::StallStore => {
                self.trouble(stack, Trouble::Stall);
                Ok(())
            }
            Kind::LoseIngestAnswers | Kind::LoseStoreAnswers => {
                self.trouble(stack, Trouble::LoseAnswers);
                Ok(())
            }
            Kind::IngestUnavailable => {
                self.trouble(stack, UNAVAILABLE);
                Ok(())
            }
            Kind::SendTwice => {
                self.trouble(stack, Trouble::Twice);
                Ok(())
            }
            Kind::RefuseBatch => {
                self.trouble(stack, NEVER);
                Ok(())
            }
            Kind::StoreFails => {
                self.trouble(stack, STORE_FAILS);
                Ok(())
            }
        }
    }

    pub fn end(&self, stack: &mut Stack, database: &mut DatabaseServer) -> anyhow::Result<()> {
        let side = self.side;
        match self.kind {
            Kind::KillCollector => stack.start_collector(),
            Kind::KillIngest => stack.ingest[side].start(),
            Kind::KillBothIngests => stack.ingest.iter_mut().try_for_each(super::process::Process::start),
            Kind::KillWeb => stack.web.start(),
            Kind::KillEngineAndSupervisor => stack.engine.start(),
            Kind::PauseCollector => stack.collector.resume(),
            Kind::PauseIngest => stack.ingest[side].resume(),
            Kind::PauseEngine => {
                stack.resume_engine();
                Ok(())
            }
            Kind::FillSpool => stack.spool_disk.empty(),
            Kind::FillEngine => stack.engine_disk.empty(),
            Kind::SmallSpool => {
                self.trouble(stack, Trouble::None);
                stack.restart_collector_with_spool(None)
            }
            Kind::DamageSpool => {
                stack.collector.kill()?;
                self.damage(stack)?;
                self.trouble(stack, Trouble::None);
                stack.start_collector()
            }
            Kind::ClockAhead | Kind::ClockBehind => stack.set_clock(0),
            Kind::KillDatabase => database.restart(),
            // Mended when the round ends: ClickHouse may not answer now.
            Kind::StoreRefuses
            | Kind::KillEngine
            | Kind::RestartCollector
            | Kind::RestartIngest
            | Kind::RestartDatabase
            | Kind::ResetIngest
            | Kind::ResetStore => Ok(()),
            Kind::CutIngest
            | Kind::CutBothIngests
            | Kind::SlowIngest
            | Kind::NarrowIngest
            | Kind::StallIngest
            | Kind::LoseIngestAnswers
            | Kind::IngestUnavailable
            | Kind::SendTwice
            | Kind::RefuseBatch
            | Kind::CutStore
            | Kind::SlowStore
            | Kind::NarrowStore
            | Kind::StallStore
            | Kind::LoseStoreAnswers
            | Kind::StoreFails => {
                self.trouble(stack, Trouble::None);
                Ok(())
            }
        }
    }

    fn trouble(&self, stack: &Stack, trouble: Trouble) {
        self.links(stack).for_each(|link| link.set(trouble));
    }

    /// The paths that it is about.
    fn links<'a>(&self, stack: &'a Stack) -> impl Iterator<Item = &'a Link> {
        let is_store = matches!(
            self.kind,
            Kind::CutStore
                | Kind::ResetStore
                | Kind::SlowStore
                | Kind::NarrowStore
                | Kind::StallStore
                | Kind::LoseStoreAnswers
                | Kind::StoreFails
        );
        let is_both = matches!(
            self.kind,
            Kind::CutBothIngests
                | Kind::DamageSpool
                | Kind::SmallSpool
                | Kind::SlowIngest
                | Kind::NarrowIngest
                | Kind::LoseIngestAnswers
                | Kind::SendTwice
                | Kind::SlowStore
                | Kind::NarrowStore
                | Kind::LoseStoreAnswers
        );
        let links = if is_store { &stack.to_store } else { &stack.to_ingest };
        let wanted = self.side;
        links.iter().enumerate().filter(move |(side, _)| is_both || *side == wanted).map(|(_, link)| link)
    }

    fn table(&self) -> &'static str {
        let count = TABLES.len() as u64;
        TABLES.get(usize::try_from(self.dice % count).unwrap_or(0)).copied().unwrap_or("events")
    }

    /// Turns a bit or two near the end of a segment.
    fn damage(&self, stack: &Stack) -> anyhow::Result<()> {
        let segments = stack.segments()?;
        let Some(path) = segments.last() else { return Ok(()) };
        let file = File::options().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let reach = length.min(DAMAGED_BYTES);
        if reach == 0 {
            return Ok(());
        }
        for flip in 0..=self.dice % 2 {
            let at = length - 1 - (self.dice >> (8 + 16 * flip)) % reach;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << ((self.dice >> (3 * flip)) % 8);
            file.write_all_at(&byte, at)?;
        }
        Ok(())
    }
}
