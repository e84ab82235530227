//! What the command lines of all stores have in common.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::{Args, builder::RangedU64ValueParser};

use crate::{
    load::Load,
    plan::{Op, Plan},
};

/// Payloads smaller than this have no room for what tells one from the next.
const PAYLOAD_BYTES_MIN: u64 = 64;
/// The engine's default limit is 1 MiB for data and user name together.
const PAYLOAD_BYTES_MAX: u64 = 1_000_000;
/// 10 million sessions are some 8 GB in each store.
const SESSIONS_MAX: u64 = 10_000_000;
/// More clients than this wait for one another in every store.
const CLIENTS_MAX: u64 = 10_000;

/// How much there is.
#[derive(Debug, Clone, Args)]
pub struct SizeOptions {
    /// How many sessions there are. A fifth of them, at most 10,000, are in use.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = number(1..=SESSIONS_MAX))]
    pub sessions: usize,
    /// The size of a session's data.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = number(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX))]
    pub payload_bytes: usize,
}

/// What to measure as fast as a store goes.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    #[command(flatten)]
    size: SizeOptions,
    /// How many clients work at once; all is measured with a single one too.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64", value_parser = number(1..=CLIENTS_MAX))]
    clients: Vec<usize>,
    /// How long each figure is measured.
    #[arg(long, value_name = "SECONDS", default_value = "0.35", value_parser = seconds)]
    seconds: Duration,
    /// The operations to measure [default: all].
    #[arg(long, value_enum, value_name = "OP,…", value_delimiter = ',', default_values_t = Op::ALL, hide_default_value = true)]
    ops: Vec<Op>,
    /// Write the figures to this file too, as a JSON array.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl BenchOptions {
    /// Makes the plan.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let mut clients = self.clients.clone();
        clients.push(1);
        clients.sort_unstable();
        clients.dedup();
        let selected = |op: &Op| self.ops.contains(op);
        plan(&self.size, clients, self.seconds, Op::ALL.into_iter().filter(selected).collect())
    }
}

/// What to measure at a steady rate.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    #[command(flatten)]
    size: SizeOptions,
    /// How many clients the load comes from.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number(1..=CLIENTS_MAX))]
    clients: usize,
    /// How long each load lasts.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// What comes in, and how often per second: `touch`, `touch_committed`, or `chat`, a message of one touch, one save and
    /// two gets.
    #[arg(long, value_name = "LOAD:N,…", value_delimiter = ',', default_values_t = Load::DEFAULT)]
    pub loads: Vec<Load>,
    /// Count syncs in this file, the output of an strace that this program runs under; `benches/peers` does so.
    #[arg(long, value_name = "FILE")]
    pub sync_trace: Option<PathBuf>,
    /// Write the figures to this file too, as a JSON array.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl LoadOptions {
    /// Makes the plan.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        plan(&self.size, vec![self.clients], self.seconds, Vec::new())
    }
}

fn plan(size: &SizeOptions, clients: Vec<usize>, duration: Duration, ops: Vec<Op>) -> anyhow::Result<Plan> {
    let plan = Plan {
        sessions: size.sessions,
        clients,
        duration,
        payload_bytes: size.payload_bytes,
        ops,
        batches: BTreeMap::new(),
    };
    ensure!(
        plan.sessions >= plan.clients_max(),
        "{} sessions are too few for {} clients: each saves sessions of its own (see --sessions, --clients)",
        plan.sessions,
        plan.clients_max()
    );
    Ok(plan)
}

/// Reads a number within bounds.
fn number(bounds: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// Reads a number of seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if (0.01..=3_600.0).contains(&duration.as_secs_f64()) => Ok(duration),
        _ => Err("not a number of seconds from 0.01 to 3600".to_owned()),
    }
}
