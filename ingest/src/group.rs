//! Batches of many collectors go into ClickHouse together: what waits while one insert runs is in the next.
//!
//! Batches that may be written flow in, confirmed rows flow out; and collectors whose batches this process has not written
//! before flow in, and what is stored of them flows out, once no other ingest can change it (`whence_store`'s `claim.rs` says
//! how). Each is one task, so that a thousand collectors cost ClickHouse as few questions and inserts as one.
//!
//! Whatever goes wrong with an insert, its session is given up, and with it everything that this process knows: each collector's
//! next batch asks anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;
use whence_model::{BatchId, CollectorId};
use whence_store::row::BatchRow;
use whence_store::{GroupedBatch, Store, StoreError, WRITER_LIFETIME, WriterId};

use crate::check::{MONTHS, Month};

/// Most rows of one insert …
const MOST_ROWS: usize = 65_536;
/// … and batches, …
const MOST_BATCHES: usize = 2000;
/// … and collectors that are asked for at once.
const MOST_CLAIMS: usize = 500;
/// Groups with fewer rows than this begin at least so long after the one before: each insert makes parts with 50 columns.
const SMALL_ROWS: usize = 4096;
const PAUSE: Duration = Duration::from_millis(100);
/// Another ingest that has a collector gets so long to end what it does, and by chance up to twice as long.
const PATIENCE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(20);
/// How long ClickHouse may take to answer a question.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What this process knows of a collector as long as it writes in the session of `writer`.
#[derive(Debug)]
pub struct Known {
    pub writer: WriterId,
    pub newest: Option<BatchRow>,
    /// A batch of it came out of order, maybe to another ingest: any batch may be half-written.
    pub leapt: bool,
    /// A writer before this one may have left the batches behind the newest half-written: their events, or those of the first
    /// few, without the batches.
    pub unsure: bool,
    /// Which events of the batches that were asked about are stored.
    pub stored: HashMap<BatchId, HashSet<u64>>,
}

/// The way to ClickHouse that all batches of this process share.
pub struct Groups {
    writer: Arc<Writer>,
    claims: mpsc::Sender<Claim>,
    writes: mpsc::Sender<Write>,
}

/// The session that is written in, and since when. None: one is opened for the next claim.
#[derive(Default)]
struct Writer(Mutex<Option<(WriterId, Instant)>>);

struct Claim {
    batches: Vec<BatchRow>,
    answer: oneshot::Sender<Result<Known, StoreError>>,
}

struct Write {
    writer: WriterId,
    batches: Vec<Arc<GroupedBatch>>,
    months: HashSet<Month>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Write {
    fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.events.len()).sum()
    }
}

impl Groups {
    /// Starts both tasks. They end with this.
    pub fn start(store: &Store) -> Self {
        let writer = Arc::<Writer>::default();
        let (claims, claims_in) = mpsc::channel(MOST_BATCHES);
        let (writes, writes_in) = mpsc::channel(MOST_BATCHES);
        let claiming = Claiming {
            store: store.clone(),
            writer: writer.clone(),
            ours: HashSet::new(),
            closed: HashSet::new(),
        };
        tokio::spawn(claiming.run(claims_in));
        let writing = Writing { store: store.clone(), writer: writer.clone(), alone: 0 };
        tokio::spawn(writing.run(writes_in));
        Self { writer, claims, writes }
    }

    /// Whether what was learnt as `writer` still holds.
    pub fn is_current(&self, writer: WriterId) -> bool {
        self.writer.get() == Some(writer)
    }

    /// Learns what is stored of the collector of `batches`, at least one, and keeps other services from writing for it.
    pub async fn claim(&self, batches: Vec<BatchRow>) -> Result<Known, StoreError> {
        let (answer, answered) = oneshot::channel();
        // The tasks live as long as this, so these fail only when the process ends.
        self.claims.send(Claim { batches, answer }).await.map_err(|_| StoreError::SessionEnded)?;
        answered.await.map_err(|_| StoreError::SessionEnded)?
    }

    /// Writes batches of one collector that are not stored, on the ground of what was learnt as `writer`.
    ///
    /// Must not be given up half way: they would be written after all, and nobody would know.
    pub async fn write(
        &self,
        writer: WriterId,
        batches: Vec<Arc<GroupedBatch>>,
        months: HashSet<Month>,
    ) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let write = Write { writer, batches, months, answer };
        self.writes.send(write).await.map_err(|_| StoreError::SessionEnded)?;
        answered.await.map_err(|_| StoreError::SessionEnded)?
    }
}

impl Writer {
    fn get(&self) -> Option<WriterId> {
        let writer = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.filter(|(_, since)| since.elapsed() < WRITER_LIFETIME).map(|(writer, _)| writer)
    }

    fn set(&self, writer: Option<WriterId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            writer.map(|writer| (writer, Instant::now()));
    }
}

struct Claiming {
    store: Store,
    writer: Arc<Writer>,
    /// Sessions that this process opened.
    ours: HashSet<WriterId>,
    /// Sessions that have ended.
    closed: HashSet<WriterId>,
}

impl Claiming {
    async fn run(mut self, mut claims: mpsc::Receiver<Claim>) {
        let mut waiting = Vec::new();
        while claims.recv_many(&mut waiting, MOST_CLAIMS).await > 0 {
            let asked: Vec<&[BatchRow]> = waiting.iter().map(|claim| claim.batches.as_slice()).collect();
            let known = timeout(ANSWER_TIMEOUT, self.claim(&asked)).await;
            match known.unwrap_or_else(|_| Err(StoreError::timed_out())) {
                Ok(known) => waiting.drain(..).zip(known).for_each(|(claim, known)| {
                    // Nobody waits any more: the collector's next batch asks anew.
                    let _ = claim.answer.send(Ok(known));
                }),
                Err(error) => waiting.drain(..).for_each(|claim| {
                    let _ = claim.answer.send(Err(error.copy()));
                }),
            }
        }
    }

    async fn claim(&mut self, asked: &[&[BatchRow]]) -> Result<Vec<Known>, StoreError> {
        let writer = match self.writer.get() {
            Some(writer) => writer,
            None => self.open().await?,
        };
        let batches: Vec<&BatchRow> = asked.iter().copied().flatten().collect();
        let collector =
            |run: &[BatchRow]| CollectorId(run.first().map_or(Uuid::nil(), |first| first.collector_id));
        let collectors: Vec<CollectorId> = asked.iter().map(|run| collector(run)).collect();
        let mut others = self.store.claim(writer, &collectors).await?;
        others.retain(|other| !self.closed.contains(other));
        if others.iter().any(|other| !self.ours.contains(other)) {
            sleep(PATIENCE.mul_f64(1.0 + rand::random::<f64>())).await;
        }
        for other in others {
            while !self.store.close_writer(other).await? {
                sleep(POLL).await;
            }
            self.closed.insert(other);
        }
        let newest = self.store.last_batches(&collectors).await?;
        let mut stored = self.store.stored_sequences(&batches).await?;
        let leapt = self.store.leapt(&collectors).await?;
        let known = asked.iter().map(|run| {
            let collector = collector(run);
            let ids = run.iter().map(|batch| batch.batch_id);
            Known {
                writer,
                newest: newest.get(&collector).cloned(),
                leapt: leapt.contains(&collector),
                unsure: true,
                stored: ids.map(|id| (BatchId(id), stored.remove(&id).unwrap_or_default())).collect(),
            }
        });
        Ok(known.collect())
    }

    async fn open(&mut self) -> Result<WriterId, StoreError> {
        let writer = self.store.open_writer().await?;
        self.ours.insert(writer);
        self.writer.set(Some(writer));
        Ok(writer)
    }
}

struct Writing {
    store: Store,
    writer: Arc<Writer>,
    /// So many writes are done one by one, because one among them may be what ClickHouse does not take.
    alone: usize,
}

impl Writing {
    async fn run(mut self, mut writes: mpsc::Receiver<Write>) {
        let mut waiting = VecDeque::new();
        let mut begin_at = Instant::now();
        loop {
            if waiting.is_empty() {
                let Some(write) = writes.recv().await else { return };
                waiting.push_back(write);
            }
            take_waiting(&mut writes, &mut waiting);
            if waiting.iter().map(Write::rows).sum::<usize>() < SMALL_ROWS {
                sleep_until(begin_at).await;
                take_waiting(&mut writes, &mut waiting);
            }
            begin_at = Instant::now() + PAUSE;
            let group = self.group(&mut waiting);
            self.write(group).await;
        }
    }

    /// Takes off what goes into one insert: at least one batch.
    fn group(&mut self, waiting: &mut VecDeque<Write>) -> Vec<Write> {
        let (mut group, mut rows, mut months) = (Vec::<Write>::new(), 0, HashSet::<Month>::new());
        while let Some(next) = waiting.front() {
            rows += next.rows();
            months.extend(&next.months);
            let is_full = rows > MOST_ROWS || months.len() > MONTHS || self.alone > 0;
            if is_full && !group.is_empty() {
                break;
            }
            group.extend(waiting.pop_front());
        }
        self.alone = self.alone.saturating_sub(1);
        group
    }

    async fn write(&mut self, group: Vec<Write>) {
        let current = self.writer.get();
        let (group, late): (Vec<Write>, Vec<Write>) =
            group.into_iter().partition(|write| Some(write.writer) == current);
        for write in late {
            let _ = write.answer.send(Err(StoreError::SessionEnded));
        }
        let Some(writer) = current.filter(|_| !group.is_empty()) else { return };
        let writes = group.len();
        let (batches, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|write| (write.batches, write.answer)).unzip();
        let batches: Vec<Arc<GroupedBatch>> = batches.into_iter().flatten().collect();
        let written = self.store.write_group(writer, &batches).await;
        if let Err(error) = &written {
            self.writer.set(None);
            if !matches!(error, StoreError::SessionEnded | StoreError::SessionBusy) {
                self.alone = writes;
            }
        }
        for answer in answers {
            let _ = answer.send(written.as_ref().copied().map_err(StoreError::copy));
        }
    }
}

fn take_waiting(writes: &mut mpsc::Receiver<Write>, waiting: &mut VecDeque<Write>) {
    while waiting.len() < MOST_BATCHES
        && let Ok(write) = writes.try_recv()
    {
        waiting.push_back(write);
    }
}
