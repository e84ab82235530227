//! The command of another project's store: `bench` and `load` as the engine's own command has them, for one store, and
//! `about`. It writes JSON alone; `benches/peers` starts it and makes the tables.

use std::{path::Path, process::ExitCode};

use anyhow::{anyhow, ensure};
use clap::{Parser, Subcommand};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    driver, json,
    ledger::Verified,
    load,
    options::{BenchOptions, LoadOptions},
    store::Store,
    syncs::Syncs,
};

/// Another project's store, in all ways it is set up.
pub trait Peer {
    /// Says what it is, versions included.
    fn about() -> impl Future<Output = anyhow::Result<String>>;

    /// Runs a task on the store that it names: calls [`Task::run`].
    fn run(task: Task) -> impl Future<Output = anyhow::Result<()>>;
}

/// What to measure, and on which store.
#[derive(Debug)]
pub struct Task {
    store: String,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Bench(BenchOptions),
    Load(LoadOptions),
}

#[derive(Debug, Parser)]
#[command(arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure as fast as the store goes.
    Bench {
        /// The store and how it is set up.
        #[arg(long)]
        store: String,
        #[command(flatten)]
        options: BenchOptions,
    },
    /// Measure at a steady rate.
    Load {
        /// The store and how it is set up.
        #[arg(long)]
        store: String,
        #[command(flatten)]
        options: LoadOptions,
    },
    /// Say what is measured.
    About,
}

/// Runs the command.
pub fn main<P: Peer>(runtime: &mut tokio::runtime::Builder) -> ExitCode {
    let work = async {
        match Arguments::parse().command {
            Command::Bench { store, options } => P::run(Task { store, work: Work::Bench(options) }).await,
            Command::Load { store, options } => P::run(Task { store, work: Work::Load(options) }).await,
            Command::About => P::about().await.map(|about| println!("{about}")),
        }
    };
    match runtime.build().map_err(Into::into).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    /// Returns the name of the store.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns the error for a store that is not known.
    pub fn unknown(&self) -> anyhow::Error {
        anyhow!("there is no store {}", self.store)
    }

    /// Does the task.
    pub async fn run<S: Store>(self) -> anyhow::Result<()> {
        let directory = tempfile::Builder::new().prefix("sessile-peer-").tempdir()?;
        let path = directory.path().join("sessions");
        let progress = ProgressBar::hidden();
        match self.work {
            Work::Bench(options) => {
                let plan = options.plan()?;
                let outcome = driver::run::<S>(&plan, &path, &progress).await?;
                output(options.json.as_deref(), &json::rows(&plan, [&outcome]))?;
                judge(&outcome.verified)
            }
            Work::Load(options) => {
                let syncs = Syncs::new(options.sync_trace.as_deref());
                let outcome = load::run::<S>(&options.plan()?, &options.loads, &path, &syncs, &progress).await?;
                output(options.json.as_deref(), &outcome.rows)?;
                judge(&outcome.verified)
            }
        }
    }
}

/// Writes rows to the file, or to standard output where none is named.
fn output(path: Option<&Path>, rows: &[impl Serialize]) -> anyhow::Result<()> {
    let Some(path) = path else {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    };
    json::write(path, rows)
}

fn judge(verified: &Verified) -> anyhow::Result<()> {
    ensure!(
        verified.faults == 0,
        "{} acknowledged writes are not there after reopening: {}",
        verified.faults,
        verified.shown.join("; ")
    );
    Ok(())
}
