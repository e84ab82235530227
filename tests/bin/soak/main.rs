//! A soak: an engine under a mixed load for as long as you like, disturbed and restarted again and again, with a ledger
//! that must agree at each restart, and with what must not grow measured all the while.

mod book;
mod clock;
mod disturb;
mod samples;
mod seeded;
mod visitors;

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use rusqlite::Connection;
use sessile::{Engine, OpenError};
use sessile_tests::{
    Place, Random,
    load::{End, Found, Ledger, Load, now_us, read_load},
    trend::Trend,
};

use book::Book;
use clock::SteppedClock;
use disturb::{Disturbances, disturb};
use samples::{Samples, latency_table};
use seeded::{Seeded, Seeds};
use visitors::{Visits, visit};

/// The workers of the runtime.
const WORKERS: usize = 2;
/// The engine's default.
const FLUSH_INTERVAL_US: u64 = 250_000;
/// Touches within a second count as acknowledged with the last of them: restarts are told to the ledger, kills are not
/// made here.
const BUCKET_US: u64 = 1_000_000;
/// How long an engine whose handles were dropped may take to let go of its file.
const LET_GO: Duration = Duration::from_secs(20);
/// Sessions that come, are touched, and are left to expire: tasks that do so.
const VISITORS: usize = 2;

/// Runs an engine under load for long, and finds out what grows and what is lost.
#[derive(Debug, Parser)]
struct Options {
    /// For how long; on a slow machine somewhat longer, until there are enough samples to judge by.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Chooses what is asked and when what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients, each with sessions of its own.
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Sessions, at most; those that are left to expire come on top.
    #[arg(long, default_value_t = 1_600)]
    sessions: u32,
    /// Between two requests of a client.
    #[arg(long, default_value_t = 2)]
    pause_ms: u64,
    /// Between two restarts, some more or less.
    #[arg(long, default_value_t = 45.0)]
    restart_seconds: f64,
    /// Between two samples.
    #[arg(long, default_value_t = 2_000)]
    sample_ms: u64,
    /// Plants a bug, which must be found.
    #[arg(long, hide = true)]
    plant: Option<Seeded>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    keep_quiet_of_what_was_ordered();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build()?;
    runtime.block_on(Soak::new(options).run())
}

struct Soak {
    options: Options,
    random: Random,
    place: Place,
    clock: Arc<SteppedClock>,
    book: Arc<Book>,
    ops: Arc<AtomicU64>,
    visits: Arc<Visits>,
    samples: Samples,
    seeds: Seeds,
    began: Instant,
    disturbances: Disturbances,
    restarts_clean: u64,
    restarts_dropped: u64,
    wrong: Vec<String>,
}

impl Soak {
    fn new(options: Options) -> Self {
        let random = options.seed.map_or_else(Random::seeded, Random::new);
        let keys = options.sessions.max(options.clients) / options.clients * options.clients;
        Self {
            random,
            place: Place::new(),
            clock: Arc::default(),
            book: Arc::new(Book::new(Ledger::new(options.clients, keys, BUCKET_US))),
            ops: Arc::new(AtomicU64::new(1)),
            visits: Arc::default(),
            samples: Samples::default(),
            seeds: Seeds::new(options.plant),
            began: Instant::now(),
            disturbances: Disturbances::default(),
            restarts_clean: 0,
            restarts_dropped: 0,
            wrong: Vec::new(),
            options,
        }
    }

    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let end = self.began + Duration::from_secs_f64(self.options.minutes * 60.0);
        let mut ended = End::Shutdown;
        while (Instant::now() < end || !self.samples.are_enough()) && self.wrong.is_empty() {
            ended = self.cycle(end, ended).await?;
        }
        let engine = self.open().await?;
        self.judge(&engine, ended).await?;
        engine.shutdown().await?;
        self.report()
    }

    /// Opens, judges what was left by the last time, works for a while, and closes. Returns how.
    async fn cycle(&mut self, end: Instant, ended: End) -> anyhow::Result<End> {
        let engine = self.open().await?;
        self.judge(&engine, ended).await?;
        let load = Load {
            clients: self.options.clients,
            sessions_per_client: self.options.sessions / self.options.clients,
            pad_max: 1_000,
            engine_wide: true,
            lies: false,
            pause: Some(Duration::from_millis(self.options.pause_ms)),
        };
        let clients = load.start(&engine, &self.book, &self.ops, &mut self.random).await;
        let stop = Arc::new(AtomicBool::new(false));
        let visitors: Vec<_> = (0..VISITORS)
            .map(|_| {
                let visits = Arc::clone(&self.visits);
                tokio::spawn(visit(engine.clone(), visits, self.random.split(), Arc::clone(&stop)))
            })
            .collect();
        let disturbing = tokio::spawn(disturb(
            engine.clone(),
            self.place.path(),
            Arc::clone(&self.clock),
            self.random.split(),
            Arc::clone(&stop),
        ));

        let restart_ms = (self.options.restart_seconds * 1_000.0).max(1.0);
        let restart =
            Duration::from_secs_f64(restart_ms / 2_000.0 + self.random.below(1_000) as f64 * restart_ms / 1e6);
        let until = Instant::now() + restart;
        while Instant::now() < until && (Instant::now() < end || !self.samples.are_enough()) {
            tokio::time::sleep(Duration::from_millis(self.options.sample_ms)).await;
            self.seeds.grow(&self.place.path())?;
            let window = self.book.take_window();
            self.samples.take(self.began.elapsed(), &self.place.path(), &engine.stats(), &window);
        }

        let is_clean = self.random.below(3) > 0;
        if is_clean {
            // Under load: what is in flight is answered, what comes after is refused.
            engine.shutdown().await?;
        }
        stop.store(true, Ordering::Relaxed);
        clients.stop().await;
        for visitor in visitors {
            visitor.await?;
        }
        let done = disturbing.await?;
        self.disturbances.readers += done.readers;
        self.disturbances.clock_steps += done.clock_steps;
        self.disturbances.faults += done.faults;
        self.disturbances.sweeps += done.sweeps;
        self.disturbances.lists += done.lists;
        if is_clean {
            self.restarts_clean += 1;
            return Ok(End::Shutdown);
        }
        self.restarts_dropped += 1;
        let at_us = now_us();
        // Storage closes by itself; it promises no more than after a kill.
        drop(engine);
        Ok(End::Kill { at_us, flush_interval_us: FLUSH_INTERVAL_US })
    }

    async fn open(&self) -> anyhow::Result<Engine> {
        let give_up = Instant::now() + LET_GO;
        loop {
            match self.place.builder().clock(Arc::clone(&self.clock) as _).open().await {
                Err(OpenError::InUse { .. }) if Instant::now() < give_up => {}
                opened => return Ok(opened?),
            }
        }
    }

    async fn judge(&mut self, engine: &Engine, ended: End) -> anyhow::Result<()> {
        let found = read_load(engine).await?.iter().map(Found::read).collect::<Result<Vec<_>, _>>();
        match found {
            Ok(found) => {
                let wrong = self.book.ledger().judge(ended, &found);
                self.wrong.extend(wrong);
            }
            Err(error) => self.wrong.push(error),
        }
        Ok(())
    }

    fn report(mut self) -> anyhow::Result<ExitCode> {
        self.wrong.extend(look_inside(&self.place.path())?);
        let totals = self.book.ledger().totals();
        let late = self.visits.late.load(Ordering::Relaxed);
        if totals.violations > 0 {
            self.wrong.extend(self.book.ledger().told().to_vec());
        }
        if late > 0 {
            self.wrong.push(format!("{late} sessions were there after their end"));
        }
        let over = self.samples.that_are(Trend::Grows);
        self.wrong.extend(over.iter().map(|name| format!("it grows: {name}")));
        println!("{}\n", self.samples.table());
        println!("{}\n", latency_table(&self.book.latencies()));
        println!(
            "figure: minutes={:.1} restarts_clean={} restarts_by_drop={} faults={} readers={} clock_steps={} sweeps={}",
            self.began.elapsed().as_secs_f64() / 60.0,
            self.restarts_clean,
            self.restarts_dropped,
            self.disturbances.faults,
            self.disturbances.readers,
            self.disturbances.clock_steps,
            self.disturbances.sweeps,
        );
        println!(
            "figure: writes_acknowledged={} touches_acknowledged={} doubts={} refused={} sessions_judged={} violations={}",
            totals.writes, totals.touches, totals.doubts, totals.refused, totals.judged, totals.violations,
        );
        println!(
            "figure: visitors_created={} visitors_expired={} visitors_late={late}",
            self.visits.created.load(Ordering::Relaxed),
            self.visits.expired.load(Ordering::Relaxed),
        );
        let not_judged = self.samples.that_are(Trend::NotJudged).join(", ");
        if !not_judged.is_empty() {
            println!("soak: NOT JUDGED: whether {not_judged} grow; the run is too short to tell it from ups and downs");
        }
        if self.wrong.is_empty() {
            println!("soak: nothing lost, {}", if not_judged.is_empty() { "nothing grows" } else { "not all judged" });
            return Ok(ExitCode::SUCCESS);
        }
        for wrong in &self.wrong {
            println!("soak: {wrong}");
        }
        Ok(ExitCode::FAILURE)
    }
}

/// Leaves panics that the soak itself has ordered out of the output.
fn keep_quiet_of_what_was_ordered() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("a panic on order")) {
            tell(panic);
        }
    }));
}

/// Looks at the file without the engine.
fn look_inside(path: &Path) -> anyhow::Result<Option<String>> {
    let connection = Connection::open(path)?;
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    Ok((check != "ok").then_some(check))
}
