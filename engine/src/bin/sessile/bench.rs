//! `sessile bench`: what this engine does on this machine, beside the recipes it replaces.
//!
//! Every store runs the same operations through the same driver, and is then reopened to see whether each write that it
//! acknowledged is there. A file each:
//! - `plan`: what is measured; `world`: the sessions that all clients know; `ledger`: what was acknowledged;
//! - `driver`: runs a store; `measure`: time, CPU and bytes; `source_document`: the workloads of the source document;
//! - `store`: what a store must do; `sessile`, `seed`, `naive`, `raw`: the stores; `recipe`: what seed and naive share;
//! - `report`: the tables; `json`: the file.

mod driver;
mod json;
mod ledger;
mod measure;
mod naive;
mod payload;
mod place;
mod plan;
mod raw;
mod recipe;
mod report;
mod seed;
mod sessile;
mod source_document;
mod store;
mod world;

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{Args, builder::RangedU64ValueParser};
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    place::Place,
    plan::{Op, Plan, StoreName},
};

use crate::print;

/// Payloads smaller than this have no room for what tells one from the next.
const PAYLOAD_BYTES_MIN: u64 = 64;
/// The engine's default limit is 1 MiB for data and user name together.
const PAYLOAD_BYTES_MAX: u64 = 1_000_000;
/// 10 million sessions are some 8 GB in each store.
const SESSIONS_MAX: u64 = 10_000_000;
/// More clients than this wait for one another in every store.
const CLIENTS_MAX: u64 = 10_000;

/// Measure the engine on this machine, beside the recipes that it replaces.
///
/// Runs the source document's workloads, with one client and with many, on four stores: this engine; the naive recipe (a
/// connection per operation, SQLite's default journal); the seed recipe (one tuned connection behind a lock, a commit
/// per operation); and the raw loop (the engine's tables and batches in one thread without actors, which is the limit on
/// this machine). Then it reopens each and checks that every acknowledged write is there. Takes about 20 seconds.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Make the engine's database here and keep it; nothing may be there yet. The other stores' files are made beside
    /// it and removed [default: a temporary directory].
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// How many sessions there are. A fifth of them, at most 10,000, are in use.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = number(1..=SESSIONS_MAX))]
    sessions: usize,
    /// How many clients work at once; all is measured with a single one too.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number(1..=CLIENTS_MAX))]
    clients: usize,
    /// How long each figure is measured.
    #[arg(long, value_name = "SECONDS", default_value = "0.35", value_parser = seconds)]
    seconds: Duration,
    /// The size of a session's data.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = number(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX))]
    payload_bytes: usize,
    /// The operations to measure [default: all].
    #[arg(long, value_enum, value_name = "OP,…", value_delimiter = ',', default_values_t = Op::ALL, hide_default_value = true)]
    ops: Vec<Op>,
    /// The stores to measure [default: all].
    #[arg(long, value_enum, value_name = "STORE,…", value_delimiter = ',', default_values_t = StoreName::ALL, hide_default_value = true)]
    stores: Vec<StoreName>,
    /// Write the figures to this file too, as a JSON array.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Reads a number within bounds.
fn number(bounds: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if (0.01..=3_600.0).contains(&duration.as_secs_f64()) => Ok(duration),
        _ => Err("not a number of seconds from 0.01 to 3600".to_owned()),
    }
}

impl Options {
    fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(
            self.sessions >= self.clients,
            "{} sessions are too few for {} clients: each saves sessions of its own (see --sessions, --clients)",
            self.sessions,
            self.clients
        );
        let selected = |op: &Op| self.ops.contains(op);
        Ok(Plan {
            sessions: self.sessions,
            clients: if self.clients == 1 { vec![1] } else { vec![1, self.clients] },
            duration: self.seconds,
            payload_bytes: self.payload_bytes,
            ops: Op::ALL.into_iter().filter(selected).collect(),
        })
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let stores: Vec<StoreName> = StoreName::ALL.into_iter().filter(|store| options.stores.contains(store)).collect();
    let place = Place::find(options.db.as_deref())?;
    print(&report::header(&plan, &place))?;

    let progress = ProgressBar::new(stores.iter().map(|&store| driver::steps(&plan, store)).sum());
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  ({elapsed})")?);
    let mut outcomes = Vec::new();
    for store in stores {
        let path = place.path(store);
        let outcome = match store {
            StoreName::Sessile => driver::run::<sessile::Sessile>(&plan, &path, &progress).await,
            StoreName::Seed => driver::run::<seed::Seed>(&plan, &path, &progress).await,
            StoreName::Naive => driver::run::<naive::Naive>(&plan, &path, &progress).await,
            StoreName::Raw => driver::run::<raw::Raw>(&plan, &path, &progress).await,
        };
        outcomes.push(outcome.with_context(|| format!("the {store} store failed"))?);
    }
    progress.finish_and_clear();

    print(&report::tables(&plan, &outcomes))?;
    print(&report::verification(&plan, &outcomes))?;
    if let Some(path) = &options.json {
        json::write(path, &plan, &outcomes)?;
    }
    let faults: usize = outcomes.iter().map(|outcome| outcome.verified.faults).sum();
    if faults > 0 {
        bail!("{faults} acknowledged writes are not there after reopening");
    }
    Ok(())
}
