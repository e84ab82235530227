//! An actor application: a house supervises the engine and its game tables, and each table's game is a session.
//!
//! `cargo run --example ractor_app`
//!
//! ```text
//! House ─ supervises ─┬─ engine ◀─ get, apply, touch ─┐
//!                     └─ Table, Table, Table … ───────┘
//! ```
//!
//! A table commits every round before it plays the next, so a table that fails loses nothing: the house seats another,
//! which reads the session and plays on. When the last game is over the house shuts the engine down, hears
//! `ActorTerminated` from it, and ends.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use sessile::{
    Change, Engine, Filter, NewSession, Query, SessionId, Version,
    actor::{
        EngineMessage,
        ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RactorErr, SupervisionEvent, call, cast},
    },
};

const TABLES: usize = 6;
const ROUNDS: u32 = 100;
/// Absurdly few, so that the tables get to see `Overloaded`.
const REQUESTS_MAX: usize = 2;
/// How long a table waits at first, and at most, before it asks again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// A table's state, kept in its session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Game {
    rounds: u32,
    chips: u64,
}

impl Game {
    fn play(&mut self) {
        self.rounds += 1;
        self.chips += u64::from(self.rounds % 7);
    }
}

/// Asks the engine until it has room. A message that finds none is answered `Overloaded` at once; as with every error that
/// is retryable, nothing happened, so asking again is safe. Any other error ends the actor that asks, and its supervisor
/// decides.
///
/// The asking actor's mailbox waits meanwhile, and that is the point: who is served slowly shall ask slowly. An actor that
/// has better things to do sends itself the message again, with `send_after`.
async fn patiently<T, F>(refusals: &mut u32, ask: impl Fn() -> F) -> Result<T, ActorProcessingErr>
where
    F: Future<Output = Result<sessile::Result<T>, RactorErr<EngineMessage>>>,
{
    let (mut pause, pause_max) = PAUSES;
    loop {
        match ask().await? {
            Err(error) if error.is_retryable() => {
                *refusals += 1;
                tokio::time::sleep(pause).await;
                pause = pause_max.min(pause * 2);
            }
            answer => return Ok(answer?),
        }
    }
}

struct Table;

enum TableMessage {
    /// Plays a round.
    Play,
}

struct TableArguments {
    engine: ActorRef<EngineMessage>,
    id: SessionId,
    /// After which round the table fails, as actors do.
    upset_after: Option<u32>,
}

struct TableState {
    engine: ActorRef<EngineMessage>,
    id: SessionId,
    game: Game,
    version: Version,
    upset_after: Option<u32>,
    /// How often the engine had no room.
    refusals: u32,
}

impl Actor for Table {
    type Msg = TableMessage;
    type State = TableState;
    type Arguments = TableArguments;

    /// Begins where the session is: at the start, or where a table that failed had come to.
    async fn pre_start(
        &self,
        myself: ActorRef<TableMessage>,
        TableArguments { engine, id, upset_after }: TableArguments,
    ) -> Result<TableState, ActorProcessingErr> {
        let mut refusals = 0;
        let record = patiently(&mut refusals, || async { call!(engine, EngineMessage::get, id.clone()) }).await?;
        let record = record.ok_or("there is no such game")?;
        let (game, version) = (record.data()?, record.version());
        cast!(myself, TableMessage::Play)?;
        Ok(TableState { engine, id, game, version, upset_after, refusals })
    }

    async fn handle(
        &self,
        myself: ActorRef<TableMessage>,
        TableMessage::Play: TableMessage,
        TableState { engine, id, game, version, upset_after, refusals }: &mut TableState,
    ) -> Result<(), ActorProcessingErr> {
        if *upset_after == Some(game.rounds) {
            return Err(format!("upset after round {}", game.rounds).into());
        }
        if game.rounds == ROUNDS {
            myself.stop(Some(format!("{} chips, turned away {refusals} times", game.chips)));
            return Ok(());
        }
        // Nobody waits for this one; were it to fail, the engine's stats would count it.
        cast!(engine, EngineMessage::cast_touch(id.clone()))?;
        let mut next = game.clone();
        next.play();
        // The version keeps a table that was given up for lost from playing beside its successor.
        let change = Change::new().data(&next).if_version(*version);
        *version =
            patiently(refusals, || async { call!(engine, EngineMessage::apply, id.clone(), change.clone()) }).await?;
        *game = next;
        cast!(myself, TableMessage::Play)?;
        Ok(())
    }
}

/// Opens the engine, seats the tables, and ends after them.
struct House;

struct HouseState {
    engine: Engine,
    tables: HashMap<ActorId, SessionId>,
}

impl HouseState {
    async fn seat(
        &mut self,
        house: &ActorRef<()>,
        id: SessionId,
        upset_after: Option<u32>,
    ) -> Result<(), ActorProcessingErr> {
        let arguments = TableArguments { engine: self.engine.actor(), id: id.clone(), upset_after };
        let (table, _) = Table::spawn_linked(None, Table, arguments, house.get_cell()).await?;
        self.tables.insert(table.get_id(), id);
        Ok(())
    }
}

impl Actor for House {
    type Msg = ();
    type State = HouseState;
    type Arguments = PathBuf;

    async fn pre_start(&self, myself: ActorRef<()>, path: PathBuf) -> Result<HouseState, ActorProcessingErr> {
        // Should the house die, the engine dies with it, and writes and closes its database by itself.
        let engine = Engine::builder(path).requests_max(REQUESTS_MAX).open_linked(myself.get_cell()).await?;
        let mut house = HouseState { engine, tables: HashMap::new() };
        for n in 1..=TABLES {
            let new = NewSession::with_id(format!("table-{n}")).user("house").data(&Game::default());
            // By handle: unlike a message, it waits for room.
            let (session, _) = house.engine.get_or_create(new).await?;
            house.seat(&myself, session.id().clone(), (n == 3).then_some(ROUNDS / 2)).await?;
        }
        println!("{TABLES} tables are seated");
        Ok(house)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        house: &mut HouseState,
    ) -> Result<(), ActorProcessingErr> {
        let engine_id = house.engine.actor().get_id();
        match event {
            SupervisionEvent::ActorTerminated(engine, _, reason) if engine.get_id() == engine_id => {
                println!("ActorTerminated: {}", reason.as_deref().unwrap_or("the engine gave no reason"));
                myself.stop(None);
            }
            // Storage could not heal itself: nothing to play on.
            SupervisionEvent::ActorFailed(engine, error) if engine.get_id() == engine_id => return Err(error),
            SupervisionEvent::ActorTerminated(table, _, reason) => {
                let id = house.tables.remove(&table.get_id()).ok_or("a table of this house")?;
                println!("{} is done: {}", id.as_str(), reason.unwrap_or_default());
                if house.tables.is_empty() {
                    let failed = house.engine.stats().casts_failed;
                    println!("all games are over, {failed} touches failed; shutting down");
                    house.engine.shutdown().await?;
                }
            }
            SupervisionEvent::ActorFailed(table, error) => {
                let id = house.tables.remove(&table.get_id()).ok_or("a table of this house")?;
                println!("{} failed ({error}); seating another", id.as_str());
                house.seat(&myself, id, None).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("house.db");
    let (_, ended) = House::spawn(Some("house".to_owned()), House, path.clone()).await?;
    ended.await?;

    let engine = Engine::builder(path).open().await?;
    for table in engine.list(Query::new(Filter::all().user("house"))).await?.items {
        let id = table.id().context("ids are not hashed")?;
        let game: Game = engine.session(id)?.get().await?.context("it was listed")?.data()?;
        ensure!(game.rounds == ROUNDS, "{} has {} rounds", id.as_str(), game.rounds);
    }
    println!("every table played {ROUNDS} rounds, the one that failed too");
    engine.shutdown().await?;
    Ok(())
}
