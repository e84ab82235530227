//! `sessile stats`: how large a database is, and what it holds.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use rusqlite::{Connection, OpenFlags};
use sessile::{Engine, Filter, Order, Query, Summary};

use crate::{database, format, print};

/// Print what a database holds and how large it is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The database. It must be one of this engine, and not open in another one.
    #[arg(long, value_name = "PATH")]
    db: PathBuf,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let path = &options.db;
    // Before the engine opens it: that folds the write-ahead log in.
    let wal_bytes = fs::metadata(with_suffix(path, "-wal")).map_or(0, |file| file.len());
    let engine = database::open(path).await?;
    let contents = Contents::read(&engine).await;
    engine.shutdown().await?;
    let contents = contents?;
    let file = File::read(path)?;

    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<14} {value}");
    line("database", &path.display().to_string())?;
    line("sessions", &format::count(contents.sessions))?;
    line("users", &format::count(file.users.unsigned_abs()))?;
    line("oldest", &moment(contents.oldest.as_ref(), |session| session.created_at().to_string()))?;
    line("newest", &moment(contents.newest.as_ref(), |session| session.created_at().to_string()))?;
    line("last active", &moment(contents.last_active.as_ref(), |session| session.last_active_at().to_string()))?;
    line("size", &format::bytes(file.bytes as f64))?;
    line("unused in it", &format::bytes(file.unused_bytes as f64))?;
    line("log, as found", &format::bytes(wal_bytes as f64))?;
    line("journal mode", &file.journal_mode)?;
    line("SQLite", rusqlite::version())?;
    print(text.trim_end())
}

/// What the engine says of its sessions.
struct Contents {
    sessions: u64,
    oldest: Option<Summary>,
    newest: Option<Summary>,
    last_active: Option<Summary>,
}

impl Contents {
    async fn read(engine: &Engine) -> sessile::Result<Self> {
        Ok(Self {
            sessions: engine.count(Filter::all()).await?,
            oldest: first(engine, Order::Oldest).await?,
            newest: first(engine, Order::Newest).await?,
            last_active: first(engine, Order::RecentlyActive).await?,
        })
    }
}

async fn first(engine: &Engine, order: Order) -> sessile::Result<Option<Summary>> {
    Ok(engine.list(Query::new(Filter::all()).order(order).limit(1)).await?.items.into_iter().next())
}

fn moment(session: Option<&Summary>, which: impl Fn(&Summary) -> String) -> String {
    session.map_or_else(|| "–".to_owned(), which)
}

/// What SQLite says of the file, once the engine has let go of it.
struct File {
    users: i64,
    bytes: i64,
    unused_bytes: i64,
    journal_mode: String,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let page_bytes = pragma("page_size")?;
        Ok(Self {
            users: connection.query_row("SELECT count(DISTINCT user) FROM session", [], |row| row.get(0))?,
            bytes: pragma("page_count")? * page_bytes,
            unused_bytes: pragma("freelist_count")? * page_bytes,
            journal_mode: connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?,
        })
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
