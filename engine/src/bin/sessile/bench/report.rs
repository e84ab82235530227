//! The tables, to be read at a glance.

use std::thread;

use comfy_table::{CellAlignment, Table, presets};
use sessile_harness::{
    driver::Outcome,
    measure::Measurement,
    plan::{Op, Plan},
    source_document::Workload,
};

use crate::{
    format,
    stores::{name::StoreName, place::Place},
};

/// What stands where there is no figure.
const NONE: &str = "–";

const LEGEND: &str = "\
Operations per second: the larger, the better; × is by how much sessile is ahead. On the right, sessile's latencies,
CPU time and bytes written; the last two count all that the process did until the store was at rest again.
  get is of sessions in use, get_cold of others. create, save and touch_committed are answered after COMMIT, and so is
  every touch on seed, naive and raw; sessile's touch is visible at once and committed within 250 ms. save with many
  clients goes on until the log of saves, which sessile and raw use, was filled three times and folded twice.
  seed:  one tuned connection behind a lock, a commit per operation
  naive: a connection per operation, SQLite's defaults
  raw:   sessile's tables in one thread, without actors, in batches as large as sessile's were on average: the limit here";

/// Says what will be measured, where, and on what.
pub(crate) fn header(plan: &Plan, place: &Place) -> String {
    let cores = thread::available_parallelism().map_or_else(|_| NONE.to_owned(), |cores| cores.to_string());
    let mut lines = vec![
        format!(
            "sessile {} on {} {}, {cores} cores, SQLite {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            rusqlite::version(),
        ),
        format!(
            "{} sessions of {} bytes, {} of them in use; {} s per figure",
            format::count(plan.sessions as u64),
            format::count(plan.payload_bytes as u64),
            format::count(plan.live() as u64),
            plan.duration.as_secs_f64(),
        ),
        format!("databases in {}, removed at the end", place.directory().display()),
    ];
    if let Some(path) = place.kept() {
        lines.push(format!("sessile's in {}, kept", path.display()));
    }
    if place.is_in_memory() {
        lines.push(
            "note: that place is in memory, where syncs cost nothing: kind to naive; --db names another".to_owned(),
        );
    }
    if plan.ops.contains(&Op::GetCold) && !plan.has_cold() {
        lines.push("note: so few sessions stay in memory: sessile's get_cold is not cold".to_owned());
    }
    if cfg!(debug_assertions) {
        lines.push("note: this is a debug build; its figures say nothing".to_owned());
    }
    lines.join("\n")
}

/// Makes the tables.
pub(crate) fn tables(plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut lines = Vec::new();
    for &clients in plan.clients.iter().rev() {
        lines.push(if clients == 1 { "\none client".to_owned() } else { format!("\n{clients} clients at once") });
        lines.push(operations(plan, outcomes, clients).to_string());
    }
    lines.push(LEGEND.to_owned());
    lines.push("\nthe source document's workloads".to_owned());
    lines.push(workloads(outcomes).to_string());
    lines.push(
        "published: by the source document, of another machine; all else is of this run. committed: by touch_committed.\n".to_owned(),
    );
    lines.join("\n")
}

/// The operations with so many clients.
fn operations(plan: &Plan, outcomes: &[Outcome], clients: usize) -> Table {
    let mut table =
        table(&["op/s", "sessile", "seed", "naive", "raw", "× seed", "× raw", "p50", "p99", "CPU/op", "written/op"]);
    for &op in &plan.ops {
        let of = |store: StoreName| find(outcomes, store)?.measurement(op, clients);
        let rate = |store: StoreName| of(store).map(|measurement| measurement.ops_per_s);
        let sessile = rate(StoreName::Sessile);
        let ahead_of = |other: StoreName| sessile.zip(rate(other)).map(|(sessile, other)| sessile / other);
        let own = |what: fn(&Measurement) -> Option<f64>| of(StoreName::Sessile).and_then(what);
        table.add_row([
            op.to_string(),
            shown(sessile, format::rate),
            shown(rate(StoreName::Seed), format::rate),
            shown(rate(StoreName::Naive), format::rate),
            shown(rate(StoreName::Raw), format::rate),
            shown(ahead_of(StoreName::Seed), format::ratio),
            shown(ahead_of(StoreName::Raw), format::ratio),
            shown(own(|measurement| Some(measurement.p50_us)), format::micros),
            shown(own(|measurement| Some(measurement.p99_us)), format::micros),
            shown(own(|measurement| Some(measurement.cpu_us_per_op)), format::micros),
            shown(own(|measurement| measurement.written_bytes_per_op), format::bytes),
        ]);
    }
    table
}

/// The source document's workloads.
fn workloads(outcomes: &[Outcome]) -> Table {
    let mut table = table(&["op/s", "published", "sessile", "committed", "seed", "naive", "raw"]);
    for workload in Workload::ALL {
        let rate = |store: StoreName, op: Op| {
            let outcome = find(outcomes, store)?;
            match workload.one_after_another() {
                Some(Op::Touch) => outcome.measurement(op, 1).map(|measurement| measurement.ops_per_s),
                Some(own) => outcome.measurement(own, 1).map(|measurement| measurement.ops_per_s),
                None => {
                    let mut figures = outcome.workloads.iter();
                    figures.find(|figure| (figure.0, figure.1) == (workload, op)).map(|figure| figure.2)
                }
            }
        };
        let (name, published) = workload.published();
        let committed = matches!(workload, Workload::Touch | Workload::Concurrent | Workload::HighFrequency)
            .then(|| rate(StoreName::Sessile, Op::TouchCommitted))
            .flatten();
        table.add_row([
            name.to_owned(),
            format::rate(published),
            shown(rate(StoreName::Sessile, Op::Touch), format::rate),
            shown(committed, format::rate),
            shown(rate(StoreName::Seed, Op::Touch), format::rate),
            shown(rate(StoreName::Naive, Op::Touch), format::rate),
            shown(rate(StoreName::Raw, Op::Touch), format::rate),
        ]);
    }
    table
}

/// Says what memory the engine took, and what was found after reopening.
pub(crate) fn verification(plan: &Plan, outcomes: &[Outcome]) -> String {
    let memory = find(outcomes, StoreName::Sessile).and_then(|outcome| memory(plan, outcome));
    let mut lines: Vec<String> = memory.into_iter().collect();
    for outcome in outcomes {
        let verified = &outcome.verified;
        lines.push(format!(
            "{}: {} {} sessions ({} of them created meanwhile), {} saves, {} touches after reopening",
            outcome.store,
            if verified.faults == 0 { "verified" } else { "WRONG, of" },
            format::count(verified.sessions as u64),
            format::count(verified.created as u64),
            format::count(verified.saves),
            format::count(verified.touches),
        ));
        lines.extend(verified.shown.iter().map(|fault| format!("    {fault}")));
        if verified.faults > verified.shown.len() {
            lines.push(format!("    and {} more", verified.faults - verified.shown.len()));
        }
    }
    lines.join("\n")
}

/// Says what the process held at the end of the reads of sessions in use.
fn memory(plan: &Plan, outcome: &Outcome) -> Option<String> {
    let memory = outcome.memory?;
    Some(format!(
        "memory: {} with {} of {} sessions live; {} before sessile was opened",
        format::bytes(memory.resident_bytes as f64),
        format::count(memory.sessions as u64),
        format::count(plan.sessions as u64),
        format::bytes(memory.resident_bytes_before as f64),
    ))
}

fn find(outcomes: &[Outcome], store: StoreName) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| outcome.store == store.as_str())
}

fn shown(number: Option<f64>, format: fn(f64) -> String) -> String {
    number.map_or_else(|| NONE.to_owned(), format)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
