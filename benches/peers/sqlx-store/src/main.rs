//! tower-sessions-sqlx-store on SQLite, to be measured beside Sessile: with the pool and the settings that its
//! documentation has, and with the settings that the engine's own connection has and one connection or a pool of several.

#[path = "../../tower/tower.rs"]
mod tower;

use std::{path::Path, process::ExitCode, time::Duration};

use sessile_harness::peer::{self, Peer, Task};
use sqlx::{
    Executor, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tower_sessions_sqlx_store::SqliteStore;

use self::tower::{Setup, Tower};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of the tuned stores. One never waits for another's lock, several read at the same time: which suits the store
/// better depends on the operation, so that both are measured.
const ONE: u32 = 1;
const SEVERAL: u32 = 4;
/// In place of a number of connections: everything as it comes.
const DEFAULTS: u32 = 0;

struct Sqlx<const CONNECTIONS: u32>;

impl<const CONNECTIONS: u32> Sqlx<CONNECTIONS> {
    const IS_TUNED: bool = CONNECTIONS != DEFAULTS;

    fn options(path: &Path) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        if !Self::IS_TUNED {
            return options;
        }
        // The source document's settings.
        options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("cache_size", "-40000")
            .pragma("temp_store", "MEMORY")
            .busy_timeout(BUSY_TIMEOUT)
    }
}

impl<const CONNECTIONS: u32> Setup for Sqlx<CONNECTIONS> {
    type Connection = SqlitePool;
    type Store = SqliteStore;

    const NAME: &'static str = match CONNECTIONS {
        DEFAULTS => "sqlx-store/defaults",
        ONE => "sqlx-store/tuned",
        _ => "sqlx-store/tuned-pool",
    };

    async fn connect(path: &Path) -> anyhow::Result<SqlitePool> {
        let mut pool = SqlitePoolOptions::new();
        if Self::IS_TUNED {
            pool = pool.max_connections(CONNECTIONS);
        }
        Ok(pool.connect_with(Self::options(path)).await?)
    }

    async fn connect_to_fill(path: &Path) -> anyhow::Result<SqlitePool> {
        let mut options = Self::options(path).synchronous(SqliteSynchronous::Off);
        if !Self::IS_TUNED {
            options = options.journal_mode(SqliteJournalMode::Memory);
        }
        // One connection: what is set on it holds for all that follows.
        Ok(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
    }

    async fn store(connection: &SqlitePool) -> anyhow::Result<SqliteStore> {
        let store = SqliteStore::new(connection.clone());
        store.migrate().await?;
        Ok(store)
    }

    async fn execute(connection: &SqlitePool, sql: &'static str) -> anyhow::Result<()> {
        connection.execute(sql).await?;
        Ok(())
    }

    async fn count(connection: &SqlitePool) -> anyhow::Result<u64> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tower_sessions").fetch_one(connection).await?;
        Ok(count as u64)
    }

    async fn close(connection: SqlitePool) -> anyhow::Result<()> {
        connection.close().await;
        Ok(())
    }
}

struct Program;

impl Peer for Program {
    async fn about() -> anyhow::Result<String> {
        let pool = SqlitePool::connect("sqlite::memory:").await?;
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&pool).await?;
        Ok(format!("SQLite {version}, tuned pool of {SEVERAL}"))
    }

    async fn run(task: Task) -> anyhow::Result<()> {
        match task.store() {
            <Sqlx<DEFAULTS>>::NAME => task.run::<Tower<Sqlx<DEFAULTS>>>().await,
            <Sqlx<ONE>>::NAME => task.run::<Tower<Sqlx<ONE>>>().await,
            <Sqlx<SEVERAL>>::NAME => task.run::<Tower<Sqlx<SEVERAL>>>().await,
            _ => Err(task.unknown()),
        }
    }
}

fn main() -> ExitCode {
    peer::main::<Program>(&mut sessile_harness::runtime())
}
