//! `sessile load`: what a steady rate of requests costs, on this engine and on the recipe it replaces.

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use sessile_harness::{
    json,
    load::{self, LoadOutcome, LoadRow},
    options::LoadOptions,
    syncs::Syncs,
};

use crate::{
    format, print,
    stores::{naive::Naive, name::StoreName, place::Place, seed::Seed, sessile::Sessile},
};

const LEGEND: &str = "\
One operation is one touch, or one message of a chat: a touch, a get, a save, a get. wanted and done are operations per
second. CPU, bytes written and syncs are per operation and count all that the process did until the store was at rest
again; CPU includes pacing, which is what the same load takes on nothing. Syncs are counted in a trace alone.";

/// Measure what a steady load costs: CPU time, bytes written, latencies, memory.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    measured: LoadOptions,
    /// The stores to measure; raw has no clients that come by themselves.
    #[arg(long, value_enum, value_name = "STORE,…", value_delimiter = ',', default_values_t = [StoreName::Sessile, StoreName::Seed])]
    stores: Vec<StoreName>,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { measured, stores } = options;
    let plan = measured.plan()?;
    let place = Place::find(None)?;
    let syncs = Syncs::new(measured.sync_trace.as_deref());
    let progress = ProgressBar::new((stores.len() * measured.loads.len()) as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  ({elapsed})")?);
    let mut outcomes = Vec::new();
    for store in stores {
        let (path, loads) = (place.path(store), &measured.loads);
        let outcome = match store {
            StoreName::Sessile => load::run::<Sessile>(&plan, loads, &path, &syncs, &progress).await,
            StoreName::Seed => load::run::<Seed>(&plan, loads, &path, &syncs, &progress).await,
            StoreName::Naive => load::run::<Naive>(&plan, loads, &path, &syncs, &progress).await,
            StoreName::Raw => bail!("the raw loop does not wait for clients: see sessile bench"),
        };
        outcomes.push(outcome.with_context(|| format!("the {store} store failed"))?);
    }
    progress.finish_and_clear();

    print(&format!("{}\n{LEGEND}", table(&outcomes)))?;
    if let Some(path) = &measured.json {
        let rows: Vec<&LoadRow> = outcomes.iter().flat_map(|outcome| &outcome.rows).collect();
        json::write(path, &rows)?;
    }
    for LoadOutcome { store, verified, .. } in &outcomes {
        if verified.faults > 0 {
            bail!(
                "{store}: {} acknowledged writes are not there after reopening: {:?}",
                verified.faults,
                verified.shown
            );
        }
    }
    Ok(())
}

fn table(outcomes: &[LoadOutcome]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header([
        "store", "load", "wanted", "done", "CPU", "pacing", "written", "syncs", "p50", "p99", "p99.9", "memory",
    ]);
    for row in outcomes.iter().flat_map(|outcome| &outcome.rows) {
        let shown = |number: Option<f64>, format: fn(f64) -> String| number.map_or_else(|| "–".to_owned(), format);
        table.add_row([
            row.store.clone(),
            row.load.to_string(),
            format::rate(f64::from(row.per_s)),
            format::rate(row.ops_per_s),
            format::micros(row.cpu_us_per_op),
            format::micros(row.pacing_cpu_us_per_op),
            shown(row.written_bytes_per_op, format::bytes),
            shown(row.syncs_per_op, |syncs| format!("{syncs:.4}")),
            format::micros(row.p50_us),
            format::micros(row.p99_us),
            format::micros(row.p999_us),
            shown(row.resident_bytes.map(|bytes| bytes as f64), format::bytes),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
