//! The source document's workloads: five, of which "one after another" is the same as one client.

use std::sync::Arc;

use tokio::{task::JoinSet, time::Instant};

use crate::{
    ledger::Ledger,
    plan::{Op, Plan},
    store::{Client, Store},
    world::{Share, World},
};

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Sessions created one after another.
    Create,
    /// Touches one after another.
    Touch,
    /// Reads one after another.
    Get,
    /// 50 touches at once.
    Concurrent,
    /// 200 touches over 10 sessions: each gets its 20 one after another, the sessions at once.
    HighFrequency,
}

impl Workload {
    /// All.
    pub const ALL: [Self; 5] = [Self::Create, Self::Touch, Self::Get, Self::Concurrent, Self::HighFrequency];

    /// Returns what it is called, and the source document's operations per second.
    pub fn published(self) -> (&'static str, f64) {
        match self {
            Self::Create => ("create, one after another", 2_705.3),
            Self::Touch => ("touch, one after another", 6_385.6),
            Self::Get => ("get, one after another", 4_435.2),
            Self::Concurrent => ("50 touches at once", 4_746.1),
            Self::HighFrequency => ("200 touches over 10 sessions", 3_675.8),
        }
    }

    /// Returns the operation of which it is the measurement with one client; `None` for those measured here.
    pub fn one_after_another(self) -> Option<Op> {
        match self {
            Self::Create => Some(Op::Create),
            Self::Touch => Some(Op::Touch),
            Self::Get => Some(Op::Get),
            Self::Concurrent | Self::HighFrequency => None,
        }
    }

    /// Returns how many tasks run at once, and how many touches each does.
    fn shape(self) -> Option<(usize, usize)> {
        match self {
            Self::Concurrent => Some((50, 1)),
            Self::HighFrequency => Some((10, 20)),
            Self::Create | Self::Touch | Self::Get => None,
        }
    }
}

/// Runs those that are not measured with the operations.
pub async fn run<S: Store>(
    store: &S,
    world: &Arc<World>,
    ledger: &mut Ledger,
    plan: &Plan,
) -> anyhow::Result<Vec<(Workload, Op, f64)>> {
    let mut figures = Vec::new();
    if !plan.touches() {
        return Ok(figures);
    }
    for workload in Workload::ALL {
        let Some((tasks, touches)) = workload.shape() else { continue };
        for op in [Op::Touch, Op::TouchCommitted] {
            if S::measured(op) == op {
                let rate = rounds(store, world, ledger, plan, op, (tasks, touches)).await?;
                figures.push((workload, op, rate));
            }
        }
    }
    Ok(figures)
}

/// Repeats a workload, its tasks spawned anew each time, and returns touches per second.
async fn rounds<S: Store>(
    store: &S,
    world: &Arc<World>,
    ledger: &mut Ledger,
    plan: &Plan,
    op: Op,
    (tasks, touches): (usize, usize),
) -> anyhow::Result<f64> {
    let (tasks, batch) = if S::TAKES_BATCHES { (1, tasks) } else { (tasks, 1) };
    let shares = ledger.shares(world, tasks);
    let clients = store.clients(world, &shares, op).await?;
    let mut waiting: Vec<_> = clients.into_iter().zip(shares).collect();

    let began = Instant::now();
    let deadline = began + plan.duration / 2;
    let mut done = 0;
    while Instant::now() < deadline {
        let mut running = JoinSet::new();
        for (client, share) in waiting.drain(..) {
            running.spawn(touch(client, share, world.clone(), op, touches, batch));
        }
        waiting = running.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
        done += tasks * batch * touches;
    }
    store.settle().await?;
    let rate = done as f64 / began.elapsed().as_secs_f64();

    for (_, share) in &waiting {
        ledger.enter(share);
    }
    Ok(rate)
}

async fn touch<C: Client>(
    mut client: C,
    mut share: Share,
    world: Arc<World>,
    op: Op,
    touches: usize,
    batch: usize,
) -> anyhow::Result<(C, Share)> {
    for _ in 0..touches {
        let items: Vec<_> = (0..batch).map(|_| share.next(op, &world)).collect();
        client.perform(op, &items).await?;
    }
    Ok((client, share))
}
