//! Two minutes with Sessile: create, touch, update, read, list, and come back after a restart.
//!
//! `cargo run --example quickstart`

use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sessile::{Engine, Filter, NewSession, Query};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Cart {
    items: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("sessions.db");

    let engine = Engine::builder(&path).idle_timeout(Duration::from_secs(1_800)).open().await?;
    let session = engine.create(NewSession::new().user("ada").data(&Cart::default())).await?;
    println!("created {:?}", session.id());

    // On every message: counted in memory, in the database within 250 ms.
    for _ in 0..1_000 {
        session.touch().await?;
    }

    // By a function, in mailbox order: no update is lost. Committed when it returns.
    let count = session
        .update(|cart: &mut Cart| {
            cart.items.push("a pound of tea".to_owned());
            cart.items.len()
        })
        .await?;
    println!("{count} item in the cart");

    let record = session.get().await?.context("the session is there")?;
    println!(
        "{:?}, touched {} times, last at {}",
        record.data::<Cart>()?,
        record.touch_count(),
        record.last_active_at()
    );

    let page = engine.list(Query::new(Filter::all().user("ada"))).await?;
    println!("ada has {} session", page.items.len());

    let id = session.id().clone();
    engine.shutdown().await?;

    let engine = Engine::builder(&path).open().await?;
    let record = engine.session(&id)?.get().await?.context("the session outlived the restart")?;
    println!("after a restart: {:?}, touched {} times", record.data::<Cart>()?, record.touch_count());
    engine.shutdown().await?;
    Ok(())
}
