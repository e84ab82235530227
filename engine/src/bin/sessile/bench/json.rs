//! The figures as a JSON file.

use std::{fs, path::Path};

use anyhow::Context;
use serde::Serialize;

use super::{
    driver::Outcome,
    plan::{Op, Plan, StoreName},
};

#[derive(Serialize)]
struct Row {
    store: StoreName,
    op: Op,
    clients: usize,
    sessions: usize,
    payload_bytes: usize,
    ops: u64,
    ops_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_op: f64,
    /// Null where the operating system does not tell.
    written_bytes_per_op: Option<f64>,
}

/// Writes the figures.
pub(crate) fn write(path: &Path, plan: &Plan, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let rows: Vec<Row> = outcomes.iter().flat_map(|outcome| rows(plan, outcome)).collect();
    let text = serde_json::to_string_pretty(&rows)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn rows(plan: &Plan, outcome: &Outcome) -> impl Iterator<Item = Row> {
    outcome.figures.iter().map(|figure| Row {
        store: outcome.store,
        op: figure.op,
        clients: figure.clients,
        sessions: plan.sessions,
        payload_bytes: plan.payload_bytes,
        ops: figure.measurement.ops,
        ops_per_s: figure.measurement.ops_per_s,
        p50_us: figure.measurement.p50_us,
        p99_us: figure.measurement.p99_us,
        cpu_us_per_op: figure.measurement.cpu_us_per_op,
        written_bytes_per_op: figure.measurement.written_bytes_per_op,
    })
}
