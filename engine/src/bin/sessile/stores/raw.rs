//! The raw loop: the engine's tables and settings, batches as large as the engine's were, one thread, no actors. What
//! SQLite can do here; an engine on top of it can only come near, or avoid the work.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hint::black_box,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use rusqlite::{Connection, config::DbConfig, params};
use sessile::Engine;
use sessile_harness::{
    ledger::{Ledger, Verified},
    payload::{Payloads, user},
    plan::{Op, Plan},
    store::{Client, Store},
    world::{Item, Share, World},
};

use super::{
    name::StoreName,
    recipe::{self, now_us},
    seed,
};

/// The pages in the log at which SQLite folds it into the database: the engine's high mark, where a busy engine does. At
/// SQLite's own 1,000, pages that change often are folded in more often, and the limit would look lower than it is.
const CHECKPOINT_PAGES: u32 = 8_192;
/// Saves in the log at which they are folded into their rows: the engine's own bound.
const FOLD_FROM: usize = 65_536;
/// The same for touches.
const FOLD_TOUCHES_FROM: usize = 32_768;
/// The same for rows that are not in the index of users.
const INDEX_FROM: usize = 32_768;
/// Touches from which on they are appended to their log, as in the engine.
const APPEND_TOUCHES_MIN: usize = 8;
/// The engine's default flush interval.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// The loop's database.
#[derive(Debug)]
pub(crate) struct Raw {
    database: Arc<Mutex<Database>>,
}

#[derive(Debug)]
struct Database {
    connection: Connection,
    appended: Appended,
    touched: Touched,
    unindexed: Unindexed,
}

impl Store for Raw {
    type Client = RawClient;

    const NAME: &'static str = StoreName::Raw.as_str();
    const TAKES_BATCHES: bool = true;

    async fn create(path: &Path, _plan: &Plan) -> anyhow::Result<Self> {
        // The engine makes its tables, so that these are the same.
        Engine::builder(path).open().await?.shutdown().await?;
        let connection = Connection::open(path)?;
        seed::tune(&connection)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // They are for other programs that write.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        // Else SQLite plans a cached join anew each time it is used, which takes 20 µs.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Self {
            database: Arc::new(Mutex::new(Database {
                connection,
                appended: Appended::default(),
                touched: Touched::default(),
                unindexed: Unindexed::default(),
            })),
        })
    }

    async fn fill(&self, sessions: usize, payloads: &Arc<Payloads>) -> anyhow::Result<Vec<Box<str>>> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Database { connection, unindexed, .. } = &mut *database;
        let transaction = connection.transaction()?;
        let ids = (0..sessions)
            .map(|session| {
                unindexed.note(session);
                insert(&transaction, session, payloads)
            })
            .collect::<anyhow::Result<_>>()?;
        unindexed.fold(&transaction)?;
        transaction.commit()?;
        Ok(ids)
    }

    async fn clients(&self, world: &Arc<World>, shares: &[Share], _op: Op) -> anyhow::Result<Vec<RawClient>> {
        let client = |_: &Share| RawClient {
            database: self.database.clone(),
            world: world.clone(),
            created: Vec::new(),
            flushed_at: Instant::now(),
        };
        Ok(shares.iter().map(client).collect())
    }

    fn operations_min(op: Op) -> u64 {
        save_cycles(op)
    }

    async fn close(self) -> anyhow::Result<()> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Database { connection, appended, touched, unindexed } = &mut *database;
        touched.flush(connection)?;
        touched.fold(connection)?;
        unindexed.fold(connection)?;
        Ok(appended.fold(connection)?)
    }

    async fn verify(path: &Path, ledger: Arc<Ledger>) -> anyhow::Result<Verified> {
        recipe::compare(
            path,
            &ledger,
            "SELECT count(*) FROM session JOIN activity USING (serial)",
            "SELECT data, touch_count FROM session JOIN activity USING (serial) WHERE id = ?1",
        )
    }
}

/// Saves that fill the log three times, of which it is folded twice in the measurement itself.
pub(super) fn save_cycles(op: Op) -> u64 {
    if op == Op::Save { 3 * FOLD_FROM as u64 } else { 0 }
}

/// The loop.
#[derive(Debug)]
pub(crate) struct RawClient {
    database: Arc<Mutex<Database>>,
    world: Arc<World>,
    created: Vec<(Box<str>, usize)>,
    /// When it was written down when sessions were saved: the engine, too, does that every 250 ms.
    flushed_at: Instant,
}

/// The saves in the log: where the newest of each row is, and how many there are.
#[derive(Debug, Default)]
struct Appended {
    positions: BTreeMap<i64, i64>,
    saves: usize,
}

impl Appended {
    fn fold(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (serial, position) in std::mem::take(&mut self.positions) {
            connection
                .prepare_cached(
                    "UPDATE session SET (counter, data) = (SELECT counter, data FROM save_log WHERE position = ?2)
                     WHERE serial = ?1",
                )?
                .execute([serial, position])?;
        }
        self.saves = 0;
        connection.execute("DELETE FROM save_log", []).map(drop)
    }
}

/// Rows that are not in the index of users yet.
#[derive(Debug, Default)]
struct Unindexed(BTreeSet<(String, i64)>);

impl Unindexed {
    fn note(&mut self, session: usize) {
        self.0.insert((user(session), serial(session)));
    }

    fn fold(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (user, serial) in std::mem::take(&mut self.0) {
            connection.prepare_cached("INSERT INTO session_of_user VALUES (?1, ?2)")?.execute(params![user, serial])?;
        }
        Ok(())
    }
}

/// The activity of rows: in memory, in the log of touches, in the end in the rows.
#[derive(Debug, Default)]
struct Touched {
    /// Touches counted, by row.
    counts: HashMap<i64, i64>,
    /// What the next flush writes.
    dirty: BTreeMap<i64, Activity>,
    /// What the log holds.
    logged: BTreeMap<i64, Activity>,
    entries: usize,
}

/// When a row was last active, and how many touches it has had.
type Activity = (i64, i64);

impl Touched {
    fn note(&mut self, serial: i64, touches: i64) {
        let count = self.counts.entry(serial).or_default();
        *count += touches;
        self.dirty.insert(serial, (now_us(), *count));
    }

    fn flush(&mut self, connection: &Connection) -> anyhow::Result<()> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.len() < APPEND_TOUCHES_MIN {
            return Ok(raise(connection, &dirty)?);
        }
        let since = dirty.values().map(|(last_active, _)| *last_active).min().unwrap_or_default();
        let touches: Vec<_> =
            dirty.iter().map(|(serial, (last_active, count))| (serial, last_active - since, count)).collect();
        connection
            .prepare_cached("INSERT INTO touch_log (since, touches) VALUES (?1, ?2)")?
            .execute(params![since, serde_json::to_string(&touches)?])?;
        self.entries += dirty.len();
        self.logged.extend(dirty);
        Ok(())
    }

    fn fold(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        raise(connection, &std::mem::take(&mut self.logged))?;
        self.entries = 0;
        connection.execute("DELETE FROM touch_log", []).map(drop)
    }
}

fn raise(connection: &Connection, rows: &BTreeMap<i64, Activity>) -> rusqlite::Result<()> {
    for (serial, (last_active, count)) in rows {
        connection
            .prepare_cached(
                "UPDATE activity SET last_active_at = max(last_active_at, ?2), touch_count = max(touch_count, ?3)
                 WHERE serial = ?1",
            )?
            .execute([serial, last_active, count])?;
    }
    Ok(())
}

impl Client for RawClient {
    async fn perform(&mut self, op: Op, items: &[Item]) -> anyhow::Result<()> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Database { connection, appended, touched, unindexed } = &mut *database;
        connection.prepare_cached(if op.writes() { "BEGIN IMMEDIATE" } else { "BEGIN" })?.execute([])?;
        for &item in items {
            if let Some(id) = perform(connection, &self.world, op, item)? {
                self.created.push((id, item.session));
            }
            match op {
                Op::Save => {
                    appended.positions.insert(serial(item.session), connection.last_insert_rowid());
                    appended.saves += 1;
                    touched.note(serial(item.session), 0);
                }
                Op::Touch | Op::TouchCommitted => touched.note(serial(item.session), 1),
                Op::Create => unindexed.note(item.session),
                Op::Get | Op::GetCold => {}
            }
        }
        if op.without_memory() == Op::Touch || self.flushed_at.elapsed() >= FLUSH_INTERVAL {
            self.flushed_at = Instant::now();
            touched.flush(connection)?;
        }
        if touched.entries >= FOLD_TOUCHES_FROM {
            touched.fold(connection)?;
        }
        if unindexed.0.len() >= INDEX_FROM {
            unindexed.fold(connection)?;
        }
        if appended.saves >= FOLD_FROM {
            appended.fold(connection)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        self.created
    }
}

fn perform(connection: &Connection, world: &World, op: Op, item: Item) -> anyhow::Result<Option<Box<str>>> {
    let Item { session, sequence, .. } = item;
    let changed = match op {
        Op::Create => return insert(connection, session, &world.payloads).map(Some),
        Op::Get | Op::GetCold => {
            read(connection, &world.ids[session])?;
            return Ok(None);
        }
        Op::Save => connection
            .prepare_cached("INSERT INTO save_log (serial, counter, data) VALUES (?1, ?2, ?3)")?
            .execute(params![serial(session), sequence as i64 + 1, world.payloads.json(session, sequence)])?,
        // Written with the others of the batch.
        Op::Touch | Op::TouchCommitted => return Ok(None),
    };
    ensure!(changed == 1, "a session is gone");
    Ok(None)
}

fn read(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "SELECT serial, user, counter, metadata, data, created_at, last_active_at, touch_count, idle_timeout,
                 expires_at
             FROM session JOIN activity USING (serial) WHERE id = ?1",
        )?
        .query_row([id], |row| {
            black_box((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, i64>(2)?));
            black_box((row.get::<_, Option<String>>(3)?, row.get_ref(4)?.as_bytes()?.to_vec(), row.get::<_, i64>(5)?));
            black_box((row.get::<_, i64>(6)?, row.get::<_, i64>(7)?, row.get::<_, Option<i64>>(8)?));
            black_box(row.get::<_, Option<i64>>(9)?);
            Ok(())
        })
}

fn insert(connection: &Connection, session: usize, payloads: &Payloads) -> anyhow::Result<Box<str>> {
    let now = now_us();
    // Ordered by time and 32 characters long, as the engine's are.
    let id = format!("{:012x}{:020x}", now / 1_000, fastrand::u128(..1 << 80));
    connection
        .prepare_cached("INSERT INTO session (serial, id, user, counter, data) VALUES (?1, ?2, ?3, 1, ?4)")?
        .execute(params![serial(session), id, user(session), payloads.json(session, 0)])?;
    connection
        .prepare_cached(
            "INSERT INTO activity (serial, created_at, last_active_at, touch_count) VALUES (?1, ?2, ?2, 0)",
        )?
        .execute(params![serial(session), now])?;
    Ok(id.into())
}

/// Returns the row number of a session.
fn serial(session: usize) -> i64 {
    session as i64 + 1
}
