//! tower-sessions-rusqlite-store, to be measured beside Sessile: with SQLite's defaults, as its documentation opens it, and
//! with the settings that the engine's own connection has. It works with one connection on a thread of its own.

#[path = "../../tower/tower.rs"]
mod tower;

use std::{path::Path, process::ExitCode, time::Duration};

use sessile_harness::peer::{self, Peer, Task};
use tower_sessions_rusqlite_store::{RusqliteStore, tokio_rusqlite::Connection};

use self::tower::{Setup, Tower};

/// The source document's settings.
const TUNED: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -40000;
    PRAGMA temp_store = MEMORY;
";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULTS: &str = "rusqlite-store/defaults";
const TUNED_NAME: &str = "rusqlite-store/tuned";

struct Rusqlite<const IS_TUNED: bool>;

impl<const IS_TUNED: bool> Setup for Rusqlite<IS_TUNED> {
    type Connection = Connection;
    type Store = RusqliteStore;

    const NAME: &'static str = if IS_TUNED { TUNED_NAME } else { DEFAULTS };

    async fn connect(path: &Path) -> anyhow::Result<Connection> {
        let connection = Connection::open(path).await?;
        if IS_TUNED {
            Self::execute(&connection, TUNED).await?;
            connection.call(|connection| connection.busy_timeout(BUSY_TIMEOUT)).await?;
        }
        Ok(connection)
    }

    async fn connect_to_fill(path: &Path) -> anyhow::Result<Connection> {
        let connection = Self::connect(path).await?;
        if !IS_TUNED {
            Self::execute(&connection, "PRAGMA journal_mode = MEMORY").await?;
        }
        Self::execute(&connection, "PRAGMA synchronous = OFF").await?;
        Ok(connection)
    }

    async fn store(connection: &Connection) -> anyhow::Result<RusqliteStore> {
        let store = RusqliteStore::new(connection.clone());
        store.migrate().await?;
        Ok(store)
    }

    async fn execute(connection: &Connection, sql: &'static str) -> anyhow::Result<()> {
        Ok(connection.call(|connection| connection.execute_batch(sql)).await?)
    }

    async fn count(connection: &Connection) -> anyhow::Result<u64> {
        let count = |connection: &mut rusqlite::Connection| {
            connection.query_row("SELECT count(*) FROM tower_sessions", [], |row| row.get::<_, i64>(0))
        };
        Ok(connection.call(count).await? as u64)
    }

    async fn close(connection: Connection) -> anyhow::Result<()> {
        Ok(connection.close().await?)
    }
}

struct Program;

impl Peer for Program {
    async fn about() -> anyhow::Result<String> {
        Ok(format!("SQLite {}", rusqlite::version()))
    }

    async fn run(task: Task) -> anyhow::Result<()> {
        match task.store() {
            DEFAULTS => task.run::<Tower<Rusqlite<false>>>().await,
            TUNED_NAME => task.run::<Tower<Rusqlite<true>>>().await,
            _ => Err(task.unknown()),
        }
    }
}

fn main() -> ExitCode {
    peer::main::<Program>(&mut sessile_harness::runtime())
}
