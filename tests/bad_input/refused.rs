//! Files that are refused are left as they were, their logs included.

use std::{collections::BTreeMap, fs, path::Path};

use rusqlite::Connection;
use sessile::{NewSession, OpenError};
use sessile_tests::Place;

/// A table of the source document's service, with a time that is none.
const SOURCE_SERVICE: &str = "CREATE TABLE sessions (session_id TEXT PRIMARY KEY, user_id TEXT, subdir TEXT, cwd TEXT,
        system_prompt TEXT, mcp_servers TEXT, plugins TEXT, model TEXT, permission_mode TEXT, allowed_tools TEXT,
        disallowed_tools TEXT, add_dirs TEXT, max_turns INTEGER, max_budget_usd REAL, created_at TEXT,
        last_active_at TEXT, message_count INTEGER DEFAULT 0, metadata TEXT);
    INSERT INTO sessions (session_id, cwd, created_at, last_active_at) VALUES ('a', '/', 'never', 'never')";

/// How a file was left by whoever had it before.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// Killed: what was committed is in the log only.
    LogInUse,
    /// Killed before anything was written to the log.
    LogEmpty,
    LogClosed,
    Journal,
}

/// Makes a file of somebody else's by these statements.
fn file_of_another(left: Left, statements: &str) -> Place {
    let (theirs, place) = (Place::new(), Place::new());
    let connection = theirs.connect();
    let before = if matches!(left, Left::Journal) { "DELETE" } else { "WAL" };
    connection.pragma_update(None, "journal_mode", before).unwrap();
    connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    connection.execute_batch(statements).unwrap();
    if matches!(left, Left::LogEmpty) {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    let open = matches!(left, Left::LogInUse | Left::LogEmpty).then_some(connection);
    for (name, bytes) in files(&theirs.directory()) {
        fs::write(place.directory().join(name), bytes).unwrap();
    }
    drop(open);
    assert_eq!(files(&place.directory()).len(), if matches!(left, Left::LogInUse | Left::LogEmpty) { 2 } else { 1 });
    place
}

/// Reads all files, but for those that belong to no content: our lock, and the log's index.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let named = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    let content = |name: &String| [".lock", "-shm"].iter().all(|suffix| !name.ends_with(suffix));
    fs::read_dir(directory).unwrap().map(named).filter(|(name, _)| content(name)).collect()
}

#[tokio::test]
async fn a_file_that_is_refused_is_left_byte_for_byte() {
    let ours = format!("PRAGMA application_id = {}", 0x5345_534c);
    let cases = [
        ("CREATE TABLE track (title TEXT); INSERT INTO track VALUES ('So What')".to_owned(), "NotOurs"),
        ("PRAGMA application_id = 77; CREATE TABLE track (title TEXT)".to_owned(), "NotOurs"),
        (format!("{ours}; PRAGMA user_version = 99; CREATE TABLE session (id TEXT)"), "NewerSchema"),
        (format!("{ours}; PRAGMA user_version = -1; CREATE TABLE session (id TEXT)"), "NotOurs"),
        (format!("{ours}; PRAGMA user_version = 2; CREATE TABLE session (id TEXT)"), "Storage"),
        (SOURCE_SERVICE.to_owned(), "TakeOver"),
    ];
    for (statements, expected) in cases {
        for left in [Left::LogInUse, Left::LogEmpty, Left::LogClosed, Left::Journal] {
            let place = file_of_another(left, &statements);
            let before = files(&place.directory());
            for _ in 0..2 {
                let error = place.refusal().await;
                assert!(format!("{error:?}").starts_with(expected), "{left:?}: {error:?}");
                assert!(files(&place.directory()) == before, "{left:?}: {expected}: {:?}", changes(&place, &before));
            }
        }
    }
}

fn changes(place: &Place, before: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let after = files(&place.directory());
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let length = |files: &BTreeMap<String, Vec<u8>>, name: &str| files.get(name).map(Vec::len);
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    changed.map(|name| format!("{name}: {:?} became {:?}", length(before, name), length(&after, name))).collect()
}

#[tokio::test]
async fn only_a_database_of_ours_that_is_there_is_opened_where_no_other_is_wanted() {
    let taken = SOURCE_SERVICE.replace("'never'", "'2025-01-01T00:00:00'");
    for left in [Left::LogInUse, Left::LogClosed, Left::Journal] {
        let place = file_of_another(left, &taken);
        let before = files(&place.directory());
        let error = place.builder().only_existing().open().await.unwrap_err();
        assert!(matches!(error, OpenError::NotOurs { .. }), "{left:?}: {error:?}");
        assert!(files(&place.directory()) == before, "{left:?}: {:?}", changes(&place, &before));
        // Otherwise it is taken over.
        place.builder().open().await.unwrap().shutdown().await.unwrap();
        place.builder().only_existing().open().await.unwrap();
    }
    let place = Place::new();
    let error = place.builder().only_existing().open().await.unwrap_err();
    assert!(matches!(error, OpenError::Storage { .. }), "{error:?}");
    assert_eq!(fs::read_dir(place.directory()).unwrap().count(), 0, "nothing is made");
    fs::write(place.path(), b"").unwrap();
    let error = place.builder().only_existing().open().await.unwrap_err();
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
    assert_eq!(fs::read(place.path()).unwrap(), b"");
}

#[tokio::test]
async fn a_file_whose_row_numbers_never_were_keeps_its_journal() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    engine.create(NewSession::with_id("a")).await.unwrap();
    engine.shutdown().await.unwrap();
    let other: Connection = place.connect();
    other.pragma_update(None, "journal_mode", "DELETE").unwrap();
    other.execute("UPDATE meta SET value = -5 WHERE key = 'serial_next'", []).unwrap();
    drop(other);
    let before = files(&place.directory());
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::Storage { .. }), "{error:?}");
    assert!(files(&place.directory()) == before, "{:?}", changes(&place, &before));
}
