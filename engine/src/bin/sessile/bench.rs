//! `sessile bench`: what this engine does on this machine, beside the recipes it replaces.
//!
//! Every store runs the same operations through the same driver, that of `sessile_harness`, and is then reopened to see
//! whether each write that it acknowledged is there. `report` makes the tables.

mod report;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sessile_harness::{driver, json, options::BenchOptions, plan::Plan};

use crate::{
    print,
    stores::{naive::Naive, name::StoreName, place::Place, raw::Raw, seed::Seed, sessile::Sessile},
};

/// Measure the engine on this machine, beside the recipes that it replaces.
///
/// Runs the source document's workloads, with one client and with many, on four stores: this engine; the naive recipe (a
/// connection per operation, SQLite's default journal); the seed recipe (one tuned connection behind a lock, a commit
/// per operation); and the raw loop (the engine's tables and batches in one thread without actors, which is the limit on
/// this machine). Then it reopens each and checks that every acknowledged write is there. Takes some 25 seconds.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Make the engine's database here and keep it; nothing may be there yet. The other stores' files are made beside
    /// it and removed [default: a temporary directory].
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    #[command(flatten)]
    measured: BenchOptions,
    /// The stores to measure [default: all].
    #[arg(long, value_enum, value_name = "STORE,…", value_delimiter = ',', default_values_t = StoreName::ALL, hide_default_value = true)]
    stores: Vec<StoreName>,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut plan = options.measured.plan()?;
    let stores: Vec<StoreName> = StoreName::ALL.into_iter().filter(|store| options.stores.contains(store)).collect();
    let place = Place::find(options.db.as_deref())?;
    print(&report::header(&plan, &place))?;

    let progress = ProgressBar::new(stores.iter().map(|&store| steps(&plan, store)).sum());
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  ({elapsed})")?);
    let mut outcomes = Vec::new();
    for store in stores {
        let path = place.path(store);
        let outcome = match store {
            StoreName::Sessile => driver::run::<Sessile>(&plan, &path, &progress).await,
            StoreName::Seed => driver::run::<Seed>(&plan, &path, &progress).await,
            StoreName::Naive => driver::run::<Naive>(&plan, &path, &progress).await,
            StoreName::Raw => driver::run::<Raw>(&plan, &path, &progress).await,
        };
        let outcome = outcome.with_context(|| format!("the {store} store failed"))?;
        // The engine comes first: the raw loop is measured with batches as large as the engine's were.
        plan.batches.extend(outcome.batches());
        outcomes.push(outcome);
    }
    progress.finish_and_clear();

    print(&report::tables(&plan, &outcomes))?;
    print(&report::verification(&plan, &outcomes))?;
    if let Some(path) = &options.measured.json {
        json::write(path, &json::rows(&plan, &outcomes))?;
    }
    let faults: usize = outcomes.iter().map(|outcome| outcome.verified.faults).sum();
    if faults > 0 {
        bail!("{faults} acknowledged writes are not there after reopening");
    }
    Ok(())
}

fn steps(plan: &Plan, store: StoreName) -> u64 {
    match store {
        StoreName::Sessile => driver::steps::<Sessile>(plan),
        StoreName::Seed => driver::steps::<Seed>(plan),
        StoreName::Naive => driver::steps::<Naive>(plan),
        StoreName::Raw => driver::steps::<Raw>(plan),
    }
}
