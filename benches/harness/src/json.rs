//! The figures as a JSON file.

use std::{fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    driver::Outcome,
    plan::{Op, Plan},
};

/// The figures of one operation on one store with so many clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The store; for another project's also how it is set up: `redis/pooled-always`.
    pub store: String,
    /// The operation.
    pub op: Op,
    /// How many clients worked at once.
    pub clients: usize,
    /// How many sessions the store was filled with.
    pub sessions: usize,
    /// The size of a session's data.
    pub payload_bytes: usize,
    /// How many operations were acknowledged.
    pub ops: u64,
    /// Operations per second.
    pub ops_per_s: f64,
    /// The median latency.
    pub p50_us: f64,
    /// The latency that one in a hundred exceeds.
    pub p99_us: f64,
    /// CPU time of all that works for the store.
    pub cpu_us_per_op: f64,
    /// Null where the operating system does not tell.
    pub written_bytes_per_op: Option<f64>,
}

/// Writes rows.
pub fn write(path: &Path, rows: &[impl Serialize]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes the rows of stores.
pub fn rows<'a>(plan: &Plan, outcomes: impl IntoIterator<Item = &'a Outcome>) -> Vec<Row> {
    outcomes.into_iter().flat_map(|outcome| rows_of(plan, outcome)).collect()
}

fn rows_of(plan: &Plan, outcome: &Outcome) -> impl Iterator<Item = Row> {
    outcome.figures.iter().map(|figure| Row {
        store: outcome.store.to_owned(),
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
