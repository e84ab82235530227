//! The backend without an engine around it: for tests of what it keeps in its logs.

use std::{path::Path, time::Duration};

use jiff::tz::TimeZone;
use sessile_storage::{
    backend::{Backend, Row},
    cell::Activity,
    record::{Data, Durability, Metadata, Stored},
    sqlite::{OpenOptions, Sqlite},
};

use crate::Place;

/// Opens the backend on a file.
pub fn open(path: &Path) -> Sqlite {
    let options = OpenOptions {
        path: Some(path.to_owned()),
        cache_bytes: 40_000_000,
        take_over_zone: TimeZone::UTC,
        only_existing: false,
    };
    Sqlite::open(options).expect("it opens").0
}

/// Begins a transaction that writes.
pub fn write(backend: &mut Sqlite) {
    backend.begin_write(Durability::Committed, Duration::from_secs(5)).expect("nobody holds the lock");
    backend.foreign_writes().expect("it reads");
}

/// Folds all that waits in a log, step by step.
pub fn fold_all(backend: &mut Sqlite) {
    while backend.fold_is_due(true) {
        write(backend);
        backend.fold(true).expect("it folds");
        backend.commit().expect("it commits");
    }
}

/// Encodes a text as data.
pub fn json(text: &str) -> Data {
    Data::encode(text).expect("a text encodes")
}

/// A session as it is when it is new.
pub fn stored(serial: i64, id: &str) -> Stored {
    Stored {
        serial,
        id: id.try_into().expect("an id"),
        counter: 1,
        user: None,
        metadata: Metadata::new(),
        data: json("new"),
        created_at: 1,
        idle_timeout: None,
        expires_at: None,
    }
}

/// A new session's row.
pub fn row(stored: &Stored) -> Row {
    Row { stored: stored.clone(), activity: Activity { last_active: 1, count: 0 } }
}

/// Takes a file back to an older schema, as an engine of that time would have left it.
pub fn downgrade(place: &Place, schema: i32) {
    let undo = [
        (
            3,
            "DROP TRIGGER user_added; DROP TRIGGER user_changed; DROP TRIGGER user_deleted; DROP TABLE session_of_user; \
             DELETE FROM meta WHERE key = 'users_indexed'; \
             CREATE INDEX session_by_user ON session (user) WHERE user IS NOT NULL",
        ),
        (
            2,
            "DROP TRIGGER activity_changed; DROP TRIGGER activity_added; DROP TRIGGER activity_deleted; \
             DROP VIEW current_session; DROP VIEW logged_activity; DROP TABLE touch_log; \
             CREATE VIEW current_session AS SELECT serial FROM session",
        ),
        (1, "DROP TRIGGER session_written; DROP TRIGGER session_added; DROP VIEW current_session; DROP TABLE save_log"),
    ];
    let connection = place.connect();
    for (_, step) in undo.into_iter().filter(|(below, _)| *below >= schema) {
        connection.execute_batch(step).expect("it is of the schema above");
    }
    connection.pragma_update(None, "user_version", schema).expect("it can be written");
}

/// Copies the database as a kill would leave it.
pub fn as_killed(place: &Place) -> Place {
    let copy = Place::new();
    for end in ["", "-wal"] {
        let name = |place: &Place| format!("{}{end}", place.path().display());
        std::fs::copy(name(place), name(&copy)).expect("the file is there");
    }
    copy
}
