//! What the document says, and the plots beside it.

use std::{fs, path::Path};

use sessile_harness::{
    directory::is_in_memory,
    format,
    json::Row,
    load::{Kind, Load, LoadRow},
    plan::Op,
};

use crate::{
    document,
    figures::Figures,
    plots::{self, Plot, Series},
    store::{Role, Store},
    tables,
};

/// How it was measured.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) command: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) load_rounds: usize,
    pub(crate) load_seconds: f64,
    pub(crate) sessions: usize,
    pub(crate) payload_bytes: usize,
    /// More than one, one, and many.
    pub(crate) clients: [usize; 3],
    pub(crate) about: Vec<String>,
}

/// The tables of loads: a title, what they show, and how often it comes.
const LOADS: [(&str, &[Kind], u32); 3] = [
    ("touches at 1,000/s", &[Kind::Touch, Kind::TouchCommitted], 1_000),
    ("touches at 10,000/s", &[Kind::Touch, Kind::TouchCommitted], 10_000),
    ("chat messages at 1,000/s", &[Kind::Chat], 1_000),
];

/// Writes the document into a folder, and the plots into one below.
pub(crate) fn write(folder: &Path, setting: &Setting, figures: &Figures, databases: &Path) -> anyhow::Result<()> {
    let plots = folder.join("performance");
    fs::create_dir_all(&plots)?;
    draw(&plots, setting, figures)?;
    let parts = [
        ("setting", setting_part(setting, figures, databases)),
        ("throughput", throughput_part(setting, figures)),
        ("load", load_part(setting, figures)),
    ];
    document::write(&folder.join("performance.md"), &parts)
}

fn setting_part(setting: &Setting, figures: &Figures, databases: &Path) -> String {
    let mut lines = vec![
        format!("```\n{}\n```\n", setting.command),
        format!("- {}", machine()),
        format!("- {}", setting.about.join("; ")),
        format!(
            "- {} sessions of {} bytes, a fifth of them in use",
            format::count(setting.sessions as u64),
            setting.payload_bytes
        ),
        format!(
            "- rounds as fast as they go: {}, {} s for each figure; rounds at a steady rate: {}, {} s for each figure",
            setting.rounds, setting.seconds, setting.load_rounds, setting.load_seconds
        ),
    ];
    if is_in_memory(databases) {
        lines.push("- **the databases were in memory, where syncs cost nothing**".to_owned());
    }
    lines.extend(figures.not_run.iter().map(|(what, why)| format!("- **NOT RUN: {what}**: {why}")));
    lines.join("\n")
}

fn throughput_part(setting: &Setting, figures: &Figures) -> String {
    let part = |clients| {
        let name = tables::clients(clients);
        let tables = [
            format!("### As fast as they go: {name}"),
            format!("![{name}](performance/{})", throughput_file(clients)),
            tables::throughput(figures, clients),
            tables::ahead(figures, clients),
            tables::latencies(figures, clients),
            tables::costs(figures, clients),
        ];
        tables.join("\n\n")
    };
    setting.clients.map(part).join("\n")
}

fn load_part(setting: &Setting, figures: &Figures) -> String {
    let sessions_in_use = figures.load.iter().flatten().next().map_or(0, |row| row.sessions_in_use);
    let spread =
        format!("Spread over {} sessions and {} clients.", format::count(sessions_in_use as u64), setting.clients[0]);
    let mut parts = vec![
        spread,
        "![CPU time per operation](performance/load-cpu.svg)".to_owned(),
        "![bytes written per operation](performance/load-written.svg)".to_owned(),
    ];
    for (title, kinds, per_s) in LOADS {
        parts.push(format!("### A steady rate: {title}"));
        parts.push(tables::load(figures, kinds, per_s));
    }
    parts.join("\n\n")
}

fn throughput_file(clients: usize) -> String {
    format!("throughput-{clients}.svg")
}

fn draw(folder: &Path, setting: &Setting, figures: &Figures) -> anyhow::Result<()> {
    for clients in setting.clients {
        let series = Store::ALL.iter().map(|store| Series {
            name: store.name.to_owned(),
            values: Op::ALL.iter().map(|&op| figures.rate(store.name, op, clients)).collect(),
        });
        let plot = Plot {
            title: &format!("operations per second, {} (more is better)", tables::clients(clients)),
            groups: &Op::ALL.map(|op| op.to_string()),
            series: &series.collect::<Vec<_>>(),
            unit: plots::per_second,
        };
        plots::draw(&folder.join(throughput_file(clients)), &plot)?;
    }
    draw_load(
        &folder.join("load-cpu.svg"),
        figures,
        "CPU time per operation, pacing included (less is better)",
        format::micros,
        |row| Some(row.cpu_us_per_op),
    )?;
    draw_load(
        &folder.join("load-written.svg"),
        figures,
        "bytes written per operation (less is better)",
        format::bytes,
        |row| row.written_bytes_per_op,
    )
}

fn draw_load(
    path: &Path,
    figures: &Figures,
    title: &str,
    unit: fn(f64) -> String,
    what: fn(&LoadRow) -> Option<f64>,
) -> anyhow::Result<()> {
    let series = Store::ALL.iter().filter(|store| store.takes_load()).map(|store| Series {
        name: store.name.to_owned(),
        values: LOADS.iter().map(|&(_, kinds, per_s)| figures.load(store.name, (kinds[0], per_s), what)).collect(),
    });
    let mut series: Vec<Series> = series.collect();
    let committed = |(_, _, per_s): (&str, &[Kind], u32)| figures.load("sessile", (Kind::TouchCommitted, per_s), what);
    let values = LOADS.iter().map(|&load| if load.1[0] == Kind::Touch { committed(load) } else { None }).collect();
    series.insert(1, Series { name: "sessile, committed".to_owned(), values });
    plots::draw(path, &Plot { title, groups: &LOADS.map(|(title, _, _)| title.to_owned()), series: &series, unit })
}

/// Says what machine this is.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        Some(
            text.lines()
                .find_map(|line| line.strip_prefix("model name"))?
                .trim_start_matches([' ', '\t', ':'])
                .to_owned(),
        )
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores ({}), {} {} {}",
        cpu.as_deref().unwrap_or("of a kind that the system does not tell"),
        std::env::consts::OS,
        kernel.trim(),
        std::env::consts::ARCH
    )
}

/// Says in a few lines how the comparison came out.
pub(crate) fn summary(figures: &Figures, clients: usize) -> String {
    let mut lines = vec![format!(
        "{}: sessile × the best tuned embedded store, × the seed recipe, × Redis, × Redis pipelined, × the raw loop",
        tables::clients(clients)
    )];
    for op in Op::ALL {
        let against = |role| {
            let best = figures.best(role, op, clients)?;
            Some(format!("{} {best}", format::ratio(figures.ahead_of(best, op, clients)?.median)))
        };
        let cell = |role| against(role).unwrap_or_else(|| "–".to_owned());
        lines.push(format!(
            "  {:<16} {:>9}/s  {}, {}, {}, {}, {}",
            op.to_string(),
            figures.rate("sessile", op, clients).map_or_else(|| "–".to_owned(), format::rate),
            cell(Role::TunedEmbedded),
            cell(Role::Recipe),
            cell(Role::Server),
            cell(Role::PipelinedServer),
            cell(Role::Limit)
        ));
    }
    lines.join("\n")
}

/// Returns the loads of all tables, as options.
pub(crate) fn loads() -> String {
    let loads =
        LOADS.iter().flat_map(|&(_, kinds, per_s)| kinds.iter().map(move |&kind| Load { kind, per_s }.to_string()));
    loads.collect::<Vec<_>>().join(",")
}

/// Returns whether the rows of a store tell of each operation with so many clients.
pub(crate) fn is_complete(rows: &[Row], clients: &[usize]) -> bool {
    let has = |op: Op, clients: usize| rows.iter().any(|row| row.op == op && row.clients == clients && row.ops > 0);
    clients.iter().all(|&clients| Op::ALL.iter().all(|&op| has(op, clients)))
}
