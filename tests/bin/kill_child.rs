//! The process that the kill tests kill: an engine under a load that writes its journal to the standard output.
//!
//! `shutdown` on the standard input shuts the engine down under that load; the end of the input ends the process.

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use clap::Parser;
use rusqlite::Connection;
use sessile::Engine;
use sessile_tests::{
    Random,
    load::{Entry, Journal, Load, now_us},
};

/// The workers of the runtime.
const WORKERS: usize = 2;

#[derive(Debug, Parser)]
struct Options {
    /// The database.
    path: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first request.
    #[arg(long, default_value_t = 1)]
    first_op: u64,
    #[arg(long, default_value_t = 250)]
    flush_interval_ms: u64,
    #[arg(long, default_value_t = 0)]
    clients: u32,
    #[arg(long, default_value_t = 1)]
    sessions_per_client: u32,
    #[arg(long, default_value_t = 0)]
    pad_max: u32,
    #[arg(long)]
    engine_wide: bool,
    #[arg(long)]
    lies: bool,
    /// When the load stops while the engine stays open.
    #[arg(long)]
    load_ms: Option<u64>,
    /// No engine, but a reader that pins the log.
    #[arg(long)]
    reader: bool,
}

/// Writes each entry by one system call, so that none is lost or torn by a kill: a pipe takes up to 4 KiB at once.
struct Pipe(File);

impl Journal for Pipe {
    fn enter(&self, entry: Entry) {
        let mut line = serde_json::to_vec(&entry).expect("an entry is JSON");
        line.push(b'\n');
        (&self.0).write_all(&line).expect("the parent reads");
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let journal = Arc::new(Pipe(std::io::stdout().as_fd().try_clone_to_owned()?.into()));
    if options.reader {
        return read_on(&options, &journal);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build()?;
    runtime.block_on(run(options, journal))
}

async fn run(options: Options, journal: Arc<Pipe>) -> anyhow::Result<()> {
    let engine = Engine::builder(&options.path)
        .flush_interval(Duration::from_millis(options.flush_interval_ms))
        .take_over_time_zone("Asia/Shanghai")
        .open()
        .await?;
    journal.enter(Entry::Ready);
    let load = Load {
        clients: options.clients,
        sessions_per_client: options.sessions_per_client,
        pad_max: options.pad_max,
        engine_wide: options.engine_wide,
        lies: options.lies,
        pause: None,
    };
    let ops = Arc::new(AtomicU64::new(options.first_op));
    let mut clients = if load.clients == 0 {
        None
    } else {
        Some(load.start(&engine, &journal, &ops, &mut Random::new(options.seed)).await)
    };
    let told = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
    if let Some(load_ms) = options.load_ms {
        tokio::time::sleep(Duration::from_millis(load_ms)).await;
        if let Some(clients) = clients.take() {
            clients.stop().await;
        }
    }
    match told.await? {
        Some(_) => {
            journal.enter(Entry::Closing { at_us: now_us() });
            engine.shutdown().await?;
            let at_us = now_us();
            if let Some(clients) = clients {
                // What was answered is to be entered.
                clients.ended().await;
            }
            journal.enter(Entry::Closed { at_us });
            Ok(())
        }
        // The parent is gone, and nobody is left to judge.
        None => std::process::exit(1),
    }
}

/// Keeps a read transaction open.
fn read_on(options: &Options, journal: &Pipe) -> anyhow::Result<()> {
    let connection = Connection::open(&options.path)?;
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM session", [], |_| Ok(()))?;
    journal.enter(Entry::Ready);
    std::io::stdin().lines().next();
    Ok(())
}
