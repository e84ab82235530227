//! Taking over files that the source document's service wrote (rule R20): all of it or nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, types::Value as SqlValue};
use serde_json::{Map, Value};
use sessile::{CauseKind, Engine, Filter, NewSession, OpenError, Order, Query, Timestamp};
use tempfile::TempDir;

/// Files of the service, in either journal mode: 1,000 sessions each, of a machine in Shanghai.
const SEEDS: [&str; 2] = ["seed_sessions_wal.db", "seed_sessions_delete.db"];
const SESSIONS: u64 = 1_000;
const ZONE: &str = "Asia/Shanghai";

/// Columns that hold JSON text.
const LISTS_AND_MAPS: [&str; 6] =
    ["mcp_servers", "plugins", "allowed_tools", "disallowed_tools", "add_dirs", "metadata"];

/// A file of `data/`, copied to a directory of its own.
struct Scratch {
    _directory: TempDir,
    path: PathBuf,
}

impl Scratch {
    fn copy_of(file: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("sessions.db");
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file), &path).unwrap();
        Self { _directory: directory, path }
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    async fn open(&self, zone: &str) -> Result<Engine, OpenError> {
        Engine::builder(&self.path).take_over_time_zone(zone).open().await
    }

    /// Opens the file, which must fail.
    async fn refusal(&self, zone: &str) -> OpenError {
        self.open(zone).await.expect_err("the file is refused")
    }

    fn dump(&self) -> Dump {
        let connection = self.connect();
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
        let schema = rows(&connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name");
        let content = |entry: &Vec<SqlValue>| match (&entry[0], &entry[1]) {
            (SqlValue::Text(kind), SqlValue::Text(name)) if kind == "table" => {
                Some((name.clone(), rows(&connection, &format!("SELECT * FROM \"{name}\" ORDER BY 1"))))
            }
            _ => None,
        };
        Dump {
            journal_mode: connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap(),
            application_id: pragma("application_id"),
            user_version: pragma("user_version"),
            tables: schema.iter().filter_map(content).collect(),
            schema,
        }
    }
}

/// All that a database holds.
#[derive(Debug, PartialEq)]
struct Dump {
    journal_mode: String,
    application_id: i64,
    user_version: i64,
    schema: Vec<Vec<SqlValue>>,
    tables: Vec<(String, Vec<Vec<SqlValue>>)>,
}

impl Dump {
    fn table_names(&self) -> Vec<&str> {
        self.tables.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn rows(connection: &Connection, sql: &str) -> Vec<Vec<SqlValue>> {
    let mut statement = connection.prepare_cached(sql).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A session as the service wrote it, its times worked out by SQLite.
struct Original {
    columns: Vec<(String, SqlValue)>,
    created_at: Timestamp,
    last_active_at: Timestamp,
}

impl Original {
    /// Reads all sessions in the order of their creation, in a zone that has always been `hours` ahead.
    fn read_all(connection: &Connection, hours: i64) -> Vec<Self> {
        let micros = |column| {
            format!(
                "(unixepoch(substr({column}, 1, 19)) - {hours} * 3600) * 1000000 + CAST(substr({column}, 21) AS INTEGER)"
            )
        };
        let select = format!(
            "SELECT {}, {}, * FROM sessions ORDER BY created_at, rowid",
            micros("created_at"),
            micros("last_active_at"),
        );
        let mut statement = connection.prepare_cached(&select).unwrap();
        let names: Vec<String> = statement.column_names().skip(2).map(str::to_owned).collect();
        let read = |row: &rusqlite::Row<'_>| {
            let value = |(index, name): (usize, &String)| Ok((name.clone(), row.get(index + 2)?));
            Ok(Self {
                columns: names.iter().enumerate().map(value).collect::<rusqlite::Result<_>>()?,
                created_at: Timestamp::from_micros(row.get(0)?),
                last_active_at: Timestamp::from_micros(row.get(1)?),
            })
        };
        statement.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn column(&self, name: &str) -> &SqlValue {
        &self.columns.iter().find(|(column, _)| column == name).unwrap().1
    }

    fn text(&self, name: &str) -> &str {
        match self.column(name) {
            SqlValue::Text(text) => text,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The columns for which a record has no place of its own, as JSON.
    fn data(&self) -> Map<String, Value> {
        let in_the_record = ["session_id", "user_id", "created_at", "last_active_at", "message_count"];
        let others = self.columns.iter().filter(|(name, _)| !in_the_record.contains(&name.as_str()));
        let field = |(name, value): &(String, SqlValue)| {
            let value = match value {
                SqlValue::Null => Value::Null,
                SqlValue::Integer(number) => Value::from(*number),
                SqlValue::Real(number) => Value::from(*number),
                SqlValue::Text(text) if LISTS_AND_MAPS.contains(&name.as_str()) => serde_json::from_str(text).unwrap(),
                SqlValue::Text(text) => Value::from(text.as_str()),
                SqlValue::Blob(_) => panic!("the service wrote no blobs"),
            };
            (name.clone(), value)
        };
        others.map(field).collect()
    }
}

#[tokio::test]
async fn every_column_of_every_row_is_kept() {
    for seed in SEEDS {
        let originals = Original::read_all(&Scratch::copy_of(seed).connect(), 8);
        assert_eq!(originals.len() as u64, SESSIONS);
        let taken = Scratch::copy_of(seed);
        let engine = taken.open(ZONE).await.unwrap();
        for (serial, original) in (1..).zip(&originals) {
            let record = engine.session(original.text("session_id")).unwrap().get().await.unwrap().unwrap();
            assert_eq!(record.serial().get(), serial);
            assert_eq!(record.id().as_str(), original.text("session_id"));
            assert_eq!(record.user(), Some(original.text("user_id")));
            assert_eq!(record.created_at(), original.created_at);
            assert_eq!(record.last_active_at(), original.last_active_at);
            let SqlValue::Integer(message_count) = *original.column("message_count") else { panic!("no count") };
            assert_eq!(record.touch_count(), message_count.cast_unsigned());
            assert_eq!(record.data::<Map<String, Value>>().unwrap(), original.data());
            assert!(record.metadata().is_empty());
            assert_eq!(record.expires_at(), None);
        }
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn sessions_are_listed_and_counted_in_the_order_of_their_creation() {
    for seed in SEEDS {
        let originals = Original::read_all(&Scratch::copy_of(seed).connect(), 8);
        let taken = Scratch::copy_of(seed);
        let engine = taken.open(ZONE).await.unwrap();
        assert_eq!(engine.count(Filter::all()).await.unwrap(), SESSIONS);
        let page = engine.list(Query::new(Filter::all()).order(Order::Oldest).limit(1_000)).await.unwrap();
        let listed: Vec<_> = page.items.iter().map(|summary| summary.id().unwrap().as_str()).collect();
        let written: Vec<_> = originals.iter().map(|original| original.text("session_id")).collect();
        assert_eq!(listed, written);
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn the_file_is_ours_and_in_wal_afterwards() {
    for seed in SEEDS {
        let taken = Scratch::copy_of(seed);
        taken.open(ZONE).await.unwrap().shutdown().await.unwrap();
        let dump = taken.dump();
        assert_eq!(dump.journal_mode, "wal");
        assert_ne!(dump.application_id, 0);
        assert!(!dump.table_names().contains(&"sessions"));
        assert_eq!(rows(&taken.connect(), "PRAGMA integrity_check"), [[SqlValue::Text("ok".to_owned())]]);
    }
}

#[tokio::test]
async fn a_second_open_finds_nothing_to_do() {
    for seed in SEEDS {
        let taken = Scratch::copy_of(seed);
        // What the engine notes about itself changes with every open.
        let sessions = || {
            let mut dump = taken.dump();
            dump.tables.retain(|(name, _)| name != "meta");
            dump
        };
        taken.open(ZONE).await.unwrap().shutdown().await.unwrap();
        let first = sessions();
        taken.open("UTC").await.unwrap().shutdown().await.unwrap();
        assert_eq!(sessions(), first);
    }
}

#[tokio::test]
async fn sessions_taken_over_live_on() {
    for seed in SEEDS {
        let original = Original::read_all(&Scratch::copy_of(seed).connect(), 8).swap_remove(0);
        let taken = Scratch::copy_of(seed);
        let engine = taken.open(ZONE).await.unwrap();
        let session = engine.session(original.text("session_id")).unwrap();
        let before = session.get().await.unwrap().unwrap();
        session.touch().await.unwrap();
        session.save("new data").await.unwrap();
        let new = engine.create(NewSession::new()).await.unwrap().get().await.unwrap().unwrap();
        assert!(new.serial().get() > SESSIONS.cast_signed(), "row numbers are not used twice");
        engine.shutdown().await.unwrap();

        let engine = taken.open(ZONE).await.unwrap();
        let after = engine.session(original.text("session_id")).unwrap().get().await.unwrap().unwrap();
        assert_eq!(after.touch_count(), before.touch_count() + 1);
        assert_eq!(after.data::<String>().unwrap(), "new data");
        assert_eq!(after.created_at(), original.created_at);
        assert!(after.last_active_at() > original.last_active_at);
        assert_eq!(engine.count(Filter::all()).await.unwrap(), SESSIONS + 1);
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_failure_half_way_names_the_row_and_leaves_the_file_as_it_was() {
    for seed in SEEDS {
        let taken = Scratch::copy_of(seed);
        // Created last, so all others are copied before this one is found to be bad.
        let insert = "INSERT INTO sessions (session_id, user_id, cwd, created_at, last_active_at)
            VALUES ('bad', 'u', '/', '2030-01-01T00:00:00', '2030-01-01T25:00:00')";
        taken.connect().execute(insert, []).unwrap();
        let before = taken.dump();

        match taken.refusal(ZONE).await {
            OpenError::TakeOver { row, reason } => {
                assert_eq!(row, SESSIONS.cast_signed() + 1);
                assert!(reason.contains("last_active_at"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(taken.dump(), before);

        let mend = "UPDATE sessions SET last_active_at = created_at WHERE session_id = 'bad'";
        assert_eq!(taken.connect().execute(mend, []).unwrap(), 1);
        let engine = taken.open(ZONE).await.unwrap();
        assert_eq!(engine.count(Filter::all()).await.unwrap(), SESSIONS + 1);
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_file_is_not_taken_over() {
    for seed in SEEDS {
        let taken = Scratch::copy_of(seed);
        let connection = taken.connect();
        let number =
            |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(usize::try_from).unwrap().unwrap();
        // The table's last page, with sessions that a copy would not miss.
        let page = number("SELECT max(pageno) FROM dbstat WHERE name = 'sessions' AND pagetype = 'leaf'");
        let bytes_per_page = number("PRAGMA page_size");
        drop(connection);
        let mut bytes = fs::read(&taken.path).unwrap();
        bytes[(page - 1) * bytes_per_page..][..bytes_per_page].fill(0);
        fs::write(&taken.path, &bytes).unwrap();
        match taken.refusal(ZONE).await {
            OpenError::Storage { cause } => assert_eq!(cause.kind, CauseKind::Corrupt, "{cause}"),
            other => panic!("{other:?}"),
        }
        assert!(fs::read(&taken.path).unwrap() == bytes, "{seed} was changed");
    }
}

#[tokio::test]
async fn local_times_are_those_of_the_zone_named() {
    // In the winter of the seeds New York is 5 hours behind; the sign of a POSIX-style zone is inverted.
    for (zone, hours) in [("Asia/Shanghai", 8), ("Etc/GMT-8", 8), ("UTC", 0), ("America/New_York", -5)] {
        let instants: BTreeSet<_> = Original::read_all(&Scratch::copy_of(SEEDS[0]).connect(), hours)
            .into_iter()
            .map(|original| (original.created_at, original.last_active_at))
            .collect();
        let taken = Scratch::copy_of(SEEDS[0]);
        let engine = taken.open(zone).await.unwrap();
        let page = engine.list(Query::new(Filter::all()).limit(1_000)).await.unwrap();
        let found: BTreeSet<_> =
            page.items.iter().map(|summary| (summary.created_at(), summary.last_active_at())).collect();
        assert_eq!(found, instants, "{zone}");
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_zone_is_refused_before_the_file_is_touched() {
    let taken = Scratch::copy_of(SEEDS[1]);
    let before = fs::read(&taken.path).unwrap();
    match taken.refusal("Asia/Nowhere").await {
        OpenError::InvalidOption { name, .. } => assert_eq!(name, "take_over_time_zone"),
        other => panic!("{other:?}"),
    }
    assert!(fs::read(&taken.path).unwrap() == before);
}

#[tokio::test]
async fn session_stores_of_others_are_refused_and_left_alone() {
    for (file, table) in
        [("tower_sessions_rusqlite.db", "tower_sessions"), ("tower_sessions_sqlx.db", "tower_sessions")]
    {
        let other = Scratch::copy_of(file);
        let before = fs::read(&other.path).unwrap();
        match other.refusal(ZONE).await {
            OpenError::NotOurs { found } => assert!(found.contains(table), "{found}"),
            other => panic!("{other:?}"),
        }
        assert!(fs::read(&other.path).unwrap() == before, "{file} was changed");
    }
}
