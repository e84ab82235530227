//! Runs one store: fills it, measures each operation, closes it, reopens it and compares.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    ledger::{Ledger, Verified},
    measure::{Measurement, idle, latencies, resident_bytes},
    payload::Payloads,
    plan::{Op, Plan},
    source_document::{self, Workload},
    store::{Client, Store},
    world::{Share, World},
};

/// What came of a store.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub store: &'static str,
    /// What was measured, for the operations of the plan.
    pub figures: Vec<Figure>,
    /// Operations per second in the source document's workloads.
    pub workloads: Vec<(Workload, Op, f64)>,
    /// What was found after reopening.
    pub verified: Verified,
    /// What sessions in memory take, for a store that holds some there.
    pub memory: Option<Memory>,
}

/// What sessions in memory take.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// How many.
    pub sessions: usize,
    /// What the process held in memory.
    pub resident_bytes: u64,
    /// The same before the store was opened.
    pub resident_bytes_before: u64,
}

/// A measurement and what it is of.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The operation.
    pub op: Op,
    /// How many clients worked at once.
    pub clients: usize,
    /// What was measured.
    pub measurement: Measurement,
    /// Operations in a batch, for a store that makes batches of what clients ask for.
    pub batch: Option<usize>,
}

impl Outcome {
    /// Returns how many operations its batches had.
    pub fn batches(&self) -> impl Iterator<Item = ((Op, usize), usize)> {
        self.figures.iter().filter_map(|figure| Some(((figure.op, figure.clients), figure.batch?)))
    }

    /// Returns the measurement of an operation with so many clients.
    pub fn measurement(&self, op: Op, clients: usize) -> Option<&Measurement> {
        self.figures
            .iter()
            .find(|figure| figure.op == op && figure.clients == clients)
            .map(|figure| &figure.measurement)
    }
}

/// Returns how many steps a store's run has, for the progress bar: filling, measurements, verification.
pub fn steps<S: Store>(plan: &Plan) -> u64 {
    (measured(&plan.ops, S::measured).len() * plan.clients.len() + 2) as u64
}

/// Returns the operations to measure, each once. Creating is last: all other operations are to find tables of the same
/// size in every store.
fn measured(ops: &[Op], standing_for: impl Fn(Op) -> Op) -> Vec<Op> {
    let mut measured = Vec::new();
    for op in ops.iter().map(|&op| standing_for(op)) {
        if !measured.contains(&op) {
            measured.push(op);
        }
    }
    measured.sort_by_key(|&op| op == Op::Create);
    measured
}

/// Runs a store.
pub async fn run<S: Store>(plan: &Plan, path: &Path, progress: &ProgressBar) -> anyhow::Result<Outcome> {
    let resident_bytes_before = resident_bytes();
    progress.set_message(format!("{}: filling", S::NAME));
    let store = S::create(path, plan).await?;
    let payloads = Arc::new(Payloads::new(plan.payload_bytes));
    let ids = store.fill(plan.sessions, &payloads).await.context("filling failed")?;
    let world = Arc::new(World::new(plan, ids, payloads));
    let mut ledger = Ledger::new(&world);
    progress.inc(1);

    let mut done: Vec<Figure> = Vec::new();
    let mut memory = None;
    for op in measured(&plan.ops, S::measured) {
        for &clients in &plan.clients {
            progress.set_message(format!("{}: {op}, clients: {clients}", S::NAME));
            let figure = measure(&store, &world, &mut ledger, plan, op, clients)
                .await
                .with_context(|| format!("{op} failed, clients: {clients}"))?;
            done.push(figure);
            if op == Op::Get {
                memory = look_at_memory(&store, resident_bytes_before);
            }
            progress.inc(1);
        }
    }
    let workloads = source_document::run(&store, &world, &mut ledger, plan)
        .await
        .context("the source document's workloads failed")?;
    store.close().await?;

    progress.set_message(format!("{}: verifying", S::NAME));
    let verified = S::verify(path, Arc::new(ledger)).await.context("reopening failed")?;
    progress.inc(1);
    Ok(Outcome { store: S::NAME, figures: figures(plan, &done, S::measured), workloads, verified, memory })
}

fn look_at_memory<S: Store>(store: &S, resident_bytes_before: Option<u64>) -> Option<Memory> {
    Some(Memory {
        sessions: store.live_sessions()?,
        resident_bytes: resident_bytes()?,
        resident_bytes_before: resident_bytes_before?,
    })
}

/// Returns a figure for each operation of the plan: its own, or that of the operation that stands for it.
fn figures(plan: &Plan, done: &[Figure], standing_for: impl Fn(Op) -> Op) -> Vec<Figure> {
    let of = |op: Op| done.iter().filter(move |figure| figure.op == op);
    plan.ops.iter().flat_map(|&op| of(standing_for(op)).map(move |figure| Figure { op, ..figure.clone() })).collect()
}

/// Measures one operation with so many clients.
async fn measure<S: Store>(
    store: &S,
    world: &Arc<World>,
    ledger: &mut Ledger,
    plan: &Plan,
    op: Op,
    clients: usize,
) -> anyhow::Result<Figure> {
    let (tasks, batch) = if S::TAKES_BATCHES { (1, plan.batch(op, clients)) } else { (clients, 1) };
    // One client after another waits for answers, not for the work behind them.
    let ops_min = if clients > 1 { S::operations_min(op).div_ceil(tasks as u64) } else { 0 };
    let shares = ledger.shares(world, tasks);
    let workers = store.clients(world, &shares, op).await?;
    idle(|| store.usage()).await;

    let (before, batches_before) = (store.usage(), store.batches());
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (client, share) in workers.into_iter().zip(shares) {
        let (deadline, world) = (began + plan.duration, world.clone());
        let work = Work { client, share, op, batch, alone: tasks == 1, deadline, ops_min, world };
        running.spawn(work.run());
    }
    let done = running.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let batches = store.batches().zip(batches_before).map(|(after, before)| after - before);
    if op.writes() {
        store.settle().await?;
    }
    let elapsed = began.elapsed();
    idle(|| store.usage()).await;
    let used = store.usage() - before;

    let mut all_latencies = latencies();
    for work in &done {
        all_latencies.add(&work.latencies).expect("all have the same bounds");
    }
    let ops: u64 = done.iter().map(|work| work.ops).sum();
    let measurement = Measurement::new(ops, elapsed, &all_latencies, used);
    // What is answered from memory makes no batch.
    let batch = batches.filter(|batches| (1..=ops).contains(batches)).map(|batches| ops.div_ceil(batches) as usize);
    for work in done {
        ledger.enter(&work.share);
        ledger.enter_created(work.client.created());
    }
    Ok(Figure { op, clients, measurement, batch: batch.map(|batch| batch.min(clients)) })
}

/// What one client is to do.
struct Work<C> {
    client: C,
    share: Share,
    op: Op,
    batch: usize,
    /// Nobody waits for the worker: to give way would send the task back and forth between two of them.
    alone: bool,
    deadline: Instant,
    ops_min: u64,
    world: Arc<World>,
}

/// What it did.
struct Done<C> {
    client: C,
    share: Share,
    ops: u64,
    latencies: Histogram<u64>,
}

impl<C: Client> Work<C> {
    async fn run(self) -> anyhow::Result<Done<C>> {
        let Self { mut client, mut share, op, batch, alone, deadline, ops_min, world } = self;
        let pace = C::pace(op);
        let stride = pace.stride();
        let mut items = Vec::with_capacity(batch);
        let mut latencies = latencies();
        let mut rounds = 0;
        loop {
            items.clear();
            items.extend((0..batch).map(|_| share.next(op, &world)));
            let began = (rounds % stride == 0).then(Instant::now);
            client.perform(op, &items).await?;
            rounds += 1;
            if let Some(began) = began {
                let now = Instant::now();
                latencies.saturating_record_n((now - began).as_nanos() as u64, batch as u64);
                if now >= deadline && rounds * batch as u64 >= ops_min {
                    break;
                }
                if !alone {
                    pace.give_way().await;
                }
            }
        }
        Ok(Done { client, share, ops: rounds * batch as u64, latencies })
    }
}
