//! A store of tower-sessions, as the workloads see it. Compiled into the program of each store, against the version of
//! tower-sessions-core that the store is for.
//!
//! tower-sessions has no touch: to renew a session it saves the record with a new expiry date. Its client holds the
//! record, so that no load is counted with the save.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use sessile_harness::{
    ledger::{Ledger, Verified},
    payload::{Payload, Payloads},
    plan::{Op, Plan},
    store::{Client, Pace, Store},
    world::{Item, Share, World},
};
use time::{Duration, OffsetDateTime};
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record},
};

/// tower-sessions' own default is two weeks.
const LIFETIME: Duration = Duration::weeks(2);

/// A store and how it is set up.
pub(crate) trait Setup: Send + Sync + 'static {
    /// What the store works with: a connection or a pool.
    type Connection: Clone + Send + Sync;
    /// The store.
    type Store: SessionStore + Clone;

    /// The name of both.
    const NAME: &'static str;

    /// Connects as the setup has it.
    fn connect(path: &Path) -> impl Future<Output = anyhow::Result<Self::Connection>> + Send;
    /// Connects to fill the database: without syncs.
    fn connect_to_fill(path: &Path) -> impl Future<Output = anyhow::Result<Self::Connection>> + Send;
    /// Makes the store and its table.
    fn store(connection: &Self::Connection) -> impl Future<Output = anyhow::Result<Self::Store>> + Send;
    /// Runs statements.
    fn execute(connection: &Self::Connection, sql: &'static str) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Counts the sessions.
    fn count(connection: &Self::Connection) -> impl Future<Output = anyhow::Result<u64>> + Send;
    /// Disconnects.
    fn close(connection: Self::Connection) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A store under measurement.
pub(crate) struct Tower<S: Setup> {
    path: PathBuf,
    connection: S::Connection,
    store: S::Store,
}

impl<S: Setup> Store for Tower<S> {
    type Client = TowerClient<S::Store>;

    const NAME: &'static str = S::NAME;

    async fn create(path: &Path, _plan: &Plan) -> anyhow::Result<Self> {
        let connection = S::connect(path).await?;
        let store = S::store(&connection).await?;
        Ok(Self { path: path.to_owned(), connection, store })
    }

    async fn fill(&self, sessions: usize, payloads: &Arc<Payloads>) -> anyhow::Result<Vec<Box<str>>> {
        let connection = S::connect_to_fill(&self.path).await?;
        let store = S::store(&connection).await?;
        let mut ids = Vec::with_capacity(sessions);
        let mut last = None;
        for session in 0..sessions {
            let mut record = record(Id::default(), &payloads.of(session, 0));
            store.create(&mut record).await?;
            ids.push(record.id.to_string().into());
            last = Some(record);
        }
        // What was not synced is now, lest the first to be measured pays for it.
        S::execute(&connection, "PRAGMA synchronous = FULL").await?;
        if let Some(last) = last {
            store.save(&last).await?;
        }
        S::execute(&connection, "PRAGMA wal_checkpoint(TRUNCATE)").await?;
        drop(store);
        S::close(connection).await?;
        Ok(ids)
    }

    async fn clients(&self, world: &Arc<World>, shares: &[Share], _op: Op) -> anyhow::Result<Vec<Self::Client>> {
        let client = |_: &Share| TowerClient { store: self.store.clone(), world: world.clone(), created: Vec::new() };
        Ok(shares.iter().map(client).collect())
    }

    async fn close(self) -> anyhow::Result<()> {
        drop(self.store);
        S::close(self.connection).await
    }

    async fn verify(path: &Path, ledger: Arc<Ledger>) -> anyhow::Result<Verified> {
        let connection = S::connect(path).await?;
        let store = S::store(&connection).await?;
        let mut verified = ledger.verified();
        verified.add_count(S::count(&connection).await?);
        for place in 0..ledger.len() {
            let found = store.load(&parse(ledger.id(place))?).await?.map(|record| json(&record)).transpose()?;
            // It counts no touches.
            if let Some(fault) = ledger.check(place, found.as_ref().map(|data| (data.as_bytes(), None))) {
                verified.add(fault);
            }
        }
        drop(store);
        S::close(connection).await?;
        Ok(verified)
    }
}

/// A part of a service.
pub(crate) struct TowerClient<S> {
    store: S,
    world: Arc<World>,
    created: Vec<(Box<str>, usize)>,
}

impl<S: SessionStore> Client for TowerClient<S> {
    async fn perform(&mut self, op: Op, items: &[Item]) -> anyhow::Result<()> {
        for &Item { session, sequence, .. } in items {
            let payload = self.world.payloads.of(session, sequence);
            if op == Op::Create {
                let mut record = record(Id::default(), &payload);
                self.store.create(&mut record).await?;
                self.created.push((record.id.to_string().into(), session));
                continue;
            }
            let id = parse(&self.world.ids[session])?;
            match op {
                Op::Get | Op::GetCold => {
                    black_box(self.store.load(&id).await?.context("a session is gone")?);
                }
                Op::Create | Op::Save | Op::Touch | Op::TouchCommitted => {
                    self.store.save(&record(id, &payload)).await?;
                }
            }
        }
        Ok(())
    }

    fn pace(_op: Op) -> Pace {
        Pace::Waits
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        self.created
    }
}

fn record(id: Id, payload: &Payload<'_>) -> Record {
    let data = [
        ("session".to_owned(), payload.session.into()),
        ("sequence".to_owned(), payload.sequence.into()),
        ("text".to_owned(), payload.text.into()),
    ];
    Record { id, data: data.into(), expiry_date: OffsetDateTime::now_utc() + LIFETIME }
}

/// Returns the data as the ledger knows it.
fn json(record: &Record) -> anyhow::Result<String> {
    let number = |name: &str| record.data.get(name)?.as_u64();
    let found = || {
        let text = record.data.get("text")?.as_str()?;
        Some(Payload { session: number("session")? as usize, sequence: number("sequence")?, text })
    };
    Ok(serde_json::to_string(&found().context("a session has other data")?)?)
}

fn parse(id: &str) -> anyhow::Result<Id> {
    id.parse().map_err(|error| anyhow!("{id} is no id: {error:?}"))
}
