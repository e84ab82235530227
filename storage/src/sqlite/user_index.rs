//! The index of users, `session_of_user`, which may be behind the rows.
//!
//! New rows go to the right edge of their tables, many to a page; their users lie all over the index, so a create would write a
//! page of it, alone. Indexed some ten thousand at a time, in the order of their users, they share its pages.
//!
//! ```text
//!   create ──note──▶ memory ──fold, in small steps──▶ session_of_user     at rest, when there are many, before a query
//! ```
//!
//! **Every row below `from` that has a user is in the index.** `from` is on record in `meta`, and moves with the transaction
//! that indexes the last row below it; queries look at the rows from there on, too ([`super::query`]). Whatever else changes a row's
//! user, or deletes the row, changes the index at once; rows noted before that are looked at when their turn comes; and to index a
//! row twice, or one that is gone, changes nothing. So a fold cut short needs no repair. What is not indexed yet is read anew when the connection is opened.
//!
//! Other processes keep the index by triggers.

use std::sync::Arc;

use rusqlite::params;

use crate::error::Cause;

use super::{cause, open::Sqlite, rows::prepare};

/// Rows from which on they are indexed although commands wait: as many as let those of one user, and of its neighbours, meet.
const FOLD_FROM: usize = 32_768;
/// Rows indexed in one transaction: a millisecond. Where more come in meanwhile, twice as many as those, so that a fold ends.
const FOLD_ROWS: usize = 512;

/// Rows indexed before a query by user, twice so many at most: some ten milliseconds, and, where each goes to a page of its own,
/// no more than a log between two checkpoints.
const FOLD_ROWS_FOR_QUERY: usize = 4_096;

/// Names up to so many bytes are kept until their rows are indexed; longer ones are read again.
const NAME_BYTES_MAX: usize = 64;

/// Where a row goes in the index.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// How its user's name begins: as good as the name, to bring neighbours together.
    beginning: u128,
    serial: i64,
    name: Option<Arc<str>>,
}

/// What is not indexed yet.
#[derive(Debug, Default)]
pub(super) struct UserIndex {
    from: i64,
    /// Rows that came since the pass began: where those with a user go, and how many there are in all.
    added: Vec<Place>,
    rows: usize,
    /// Those since the last step.
    rows_since_step: usize,
    /// Some of them may have been deleted, given to another user, or never committed.
    is_in_doubt: bool,
    /// The pass: what it has still to index, the last first; how many rows it deals with, 0 between passes; where it ends; and the
    /// same doubt.
    pass: Vec<Place>,
    rows_in_pass: usize,
    until: i64,
    pass_is_in_doubt: bool,
    /// What the open transaction has done: rows indexed, rows of passes that ended, and `from` as it was.
    indexed: Vec<Place>,
    rows_indexed: usize,
    from_before: i64,
}

impl UserIndex {
    /// Notes a new row.
    pub(super) fn add(&mut self, serial: i64, user: Option<&Arc<str>>) {
        self.rows += 1;
        self.rows_since_step += 1;
        if let Some(user) = user {
            let name = (user.len() <= NAME_BYTES_MAX).then(|| Arc::clone(user));
            self.added.push(Place { beginning: beginning(user), serial, name });
        }
    }

    /// From now on rows are looked at before they are indexed: they may not be what they were.
    pub(super) fn doubt(&mut self) {
        self.is_in_doubt = true;
        self.pass_is_in_doubt = true;
    }

    /// Returns the row number below which all are indexed.
    pub(super) fn from(&self) -> i64 {
        self.from
    }

    /// Returns how many rows there are from there on.
    pub(super) fn rows(&self) -> usize {
        self.rows + self.rows_in_pass
    }

    /// Returns whether there is something to index now.
    pub(super) fn is_due(&self, at_rest: bool) -> bool {
        self.rows_in_pass > 0 || self.rows >= FOLD_FROM || at_rest && self.rows > 0
    }

    /// The transaction has committed.
    pub(super) fn keep(&mut self) {
        self.indexed.clear();
        self.rows_indexed = 0;
        self.from_before = self.from;
    }

    /// The transaction is rolled back: the pass begins again. Rows that it had added are like any that were deleted.
    pub(super) fn take_back(&mut self) {
        self.added.append(&mut self.indexed);
        self.added.append(&mut self.pass);
        self.rows += std::mem::take(&mut self.rows_indexed) + std::mem::take(&mut self.rows_in_pass);
        self.from = self.from_before;
        self.doubt();
    }

    /// Begins a pass over all rows below `until`, which is the next number to be given.
    fn begin(&mut self, until: i64) {
        self.pass = std::mem::take(&mut self.added);
        self.pass.sort_unstable_by(|one, other| other.cmp(one));
        self.rows_in_pass = std::mem::take(&mut self.rows);
        self.pass_is_in_doubt = std::mem::take(&mut self.is_in_doubt);
        self.until = until;
    }

    fn end(&mut self, until: i64) {
        self.rows_indexed += std::mem::take(&mut self.rows_in_pass);
        self.from = until;
    }
}

fn beginning(user: &str) -> u128 {
    let mut bytes = [0; 16];
    let length = user.len().min(bytes.len());
    bytes[..length].copy_from_slice(&user.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}

impl Sqlite {
    /// Reads which rows are not indexed. In a transaction.
    pub(super) fn read_user_index(&mut self) -> Result<(), Cause> {
        let on_record = self.number("SELECT coalesce(max(value), 1) FROM meta WHERE key = 'users_indexed'", [])?;
        // What is still to come is not indexed.
        let from = on_record.min(self.serial_on_record()?);
        let mut index = UserIndex { from, from_before: from, ..UserIndex::default() };
        {
            let mut statement = self.statement("SELECT serial, user FROM session WHERE serial >= ?1")?;
            let mut rows = statement.query([from]).map_err(|error| cause(&error))?;
            while let Some(row) = rows.next().map_err(|error| cause(&error))? {
                let serial = row.get(0).map_err(|error| cause(&error))?;
                let user = row.get_ref(1).map_err(|error| cause(&error))?;
                index.add(serial, user.as_str().ok().map(Arc::from).as_ref());
            }
        }
        index.rows_since_step = 0;
        self.user_index = index;
        Ok(())
    }

    /// Indexes some of the rows that are not, in the open transaction.
    pub(super) fn fold_users(&mut self) -> Result<(), Cause> {
        let rows = FOLD_ROWS.max(2 * std::mem::take(&mut self.user_index.rows_since_step));
        self.fold_users_of(rows)
    }

    /// Indexes as many as a query may wait for, where the open transaction writes. The query looks at the others.
    pub(super) fn fold_users_for_query(&mut self) -> Result<(), Cause> {
        // The rest of a pass, perhaps, and what came since.
        for _ in 0..2 {
            if self.is_writing && self.user_index.rows() > 0 {
                self.fold_users_of(FOLD_ROWS_FOR_QUERY)?;
            }
        }
        Ok(())
    }

    fn fold_users_of(&mut self, rows_max: usize) -> Result<(), Cause> {
        if self.user_index.rows_in_pass == 0 {
            self.user_index.begin(self.serial_next);
        }
        let sql = "INSERT OR IGNORE INTO session_of_user VALUES (?1, ?2)";
        let mut insert = prepare(&self.connection, sql)?;
        for _ in 0..rows_max {
            let Some(place) = self.user_index.pass.pop() else {
                // A number that is not on record yet may be given again.
                let until = self.user_index.until.min(self.serial_on_record()?);
                self.execute("INSERT OR REPLACE INTO meta VALUES ('users_indexed', ?1)", [until])?;
                self.user_index.end(until);
                return Ok(());
            };
            let indexed = match &place.name {
                Some(name) if !self.user_index.pass_is_in_doubt => {
                    insert.execute(params![name, place.serial]).map(drop).map_err(|error| cause(&error))
                }
                _ => self.index_row(place.serial),
            };
            // Also where it failed: a rollback follows, which takes it from there.
            self.user_index.indexed.push(place);
            indexed?;
        }
        Ok(())
    }

    /// Enters a row into the index, if it is there and has a user. One that is damaged has none.
    pub(super) fn index_row(&self, serial: i64) -> Result<(), Cause> {
        let sql = "INSERT OR IGNORE INTO session_of_user \
                   SELECT user, serial FROM session WHERE serial = ?1 AND typeof(user) = 'text'";
        self.execute(sql, [serial]).map(drop)
    }

    /// Takes a row out of the index, before it is deleted or given to another user.
    pub(super) fn unindex_row(&mut self, serial: i64) -> Result<(), Cause> {
        if serial >= self.user_index.from {
            self.user_index.doubt();
        }
        let sql = "DELETE FROM session_of_user \
                   WHERE user = (SELECT user FROM session WHERE serial = ?1) AND serial = ?1";
        self.execute(sql, [serial]).map(drop)
    }
}
