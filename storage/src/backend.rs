//! What the worker asks of a database. SQLite implements it; another database can.
//!
//! All calls come from the storage thread, between `begin` and `commit` or `rollback`. Durations are microseconds, times
//! unix microseconds.

use std::time::Duration;

use crate::{
    cell::Activity,
    error::Cause,
    id::SessionId,
    query::{Filter, Query},
    record::{Durability, ExpiryDefaults, Stored, Summary},
};

/// A session's row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its state.
    pub stored: Stored,
    /// Its activity.
    pub activity: Activity,
}

/// How much of a row to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// All of it.
    All,
    /// All but the data, which is left `null`.
    WithoutData,
}

/// Why a row could not be read.
#[derive(Debug, Clone)]
pub enum ReadError {
    /// The database failed.
    Failed(Cause),
    /// The row of this serial holds what we never wrote.
    Corrupt(i64),
}

impl From<Cause> for ReadError {
    fn from(cause: Cause) -> Self {
        Self::Failed(cause)
    }
}

/// Why COMMIT failed.
#[derive(Debug)]
pub enum CommitError {
    /// Somebody holds a lock: the transaction is still open and may be committed again.
    Busy(Cause),
    /// Nobody knows whether it took place: the connection must not be used any more (rule R2).
    Unknown(Cause),
}

/// Numbers that outlive the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Counts openings of the file.
    Epoch,
    /// Changes in every synced commit.
    SyncSequence,
    /// The latest engine time known.
    Clock,
}

/// How a filter judges expiry.
#[derive(Debug, Clone, Copy)]
pub struct Judging {
    /// Engine time.
    pub now: i64,
    /// What sessions without expiry of their own go by.
    pub defaults: ExpiryDefaults,
}

/// How a checkpoint went.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint {
    /// Whether a reader or writer kept it from finishing.
    pub busy: bool,
    /// Pages left in the log.
    pub pages_left: u64,
}

/// Comes before all row numbers: ours begin at 1, but a file may hold rows that another program wrote.
pub const BEFORE_ALL_ROWS: i64 = i64::MIN;

/// A database that keeps sessions.
pub trait Backend {
    /// Begins a transaction that reads.
    fn begin_read(&mut self) -> Result<(), Cause>;

    /// Begins a transaction that writes, whose commit will promise `durability`. Waits up to `wait` for other writers.
    fn begin_write(&mut self, durability: Durability, wait: Duration) -> Result<(), Cause>;

    /// Writes what the open transaction has changed so far, which COMMIT alone makes count: what finds no room fails here, and
    /// so did not happen.
    fn write_ahead(&mut self) -> Result<(), Cause>;

    /// Commits.
    fn commit(&mut self) -> Result<(), CommitError>;

    /// Rolls back, if a transaction is open. After an error here the connection must not be used any more.
    fn rollback(&mut self) -> Result<(), Cause>;

    /// Returns whether a rollback after this error may leave the open transaction half undone, and say nothing: then the
    /// connection must not be used any more.
    fn is_spoilt_by(&self, cause: &Cause) -> bool;

    /// Returns whether another process has written since the last call. Inside a transaction.
    fn foreign_writes(&mut self) -> Result<bool, Cause>;

    /// Finds a row by its id.
    fn find(&mut self, id: &SessionId, read: Read) -> Result<Option<Row>, ReadError>;

    /// Finds a row by its serial, if it has this id.
    fn find_at(&mut self, serial: i64, id: &SessionId, read: Read) -> Result<Option<Row>, ReadError>;

    /// Returns a row number that was never used.
    fn next_serial(&mut self) -> Result<i64, Cause>;

    /// Adds a row; false if its id is taken.
    fn insert(&mut self, row: &Row) -> Result<bool, Cause>;

    /// Replaces the state `old` by `new`, of the same serial; false if the row is not of that id and version any more, or
    /// the new id is taken.
    fn update(&mut self, old: &Stored, new: &Stored) -> Result<bool, Cause>;

    /// Deletes a row.
    fn delete(&mut self, serial: i64) -> Result<(), Cause>;

    /// Raises a row's activity to at least this, if there is such a row.
    fn raise_activity(&mut self, serial: i64, activity: Activity) -> Result<(), Cause>;

    /// The same for many rows, in order of their numbers.
    fn raise_activities(&mut self, rows: &[(i64, Activity)]) -> Result<(), Cause>;

    /// Returns a page of the sessions that match.
    fn list(&mut self, query: &Query, judging: Judging) -> Result<Vec<Summary>, ReadError>;

    /// Counts the sessions that match.
    fn count(&mut self, filter: &Filter, judging: Judging) -> Result<u64, Cause>;

    /// Returns the serials of up to `limit` sessions that match, after serial `after` and looking at no row past
    /// `until`, in order.
    fn matching(
        &mut self,
        filter: &Filter,
        judging: Judging,
        after: i64,
        until: i64,
        limit: usize,
    ) -> Result<Vec<i64>, Cause>;

    /// Returns the time at which the first session will be over, if nothing happens to it; `None` without rows.
    fn next_end(&mut self, judging: Judging) -> Result<Option<i64>, Cause>;

    /// Returns the lowest serial in use after `after`.
    fn first_serial_after(&mut self, after: i64) -> Result<Option<i64>, Cause>;

    /// Returns the highest serial in use, 0 without rows.
    fn last_serial(&mut self) -> Result<i64, Cause>;

    /// Reads a number.
    fn meta(&mut self, meta: Meta) -> Result<i64, Cause>;

    /// Writes a number.
    fn set_meta(&mut self, meta: Meta, value: i64) -> Result<(), Cause>;

    /// Returns how many saves wait to be folded into their rows.
    fn saves_in_log(&self) -> u64;

    /// Returns how many touches wait likewise.
    fn touches_in_log(&self) -> u64;

    /// Returns how many sessions are not in the index of users yet.
    fn sessions_unindexed(&self) -> u64;

    /// Returns whether something waits to be folded into the place where it belongs: what must be under load, too, or
    /// anything, `at_rest`.
    fn fold_is_due(&self, at_rest: bool) -> bool;

    /// Folds some of what is due: a step short enough for commands to wait for.
    fn fold(&mut self, at_rest: bool) -> Result<(), Cause>;

    /// Returns whether the disk has room for work that can wait: a COMMIT that it refuses costs the connection.
    fn has_room_to_spare(&self) -> bool;

    /// Returns how many pages the log holds.
    fn log_pages(&self) -> u64;

    /// Moves what it can of the log into the database without waiting for anybody. Outside a transaction.
    fn checkpoint(&mut self) -> Result<Checkpoint, Cause>;

    /// Moves all of the log and empties it, if nobody else uses it. Outside a transaction.
    fn checkpoint_and_truncate(&mut self) -> Result<Checkpoint, Cause>;

    /// Closes the connection and opens another. The file must be the same one.
    fn reopen(&mut self) -> Result<(), Cause>;

    /// Returns whether what was committed is on a file: a connection to memory cannot be reopened.
    fn is_durable(&self) -> bool;

    /// Makes the next sync of the log from beside fail.
    #[cfg(feature = "testing")]
    fn fail_log_sync(&mut self);
}
