//! Touches that wait in a log ([`super::log_index`]).
//!
//! A flush into the rows writes a page for nearly every row: those that were touched lie apart. Appended, two hundred touches
//! share a page, and what a session gathers in some seconds is written to its row once.
//!
//! ```text
//!   flush ──append──▶ touch_log ──fold, in small steps──▶ activity     at rest, when the log is long, before a query
//! ```
//!
//! **A row's activity is the highest there is of it**, in the row and in the log. Activity only ever rises, so nothing has to be
//! deleted from the log to keep it right, and to fold twice changes nothing; entries of a deleted row have no row, for
//! numbers are never used twice (rule R6). What counts is kept in memory, and read anew when the connection is opened or another
//! process has written. Queries that look at many rows have the log folded first.
//!
//! Other processes see `current_session`. What they write into `activity` while the log holds something makes them fold it
//! first, by triggers: nothing of either is lost.

use rusqlite::{CachedStatement, Row, params};

use crate::{
    cell::{Activity, COUNT_MAX},
    error::Cause,
};

use super::{cause, log_index::LogIndex, open::Sqlite, rows::prepare};

/// Rows from which on a flush is appended: fewer are as cheap in their rows.
const APPEND_ROWS_MIN: usize = 8;
/// Entries from which on they are folded although commands wait: as many as let the touches of one session, and of its
/// neighbours, meet. A query waits for as many: some 30 ms.
const FOLD_FROM: i64 = 32_768;
/// A flush that would bring more entries than these goes to the rows at once: bounds the file, and the time to open it.
const ENTRIES_MAX: i64 = 131_072;

/// Rows folded in one transaction at most: some milliseconds.
const FOLD_ROWS_MAX: i64 = 2_048;

const RAISE: &str = "UPDATE activity SET last_active_at = max(last_active_at, ?2), \
                     touch_count = max(touch_count, ?3) WHERE serial = ?1";

/// What the log holds.
pub(super) type TouchLog = LogIndex<Activity>;

/// One touched row in an entry of the table: its number, microseconds after the entry's `since`, the count.
type Touched = (i64, i64, i64);

/// Reads what an entry holds; `None` if anything of it is damaged. So does the view `logged_activity`.
fn touched(row: &Row<'_>) -> Option<Vec<(i64, Activity)>> {
    let since: i64 = row.get(1).ok()?;
    let touches: Vec<Touched> = serde_json::from_str(row.get_ref(2).ok()?.as_str().ok()?).ok()?;
    let activity = |(serial, after, count): Touched| {
        let count = u64::try_from(count).ok()?.min(COUNT_MAX);
        Some((serial, Activity { last_active: since.checked_add(after)?, count }))
    };
    touches.into_iter().map(activity).collect()
}

/// Raises the activity of one row; false if there is none.
fn raise_by(raise: &mut CachedStatement<'_>, serial: i64, activity: Activity) -> Result<bool, Cause> {
    let count = activity.count.min(COUNT_MAX).cast_signed();
    let raised = raise.execute(params![serial, activity.last_active, count]).map_err(|error| cause(&error))?;
    Ok(raised == 1)
}

impl TouchLog {
    /// Returns whether there is something to fold now.
    pub(super) fn must_fold(&self, at_rest: bool) -> bool {
        self.is_due(FOLD_FROM, at_rest)
    }

    /// Returns a row's activity, by what the row holds and what the log does; `None` if that is no count.
    pub(super) fn activity(&self, serial: i64, last_active: i64, count: i64) -> Option<Activity> {
        // A fold, or another process's trigger, takes the highest before anybody looks whether it makes sense.
        let (last_active, count) = match self.get(serial) {
            Some(logged) => (last_active.max(logged.last_active), count.max(logged.count.cast_signed())),
            None => (last_active, count),
        };
        let count = u64::try_from(count).ok().filter(|count| *count <= COUNT_MAX)?;
        Some(Activity { last_active, count })
    }

    /// Returns the highest of what the log holds and `other`.
    fn highest(&self, serial: i64, other: Activity) -> Activity {
        self.get(serial).map_or(other, |logged| Activity {
            last_active: logged.last_active.max(other.last_active),
            count: logged.count.max(other.count),
        })
    }
}

impl Sqlite {
    /// Reads what counts. In a transaction.
    pub(super) fn read_touch_log(&mut self) -> Result<(), Cause> {
        let mut log = TouchLog::default();
        {
            let mut statement = self.statement("SELECT position, since, touches FROM touch_log")?;
            let mut rows = statement.query([]).map_err(|error| cause(&error))?;
            while let Some(row) = rows.next().map_err(|error| cause(&error))? {
                let Some(touched) = touched(row) else {
                    // An entry is not worth the database: what it held is behind by what one flush wrote.
                    tracing::error!(position = row.get::<_, i64>(0).ok(), "an entry of touch_log is damaged");
                    log.read(1);
                    continue;
                };
                log.read(touched.len().max(1) as i64);
                for (serial, activity) in touched {
                    log.read_entry(serial, log.highest(serial, activity));
                }
            }
        }
        self.touch_log = log;
        Ok(())
    }

    /// Raises the activity of rows that are there: in the log, or in the rows where they are few.
    pub(super) fn raise_all(&mut self, rows: &[(i64, Activity)]) -> Result<(), Cause> {
        let times = || rows.iter().map(|(_, activity)| activity.last_active);
        let span = times().min().zip(times().max());
        match span.and_then(|(since, last)| last.checked_sub(since).map(|_| since)) {
            Some(since) if self.is_worth_appending(rows.len()) => self.append_touches(since, rows),
            _ => {
                let mut raise = self.statement(RAISE)?;
                rows.iter().try_for_each(|(serial, activity)| raise_by(&mut raise, *serial, *activity).map(drop))
            }
        }
    }

    fn is_worth_appending(&self, rows: usize) -> bool {
        self.has_file() && rows >= APPEND_ROWS_MIN && self.touch_log.entries() + rows as i64 <= ENTRIES_MAX
    }

    fn append_touches(&mut self, since: i64, rows: &[(i64, Activity)]) -> Result<(), Cause> {
        let mut touched: Vec<Touched> = Vec::with_capacity(rows.len());
        for (serial, activity) in rows {
            let activity = Activity { count: activity.count.min(COUNT_MAX), ..*activity };
            touched.push((*serial, activity.last_active - since, activity.count.cast_signed()));
            self.touch_log.append(*serial, self.touch_log.highest(*serial, activity));
        }
        let text = serde_json::to_string(&touched).expect("numbers encode");
        self.statement("INSERT INTO touch_log (since, touches) VALUES (?1, ?2)")?
            .execute(params![since, text])
            .map_err(|error| cause(&error))?;
        Ok(())
    }

    /// Raises the activity of one row; false if there is none.
    pub(super) fn raise(&self, serial: i64, activity: Activity) -> Result<bool, Cause> {
        raise_by(&mut self.statement(RAISE)?, serial, activity)
    }

    /// Folds some of the touches into their rows, in the open transaction; empties the log once all rows are as it has them.
    pub(super) fn fold_touches(&mut self) -> Result<(), Cause> {
        let rows = self.touch_log.step().min(FOLD_ROWS_MAX);
        self.fold_touches_of(rows)
    }

    /// Folds all, where the open transaction writes: for a query over the rows.
    pub(super) fn fold_all_touches(&mut self) -> Result<(), Cause> {
        if self.is_writing && self.touch_log.entries() > 0 { self.fold_touches_of(i64::MAX) } else { Ok(()) }
    }

    fn fold_touches_of(&mut self, rows_max: i64) -> Result<(), Cause> {
        let mut raise = prepare(&self.connection, RAISE)?;
        for _ in 0..rows_max {
            let Some((serial, activity)) = self.touch_log.next_to_fold() else {
                self.execute("DELETE FROM touch_log", [])?;
                self.touch_log.emptied();
                return Ok(());
            };
            raise_by(&mut raise, serial, activity)?;
            self.touch_log.end(serial);
        }
        Ok(())
    }
}
