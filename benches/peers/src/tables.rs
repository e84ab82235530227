//! The tables of the document, in Markdown.

use std::fmt::Write;

use sessile_harness::{
    format::{self, bytes, micros, rate},
    json::Row,
    load::{Kind, LoadRow},
    plan::Op,
};

use crate::{
    figures::{Figures, Ratio},
    store::{Role, Store},
};

/// What stands where there is no figure.
const NONE: &str = "–";

/// Operations per second of each store, with so many clients.
pub(crate) fn throughput(figures: &Figures, clients: usize) -> String {
    let mut text = header("operations/s", Op::ALL.map(|op| format!("`{op}`")));
    for store in &Store::ALL {
        text += &line(store.name, Op::ALL.map(|op| shown(figures.rate(store.name, op, clients), rate)));
    }
    text
}

/// By how much sessile is ahead, with so many clients.
pub(crate) fn ahead(figures: &Figures, clients: usize) -> String {
    let mut text = header(&format!("sessile, {}", self::clients(clients)), Op::ALL.map(|op| format!("`{op}`")));
    let against = |role: Role, op: Op| {
        let best = figures.best(role, op, clients)?;
        let ratio = ratio(figures.ahead_of(best, op, clients)?);
        Some(if matches!(role, Role::Limit | Role::Recipe) { ratio } else { format!("{ratio} ({best})") })
    };
    for (name, role) in [
        ("× the best tuned embedded store", Role::TunedEmbedded),
        ("× the seed recipe", Role::Recipe),
        ("× the best of Redis, no pipelining", Role::Server),
        ("× the best of Redis, pipelined", Role::PipelinedServer),
        ("× the raw loop", Role::Limit),
    ] {
        text += &line(name, Op::ALL.map(|op| against(role, op).unwrap_or_else(|| NONE.to_owned())));
    }
    text
}

/// Latencies, median and 99th of a hundred, with so many clients.
pub(crate) fn latencies(figures: &Figures, clients: usize) -> String {
    let mut text = header(&format!("p50 / p99, {}", self::clients(clients)), Op::ALL.map(|op| format!("`{op}`")));
    for store in Store::ALL.iter().filter(|store| store.role != Role::Limit) {
        let of = |op, what: fn(&Row) -> Option<f64>| shown(figures.bench(store.name, op, clients, what), micros);
        let cell = |op| format!("{} / {}", of(op, |row| Some(row.p50_us)), of(op, |row| Some(row.p99_us)));
        text += &line(store.name, Op::ALL.map(cell));
    }
    text
}

/// CPU time and bytes written per operation, with so many clients.
pub(crate) fn costs(figures: &Figures, clients: usize) -> String {
    let mut text = header(&format!("CPU / written, {}", self::clients(clients)), Op::ALL.map(|op| format!("`{op}`")));
    for store in &Store::ALL {
        let cell = |op| {
            let cpu = figures.bench(store.name, op, clients, |row| Some(row.cpu_us_per_op));
            let written = figures.bench(store.name, op, clients, |row| row.written_bytes_per_op);
            format!("{} / {}", shown(cpu, micros), shown(written, bytes))
        };
        text += &line(store.name, Op::ALL.map(cell));
    }
    text
}

/// What a load costs on each store.
pub(crate) fn load(figures: &Figures, kinds: &[Kind], per_s: u32) -> String {
    let columns =
        ["done/s", "CPU", "of it pacing", "written", "syncs", "p50", "p99", "p99.9", "memory"].map(str::to_owned);
    let mut text = header(&format!("{} per second", format::count(u64::from(per_s))), columns);
    for store in Store::ALL.iter().filter(|store| store.takes_load()) {
        for &kind in kinds {
            let of = |what: fn(&LoadRow) -> Option<f64>, unit: fn(f64) -> String| {
                shown(figures.load(store.name, (kind, per_s), what), unit)
            };
            if figures.load(store.name, (kind, per_s), |row| Some(row.ops_per_s)).is_none()
                && kind == Kind::TouchCommitted
            {
                continue;
            }
            let name = match kind {
                Kind::TouchCommitted => format!("{}, committed", store.name),
                Kind::Touch | Kind::Chat => store.name.to_owned(),
            };
            let cells = [
                of(|row| Some(row.ops_per_s), rate),
                of(|row| Some(row.cpu_us_per_op), micros),
                of(|row| Some(row.pacing_cpu_us_per_op), micros),
                of(|row| row.written_bytes_per_op, bytes),
                shown(figures.syncs(store.name, (kind, per_s)), syncs),
                of(|row| Some(row.p50_us), micros),
                of(|row| Some(row.p99_us), micros),
                of(|row| Some(row.p999_us), micros),
                of(|row| row.resident_bytes.map(|bytes| bytes as f64), bytes),
            ];
            text += &line(&name, cells);
        }
    }
    text
}

/// Says so many clients.
pub(crate) fn clients(clients: usize) -> String {
    if clients == 1 { "one client".to_owned() } else { format!("{clients} clients") }
}

fn header<const N: usize>(first: &str, columns: [String; N]) -> String {
    let mut text = line(first, columns);
    text += "| --- |";
    text += &" ---: |".repeat(N);
    text.push('\n');
    text
}

fn line<const N: usize>(first: &str, cells: [String; N]) -> String {
    let mut text = format!("| {first} |");
    for cell in cells {
        write!(text, " {cell} |").expect("a text takes all");
    }
    text.push('\n');
    text
}

fn shown(number: Option<f64>, unit: fn(f64) -> String) -> String {
    number.map_or_else(|| NONE.to_owned(), unit)
}

fn ratio(ratio: Ratio) -> String {
    let Ratio { median, min, max } = ratio;
    format!("**{}** {}–{}", format::ratio(median), format::ratio(min), format::ratio(max))
}

fn syncs(per_op: f64) -> String {
    // Fewer than one in ten thousand is one per checkpoint.
    if per_op == 0.0 {
        "0".to_owned()
    } else if per_op < 0.000_1 {
        "< 0.0001".to_owned()
    } else {
        format!("{per_op:.4}")
    }
}
