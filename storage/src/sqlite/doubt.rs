//! A database whose sync has failed, or may have.
//!
//! What a failed sync was to write counts as written from then on: no later sync writes it (see [`super::wal`]). The log
//! has it still, and a checkpoint writes it again. But a checkpoint goes on from where the last one has come to, and one
//! that a reader cut short has moved its part *without* a sync: the next one's sync was to write that, too. How far it has
//! come SQLite keeps in the log's index, which whoever is the first to open the file makes anew.

use std::time::Duration;

use crate::{
    backend::Backend,
    error::{Cause, CauseKind},
};

use super::{
    Sqlite, cause,
    open::{as_cause, demand},
};

/// The first version that tells how much is moved without moving anything. Earlier ones take the word for `PASSIVE`.
const TELLS_WHAT_IS_MOVED: i32 = 3_051_000;

impl Sqlite {
    /// Notes that a checkpoint has failed, and perhaps its sync of the database.
    pub(super) fn doubt_database(&mut self) -> Result<(), Cause> {
        self.is_in_doubt = true;
        // To close the connection would go on from there and delete the log, which a new opening can still move whole.
        self.keep_log_on_close(!self.is_log_gone())
    }

    /// Makes sure, after a doubt, that the next checkpoint moves all that the log holds.
    pub(super) fn end_doubt(&mut self, is_log_gone: bool) -> Result<(), Cause> {
        if !self.is_in_doubt {
            return Ok(());
        }
        self.rollback()?;
        if self.is_some_moved()? {
            if is_log_gone {
                self.keep_log_on_close(false)?;
                let what =
                    "the log was deleted, and a part of it may be nowhere else: a sync of the database has failed";
                return Err(Cause::new(CauseKind::Replaced, what));
            }
            self.close_alone()?;
        }
        self.is_in_doubt = false;
        Ok(())
    }

    fn is_some_moved(&self) -> Result<bool, Cause> {
        if rusqlite::version_number() < TELLS_WHAT_IS_MOVED {
            return Ok(true);
        }
        let moved = self.connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(2));
        // Below 0 it does not tell.
        Ok(moved.map_err(|error| cause(&error))? != 0)
    }

    /// Closes the connection, if nobody else has the file open. Before that it stays, however long: of connections that
    /// close the last one goes on with the log from where the last checkpoint has come to, and deletes it.
    fn close_alone(&mut self) -> Result<(), Cause> {
        self.connection.busy_timeout(Duration::ZERO).map_err(|error| cause(&error))?;
        // Held until the end, the lock keeps others from opening the file meanwhile.
        demand(&self.connection, "locking_mode", "EXCLUSIVE", "exclusive").map_err(as_cause)?;
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| match cause(&error) {
            busy if busy.kind == CauseKind::Busy => {
                let what = "a sync of the database has failed; to move the log once more, nobody else may have it open";
                Cause { message: what.into(), ..busy }
            }
            other => other,
        })?;
        self.disconnect()
    }
}
