//! `sessile scale`: how costs grow with the sessions there are, those in use, the clients, and the size of data.
//!
//! This process makes the databases; each line of the table is measured by a process of its own, which opens one: so that
//! nothing else is in the memory it tells of. In the end it opens the file once more, and what was saved must be there.

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use rand::{SeedableRng, distr::Distribution, rngs::SmallRng};
use rand_distr::{Uniform, Zipf};
use serde::{Deserialize, Serialize};
use sessile::{Engine, EngineBuilder, Filter, NewSession};
use sessile_harness::{
    measure::{Latencies, Measurement, Usage, idle, latencies, resident_bytes},
    options::seconds,
    payload::{Payloads, user},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{format, print};

/// How many tasks make sessions, and look at them again.
const HELPERS: usize = 256;
/// A prime beyond any number of sessions: spreads those most in use over all.
const SPREAD: usize = 2_147_483_647;
/// Operations between two looks at the clock, of those that take no time.
const STRIDE: u64 = 64;

/// How often to look whether something is still in a log.
const GLANCE: Duration = Duration::from_millis(20);

const LEGEND: &str = "\
in use: sessions spread over the file, of which each is as likely as another (uniform), or the n-th with probability 1/n (zipf).
created, get, touch, save: per second, by all clients at once; p99, CPU and written are those of a save. held: sessions in memory
at the end. memory: of the process, at the end. open: after a clean stop. sweep: a look at every session for whether it is over.";

/// Measure how costs grow: with sessions, those in use, clients, and the size of data.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many sessions there are.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "50000")]
    sessions: Vec<usize>,
    /// How many of them are in use [default: all].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    in_use: Vec<usize>,
    /// Which of those in use comes next.
    #[arg(long, value_enum, value_name = "ACCESS,…", value_delimiter = ',', default_value = "zipf")]
    access: Vec<Access>,
    /// How many clients work at once.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64")]
    clients: Vec<usize>,
    /// The size of a session's data.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "400")]
    payload_bytes: Vec<usize>,
    /// The most sessions that the engine holds in memory.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    held_max: usize,
    /// How long each figure is measured.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Make the databases in this directory [default: a temporary one].
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// What to measure on a database that is there: for the process that measures.
    #[arg(long, hide = true, value_parser = |text: &str| serde_json::from_str::<Case>(text))]
    case: Option<Case>,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum Access {
    Uniform,
    Zipf,
}

/// What is measured together.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Case {
    path: PathBuf,
    sessions: usize,
    in_use: usize,
    access: Access,
    clients: usize,
    payload_bytes: usize,
    held_max: usize,
    duration: Duration,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    get_per_s: f64,
    touch_per_s: f64,
    save_per_s: f64,
    save_p99_us: f64,
    save_cpu_us: f64,
    save_written_bytes: Option<f64>,
    held: usize,
    resident_bytes: Option<u64>,
    open_us: f64,
    sweep_us: f64,
    file_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Get,
    Touch,
    Save,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if let Some(case) = options.case {
        return print(&serde_json::to_string(&measure_all(&case).await?)?);
    }
    let directory = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "sessions", "in use", "clients", "data", "created", "get", "touch", "save", "p99", "CPU", "written", "held",
        "memory", "open", "sweep", "file",
    ]);
    for &sessions in &options.sessions {
        for &payload_bytes in &options.payload_bytes {
            let directory = tempfile::Builder::new().prefix("sessile-scale-").tempdir_in(&directory)?;
            let path = directory.path().join("sessions.db");
            eprintln!("making {} sessions of {payload_bytes} bytes", format::count(sessions as u64));
            let created_per_s = make(&path, sessions, payload_bytes).await?;
            let all = [sessions];
            for &in_use in if options.in_use.is_empty() { &all[..] } else { &options.in_use } {
                for &access in &options.access {
                    for &clients in &options.clients {
                        ensure!(
                            (clients..=sessions).contains(&in_use),
                            "{in_use} of {sessions} sessions cannot be in use by {clients} clients, each of which saves its own"
                        );
                        let (path, held_max, duration) = (path.clone(), options.held_max, options.seconds);
                        let case = Case { path, sessions, in_use, access, clients, payload_bytes, held_max, duration };
                        let figures = measure_elsewhere(&case)?;
                        table.add_row(cells(&case, created_per_s, &figures));
                    }
                }
            }
        }
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    print(&format!("{table}\n\n{LEGEND}"))
}

fn cells(case: &Case, created_per_s: f64, figures: &Figures) -> [String; 16] {
    let access = match case.access {
        Access::Uniform => "uniform",
        Access::Zipf => "zipf",
    };
    let or_none = |number: Option<f64>, format: fn(f64) -> String| number.map_or_else(|| "–".to_owned(), format);
    [
        format::count(case.sessions as u64),
        format!("{} {access}", format::count(case.in_use as u64)),
        format::count(case.clients as u64),
        format::bytes(case.payload_bytes as f64),
        format::rate(created_per_s),
        format::rate(figures.get_per_s),
        format::rate(figures.touch_per_s),
        format::rate(figures.save_per_s),
        format::micros(figures.save_p99_us),
        format::micros(figures.save_cpu_us),
        or_none(figures.save_written_bytes, format::bytes),
        format::count(figures.held as u64),
        or_none(figures.resident_bytes.map(|bytes| bytes as f64), format::bytes),
        format::micros(figures.open_us),
        format::micros(figures.sweep_us),
        format::bytes(figures.file_bytes as f64),
    ]
}

/// Makes a database, and returns how many sessions were created per second.
async fn make(path: &Path, sessions: usize, payload_bytes: usize) -> anyhow::Result<f64> {
    let engine = Engine::builder(path).open().await?;
    let payloads = Arc::new(Payloads::new(payload_bytes));
    let began = Instant::now();
    let mut helpers = JoinSet::new();
    for helper in 0..HELPERS {
        let (engine, payloads) = (engine.clone(), Arc::clone(&payloads));
        helpers.spawn(async move {
            for session in (helper..sessions).step_by(HELPERS) {
                let new = NewSession::with_id(id(session)).user(user(session)).data(&payloads.of(session, 0));
                engine.create(new).await?;
            }
            anyhow::Ok(())
        });
    }
    helpers.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    let created_per_s = sessions as f64 / began.elapsed().as_secs_f64();
    engine.shutdown().await?;
    Ok(created_per_s)
}

fn measure_elsewhere(case: &Case) -> anyhow::Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .args(["scale", "--case", &serde_json::to_string(case)?])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the measurement failed: {case:?}");
    serde_json::from_slice(&output.stdout).context("the measurement tells no figures")
}

async fn measure_all(case: &Case) -> anyhow::Result<Figures> {
    let engine = builder(case).open().await?;
    let payloads = Arc::new(Payloads::new(case.payload_bytes));
    let mut clients: Vec<Client> = (0..case.clients)
        .map(|number| Client {
            engine: engine.clone(),
            case: case.clone(),
            payloads: Arc::clone(&payloads),
            number,
            random: SmallRng::seed_from_u64(number as u64),
            saved: HashMap::new(),
        })
        .collect();
    // The first look fills what the engine holds, and is not counted.
    let mut figures = Vec::new();
    for op in [Op::Get, Op::Get, Op::Touch, Op::Save] {
        figures.push(measure(&engine, &mut clients, op).await?);
    }
    let [_, get, touch, save] = &figures[..] else { unreachable!("four were measured") };
    let (held, resident_bytes) = (engine.stats().sessions_in_memory, resident_bytes());
    engine.shutdown().await?;

    let began = Instant::now();
    let engine = builder(case).open().await?;
    let open_us = micros(began);
    let file_bytes = fs::metadata(&case.path)?.len();
    let began = Instant::now();
    ensure!(engine.delete_where(Filter::over()).await? == 0, "a session is over");
    let sweep_us = micros(began);
    for client in &clients {
        for (&session, &sequence) in &client.saved {
            let record = engine.session(id(session))?.get().await?.context("a session is gone")?;
            let expected = payloads.json(session, sequence);
            ensure!(record.bytes() == expected.as_bytes(), "the last save of session {session} is not there");
        }
    }
    engine.shutdown().await?;
    Ok(Figures {
        get_per_s: get.ops_per_s,
        touch_per_s: touch.ops_per_s,
        save_per_s: save.ops_per_s,
        save_p99_us: save.p99_us,
        save_cpu_us: save.cpu_us_per_op,
        save_written_bytes: save.written_bytes_per_op,
        held,
        resident_bytes,
        open_us,
        sweep_us,
        file_bytes,
    })
}

fn builder(case: &Case) -> EngineBuilder {
    Engine::builder(&case.path).live_sessions_max(case.held_max).sessions_in_memory_max(case.held_max).only_existing()
}

async fn measure(engine: &Engine, clients: &mut Vec<Client>, op: Op) -> anyhow::Result<Measurement> {
    idle(Usage::now).await;
    let (before, began) = (Usage::now(), Instant::now());
    let mut running = JoinSet::new();
    for mut client in clients.drain(..) {
        running.spawn(async move {
            let done = client.run(op, began).await;
            (client, done)
        });
    }
    let (mut ops, mut all) = (0, latencies());
    for (client, done) in running.join_all().await {
        let (own, latencies) = done?;
        ops += own;
        all.add(&latencies)?;
        clients.push(client);
    }
    if op != Op::Get {
        engine.flush().await?;
    }
    let elapsed = began.elapsed();
    // What it puts off is a part of what it costs.
    let mut stats = engine.stats();
    while op != Op::Get && stats.saves_in_log + stats.touches_in_log + stats.sessions_unindexed > 0 {
        sleep(GLANCE).await;
        stats = engine.stats();
    }
    idle(Usage::now).await;
    Ok(Measurement::new(ops, elapsed, &all, Usage::now() - before))
}

/// A part of a service.
struct Client {
    engine: Engine,
    case: Case,
    payloads: Arc<Payloads>,
    number: usize,
    random: SmallRng,
    /// The number of the last save of each session.
    saved: HashMap<usize, u64>,
}

impl Client {
    async fn run(&mut self, op: Op, began: Instant) -> anyhow::Result<(u64, Latencies)> {
        let mut latencies = latencies();
        let stride = if op == Op::Save { 1 } else { STRIDE };
        let places = (Zipf::new(self.case.in_use as f64, 1.0)?, Uniform::new(0, self.case.in_use)?);
        for ops in 0.. {
            let place = match self.case.access {
                Access::Zipf => places.0.sample(&mut self.random) as usize - 1,
                Access::Uniform => places.1.sample(&mut self.random),
            };
            let at = Instant::now();
            self.perform(op, self.session(place)).await?;
            let now = Instant::now();
            latencies.saturating_record((now - at).as_nanos() as u64);
            if ops % stride == 0 {
                if now - began >= self.case.duration {
                    return Ok((ops + 1, latencies));
                }
                if op != Op::Save {
                    tokio::task::yield_now().await;
                }
            }
        }
        unreachable!("the loop ends with the time")
    }

    /// Returns the session at a place among those in use: one of the client's own, near that place.
    fn session(&self, place: usize) -> usize {
        let Case { sessions, in_use, clients, .. } = self.case;
        let mut own = place - place % clients + self.number;
        if own >= in_use {
            own -= clients;
        }
        own * SPREAD % in_use * (sessions / in_use)
    }

    async fn perform(&mut self, op: Op, session: usize) -> anyhow::Result<()> {
        let handle = self.engine.session(id(session))?;
        match op {
            Op::Get => {
                black_box(handle.get().await?.context("a session is gone")?.bytes());
            }
            Op::Touch => handle.touch().await?,
            Op::Save => {
                let sequence = self.saved.entry(session).or_default();
                *sequence += 1;
                handle.save(&self.payloads.of(session, *sequence)).await?;
            }
        }
        Ok(())
    }
}

fn id(session: usize) -> String {
    format!("session-{session:010}")
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000_000.0
}
