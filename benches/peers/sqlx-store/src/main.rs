//! tower-sessions-sqlx-store on SQLite, to be measured beside Sessile: with the pool and the settings that its
//! documentation has, and with the settings that the engine's own connection has and the pool that suits it best.

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
/// Connections in the tuned pool. More of them stand in one another's way.
const CONNECTIONS_TUNED: u32 = 2;
const DEFAULTS: &str = "sqlx-store/defaults";
const TUNED: &str = "sqlx-store/tuned";

struct Sqlx<const IS_TUNED: bool>;

impl<const IS_TUNED: bool> Sqlx<IS_TUNED> {
    fn options(path: &Path) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        if !IS_TUNED {
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

impl<const IS_TUNED: bool> Setup for Sqlx<IS_TUNED> {
    type Connection = SqlitePool;
    type Store = SqliteStore;

    const NAME: &'static str = if IS_TUNED { TUNED } else { DEFAULTS };

    async fn connect(path: &Path) -> anyhow::Result<SqlitePool> {
        let mut pool = SqlitePoolOptions::new();
        if IS_TUNED {
            pool = pool.max_connections(CONNECTIONS_TUNED);
        }
        Ok(pool.connect_with(Self::options(path)).await?)
    }

    async fn connect_to_fill(path: &Path) -> anyhow::Result<SqlitePool> {
        let mut options = Self::options(path).synchronous(SqliteSynchronous::Off);
        if !IS_TUNED {
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
        Ok(format!("SQLite {version}, {CONNECTIONS_TUNED} connections where tuned"))
    }

    async fn run(task: Task) -> anyhow::Result<()> {
        match task.store() {
            DEFAULTS => task.run::<Tower<Sqlx<false>>>().await,
            TUNED => task.run::<Tower<Sqlx<true>>>().await,
            _ => Err(task.unknown()),
        }
    }
}

fn main() -> ExitCode {
    peer::main::<Program>(&mut sessile_harness::runtime())
}
