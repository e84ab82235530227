//! The statements on single rows, and the transactions around them.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Row as SqlRow, ffi, params,
    types::{ToSqlOutput, ValueRef},
};

use crate::{
    backend::{Backend, Checkpoint, CommitError, Judging, Meta, Read, ReadError, Row},
    cell::Activity,
    error::{Cause, CauseKind},
    id::SessionId,
    query::{Filter, Query},
    record::{Data, Durability, Metadata, Stored, Summary},
};

use super::{cause, file::OpenFile, open::Sqlite, touch_log::TouchLog};

/// Row numbers put on record at a time, so that one insert in so many writes `meta`.
const SERIAL_BLOCK: i64 = 1_024;

/// What is folded: touches, users, saves.
const FOLDS: usize = 3;

/// The columns of a session, in the order in which [`read_stored`] and [`read_activity`] take them; the data is last.
pub(super) const COLUMNS: &str = "s.serial, s.id, s.user, s.counter, s.metadata, a.created_at, a.idle_timeout, \
     a.expires_at, a.last_active_at, a.touch_count";

/// The statement that finds a row by a condition, with its data or without.
macro_rules! find_sql {
    ($data:literal, $condition:literal) => {
        concat!(
            "SELECT s.serial, s.id, s.user, s.counter, s.metadata, a.created_at, a.idle_timeout, a.expires_at, ",
            "a.last_active_at, a.touch_count",
            $data,
            " FROM session s LEFT JOIN activity a ON a.serial = s.serial WHERE ",
            $condition
        )
    };
}

impl Sqlite {
    pub(super) fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, Cause> {
        self.statement(sql)?.execute(parameters).map_err(|error| cause(&error))
    }

    pub(super) fn statement(&self, sql: &str) -> Result<CachedStatement<'_>, Cause> {
        prepare(&self.connection, sql)
    }

    pub(super) fn number(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<i64, Cause> {
        self.statement(sql)?.query_row(parameters, |row| row.get(0)).map_err(|error| cause(&error))
    }

    pub(super) fn serial_on_record(&self) -> Result<i64, Cause> {
        let next = self.number("SELECT value FROM meta WHERE key = 'serial_next'", [])?;
        if next < 1 {
            return Err(Cause::new(CauseKind::Corrupt, format_args!("the next row number on record is {next}")));
        }
        Ok(next)
    }

    pub(super) fn meta_epoch(&self) -> Result<i64, Cause> {
        self.number("SELECT value FROM meta WHERE key = 'epoch'", [])
    }

    fn find_by(&self, sql: &str, read: Read, parameters: impl rusqlite::Params) -> Result<Option<Row>, ReadError> {
        let mut statement = self.statement(sql)?;
        let mut rows = statement.query(parameters).map_err(|error| cause(&error))?;
        let Some(row) = rows.next().map_err(|error| cause(&error))? else { return Ok(None) };
        let (mut stored, activity) = read_row(row, &self.touch_log)?;
        let is_appended = self.save_log.overlay(&mut stored).is_some();
        if read == Read::All {
            stored.data = if is_appended {
                self.appended_data(stored.serial)?.unwrap_or_default()
            } else {
                read_data(row.get_ref(10).map_err(|error| cause(&error))?, stored.serial)?
            };
        }
        Ok(Some(Row { stored, activity }))
    }

    /// Returns whose turn it is to be folded, of those that are due. What cannot be folded lets the others go first.
    fn next_fold(&self, at_rest: bool) -> Option<usize> {
        (self.fold_turn..self.fold_turn + FOLDS).find(|turn| match turn % FOLDS {
            0 => self.touch_log.must_fold(at_rest),
            1 => self.user_index.is_due(at_rest),
            _ => self.save_log.is_due(at_rest),
        })
    }

    /// Brings up to date what a query with this filter goes by, where the open transaction writes. In one that only reads, rows'
    /// activity may be behind.
    fn fold_for(&mut self, filter: &Filter) -> Result<(), Cause> {
        self.fold_all_touches()?;
        if filter.user.is_some() { self.fold_users_for_query() } else { Ok(()) }
    }

    fn run_checkpoint(&mut self, sql: &str) -> Result<Checkpoint, Cause> {
        // A log that is not whole on the disk cannot mend a database half overwritten.
        self.log_was_synced()?;
        let run = self.statement(sql).and_then(|mut checkpoint| {
            let told = checkpoint.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            told.map_err(|error| cause(&error))
        });
        let (busy, in_log, moved): (bool, i64, i64) = match run {
            Err(cause) if cause.kind == CauseKind::Io => {
                self.doubt_database()?;
                return Err(cause);
            }
            told => told?,
        };
        // Where somebody else is at it, neither is told, and all that there was is left.
        if in_log >= 0 {
            self.log_pages.store((in_log - moved).max(0).cast_unsigned(), Ordering::Relaxed);
        }
        Ok(Checkpoint { busy, pages_left: self.log_pages() })
    }
}

/// Prepares a statement, or finds it prepared: a thousand instructions, so loops do it once.
pub(super) fn prepare<'a>(connection: &'a Connection, sql: &str) -> Result<CachedStatement<'a>, Cause> {
    connection.prepare_cached(sql).map_err(|error| cause(&error))
}

/// Reads all of a session but its data; its activity by the log, too.
pub(super) fn read_row(row: &SqlRow<'_>, touches: &TouchLog) -> Result<(Stored, Activity), ReadError> {
    let serial: i64 = row.get(0).map_err(|error| cause(&error))?;
    // Whatever else is wrong is wrong with this row only.
    let read = || -> Option<(Stored, Activity)> {
        let metadata = match row.get_ref(4).ok()? {
            ValueRef::Null => Metadata::new(),
            text => serde_json::from_slice(text.as_bytes().ok()?).ok()?,
        };
        let stored = Stored {
            serial,
            id: SessionId::try_from(row.get_ref(1).ok()?.as_str().ok()?).ok()?,
            user: row.get(2).ok()?,
            counter: row.get(3).ok()?,
            metadata,
            data: Data::default(),
            created_at: row.get(5).ok()?,
            idle_timeout: row.get(6).ok()?,
            expires_at: row.get(7).ok()?,
        };
        Some((stored, touches.activity(serial, row.get(8).ok()?, row.get(9).ok()?)?))
    };
    read().ok_or(ReadError::Corrupt(serial))
}

fn metadata_text(metadata: &Metadata) -> Option<String> {
    (!metadata.is_empty()).then(|| serde_json::to_string(metadata).expect("a map of strings encodes"))
}

/// Reads data from its column; NULL stands for data not asked for.
pub(super) fn read_data(value: ValueRef<'_>, serial: i64) -> Result<Data, ReadError> {
    match value {
        ValueRef::Text(text) => Ok(Data::Json(Bytes::copy_from_slice(text))),
        ValueRef::Blob(bytes) => Ok(Data::Raw(Bytes::copy_from_slice(bytes))),
        _ => Err(ReadError::Corrupt(serial)),
    }
}

/// Stores data as what it is: JSON as text, all else as a blob.
pub(super) struct DataColumn<'a>(pub(super) &'a Data);

impl rusqlite::ToSql for DataColumn<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Data::Json(text) => ValueRef::Text(text),
            Data::Raw(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Backend for Sqlite {
    fn begin_read(&mut self) -> Result<(), Cause> {
        self.is_writing = false;
        self.execute("BEGIN", []).map(drop)
    }

    fn begin_write(&mut self, durability: Durability, wait: Duration) -> Result<(), Cause> {
        let synced = durability >= Durability::Synced;
        if synced != self.synced {
            // Only between transactions, and never prepared ahead: the pragma acts when it is prepared.
            let level = if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.connection.execute_batch(level).map_err(|error| cause(&error))?;
            self.synced = synced;
        }
        self.connection.busy_timeout(wait).map_err(|error| cause(&error))?;
        self.execute("BEGIN IMMEDIATE", [])?;
        self.is_writing = true;
        if synced {
            // A commit that changed no page does not sync, even under FULL.
            let sequence = self.meta(Meta::SyncSequence)?;
            self.set_meta(Meta::SyncSequence, sequence.wrapping_add(1))?;
        }
        Ok(())
    }

    fn write_ahead(&mut self) -> Result<(), Cause> {
        match self.connection.cache_flush().map_err(|error| cause(&error)) {
            // Some pages are in use, and are left to COMMIT.
            Err(cause) if cause.kind == CauseKind::Busy => Ok(()),
            written => written,
        }
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        match self.execute("COMMIT", []) {
            Ok(_) => {
                self.save_log.index.keep();
                self.touch_log.keep();
                self.user_index.keep();
                if !self.is_writing {
                    return Ok(());
                }
                self.is_in_place().and_then(|()| self.log_was_synced()).map_err(CommitError::Unknown)?;
                self.sync_log();
                Ok(())
            }
            Err(cause) if cause.kind == CauseKind::Busy && !self.connection.is_autocommit() => {
                Err(CommitError::Busy(cause))
            }
            Err(cause) => Err(CommitError::Unknown(cause)),
        }
    }

    fn rollback(&mut self) -> Result<(), Cause> {
        if std::mem::take(&mut self.is_writing) {
            // What was put on record in this transaction may be gone.
            self.serial_end = self.serial_next;
            self.save_log.index.take_back();
            self.touch_log.take_back();
            self.user_index.take_back();
        }
        if self.connection.is_autocommit() { Ok(()) } else { self.execute("ROLLBACK", []).map(drop) }
    }

    fn is_spoilt_by(&self, cause: &Cause) -> bool {
        // What SQLite reads to undo a statement may fail for want of memory, too, and then it goes on with what it has.
        self.is_writing && cause.code & 0xff == ffi::SQLITE_NOMEM
    }

    fn foreign_writes(&mut self) -> Result<bool, Cause> {
        let version = self.number("PRAGMA data_version", [])?;
        let is_foreign = self.data_version != 0 && self.data_version != version;
        if is_foreign {
            // Before the version is noted: it is to be found out again at every transaction.
            self.is_ours()?;
            self.read_save_log()?;
            self.read_touch_log()?;
            self.user_index.doubt();
        } else if self.is_writing {
            self.log_is_whole()?;
        }
        self.data_version = version;
        Ok(is_foreign)
    }

    fn find(&mut self, id: &SessionId, read: Read) -> Result<Option<Row>, ReadError> {
        let sql = match read {
            Read::All => find_sql!(", s.data", "s.id = ?1"),
            Read::WithoutData => find_sql!("", "s.id = ?1"),
        };
        self.find_by(sql, read, [id.as_str()])
    }

    fn find_at(&mut self, serial: i64, id: &SessionId, read: Read) -> Result<Option<Row>, ReadError> {
        let sql = match read {
            Read::All => find_sql!(", s.data", "s.serial = ?1 AND s.id = ?2"),
            Read::WithoutData => find_sql!("", "s.serial = ?1 AND s.id = ?2"),
        };
        self.find_by(sql, read, params![serial, id.as_str()])
    }

    fn next_serial(&mut self) -> Result<i64, Cause> {
        if self.serial_next >= self.serial_end {
            // A foreign writer may have taken numbers meanwhile.
            self.serial_next = self.serial_next.max(self.serial_on_record()?);
            let end = self
                .serial_next
                .checked_add(SERIAL_BLOCK)
                .ok_or_else(|| Cause::new(CauseKind::Corrupt, "the row numbers on record are at their end"))?;
            self.execute("UPDATE meta SET value = ?1 WHERE key = 'serial_next'", [end])?;
            self.serial_end = end;
        }
        self.serial_next += 1;
        Ok(self.serial_next - 1)
    }

    fn insert(&mut self, row: &Row) -> Result<bool, Cause> {
        let Row { stored, activity } = row;
        let inserted = self
            .statement(
                "INSERT INTO session (serial, id, user, counter, metadata, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                stored.serial,
                stored.id.as_str(),
                stored.user,
                stored.counter,
                metadata_text(&stored.metadata),
                DataColumn(&stored.data),
            ]);
        match inserted {
            Ok(_) => {}
            Err(error) if is_taken(&error) => return Ok(false),
            Err(error) => return Err(cause(&error)),
        }
        self.execute(
            "INSERT INTO activity VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                stored.serial,
                stored.created_at,
                activity.last_active,
                activity.count.cast_signed(),
                stored.idle_timeout,
                stored.expires_at,
            ],
        )?;
        self.user_index.add(stored.serial, stored.user.as_ref());
        Ok(true)
    }

    fn update(&mut self, old: &Stored, new: &Stored) -> Result<bool, Cause> {
        if self.is_appended(old, new) {
            return self.append(old, new);
        }
        let Some(counters) = self.save_log.counters_under(old) else { return Ok(false) };
        let (serial, id, data) = (old.serial, old.id.as_str(), DataColumn(&new.data));
        let (lowest, highest) = counters.into_inner();
        let metadata = metadata_text(&new.metadata);
        // Naming an indexed column rewrites its index, so a plain save names none.
        let is_of_another = old.user != new.user;
        if is_of_another {
            self.unindex_row(serial)?;
        }
        let updated = if old.id == new.id && !is_of_another {
            self.statement(
                "UPDATE session SET counter = ?3, metadata = ?4, data = ?5 \
                 WHERE serial = ?1 AND id = ?2 AND counter BETWEEN ?6 AND ?7",
            )?
            .execute(params![serial, id, new.counter, metadata, data, lowest, highest])
        } else {
            self.statement(
                "UPDATE session SET counter = ?3, metadata = ?4, data = ?5, id = ?6, user = ?7 \
                 WHERE serial = ?1 AND id = ?2 AND counter BETWEEN ?8 AND ?9",
            )?
            .execute(params![
                serial,
                id,
                new.counter,
                metadata,
                data,
                new.id.as_str(),
                new.user,
                lowest,
                highest
            ])
        };
        if is_of_another {
            self.index_row(serial)?;
        }
        match updated {
            Ok(1) => {}
            Ok(_) => return Ok(false),
            Err(error) if is_taken(&error) => return Ok(false),
            Err(error) => return Err(cause(&error)),
        }
        self.save_log.index.end(serial);
        if (old.idle_timeout, old.expires_at) != (new.idle_timeout, new.expires_at) {
            self.execute(
                "UPDATE activity SET idle_timeout = ?2, expires_at = ?3 WHERE serial = ?1",
                params![serial, new.idle_timeout, new.expires_at],
            )?;
        }
        Ok(true)
    }

    fn delete(&mut self, serial: i64) -> Result<(), Cause> {
        self.unindex_row(serial)?;
        self.execute("DELETE FROM session WHERE serial = ?1", [serial])?;
        self.save_log.index.end(serial);
        self.touch_log.end(serial);
        self.execute("DELETE FROM activity WHERE serial = ?1", [serial]).map(drop)
    }

    fn raise_activity(&mut self, serial: i64, activity: Activity) -> Result<(), Cause> {
        self.raise(serial, activity).map(drop)
    }

    fn raise_activities(&mut self, rows: &[(i64, Activity)]) -> Result<(), Cause> {
        self.raise_all(rows)
    }

    fn list(&mut self, query: &Query, judging: Judging) -> Result<Vec<Summary>, ReadError> {
        self.fold_for(&query.filter)?;
        super::query::list(self, query, judging)
    }

    fn count(&mut self, filter: &Filter, judging: Judging) -> Result<u64, Cause> {
        self.fold_for(filter)?;
        super::query::count(self, filter, judging)
    }

    fn matching(
        &mut self,
        filter: &Filter,
        judging: Judging,
        after: i64,
        until: i64,
        limit: usize,
    ) -> Result<Vec<i64>, Cause> {
        self.fold_for(filter)?;
        super::query::matching(self, filter, judging, after, until, limit)
    }

    fn next_end(&mut self, judging: Judging) -> Result<Option<i64>, Cause> {
        self.fold_all_touches()?;
        super::query::next_end(self, judging)
    }

    fn first_serial_after(&mut self, after: i64) -> Result<Option<i64>, Cause> {
        self.statement("SELECT min(serial) FROM activity WHERE serial > ?1")?
            .query_row([after], |row| row.get(0))
            .map_err(|error| cause(&error))
    }

    fn last_serial(&mut self) -> Result<i64, Cause> {
        self.number("SELECT coalesce(max(serial), 0) FROM activity", [])
    }

    fn meta(&mut self, meta: Meta) -> Result<i64, Cause> {
        let value = self.statement("SELECT value FROM meta WHERE key = ?1")?.query_row([key(meta)], |row| row.get(0));
        Ok(value.optional().map_err(|error| cause(&error))?.unwrap_or(0))
    }

    fn set_meta(&mut self, meta: Meta, value: i64) -> Result<(), Cause> {
        self.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key(meta), value]).map(drop)
    }

    fn saves_in_log(&self) -> u64 {
        self.save_log.index.entries().cast_unsigned()
    }

    fn touches_in_log(&self) -> u64 {
        self.touch_log.entries().cast_unsigned()
    }

    fn sessions_unindexed(&self) -> u64 {
        self.user_index.rows() as u64
    }

    fn fold_is_due(&self, at_rest: bool) -> bool {
        self.next_fold(at_rest).is_some()
    }

    fn fold(&mut self, at_rest: bool) -> Result<(), Cause> {
        let Some(turn) = self.next_fold(at_rest) else { return Ok(()) };
        let folded = match turn % FOLDS {
            0 => self.fold_touches(),
            1 => self.fold_users(),
            _ => self.fold_saves(),
        };
        if folded.is_err() {
            self.fold_turn = turn + 1;
        }
        folded
    }

    fn has_room_to_spare(&self) -> bool {
        self.file.as_ref().is_none_or(OpenFile::has_room_to_spare)
    }

    fn log_pages(&self) -> u64 {
        self.log_pages.load(Ordering::Relaxed)
    }

    fn checkpoint(&mut self) -> Result<Checkpoint, Cause> {
        self.run_checkpoint("PRAGMA wal_checkpoint(PASSIVE)")
    }

    fn checkpoint_and_truncate(&mut self) -> Result<Checkpoint, Cause> {
        self.connection.busy_timeout(Duration::ZERO).map_err(|error| cause(&error))?;
        self.run_checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn reopen(&mut self) -> Result<(), Cause> {
        self.open_again()
    }

    fn is_durable(&self) -> bool {
        self.has_file()
    }

    #[cfg(feature = "testing")]
    fn fail_log_sync(&mut self) {
        if let Some(sync) = &self.log_sync {
            sync.fail_next();
        }
    }
}

fn key(meta: Meta) -> &'static str {
    match meta {
        Meta::Epoch => "epoch",
        Meta::SyncSequence => "sync_seq",
        Meta::Clock => "clock",
    }
}

fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}
