//! The layer under SQLite itself: it sees what happens, and makes fail what it is told to.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rusqlite::Connection;
use sessile_tests::{
    Place,
    vfs::{Breaker, Call, CallKind, FileKind, Times, Verdict, Watcher, codes, watch},
};

/// Keeps what it sees of the database and the log.
#[derive(Default)]
struct Notes(Mutex<Vec<(CallKind, FileKind, PathBuf)>>);

impl Watcher for Notes {
    fn after(&self, call: &Call<'_>, code: i32) {
        if code == codes::SQLITE_OK {
            self.0.lock().unwrap().push((call.kind, call.file, call.path.to_owned()));
        }
    }
}

fn insert(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (a); INSERT INTO t VALUES (1)")
}

fn extended_code(result: rusqlite::Result<()>) -> i32 {
    result.expect_err("the call was to fail").sqlite_error().expect("an error of SQLite").extended_code
}

fn rows(place: &Place) -> i64 {
    place.connect().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn every_write_and_sync_of_a_watched_directory_is_seen_and_no_other() {
    let (place, other, notes) = (Place::new(), Place::new(), Arc::new(Notes::default()));
    let watch = watch(&place.directory(), notes.clone());
    insert(&other.connect()).unwrap();
    assert!(notes.0.lock().unwrap().is_empty(), "a directory that nobody watches");
    insert(&place.connect()).unwrap();
    let seen = notes.0.lock().unwrap().clone();
    for (kind, file) in [
        (CallKind::Open, FileKind::Database),
        (CallKind::Write, FileKind::Database),
        (CallKind::Sync, FileKind::Database),
        (CallKind::Write, FileKind::Journal),
        (CallKind::Delete, FileKind::Journal),
        (CallKind::Write, FileKind::Log),
        (CallKind::Sync, FileKind::Log),
        (CallKind::SharedMap, FileKind::SharedMemory),
        (CallKind::SharedLock, FileKind::SharedMemory),
        (CallKind::Close, FileKind::Database),
    ] {
        assert!(seen.iter().any(|note| (note.0, note.1) == (kind, file)), "{kind:?} of {file:?} is missing");
    }
    let directory = place.directory().canonicalize().unwrap();
    assert!(seen.iter().all(|note| note.2.parent() == Some(directory.as_path())));
    drop(watch);
    insert(&place.connect()).unwrap();
    assert_eq!(notes.0.lock().unwrap().len(), seen.len(), "nobody watches any more");
    assert_eq!(rows(&place), 2);
}

#[test]
fn the_nth_call_of_a_kind_fails_as_ordered_and_the_others_do_not() {
    let (place, breaker) = (Place::new(), Breaker::new());
    let _watch = watch(&place.directory(), breaker.clone());
    let connection = place.connect();
    insert(&connection).unwrap();
    assert!(breaker.seen(CallKind::Write, FileKind::Log) > 0);

    // Two writes per page, header and content: the second insert from here meets it.
    breaker.order(CallKind::Write, FileKind::Log, 2, Times::Once, Verdict::Fail(codes::SQLITE_FULL));
    insert(&connection).unwrap();
    assert_eq!((breaker.hits(), extended_code(insert(&connection))), (0, codes::SQLITE_FULL));
    assert_eq!((breaker.hits(), rows(&place)), (1, 2));
    insert(&connection).unwrap();

    breaker.order(CallKind::Write, FileKind::Log, 0, Times::ForEver, Verdict::Short(7, codes::SQLITE_IOERR_WRITE));
    assert_eq!(extended_code(insert(&connection)), codes::SQLITE_IOERR_WRITE);
    assert_eq!(extended_code(insert(&connection)), codes::SQLITE_IOERR_WRITE);
    breaker.lift();
    insert(&connection).unwrap();
    assert_eq!(rows(&place), 4);

    connection.execute_batch("PRAGMA synchronous = FULL").unwrap();
    breaker.order(CallKind::Sync, FileKind::Log, 0, Times::Once, Verdict::FailAfter(codes::SQLITE_IOERR_FSYNC));
    assert_eq!(extended_code(insert(&connection)), codes::SQLITE_IOERR_FSYNC);

    breaker.order(CallKind::Open, FileKind::Database, 0, Times::Once, Verdict::Fail(codes::SQLITE_CANTOPEN));
    assert!(Connection::open(place.path()).is_err());
    Connection::open(place.path()).unwrap();
    breaker.order(CallKind::Open, FileKind::Database, 0, Times::Once, Verdict::FailAfter(codes::SQLITE_CANTOPEN));
    assert!(Connection::open(place.path()).is_err(), "what was opened is closed again");

    breaker.lift();
    drop(connection);
    let connection = place.connect();
    breaker.order(CallKind::Read, FileKind::Database, 0, Times::Once, Verdict::Fail(codes::SQLITE_IOERR_READ));
    let read: rusqlite::Result<i64> = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert_eq!(read.unwrap_err().sqlite_error().unwrap().extended_code, codes::SQLITE_IOERR_READ);
}
