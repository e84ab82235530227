//! What a store must do to be measured.

use std::{path::Path, sync::Arc};

use tokio::task::yield_now;

use crate::{
    ledger::{Ledger, Verified},
    measure::{self, Usage},
    payload::Payloads,
    plan::{Op, Plan},
    world::{Item, Share, World},
};

/// A store of sessions.
pub trait Store: Sized + Send {
    /// What works on it, one task each.
    type Client: Client;

    /// Its name.
    const NAME: &'static str;

    /// Whether it takes operations by the batch: then one client does what others have many clients do at once, and the
    /// operations of a batch are acknowledged together.
    const TAKES_BATCHES: bool = false;

    /// Makes a new database.
    fn create(path: &Path, plan: &Plan) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Creates the sessions 0, 1, …, without being measured, and returns their ids.
    fn fill(
        &self,
        sessions: usize,
        payloads: &Arc<Payloads>,
    ) -> impl Future<Output = anyhow::Result<Vec<Box<str>>>> + Send;

    /// Makes a client for each share, ready for an operation.
    fn clients(
        &self,
        world: &Arc<World>,
        shares: &[Share],
        op: Op,
    ) -> impl Future<Output = anyhow::Result<Vec<Self::Client>>> + Send;

    /// Returns which operation to measure for `op`.
    fn measured(op: Op) -> Op {
        op.without_memory()
    }

    /// Returns of how many operations by many clients a figure must at least be, so that the work which a store puts off is
    /// in it.
    fn operations_min(_op: Op) -> u64 {
        0
    }

    /// Ends a measurement: what is acknowledged is durable when it returns.
    fn settle(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }

    /// Waits until the store has done all that it puts off, so that it is counted.
    fn rest(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }

    /// Returns how many batches it has made of what clients asked for; `None` for one that makes none.
    fn batches(&self) -> Option<u64> {
        None
    }

    /// Returns how many sessions it holds in memory; `None` for one that holds none.
    fn live_sessions(&self) -> Option<usize> {
        None
    }

    /// Returns what all that works for the store has used: this process, where there is no server.
    fn usage(&self) -> Usage {
        Usage::now()
    }

    /// Returns the memory that all that works for the store holds.
    fn resident_bytes(&self) -> Option<u64> {
        measure::resident_bytes()
    }

    /// Closes the database.
    fn close(self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Reopens the database and compares it with the ledger.
    fn verify(path: &Path, ledger: Arc<Ledger>) -> impl Future<Output = anyhow::Result<Verified>> + Send;
}

/// One client of a store.
pub trait Client: Send + 'static {
    /// Does operations of one kind, and returns when all are acknowledged.
    fn perform(&mut self, op: Op, items: &[Item]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Returns how an operation uses the worker it runs on.
    fn pace(_op: Op) -> Pace {
        Pace::Blocks
    }

    /// Hands over the sessions created: their ids and numbers.
    fn created(self) -> Vec<(Box<str>, usize)>;
}

/// How an operation uses the worker it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It does not wait and takes so little that a look at the clock would be much of it.
    Instant,
    /// It keeps the worker until it is done.
    Blocks,
    /// It lets others have the worker while it waits.
    Waits,
}

impl Pace {
    /// Returns how many operations to do between two looks at the clock.
    pub fn stride(self) -> u64 {
        match self {
            // A look at the clock takes about as long as one such operation.
            Self::Instant => 64,
            Self::Blocks | Self::Waits => 1,
        }
    }

    /// Lets other clients have the worker, where the operation itself does not.
    pub async fn give_way(self) {
        if self != Self::Waits {
            yield_now().await;
        }
    }
}
