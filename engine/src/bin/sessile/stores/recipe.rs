//! What the seed and the naive recipe share: the source document's table, and a statement for each operation.

use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::ensure;
use rusqlite::{Connection, params};
use sessile_harness::{
    ledger::{Ledger, Verified},
    payload::{Payloads, user},
    plan::Op,
    world::{Item, World},
};

/// The source document's table and indexes, with the data in one column.
const SCHEMA: &str = "
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY,
        user_id TEXT,
        data TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        last_active_at INTEGER NOT NULL,
        message_count INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX idx_sessions_user ON sessions (user_id);
    CREATE INDEX idx_sessions_last_active ON sessions (last_active_at);
";

/// Makes the table.
pub(crate) fn create_table(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// Fills the table, in one transaction.
pub(crate) fn fill(connection: &mut Connection, sessions: usize, payloads: &Payloads) -> anyhow::Result<Vec<Box<str>>> {
    let transaction = connection.transaction()?;
    let ids = (0..sessions).map(|session| insert(&transaction, session, payloads)).collect::<anyhow::Result<_>>()?;
    transaction.commit()?;
    Ok(ids)
}

/// Does one operation, in a transaction of its own. Returns the id of a session created.
pub(crate) fn perform(connection: &Connection, world: &World, op: Op, item: Item) -> anyhow::Result<Option<Box<str>>> {
    let Item { session, sequence, .. } = item;
    if op == Op::Create {
        return insert(connection, session, &world.payloads).map(Some);
    }
    let id = &*world.ids[session];
    let changed = match op {
        Op::Create | Op::Get | Op::GetCold => {
            let data: String = connection
                .prepare_cached(
                    "SELECT user_id, data, created_at, last_active_at, message_count FROM sessions WHERE session_id = ?1",
                )?
                .query_row([id], |row| {
                    black_box((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(2)?));
                    black_box((row.get::<_, i64>(3)?, row.get::<_, i64>(4)?));
                    row.get(1)
                })?;
            black_box(data);
            return Ok(None);
        }
        Op::Save => connection
            .prepare_cached("UPDATE sessions SET data = ?2, last_active_at = ?3 WHERE session_id = ?1")?
            .execute(params![id, world.payloads.json(session, sequence), now_us()])?,
        Op::Touch | Op::TouchCommitted => connection
            .prepare_cached(
                "UPDATE sessions SET last_active_at = ?2, message_count = message_count + 1 WHERE session_id = ?1",
            )?
            .execute(params![id, now_us()])?,
    };
    ensure!(changed == 1, "a session is gone");
    Ok(None)
}

fn insert(connection: &Connection, session: usize, payloads: &Payloads) -> anyhow::Result<Box<str>> {
    // Random like the UUIDs of the source document's service.
    let id = format!("{:032x}", fastrand::u128(..));
    connection
        .prepare_cached(
            "INSERT INTO sessions (session_id, user_id, data, created_at, last_active_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        )?
        .execute(params![id, user(session), payloads.json(session, 0), now_us()])?;
    Ok(id.into())
}

/// Compares the table with the ledger.
pub(crate) fn verify(path: &Path, ledger: &Arc<Ledger>) -> anyhow::Result<Verified> {
    compare(
        path,
        ledger,
        "SELECT count(*) FROM sessions",
        "SELECT data, message_count FROM sessions WHERE session_id = ?1",
    )
}

/// Compares a database with the ledger by two statements: one that counts sessions, one that finds data and touches.
pub(crate) fn compare(path: &Path, ledger: &Ledger, count: &str, find: &str) -> anyhow::Result<Verified> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    let mut verified = ledger.verified();
    verified.add_count(transaction.query_row(count, [], |row| row.get::<_, i64>(0))? as u64);
    let mut find = transaction.prepare_cached(find)?;
    for place in 0..ledger.len() {
        let mut rows = find.query([ledger.id(place)])?;
        let fault = match rows.next()? {
            Some(row) => ledger.check(place, Some((row.get_ref(0)?.as_bytes()?, Some(row.get::<_, i64>(1)? as u64)))),
            None => ledger.check(place, None),
        };
        if let Some(fault) = fault {
            verified.add(fault);
        }
    }
    drop(find);
    Ok(verified)
}

/// Returns unix microseconds.
#[expect(clippy::disallowed_methods, reason = "the other stores know no engine clock")]
pub(crate) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
