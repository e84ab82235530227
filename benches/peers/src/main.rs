//! Measures Sessile beside other session stores, and writes `docs/performance.md` with its plots.
//!
//! One after another, so that none disturbs another; in several rounds, the stores in turn within each, so that a machine
//! that changes its mind hits all alike. See README.md. A file each:
//! - `store`: what is measured; `programs`: builds and runs the programs that measure; `figures`: what they found;
//! - `report`: the document; `tables`, `plots`, `document`: its parts.

mod document;
mod figures;
mod plots;
mod programs;
mod report;
mod store;
mod tables;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use clap::Parser;
use sessile_harness::{json, json::Row, load::LoadRow};

use crate::{
    figures::Figures,
    programs::Programs,
    report::Setting,
    store::{Program, Role, Store},
};

/// The clients to measure with, the most telling number first.
const CLIENTS: [usize; 3] = [64, 1, 512];
const PAYLOAD_BYTES: usize = 400;
/// Sessions of a quick run: enough for 512 clients.
const QUICK_SESSIONS: usize = 3_000;
const QUICK_SECONDS: f64 = 0.05;
const QUICK_LOAD_SECONDS: f64 = 0.25;

/// Measure Sessile beside other session stores, and write docs/performance.md.
#[derive(Debug, Parser)]
struct Options {
    /// How often each store is measured as fast as it goes.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long each of those figures is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    seconds: f64,
    /// How often each store is measured at a steady rate.
    #[arg(long, value_name = "N", default_value_t = 3)]
    load_rounds: usize,
    /// How long each of those figures is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    load_seconds: f64,
    /// How many sessions there are.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    sessions: usize,
    /// Only see that everything runs: once, shortly, with few sessions. Writes below target/, not into docs/.
    #[arg(long)]
    quick: bool,
    /// The stores to measure, each by its name or the part before the slash [default: all].
    #[arg(long, value_name = "STORE,…", value_delimiter = ',')]
    stores: Vec<String>,
    /// Keep databases here while measuring [default: a temporary directory].
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Write performance.md and performance/*.svg here [default: docs/].
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// The profile of cargo that the programs are built with. Only `release` is fit for figures.
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    profile: String,
}

impl Options {
    /// Makes the run quick, if it is to be.
    fn settle(mut self) -> Self {
        if self.quick {
            (self.rounds, self.load_rounds) = (1, 1);
            (self.seconds, self.load_seconds) = (QUICK_SECONDS, QUICK_LOAD_SECONDS);
            self.sessions = QUICK_SESSIONS;
        }
        self
    }

    fn stores(&self) -> anyhow::Result<Vec<Store>> {
        let is_named = |store: &Store, name: &str| store.name == name || store.name.split('/').next() == Some(name);
        for name in &self.stores {
            ensure!(Store::ALL.iter().any(|store| is_named(store, name)), "there is no store {name}");
        }
        let is_wanted = |store: &Store| self.stores.is_empty() || self.stores.iter().any(|name| is_named(store, name));
        Ok(Store::ALL.into_iter().filter(is_wanted).collect())
    }

    fn output(&self) -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        match &self.output {
            Some(output) => output.clone(),
            None if self.quick => here.join("target/quick"),
            None => here.join("../../docs"),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse().settle();
    let databases = tempfile::Builder::new()
        .prefix("sessile-peers-")
        .tempdir_in(options.directory.clone().unwrap_or_else(env::temp_dir))?;
    let programs = Programs::new(&options.profile, databases.path());
    let mut figures = Figures::default();
    let mut failures = BTreeSet::new();

    let stores = prepare(&options, &programs, &mut figures, &mut failures)?;
    let about = about(&programs, &stores)?;
    bench(&options, &programs, &stores, &mut figures, &mut failures);
    load(&options, &programs, &stores, &mut figures, &mut failures);

    let setting = Setting {
        command: command(&options),
        rounds: options.rounds,
        seconds: options.seconds,
        load_rounds: options.load_rounds,
        load_seconds: options.load_seconds,
        sessions: options.sessions,
        payload_bytes: PAYLOAD_BYTES,
        clients: CLIENTS,
        about,
    };
    let output = options.output();
    fs::create_dir_all(&output)?;
    report::write(&output, &setting, &figures, databases.path())?;
    let all = |rows: &[Vec<Row>]| rows.concat();
    json::write(&output.join("performance/throughput.json"), &all(&figures.bench))?;
    json::write(&output.join("performance/load.json"), &figures.load.concat())?;

    for clients in CLIENTS {
        println!("\n{}", report::summary(&figures, clients));
    }
    println!("\nwritten: {}", output.join("performance.md").display());
    for (what, why) in &figures.not_run {
        println!("NOT RUN: {what}: {why}");
    }
    if !failures.is_empty() {
        bail!("failed: {}", failures.into_iter().collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

/// Builds what is needed and returns the stores that can run.
fn prepare(
    options: &Options,
    programs: &Programs,
    figures: &mut Figures,
    failures: &mut BTreeSet<String>,
) -> anyhow::Result<Vec<Store>> {
    let mut stores = options.stores()?;
    let mut leave_out = |program: Program, stores: &mut Vec<Store>, why: &str| {
        for store in stores.extract_if(.., |store| store.program == program) {
            figures.note(store.name, why);
        }
    };
    if let Some(why) = programs::missing("redis-server") {
        leave_out(Program::Redis, &mut stores, &format!("{why}; on Debian: apt-get install redis-server"));
    }
    for program in Program::ALL {
        if stores.iter().any(|store| store.program == program)
            && let Err(error) = programs.build(program)
        {
            leave_out(program, &mut stores, &format!("{error:#}"));
            failures.insert(program.name().to_owned());
        }
    }
    Ok(stores)
}

fn about(programs: &Programs, stores: &[Store]) -> anyhow::Result<Vec<String>> {
    let is_used = |program: &Program| stores.iter().any(|store| store.program == *program);
    Program::ALL.into_iter().filter(is_used).map(|program| programs.about(program)).collect()
}

/// Measures all as fast as they go.
fn bench(
    options: &Options,
    programs: &Programs,
    stores: &[Store],
    figures: &mut Figures,
    failures: &mut BTreeSet<String>,
) {
    let clients = CLIENTS.map(|clients| clients.to_string()).join(",");
    let common = common(options, &clients, options.seconds);
    for round in 0..options.rounds {
        let mut rows: Vec<Row> = Vec::new();
        // The raw loop is measured with the engine, since it has batches as large.
        let has_raw = stores.iter().any(|store| store.role == Role::Limit);
        for store in turn(stores, round).filter(|store| store.role != Role::Limit) {
            let mut common = common.clone();
            if store.role == Role::Sessile && has_raw {
                common.extend(["--stores".to_owned(), "raw".to_owned()]);
            }
            println!("as fast as they go, round {} of {}: {}", round + 1, options.rounds, store.name);
            match programs.run::<Row>(store, "bench", &common) {
                Ok(own) if report::is_complete(&own, &CLIENTS) => rows.extend(own),
                Ok(own) => {
                    rows.extend(own);
                    figures.note(store.name, "some operations have no figure");
                    failures.insert(store.name.to_owned());
                }
                Err(error) => {
                    figures.note(store.name, &format!("{error:#}"));
                    failures.insert(store.name.to_owned());
                }
            }
        }
        figures.bench.push(rows);
    }
}

/// Measures all at steady rates, and counts syncs in a run of its own.
fn load(
    options: &Options,
    programs: &Programs,
    stores: &[Store],
    figures: &mut Figures,
    failures: &mut BTreeSet<String>,
) {
    let mut common = common(options, &CLIENTS[0].to_string(), options.load_seconds);
    common.extend(["--loads".to_owned(), report::loads()]);
    let stores: Vec<Store> = stores.iter().copied().filter(Store::takes_load).collect();
    for round in 0..options.load_rounds {
        let mut rows: Vec<LoadRow> = Vec::new();
        for store in turn(&stores, round) {
            println!("at a steady rate, round {} of {}: {}", round + 1, options.load_rounds, store.name);
            match programs.run(store, "load", &common) {
                Ok(own) => rows.extend(own),
                Err(error) => {
                    figures.note(&format!("{} at a steady rate", store.name), &format!("{error:#}"));
                    failures.insert(store.name.to_owned());
                }
            }
        }
        figures.load.push(rows);
    }
    if let Some(why) = programs::missing("strace") {
        figures.note("the count of syncs", &why);
        return;
    }
    for store in &stores {
        println!("syncs: {}", store.name);
        match programs.run_traced(store, "load", &common) {
            Ok(own) => figures.traced.extend(own),
            Err(error) => figures.note(&format!("the count of syncs of {}", store.name), &format!("{error:#}")),
        }
    }
}

/// Returns the stores in the order of a round: each round another begins.
fn turn(stores: &[Store], round: usize) -> impl Iterator<Item = &Store> {
    stores.iter().cycle().skip(round % stores.len().max(1)).take(stores.len())
}

fn common(options: &Options, clients: &str, seconds: f64) -> Vec<String> {
    let (sessions, payload_bytes, seconds) =
        (options.sessions.to_string(), PAYLOAD_BYTES.to_string(), seconds.to_string());
    ["--clients", clients, "--seconds", &seconds, "--sessions", &sessions, "--payload-bytes", &payload_bytes]
        .map(str::to_owned)
        .to_vec()
}

/// Returns the command that was given.
fn command(options: &Options) -> String {
    let given = env::args().skip(1).collect::<Vec<_>>().join(" ");
    let separator = if given.is_empty() { "" } else { " -- " };
    let release = if options.profile == "release" { "--release " } else { "" };
    format!("cargo run {release}--manifest-path benches/peers/Cargo.toml{separator}{given}")
}
