//! A foreign table named `sessions`, of any columns and any rows: kept to the last column and readable, or refused with
//! every byte of the file as it was.

use std::{fs, path::Path, sync::Arc};

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::{Connection, params_from_iter, types::Value as SqlValue};
use serde_json::{Map, Value as Json};
use sessile::{CauseKind, Engine, Filter, OpenError, Record, Timestamp, testing::ManualClock};

use super::{
    harness::{block_on, open, scratch},
    value::Value,
};
use crate::START;

/// Most rows and most additional columns of one input.
const ROWS_MAX: usize = 6;
const EXTRA_MAX: usize = 4;
/// The service's columns, of which the first six must be there.
const COLUMNS: [&str; 9] =
    ["session_id", "user_id", "cwd", "created_at", "last_active_at", "message_count", "metadata", "plugins", "model"];
/// Those that hold JSON text.
const LISTS_AND_MAPS: [&str; 2] = ["metadata", "plugins"];
const ZONES: [&str; 5] = ["UTC", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Africa/Monrovia"];

/// A database of somebody else's.
#[derive(Debug, Arbitrary)]
struct Input {
    is_wal: bool,
    zone: u8,
    types: [u8; COLUMNS.len()],
    /// Mostly none: then the table is the service's.
    oddity: u8,
    extra: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Arbitrary)]
struct Row {
    number: Option<i64>,
    /// In place of what the service would have written.
    values: [Option<Value>; COLUMNS.len()],
    extra: [Value; EXTRA_MAX],
}

/// A row as a plain connection reads it: names and values.
type Original = Vec<(String, SqlValue)>;

/// Takes the input for a database to take over.
pub(super) fn take_over(input: &[u8]) {
    let Ok(mut input) = Input::arbitrary_take_rest(Unstructured::new(input)) else { return };
    input.rows.truncate(ROWS_MAX);
    input.extra.truncate(EXTRA_MAX);
    let directory = scratch();
    let path = directory.path().join("sessions.db");
    let Ok(originals) = make(&path, &input) else { return };
    let before = files(directory.path());
    let zone = ZONES[usize::from(input.zone) % ZONES.len()];
    let clock = Arc::new(ManualClock::new(START));
    let builder = || Engine::builder(&path).clock(clock.clone()).take_over_time_zone(zone);
    block_on(async {
        match open(builder).await {
            Ok(engine) => {
                let whole = originals.as_ref().unwrap_or_else(|| panic!("unreadable rows were taken: {input:?}"));
                are_kept(&engine, whole, zone, &input).await;
                engine.shutdown().await.expect("it shuts down");
                let engine = open(builder).await.expect("what was taken over opens again");
                are_kept(&engine, whole, zone, &input).await;
                engine.shutdown().await.expect("it shuts down");
            }
            Err(error) => {
                let is_named = match &error {
                    OpenError::TakeOver { .. } | OpenError::NotOurs { .. } => true,
                    // What SQLite itself finds wrong with the file.
                    OpenError::Storage { cause } => matches!(cause.kind, CauseKind::Corrupt | CauseKind::Other),
                    _ => false,
                };
                assert!(is_named, "{error:?}: {input:?}");
                assert!(files(directory.path()) == before, "{error:?}, and the file was changed: {input:?}");
            }
        }
    });
}

/// Reads what lies there, but for the engine's lock and the index of the log, which every reader makes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let entries = fs::read_dir(directory).expect("the directory").map(|entry| entry.expect("an entry"));
    let mut files: Vec<_> = entries
        .filter(|entry| !["sessions.db.lock", "sessions.db-shm"].contains(&name(entry).as_str()))
        .map(|entry| (name(&entry), fs::read(entry.path()).expect("a file")))
        .filter(|(name, bytes)| !(name.ends_with("-wal") && bytes.is_empty()))
        .collect();
    files.sort();
    files
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes the database, if SQLite can hold it. `None` among the rows: a plain connection cannot read them.
fn make(path: &Path, input: &Input) -> rusqlite::Result<Option<Vec<Original>>> {
    let connection = Connection::open(path)?;
    if input.is_wal {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    let affinity = |n: u8| ["TEXT", "", "INTEGER", "REAL", "NUMERIC", "BLOB"][usize::from(n) % 6];
    let mut columns: Vec<String> = COLUMNS
        .iter()
        .zip(input.types)
        .enumerate()
        .map(|(n, (name, kind))| {
            let key = if n == 0 && input.oddity != 1 { " PRIMARY KEY" } else { "" };
            let kind = if n == 0 { "TEXT" } else { affinity(kind) };
            format!("{name} {kind}{key}")
        })
        .collect();
    if input.oddity == 2 {
        columns.remove(4);
    }
    columns.extend(input.extra.iter().map(|name| quoted(name)));
    if input.oddity == 3 {
        columns.push("generated AS (cwd || '!')".to_owned());
    }
    let tail = if input.oddity == 4 { " WITHOUT ROWID" } else { "" };
    connection.execute_batch(&format!("CREATE TABLE sessions ({}){tail}", columns.join(", ")))?;
    let more = match input.oddity {
        5 => "CREATE INDEX i ON sessions (user_id)",
        6 => "CREATE VIEW v AS SELECT * FROM sessions",
        7 => "CREATE TABLE others (x)",
        8 => "CREATE TABLE session (x)",
        9 => "CREATE TRIGGER t AFTER DELETE ON sessions BEGIN SELECT 1; END",
        10 => "CREATE UNIQUE INDEX activity ON sessions (session_id)",
        11 => "PRAGMA application_id = 7",
        12 => "PRAGMA user_version = 9",
        _ => "",
    };
    connection.execute_batch(more)?;
    for (n, row) in input.rows.iter().enumerate() {
        insert(&connection, input, row, n)?;
    }
    read(&connection).map(Some).or(Ok(None))
}

fn insert(connection: &Connection, input: &Input, row: &Row, n: usize) -> rusqlite::Result<usize> {
    let time = format!("2025-01-0{}T12:00:00.25000{n}", n % 9 + 1);
    let usual = [
        SqlValue::Text(format!("id-{n}")),
        SqlValue::Text("ada".to_owned()),
        SqlValue::Text("/".to_owned()),
        SqlValue::Text(time.clone()),
        SqlValue::Text(time),
        SqlValue::Integer(n as i64),
        SqlValue::Text("{\"n\": [1.50, 1e2]}".to_owned()),
        SqlValue::Null,
        SqlValue::Text("opus".to_owned()),
    ];
    let mut names: Vec<String> = Vec::new();
    let mut values: Vec<&dyn rusqlite::ToSql> = Vec::new();
    for ((name, usual), odd) in COLUMNS.iter().zip(&usual).zip(&row.values) {
        if input.oddity == 2 && *name == "last_active_at" {
            continue;
        }
        names.push((*name).to_owned());
        values.push(odd.as_ref().map_or(usual as &dyn rusqlite::ToSql, |value| value));
    }
    for (name, value) in input.extra.iter().zip(&row.extra) {
        names.push(quoted(name));
        values.push(value);
    }
    if let Some(number) = &row.number
        && input.oddity != 4
        && !input.extra.iter().any(|name| name.eq_ignore_ascii_case("rowid"))
    {
        names.push("rowid".to_owned());
        values.push(number);
    }
    let marks = vec!["?"; names.len()].join(", ");
    connection
        .execute(&format!("INSERT INTO sessions ({}) VALUES ({marks})", names.join(", ")), params_from_iter(values))
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<Original>> {
    let mut statement = connection.prepare_cached("SELECT * FROM sessions")?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let row = |row: &rusqlite::Row<'_>| {
        names.iter().enumerate().map(|(n, name)| Ok((name.clone(), row.get::<_, SqlValue>(n)?))).collect()
    };
    statement.query_map([], row)?.collect()
}

async fn are_kept(engine: &Engine, originals: &[Original], zone: &str, input: &Input) {
    assert_eq!(engine.count(Filter::all()).await.expect("they are counted"), originals.len() as u64, "{input:?}");
    for original in originals {
        let SqlValue::Text(id) = &original[0].1 else { panic!("an id that is no text was taken: {input:?}") };
        let session = engine.session(id.as_str()).expect("an id that was taken is valid");
        let record = session.get().await.expect("it is read").expect("it was kept");
        let data: Map<String, Json> = record.data().expect("the data is a map");
        for (name, value) in original {
            assert!(is_kept(name, value, &record, &data, zone), "{name} of {original:?}: {record:?} {data:?}");
        }
    }
}

/// Whether a value can be found again, exactly.
fn is_kept(name: &str, value: &SqlValue, record: &Record, data: &Map<String, Json>, zone: &str) -> bool {
    let in_record = match (name, value) {
        ("session_id", SqlValue::Text(id)) => record.id().as_str() == id,
        ("user_id", SqlValue::Null) => record.user().is_none() && !data.contains_key(name),
        ("user_id", SqlValue::Text(user)) => record.user() == Some(user),
        ("created_at", SqlValue::Text(time)) => same_time(record.created_at(), time, zone),
        ("last_active_at", SqlValue::Text(time)) => same_time(record.last_active_at(), time, zone),
        ("message_count", SqlValue::Integer(count)) => record.touch_count().cast_signed() == *count,
        _ => false,
    };
    in_record || data.get(name).is_some_and(|field| same(name, value, field))
}

/// Whether the service, in its zone, would have written this moment so.
fn same_time(at: Timestamp, text: &str, zone: &str) -> bool {
    let zone = jiff::tz::TimeZone::get(zone).expect("a zone");
    let Ok(at) = jiff::Timestamp::from_microsecond(at.as_micros()) else { return false };
    let local = zone.to_datetime(at);
    let written = [format!("{local:.0}"), format!("{local:.6}")];
    written.iter().any(|written| written == text)
}

fn same(name: &str, value: &SqlValue, field: &Json) -> bool {
    match value {
        SqlValue::Null => field.is_null(),
        SqlValue::Integer(number) => field.as_i64() == Some(*number),
        SqlValue::Real(number) => field.as_f64().is_some_and(|field| field.to_bits() == number.to_bits()),
        SqlValue::Text(text) => {
            let is_embedded = || serde_json::from_str::<Json>(text).is_ok_and(|json| json == *field);
            field.as_str() == Some(text) || LISTS_AND_MAPS.contains(&name) && is_embedded()
        }
        SqlValue::Blob(_) => false,
    }
}
