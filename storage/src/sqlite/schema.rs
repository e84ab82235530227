//! The tables, and how an older file becomes one of today.
//!
//! `session` holds what changes by a save and `activity` what changes by a touch: a touch must not rewrite a page of
//! data. The two share the row number. `save_log` and `touch_log` hold saves and touches that are not in their rows
//! yet ([`super::log_index`]), and `session_of_user` is the index of users, which may be behind
//! ([`super::user_index`]); `current_session` is for whoever reads the file with other means. Row numbers come from blocks that `meta` records, so none is used twice even when
//! the highest row is deleted (rule R6); that is cheaper than AUTOINCREMENT, which writes a row of its own per insert.

use rusqlite::{Connection, Transaction};

use crate::error::OpenError;

use super::cause;

/// Marks a file as ours: "SESL".
pub(crate) const APPLICATION_ID: i32 = 0x5345_534c;

/// The schema this release writes.
pub(crate) const VERSION: i32 = MIGRATIONS.len() as i32;

/// Step `n` takes a file from schema `n` to `n + 1`. Steps are only ever added.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE session (
        serial INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        user TEXT,
        counter INTEGER NOT NULL,
        metadata TEXT,          -- a JSON object of strings; NULL for none
        data ANY NOT NULL       -- TEXT is JSON, BLOB is the application's own format
    ) STRICT;
    CREATE INDEX session_by_user ON session (user) WHERE user IS NOT NULL;

    -- Times are unix microseconds, durations microseconds.
    CREATE TABLE activity (
        serial INTEGER PRIMARY KEY,
        created_at INTEGER NOT NULL,
        last_active_at INTEGER NOT NULL,
        touch_count INTEGER NOT NULL,
        idle_timeout INTEGER,   -- NULL: the engine's
        expires_at INTEGER      -- NULL: by the engine's lifetime
    ) STRICT;

    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES
        ('serial_next', 1),     -- row numbers from here on were never used
        ('epoch', 0),           -- counts openings of the file for writing
        ('sync_seq', 0),        -- changes in every synced commit, so that each has something to sync
        ('clock', 0);           -- the latest engine time known
", "
    -- Saves that are not in their rows yet. One counts if its counter is above its row's and the highest of its row.
    CREATE TABLE save_log (
        position INTEGER PRIMARY KEY,
        serial INTEGER NOT NULL,
        counter INTEGER NOT NULL,
        data ANY NOT NULL
    ) STRICT;

    -- What another process writes is newer than what the log holds, which is never over 131072 entries: the counter moves
    -- past them. The engine itself runs no triggers.
    CREATE TRIGGER session_written AFTER UPDATE OF data ON session BEGIN
        UPDATE session SET counter = NEW.counter + 131072 WHERE serial = NEW.serial;
    END;
    CREATE TRIGGER session_added AFTER INSERT ON session BEGIN
        UPDATE session SET counter = NEW.counter + 131072 WHERE serial = NEW.serial;
    END;

    -- Sessions as they are, for people and for other programs.
    CREATE VIEW current_session AS
    SELECT s.serial, s.id, s.user, coalesce(l.counter, s.counter) AS counter, s.metadata,
        CASE WHEN l.serial IS NULL THEN s.data ELSE l.data END AS data,
        a.created_at, a.last_active_at, a.touch_count, a.idle_timeout, a.expires_at
    FROM session s
    LEFT JOIN activity a ON a.serial = s.serial
    LEFT JOIN (SELECT serial, max(counter) AS counter, data FROM save_log GROUP BY serial) l
        ON l.serial = s.serial AND l.counter > s.counter;
", "
    -- Touches that are not in their rows yet: arrays of [serial, microseconds after since, count]. The highest counts.
    CREATE TABLE touch_log (
        position INTEGER PRIMARY KEY,
        since INTEGER NOT NULL,
        touches TEXT NOT NULL
    ) STRICT;
    CREATE VIEW logged_activity AS
    SELECT json_extract(value, '$[0]') AS serial,
        max(since + json_extract(value, '$[1]')) AS last_active_at,
        max(json_extract(value, '$[2]')) AS touch_count
    FROM touch_log, json_each(touches) GROUP BY 1;

    -- What another process adds to a row comes on top of what the log holds; and no row that it makes anew gets what the log
    -- holds for another. So the log is folded first; the entry at -1 tells these triggers that it was one of them that
    -- changed a row. The engine itself runs no triggers.
    CREATE TRIGGER activity_changed AFTER UPDATE OF serial, touch_count ON activity
    WHEN (SELECT min(position) FROM touch_log) >= 0 BEGIN
        INSERT INTO touch_log VALUES (-1, 0, '[]');
        UPDATE activity SET touch_count = NEW.touch_count + coalesce(
            (SELECT max(l.touch_count - OLD.touch_count, 0) FROM logged_activity l WHERE l.serial = OLD.serial), 0)
        WHERE serial = NEW.serial;
        UPDATE activity SET last_active_at = max(activity.last_active_at, l.last_active_at),
            touch_count = max(activity.touch_count, l.touch_count)
        FROM logged_activity l WHERE l.serial = activity.serial;
        DELETE FROM touch_log;
    END;
    CREATE TRIGGER activity_added AFTER INSERT ON activity
    WHEN (SELECT min(position) FROM touch_log) >= 0 BEGIN
        INSERT INTO touch_log VALUES (-1, 0, '[]');
        UPDATE activity SET last_active_at = max(activity.last_active_at, l.last_active_at),
            touch_count = max(activity.touch_count, l.touch_count)
        FROM logged_activity l WHERE l.serial = activity.serial AND l.serial <> NEW.serial;
        DELETE FROM touch_log;
    END;
    CREATE TRIGGER activity_deleted AFTER DELETE ON activity
    WHEN (SELECT min(position) FROM touch_log) >= 0 BEGIN
        INSERT INTO touch_log VALUES (-1, 0, '[]');
        UPDATE activity SET last_active_at = max(activity.last_active_at, l.last_active_at),
            touch_count = max(activity.touch_count, l.touch_count)
        FROM logged_activity l WHERE l.serial = activity.serial;
        DELETE FROM touch_log;
    END;

    DROP VIEW current_session;
    CREATE VIEW current_session AS
    SELECT s.serial, s.id, s.user, coalesce(l.counter, s.counter) AS counter, s.metadata,
        CASE WHEN l.serial IS NULL THEN s.data ELSE l.data END AS data, a.created_at,
        max(a.last_active_at, coalesce(t.last_active_at, a.last_active_at)) AS last_active_at,
        max(a.touch_count, coalesce(t.touch_count, 0)) AS touch_count,
        a.idle_timeout, a.expires_at
    FROM session s
    LEFT JOIN activity a ON a.serial = s.serial
    LEFT JOIN logged_activity t ON t.serial = s.serial
    LEFT JOIN (SELECT serial, max(counter) AS counter, data FROM save_log GROUP BY serial) l
        ON l.serial = s.serial AND l.counter > s.counter;
", "
    -- Of a damaged entry nothing counts, as in the engine: it fails nobody's reads and writes, and spoils no row.
    DROP VIEW logged_activity;
    CREATE VIEW logged_activity AS
    SELECT json_extract(value, '$[0]') AS serial,
        max(since + json_extract(value, '$[1]')) AS last_active_at,
        min(max(json_extract(value, '$[2]')), 1152921504606846976) AS touch_count
    FROM touch_log, json_each(CASE WHEN json_valid(touches) THEN
        CASE WHEN json_type(touches) = 'array' AND NOT EXISTS (
            SELECT 1 FROM json_each(touches) WHERE CASE type WHEN 'array' THEN
                json_array_length(value) <> 3
                OR json_type(value, '$[0]') <> 'integer' OR typeof(json_extract(value, '$[0]')) <> 'integer'
                OR json_type(value, '$[1]') <> 'integer' OR typeof(since + json_extract(value, '$[1]')) <> 'integer'
                OR json_type(value, '$[2]') <> 'integer' OR typeof(json_extract(value, '$[2]')) <> 'integer'
                OR json_extract(value, '$[2]') < 0
            ELSE 1 END
        ) THEN touches END END)
    GROUP BY 1;

    -- The sessions of each user, but for rows from the number on that `meta` has as users_indexed, which may be missing.
    CREATE TABLE session_of_user (
        user TEXT NOT NULL,
        serial INTEGER NOT NULL,
        PRIMARY KEY (user, serial)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO session_of_user SELECT user, serial FROM session WHERE typeof(user) = 'text' ORDER BY user, serial;
    INSERT INTO meta SELECT 'users_indexed', value FROM meta WHERE key = 'serial_next';
    DROP INDEX session_by_user;

    -- What is damaged is no text. The engine itself runs no triggers. `OR IGNORE` would give way to what the statement says that they run for.
    CREATE TRIGGER user_added AFTER INSERT ON session WHEN typeof(NEW.user) = 'text' BEGIN
        INSERT INTO session_of_user VALUES (NEW.user, NEW.serial) ON CONFLICT DO NOTHING;
    END;
    CREATE TRIGGER user_changed AFTER UPDATE OF serial, user ON session BEGIN
        DELETE FROM session_of_user WHERE user = OLD.user AND serial = OLD.serial;
        INSERT INTO session_of_user SELECT NEW.user, NEW.serial WHERE typeof(NEW.user) = 'text' ON CONFLICT DO NOTHING;
    END;
    CREATE TRIGGER user_deleted AFTER DELETE ON session BEGIN
        DELETE FROM session_of_user WHERE user = OLD.user AND serial = OLD.serial;
    END;
"];

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Nothing yet.
    Empty,
    /// Our tables, in this version of the schema.
    Ours(i32),
    /// The `sessions` table of the source document's service.
    Foreign,
}

/// Finds out what a file holds, without writing to it.
pub(crate) fn classify(connection: &Connection) -> Result<Contents, OpenError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(open_error);
    let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
    if application_id == APPLICATION_ID {
        if version > VERSION {
            return Err(OpenError::NewerSchema { found: version, supported: VERSION });
        }
        if version < 0 {
            return Err(OpenError::NotOurs { found: format!("our application id with the schema version {version}") });
        }
        return Ok(Contents::Ours(version));
    }
    let tables: Vec<String> = connection
        .prepare_cached(
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        )
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(open_error)?;
    if application_id == 0 && tables.is_empty() {
        Ok(Contents::Empty)
    } else if application_id == 0 && super::take_over::is_source_service(connection, &tables).map_err(open_error)? {
        Ok(Contents::Foreign)
    } else {
        let found = format!("application id {application_id}, tables {}", tables.join(", "));
        Err(OpenError::NotOurs { found })
    }
}

/// Brings the tables from schema `from` to today's, inside the caller's transaction.
pub(crate) fn migrate(transaction: &Transaction<'_>, from: i32) -> rusqlite::Result<()> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(crate) fn open_error(error: rusqlite::Error) -> OpenError {
    OpenError::Storage { cause: cause(&error) }
}
