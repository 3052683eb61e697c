//! `whence collectors`: who may send batches, and who no longer may.

use clap::{Args, Subcommand};
use uuid::Uuid;
use whence_model::{CollectorId, Timestamp};
use whence_store::ReadRow;

use crate::database::ClickHouse;
use crate::terminal::printable;

#[derive(Subcommand)]
pub enum Action {
    /// List every collector that ever enrolled: whether it sends, and when its last batch came.
    List(List),
    /// Take a collector's key away: what it sends is refused within seconds, and what it has stored stays.
    Revoke(Revoke),
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    clickhouse: ClickHouse,
}

#[derive(Args)]
pub struct Revoke {
    /// Id of the collector, as `whence collectors list` prints it.
    id: CollectorId,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(action: Action) -> anyhow::Result<()> {
    match action {
        Action::List(settings) => list(settings).await,
        Action::Revoke(settings) => revoke(settings).await,
    }
}

async fn list(settings: List) -> anyhow::Result<()> {
    let collectors = settings.clickhouse.store()?.heard().await?;
    let now = Timestamp::now();
    let width = collectors.iter().map(|status| status.collector.host.chars().count()).max().unwrap_or(0);
    for status in collectors {
        let collector = &status.collector;
        let id = CollectorId(collector.collector_id);
        let host = printable(&collector.host);
        let last = status.last_seen.map_or_else(|| "never".into(), |at| at.to_string());
        let revoked = collector.revoked_at.map(|at| format!("  revoked {at}")).unwrap_or_default();
        let (state, enrolled) = (status.state(now).as_str(), collector.enrolled_at);
        println!("{id}  {host:width$}  {state:7}  last batch {last}  enrolled {enrolled}{revoked}");
    }
    Ok(())
}

async fn revoke(Revoke { id, clickhouse }: Revoke) -> anyhow::Result<()> {
    let store = clickhouse.store()?;
    store.revoke_collector(id).await?;
    store.record_read(&record(id)).await?;
    println!("{id} can no longer send; what it has stored stays, and its host keeps what it has not sent");
    Ok(())
}

/// Who took which key away, beside who read what.
fn record(id: CollectorId) -> ReadRow {
    ReadRow {
        at: Timestamp::now(),
        request_id: Uuid::now_v7(),
        person: crate::terminal::user(),
        address: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        action: "revoke_collector".into(),
        query: format!("collector={id}"),
        rows: None,
        result: "ok".into(),
    }
}
