//! The seed recipe, as the source document ends with it: one tuned connection behind a lock, a commit per operation.

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::Connection;
use sessile_harness::{
    ledger::{Ledger, Verified},
    payload::Payloads,
    plan::{Op, Plan},
    store::{Client, Pace, Store},
    world::{Item, Share, World},
};
use tokio::sync::Mutex;

use super::{name::StoreName, recipe};

/// The recipe.
#[derive(Debug)]
pub(crate) struct Seed {
    connection: Arc<Mutex<Connection>>,
}

/// Sets a connection up as the source document has it; the engine's has the same settings.
pub(crate) fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -40_000)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(Duration::from_secs(5))
}

impl Store for Seed {
    type Client = SeedClient;

    const NAME: &'static str = StoreName::Seed.as_str();

    async fn create(path: &Path, _plan: &Plan) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        tune(&connection)?;
        recipe::create_table(&connection)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    async fn fill(&self, sessions: usize, payloads: &Arc<Payloads>) -> anyhow::Result<Vec<Box<str>>> {
        recipe::fill(&mut *self.connection.lock().await, sessions, payloads)
    }

    async fn clients(&self, world: &Arc<World>, shares: &[Share], _op: Op) -> anyhow::Result<Vec<SeedClient>> {
        let client =
            |_: &Share| SeedClient { connection: self.connection.clone(), world: world.clone(), created: Vec::new() };
        Ok(shares.iter().map(client).collect())
    }

    async fn close(self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn verify(path: &Path, ledger: Arc<Ledger>) -> anyhow::Result<Verified> {
        recipe::verify(path, &ledger)
    }
}

/// A part of a service.
#[derive(Debug)]
pub(crate) struct SeedClient {
    connection: Arc<Mutex<Connection>>,
    world: Arc<World>,
    created: Vec<(Box<str>, usize)>,
}

impl Client for SeedClient {
    async fn perform(&mut self, op: Op, items: &[Item]) -> anyhow::Result<()> {
        for &item in items {
            let connection = self.connection.lock().await;
            if let Some(id) = recipe::perform(&connection, &self.world, op, item)? {
                self.created.push((id, item.session));
            }
        }
        Ok(())
    }

    fn pace(_op: Op) -> Pace {
        // The lock is fair: whoever comes again stands in line behind the others.
        Pace::Waits
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        self.created
    }
}
