//! The naive recipe, as the source document begins with it: a connection per operation, SQLite's defaults (a rollback
//! journal that is deleted at each commit, and a sync of everything).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::Connection;
use sessile_harness::{
    ledger::{Ledger, Verified},
    payload::Payloads,
    plan::{Op, Plan},
    store::{Client, Store},
    world::{Item, Share, World},
};

use super::{name::StoreName, recipe};

/// The recipe.
#[derive(Debug)]
pub(crate) struct Naive {
    path: PathBuf,
}

impl Store for Naive {
    type Client = NaiveClient;

    const NAME: &'static str = StoreName::Naive.as_str();

    async fn create(path: &Path, _plan: &Plan) -> anyhow::Result<Self> {
        recipe::create_table(&Connection::open(path)?)?;
        Ok(Self { path: path.to_owned() })
    }

    async fn fill(&self, sessions: usize, payloads: &Arc<Payloads>) -> anyhow::Result<Vec<Box<str>>> {
        recipe::fill(&mut Connection::open(&self.path)?, sessions, payloads)
    }

    async fn clients(&self, world: &Arc<World>, shares: &[Share], _op: Op) -> anyhow::Result<Vec<NaiveClient>> {
        let client = |_: &Share| NaiveClient { path: self.path.clone(), world: world.clone(), created: Vec::new() };
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
pub(crate) struct NaiveClient {
    path: PathBuf,
    world: Arc<World>,
    created: Vec<(Box<str>, usize)>,
}

impl Client for NaiveClient {
    /// Runs in the task itself, so that no more connections than there are workers compete for the file's lock: kinder
    /// to the recipe than a thread for each, which spends its time asleep in the busy handler.
    async fn perform(&mut self, op: Op, items: &[Item]) -> anyhow::Result<()> {
        for &item in items {
            let connection = Connection::open(&self.path)?;
            if let Some(id) = recipe::perform(&connection, &self.world, op, item)? {
                self.created.push((id, item.session));
            }
        }
        Ok(())
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        self.created
    }
}
