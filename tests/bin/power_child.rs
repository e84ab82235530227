//! The process whose disk is cut off: an engine whose operations come one after the other, each with its number, and each
//! told on the standard output once it was answered: `ready`, then `committed 1`, `synced 2` and so on, for ever or until it
//! rests.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use serde_json::json;
use sessile::{Durability, Engine, NewSession};
use sessile_tests::eventually;

/// Operations between two waits for a checkpoint: the log is moved, and begins anew.
const BETWEEN_CHECKPOINTS: u64 = 300;

#[derive(Debug, Parser)]
struct Options {
    /// The database.
    path: PathBuf,
    /// How many sessions there are; operation n writes to session n modulo this.
    #[arg(long)]
    sessions: u64,
    /// Every how many operations one is synced; none is by default.
    #[arg(long, default_value_t = u64::MAX)]
    synced_every: u64,
    /// Milliseconds between operations.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Operations after which it rests. It begins from rest, too, with nothing in the log, and once a line is given to it.
    #[arg(long)]
    operations: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Options { path, sessions, synced_every, pause_ms, operations } = Options::parse();
    let engine = Engine::builder(path).open().await.expect("it opens");
    for session in 0..sessions {
        let new = NewSession::with_id(session.to_string()).data(&json!({ "operation": 0 }));
        engine.create(new).await.expect("it is created");
    }
    engine.flush().await.expect("it flushes");
    if operations.is_some() {
        eventually("rest", async || engine.stats().log_pages == 0).await;
    }
    println!("ready");
    if operations.is_some() {
        std::io::stdin().read_line(&mut String::new()).expect("a line");
    }
    for operation in 1..=operations.unwrap_or(u64::MAX) {
        let synced = operation % synced_every == 0;
        let durability = if synced { Durability::Synced } else { Durability::Committed };
        let session = engine.session((operation % sessions).to_string()).expect("an id").with_durability(durability);
        let padding = "x".repeat((operation * 37 % 1_500) as usize);
        session.save(&json!({ "operation": operation, "padding": padding })).await.expect("it is saved");
        println!("{} {operation}", if synced { "synced" } else { "committed" });
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        if operation % BETWEEN_CHECKPOINTS == 0 {
            let before = engine.stats().checkpoints;
            eventually("a checkpoint", async || engine.stats().checkpoints > before).await;
        }
    }
    std::future::pending::<()>().await;
}
