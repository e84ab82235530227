//! What a database holds, read over a connection that knows nothing of the engine.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, config::DbConfig, types::ValueRef};
use serde::{Deserialize, Serialize};

use crate::disk::Files;

/// How the database's file is called.
pub const NAME: &str = "sessions.db";
/// Marks a database as the engine's: "SESL".
const APPLICATION_ID: i64 = 0x5345_534c;

/// What clients keep in their sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Datum {
    pub client: usize,
    /// The client's number for the session, or `None` for the one that it touches lazily.
    pub slot: Option<u64>,
    /// The client's operation that wrote this.
    pub operation: usize,
    pub padding: String,
}

/// A client's sessions: to each slot the operation that wrote it last, and its touches.
pub type Kept = BTreeMap<u64, (usize, u64)>;

/// What is in a database.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Of everything in it.
    pub digest: u64,
    pub is_ours: bool,
    /// The next row number on record, and the highest in use.
    pub serial_next: i64,
    pub serial_last: i64,
    /// By client.
    pub kept: BTreeMap<usize, Kept>,
    /// Touches of the sessions that are touched lazily, by client.
    pub lazy: BTreeMap<usize, u64>,
    /// The id of every session by client, slot and operation.
    pub ids: BTreeMap<(usize, Option<u64>, usize), String>,
}

/// Puts an image into a directory, in place of what is there.
pub fn put(files: &Files, directory: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // Mostly there is none.
        drop(fs::remove_file(directory.join(format!("{NAME}{suffix}"))));
    }
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
}

/// Opens the database of an image, which lets SQLite recover it.
pub fn connect(directory: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(directory.join(NAME))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA synchronous = OFF")?;
    Ok(connection)
}

/// Checks the database and returns the digest of all that it holds; an error says what is wrong with it.
pub fn digest(connection: &Connection) -> Result<u64, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(text)?;
    if verdict != "ok" {
        return Err(verdict);
    }
    let mut hasher = DefaultHasher::new();
    hash_rows(connection, "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2", &mut hasher).map_err(text)?;
    for pragma in ["application_id", "user_version"] {
        hash_rows(connection, &format!("PRAGMA {pragma}"), &mut hasher).map_err(text)?;
    }
    let tables: Vec<String> = connection
        .prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(text)?;
    for table in tables {
        hash_rows(connection, &format!("SELECT * FROM \"{table}\" ORDER BY 1"), &mut hasher).map_err(text)?;
    }
    Ok(hasher.finish())
}

fn hash_rows(connection: &Connection, sql: &str, hasher: &mut DefaultHasher) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Null => 0_u8.hash(hasher),
                ValueRef::Integer(number) => (1_u8, number).hash(hasher),
                ValueRef::Real(number) => (2_u8, number.to_bits()).hash(hasher),
                ValueRef::Text(bytes) => (3_u8, bytes).hash(hasher),
                ValueRef::Blob(bytes) => (4_u8, bytes).hash(hasher),
            }
        }
    }
    Ok(())
}

/// Reads what the database holds; an error says what cannot be.
pub fn read(connection: &Connection, digest: u64) -> Result<Content, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(text);
    let mut content = Content { digest, ..Content::default() };
    content.is_ours = number("PRAGMA application_id")? == APPLICATION_ID;
    if !content.is_ours {
        return Ok(content);
    }
    content.serial_next = number("SELECT value FROM meta WHERE key = 'serial_next'")?;
    content.serial_last = number("SELECT coalesce(max(serial), 0) FROM session")?;
    if content.serial_last >= content.serial_next {
        return Err(format!("row {} is not on record", content.serial_last));
    }
    let orphans = "SELECT count(*) FROM session s FULL JOIN activity a USING (serial) \
                   WHERE s.serial IS NULL OR a.serial IS NULL";
    if number(orphans)? != 0 {
        return Err("a session without its activity, or the other way round".to_owned());
    }
    let mut statement = connection
        .prepare_cached("SELECT id, data, touch_count FROM current_session WHERE user = 'client'")
        .map_err(text)?;
    let mut rows = statement.query([]).map_err(text)?;
    while let Some(row) = rows.next().map_err(text)? {
        let (id, data, touches): (String, String, i64) =
            (row.get(0).map_err(text)?, row.get(1).map_err(text)?, row.get(2).map_err(text)?);
        let datum: Datum = serde_json::from_str(&data).map_err(|error| error.to_string())?;
        let touches = touches.cast_unsigned();
        let twice = match datum.slot {
            Some(slot) => {
                content.kept.entry(datum.client).or_default().insert(slot, (datum.operation, touches)).is_some()
            }
            None => content.lazy.insert(datum.client, touches).is_some(),
        };
        if twice {
            return Err(format!("{:?} of client {} is there twice", datum.slot, datum.client));
        }
        content.ids.insert((datum.client, datum.slot, datum.operation), id);
    }
    Ok(content)
}
