//! What a store costs at a steady rate: the question of a service that is not at its limit.
//!
//! The load is open: each client has its times, and does not wait for the others. A latency begins when the operation
//! was due, if the client was still busy with the one before; else when the client woke, so that a late timer is not
//! laid at the store's door.

use std::{fmt, path::Path, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    ledger::{Ledger, Verified},
    measure::{Usage, idle, latencies, resident_bytes},
    payload::Payloads,
    plan::{Op, Plan, write_name},
    store::{Client, Store},
    syncs::Syncs,
    world::{Item, Share, World},
};

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// Touches, as cheap as the store has them.
    Touch,
    /// Touches, committed.
    TouchCommitted,
    /// Messages of a chat: to one session a touch, a get, a save, a get.
    Chat,
}

impl Kind {
    /// Returns what is done to one session each time.
    fn ops(self) -> &'static [Op] {
        match self {
            Self::Touch => &[Op::Touch],
            Self::TouchCommitted => &[Op::TouchCommitted],
            Self::Chat => &[Op::Touch, Op::Get, Op::Save, Op::Get],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(self, formatter)
    }
}

/// What comes in, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What comes in.
    pub kind: Kind,
    /// How often per second.
    pub per_s: u32,
}

impl Load {
    /// What is measured if nothing else is said.
    pub const DEFAULT: [Self; 5] = [
        Self { kind: Kind::Touch, per_s: 1_000 },
        Self { kind: Kind::Touch, per_s: 10_000 },
        Self { kind: Kind::TouchCommitted, per_s: 1_000 },
        Self { kind: Kind::TouchCommitted, per_s: 10_000 },
        Self { kind: Kind::Chat, per_s: 1_000 },
    ];

    /// Returns when a client's turn number `turn` is due, from the beginning.
    fn due(self, turn: u64, client: usize, clients: usize) -> Duration {
        Duration::from_secs_f64((turn as f64 * clients as f64 + client as f64) / f64::from(self.per_s))
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind, self.per_s)
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (kind, per_s) = text.split_once(':')?;
            let kind = Kind::from_str(kind, false).ok()?;
            Some(Self { kind, per_s: per_s.parse().ok().filter(|per_s| (1..=1_000_000).contains(per_s))? })
        };
        parse().ok_or_else(|| "not a load and a number from 1 to 1000000, such as chat:1000".to_owned())
    }
}

/// The figures of one load on one store. One operation is one touch, or one message of a chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadRow {
    /// The store.
    pub store: String,
    /// What came in.
    pub load: Kind,
    /// How often it was to come.
    pub per_s: u32,
    /// How many clients it came from.
    pub clients: usize,
    /// How many sessions the store was filled with.
    pub sessions: usize,
    /// How many of them it was spread over.
    pub sessions_in_use: usize,
    /// The size of a session's data.
    pub payload_bytes: usize,
    /// How many operations were acknowledged.
    pub ops: u64,
    /// How often it did come: less than was wanted where the store fell behind.
    pub ops_per_s: f64,
    /// The median latency.
    pub p50_us: f64,
    /// The latency that one in a hundred exceeds.
    pub p99_us: f64,
    /// The latency that one in a thousand exceeds.
    pub p999_us: f64,
    /// CPU time, that of pacing included.
    pub cpu_us_per_op: f64,
    /// CPU time of the same load on nothing: what pacing takes.
    pub pacing_cpu_us_per_op: f64,
    /// Null where the operating system does not tell.
    pub written_bytes_per_op: Option<f64>,
    /// How often files were synced; null where that was not traced.
    pub syncs_per_op: Option<f64>,
    /// The memory held by all that works for the store, at the end.
    pub resident_bytes: Option<u64>,
    /// The memory that this process held before the store was opened.
    pub resident_bytes_before: Option<u64>,
}

/// What came of a store.
#[derive(Debug)]
pub struct LoadOutcome {
    /// Its name.
    pub store: &'static str,
    /// The figures of each load.
    pub rows: Vec<LoadRow>,
    /// What was found after reopening.
    pub verified: Verified,
}

/// Runs the loads on a store. Where its touches are always committed, one figure tells of both kinds.
pub async fn run<S: Store>(
    plan: &Plan,
    loads: &[Load],
    path: &Path,
    syncs: &Syncs,
    progress: &ProgressBar,
) -> anyhow::Result<LoadOutcome> {
    let resident_bytes_before = resident_bytes();
    progress.set_message(format!("{}: filling", S::NAME));
    let store = S::create(path, plan).await?;
    let payloads = Arc::new(Payloads::new(plan.payload_bytes));
    let ids = store.fill(plan.sessions, &payloads).await.context("filling failed")?;
    let world = Arc::new(World::new(plan, ids, payloads));
    let mut ledger = Ledger::new(&world);

    let mut rows = Vec::new();
    for &load in loads {
        progress.set_message(format!("{}: {load} per second", S::NAME));
        if load.kind.ops().iter().all(|&op| S::measured(op) == op) {
            let row = measure(&store, &world, &mut ledger, plan, load, syncs)
                .await
                .with_context(|| format!("{load} failed"))?;
            rows.push(LoadRow { resident_bytes_before, ..row });
        }
        progress.inc(1);
    }
    store.close().await?;

    progress.set_message(format!("{}: verifying", S::NAME));
    let verified = S::verify(path, Arc::new(ledger)).await.context("reopening failed")?;
    Ok(LoadOutcome { store: S::NAME, rows, verified })
}

/// Measures one load.
async fn measure<S: Store>(
    store: &S,
    world: &Arc<World>,
    ledger: &mut Ledger,
    plan: &Plan,
    load: Load,
    syncs: &Syncs,
) -> anyhow::Result<LoadRow> {
    let count = plan.clients_max();
    let shares = || ledger.shares(world, count);
    let clients = store.clients(world, &shares(), Op::Touch).await?;
    let idlers = (0..count).map(|_| Idler).collect();
    let pacing = drive(store, world, idlers, shares(), plan, load).await?;
    let syncs_before = syncs.count()?;
    let driven = drive(store, world, clients, shares(), plan, load).await?;
    let syncs = syncs.count()?.zip(syncs_before).map(|(after, before)| after - before);

    let resident_bytes = store.resident_bytes();
    for share in &driven.shares {
        ledger.enter(share);
    }
    let per_op = driven.ops.max(1) as f64;
    let quantile_us = |quantile| driven.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(LoadRow {
        store: S::NAME.to_owned(),
        load: load.kind,
        per_s: load.per_s,
        clients: count,
        sessions: plan.sessions,
        sessions_in_use: plan.live(),
        payload_bytes: plan.payload_bytes,
        ops: driven.ops,
        ops_per_s: driven.ops as f64 / driven.elapsed.as_secs_f64(),
        p50_us: quantile_us(0.50),
        p99_us: quantile_us(0.99),
        p999_us: quantile_us(0.999),
        cpu_us_per_op: driven.used.cpu.as_secs_f64() * 1_000_000.0 / per_op,
        pacing_cpu_us_per_op: pacing.used.cpu.as_secs_f64() * 1_000_000.0 / pacing.ops.max(1) as f64,
        written_bytes_per_op: driven.used.written_bytes.map(|bytes| bytes as f64 / per_op),
        syncs_per_op: syncs.map(|syncs| syncs as f64 / per_op),
        resident_bytes,
        resident_bytes_before: None,
    })
}

/// What came of a load.
struct Driven {
    shares: Vec<Share>,
    ops: u64,
    elapsed: Duration,
    latencies: Histogram<u64>,
    used: Usage,
}

/// Lets clients do a load.
async fn drive<S: Store, C: Client>(
    store: &S,
    world: &Arc<World>,
    clients: Vec<C>,
    shares: Vec<Share>,
    plan: &Plan,
    load: Load,
) -> anyhow::Result<Driven> {
    idle(|| store.usage()).await;
    let before = store.usage();
    let began = Instant::now();
    let mut running = JoinSet::new();
    let count = clients.len();
    for (number, (client, share)) in clients.into_iter().zip(shares).enumerate() {
        let turns = Turns { load, number, count, began, end: began + plan.duration };
        running.spawn(turns.run(client, share, world.clone()));
    }
    let done = running.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let elapsed = began.elapsed().max(plan.duration);
    store.settle().await?;
    store.rest().await?;
    idle(|| store.usage()).await;
    let used = store.usage() - before;

    let mut driven = Driven { shares: Vec::new(), ops: 0, elapsed, latencies: latencies(), used };
    for (share, latencies) in done {
        driven.ops += latencies.len();
        driven.latencies.add(&latencies)?;
        driven.shares.push(share);
    }
    Ok(driven)
}

/// One client's turns.
struct Turns {
    load: Load,
    number: usize,
    count: usize,
    began: Instant,
    end: Instant,
}

impl Turns {
    async fn run<C: Client>(
        self,
        mut client: C,
        mut share: Share,
        world: Arc<World>,
    ) -> anyhow::Result<(Share, Histogram<u64>)> {
        let mut latencies = latencies();
        let [first, rest @ ..] = self.load.kind.ops() else { return Ok((share, latencies)) };
        for turn in 0.. {
            let due = self.began + self.load.due(turn, self.number, self.count);
            let mut began = due;
            let now = Instant::now();
            if due >= self.end || now >= self.end {
                break;
            }
            if now < due {
                sleep_until(due).await;
                began = Instant::now();
            }
            let item = share.next(*first, &world);
            client.perform(*first, &[item]).await?;
            for &op in rest {
                let item = share.of(op, item.place);
                client.perform(op, &[item]).await?;
            }
            latencies.saturating_record(began.elapsed().as_nanos() as u64);
        }
        Ok((share, latencies))
    }
}

/// A client that does nothing: what it takes is the load's own.
struct Idler;

impl Client for Idler {
    async fn perform(&mut self, _op: Op, _items: &[Item]) -> anyhow::Result<()> {
        Ok(())
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_all_clients_make_up_the_rate() {
        let load = Load { kind: Kind::Touch, per_s: 1_000 };
        let due = |client| (0..).map(move |turn| load.due(turn, client, 64));
        let within_a_second = |client| due(client).take_while(|&due| due < Duration::from_secs(1)).count();
        assert_eq!((0..64).map(within_a_second).sum::<usize>(), 1_000);
    }

    #[test]
    fn loads_are_read_as_they_are_written() {
        for load in Load::DEFAULT {
            assert_eq!(load.to_string().parse(), Ok(load));
        }
        assert!("chat".parse::<Load>().is_err());
        assert!("chat:0".parse::<Load>().is_err());
    }
}
