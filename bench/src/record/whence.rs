//! Reads what Whence stored of one server, from the ClickHouse of a running `whence up`.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use secrecy::SecretString;
use whence_model::{Event, EventKind, InstanceId, Timestamp};
use whence_store::read::{EventFilter, Window};
use whence_store::{ConnectOptions, Store};

const POLL: Duration = Duration::from_millis(200);
/// How long nothing may arrive before what is waited for counts as lost.
const PATIENCE: Duration = Duration::from_mins(1);

/// The stored events of one server.
pub struct Reader {
    store: Store,
    filter: EventFilter,
    instance: InstanceId,
}

/// What was stored.
pub struct Stored {
    /// By connection id, in order.
    pub sessions: BTreeMap<u64, Vec<Event>>,
    /// Events without a connection id: none is expected.
    pub unplaced: Vec<Event>,
    /// Events that Whence itself says were lost.
    pub lost: u64,
}

impl Reader {
    /// A reader of the server whose process is `pid`, of what happens from now on.
    pub async fn open(data: &Path, pid: u32, from: Timestamp) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = data.join(name);
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let port = read("run/engine.port")?;
        let password = read("clickhouse/passwords/whence_web")?;
        let store = Store::connect(ConnectOptions {
            url: format!("http://127.0.0.1:{}", port.trim()),
            user: "whence_web".into(),
            password: SecretString::from(password.trim()),
            database: "whence".into(),
        });
        let until = Instant::now() + PATIENCE;
        let instance = loop {
            let known = store.instances().await?;
            if let Some(known) = known.into_iter().find(|known| known.server_process_id == pid) {
                break InstanceId(known.instance_id);
            }
            if Instant::now() > until {
                bail!("Whence does not know the server with process id {pid}");
            }
            tokio::time::sleep(POLL).await;
        };
        let window = Window { from, to: Timestamp::now().plus_ns(86_400_000_000_000) };
        let filter = EventFilter { instance: Some(instance), ..EventFilter::all(window) };
        Ok(Self { store, filter, instance })
    }

    /// Waits until the end of this connection is stored, as long as anything arrives. Events are stored in their order.
    pub async fn wait_for_end(&self, connection_id: u64) -> anyhow::Result<bool> {
        let end = EventFilter {
            connection_id: Some(connection_id),
            kinds: vec![EventKind::Disconnect.as_str().into()],
            ..self.filter.clone()
        };
        let (mut stored, mut since) = (0, Instant::now());
        while self.store.count(&end).await? == 0 {
            let now = self.store.count(&self.filter).await?;
            if now != stored {
                (stored, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(true)
    }

    /// Everything that is stored.
    pub async fn read(&self) -> anyhow::Result<Stored> {
        let mut stored = Stored { sessions: BTreeMap::new(), unplaced: Vec::new(), lost: 0 };
        let mut rows = pin!(self.store.stream_events(&self.filter));
        while let Some(row) = rows.next().await {
            let event = row?.to_event()?;
            match (event.gap, event.session.connection_id) {
                (Some(gap), _) => stored.lost += gap.events,
                (None, Some(id)) => stored.sessions.entry(id).or_default().push(event),
                (None, None) => stored.unplaced.push(event),
            }
        }
        let coverage = self.store.coverage(self.filter.window, Some(self.instance)).await?;
        let counted = coverage.iter().flat_map(|coverage| coverage.lost.values()).sum();
        stored.lost = stored.lost.max(counted);
        Ok(stored)
    }
}
