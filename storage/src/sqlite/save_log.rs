//! Saves that wait in a log: appended at the right edge of one table, and folded into their rows later, in row order.
//!
//! A save into its row writes that row's page, alone. Appended, some ten saves share a page; folded, the saves of one
//! row become one, and those of neighbouring rows share their page.
//!
//! ```text
//!   save ──append──▶ save_log ──fold, in small steps──▶ session     at rest, or when the log is long
//! ```
//!
//! **An entry counts if its counter is above its row's, and the highest of its row's entries.** So whatever writes a row
//! in full ends the entries before it by the row's counter, and those of a deleted row have no row, for numbers are never
//! used twice (rule R6). Nothing has to be deleted from the log to keep it right; all entries go at once, when a fold
//! has dealt with them. Which of them count is kept in memory, and read anew when the connection is opened or another process has
//! written.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use rusqlite::params;

use crate::{
    backend::ReadError,
    error::Cause,
    record::{Data, Stored},
};

use super::{
    cause,
    open::Sqlite,
    rows::{DataColumn, read_data},
};

/// Data up to so many bytes is appended. A larger row shares its page with few others, so a log would only write it twice.
const APPEND_BYTES_MAX: usize = 1_024;
/// Entries from which on they are folded although commands wait: as many as let the saves of one row, and of its
/// neighbours, meet; 64 MiB at most.
const FOLD_FROM: i64 = 65_536;
/// Entries beyond which a save goes to its row at once: bounds the file, and the time to open it. Stands in the schema,
/// too: a foreign write moves a row's counter past all entries by so much.
const ENTRIES_MAX: i64 = 131_072;
/// Rows folded in one transaction: a millisecond, for which commands wait. Where more come in meanwhile, twice as many as
/// those, so that a fold ends before the log is full.
const FOLD_ROWS: i64 = 256;

/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct SaveLog {
    /// The entry that counts, by row.
    latest: HashMap<i64, Entry, RandomState>,
    /// Entries in the table, whether they count or not.
    entries: i64,
    /// Entries appended since the last step of a fold.
    appended: i64,
    /// The last position there is is taken: where the next entry would go, nobody knows. We never get there.
    is_at_end: bool,
    /// Rows still to fold in this pass, the last in row order first.
    rows: Vec<i64>,
    /// What the open transaction has changed: rows with the entry they had, and how many entries there were.
    undo: Vec<(i64, Option<Entry>)>,
    entries_before: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    position: i64,
    counter: i64,
    bytes: i64,
}

impl SaveLog {
    fn set(&mut self, serial: i64, entry: Option<Entry>) {
        let before = match entry {
            Some(entry) => self.latest.insert(serial, entry),
            None => self.latest.remove(&serial),
        };
        if before.is_some() || entry.is_some() {
            self.undo.push((serial, before));
        }
    }

    /// Ends what the log holds for a row: the row itself is written, or deleted.
    pub(super) fn end(&mut self, serial: i64) {
        self.set(serial, None);
    }

    /// The transaction has committed.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
        self.entries_before = self.entries;
    }

    /// The transaction is rolled back.
    pub(super) fn take_back(&mut self) {
        while let Some((serial, before)) = self.undo.pop() {
            match before {
                Some(entry) => self.latest.insert(serial, entry),
                None => self.latest.remove(&serial),
            };
        }
        self.entries = self.entries_before;
        // What it had done may be undone with the rest: it begins again, with what is left.
        self.rows.clear();
    }

    /// Returns the next row whose newest state is in the log.
    fn next_to_fold(&mut self) -> Option<(i64, Entry)> {
        loop {
            while let Some(serial) = self.rows.pop() {
                if let Some(entry) = self.latest.get(&serial) {
                    return Some((serial, *entry));
                }
            }
            // Those that were saved since they were folded.
            self.rows.extend(self.latest.keys());
            self.rows.sort_unstable_by(|one, other| other.cmp(one));
            if self.rows.is_empty() {
                return None;
            }
        }
    }

    /// Returns how many entries there are.
    pub(super) fn entries(&self) -> u64 {
        self.entries.cast_unsigned()
    }

    /// Returns whether there is something to fold now.
    pub(super) fn is_due(&self, at_rest: bool) -> bool {
        !self.rows.is_empty() || self.entries >= FOLD_FROM || at_rest && self.entries > 0
    }

    /// Overlays a row's counter, and returns how large its data is, where the log has it.
    pub(super) fn overlay(&self, stored: &mut Stored) -> Option<u64> {
        let entry = self.latest.get(&stored.serial)?;
        stored.counter = entry.counter;
        Some(entry.bytes.cast_unsigned())
    }

    /// Returns the counter that a row's own is to have for a write over `old`: its very own, or any below where the log
    /// holds what was saved since. `None`: the row is not in the state `old`.
    pub(super) fn counters_under(&self, old: &Stored) -> Option<std::ops::RangeInclusive<i64>> {
        match self.latest.get(&old.serial) {
            None => Some(old.counter..=old.counter),
            Some(entry) => (entry.counter == old.counter).then_some(i64::MIN..=old.counter),
        }
    }
}

impl Sqlite {
    /// Reads which entries count. In a transaction.
    pub(super) fn read_save_log(&mut self) -> Result<(), Cause> {
        let mut log = SaveLog::default();
        {
            let mut statement = self.statement(
                "SELECT l.serial, l.position, l.counter, octet_length(l.data), s.counter \
                 FROM save_log l LEFT JOIN session s ON s.serial = l.serial ORDER BY l.position",
            )?;
            let mut rows = statement.query([]).map_err(|error| cause(&error))?;
            while let Some(row) = rows.next().map_err(|error| cause(&error))? {
                log.entries += 1;
                let read = || -> rusqlite::Result<_> {
                    let entry = Entry { position: row.get(1)?, counter: row.get(2)?, bytes: row.get(3)? };
                    Ok((row.get(0)?, entry, row.get::<_, Option<i64>>(4)?))
                };
                let (serial, entry, counter): (i64, Entry, Option<i64>) = read().map_err(|error| cause(&error))?;
                log.is_at_end |= entry.position == i64::MAX;
                let is_newer = log.latest.get(&serial).is_none_or(|other| other.counter < entry.counter);
                if is_newer && counter.is_some_and(|counter| counter < entry.counter) {
                    log.latest.insert(serial, entry);
                }
            }
        }
        log.entries_before = log.entries;
        self.save_log = log;
        Ok(())
    }

    /// Returns whether the change from `old` to `new` may go to the log.
    pub(super) fn is_appended(&self, old: &Stored, new: &Stored) -> bool {
        self.has_file()
            && new.data.bytes().len() <= APPEND_BYTES_MAX
            && self.save_log.entries < ENTRIES_MAX
            && !self.save_log.is_at_end
            && (&old.id, &old.user, &old.metadata) == (&new.id, &new.user, &new.metadata)
            && (old.idle_timeout, old.expires_at) == (new.idle_timeout, new.expires_at)
    }

    /// Appends the data of `new`; false if the row is not in the state `old`.
    pub(super) fn append(&mut self, old: &Stored, new: &Stored) -> Result<bool, Cause> {
        let serial = old.serial;
        let is_there = match self.save_log.latest.get(&serial) {
            Some(entry) => entry.counter == old.counter,
            // The first save since its row was written: is the row what we think it is?
            None => self
                .statement("SELECT 1 FROM session WHERE serial = ?1 AND id = ?2 AND counter = ?3")?
                .exists(params![serial, old.id.as_str(), old.counter])
                .map_err(|error| cause(&error))?,
        };
        if !is_there {
            return Ok(false);
        }
        self.statement("INSERT INTO save_log (serial, counter, data) VALUES (?1, ?2, ?3)")?
            .execute(params![serial, new.counter, DataColumn(&new.data)])
            .map_err(|error| cause(&error))?;
        let position = self.connection.last_insert_rowid();
        self.save_log.is_at_end |= position == i64::MAX;
        let bytes = new.data.bytes().len() as i64;
        self.save_log.set(serial, Some(Entry { position, counter: new.counter, bytes }));
        self.save_log.entries += 1;
        self.save_log.appended += 1;
        Ok(true)
    }

    /// Reads the data of a row from the log, where the log has it.
    pub(super) fn appended_data(&self, serial: i64) -> Result<Option<Data>, ReadError> {
        let Some(entry) = self.save_log.latest.get(&serial) else { return Ok(None) };
        let mut statement = self.statement("SELECT data FROM save_log WHERE position = ?1")?;
        let mut rows = statement.query([entry.position]).map_err(|error| cause(&error))?;
        match rows.next().map_err(|error| cause(&error))? {
            Some(row) => read_data(row.get_ref(0).map_err(|error| cause(&error))?, serial).map(Some),
            None => Err(ReadError::Corrupt(serial)),
        }
    }

    /// Folds some of the log into the rows, in the open transaction. Once all rows are as the log has them, it is emptied at
    /// one blow: milliseconds, and far cheaper than entry by entry.
    pub(super) fn fold_some(&mut self) -> Result<(), Cause> {
        let rows_max = FOLD_ROWS.max(2 * std::mem::take(&mut self.save_log.appended));
        for _ in 0..rows_max {
            let Some((serial, entry)) = self.save_log.next_to_fold() else { return self.empty_save_log() };
            self.statement(
                "UPDATE session SET counter = ?2, data = (SELECT data FROM save_log WHERE position = ?3) \
                 WHERE serial = ?1 AND counter < ?2",
            )?
            .execute(params![serial, entry.counter, entry.position])
            .map_err(|error| cause(&error))?;
            self.save_log.end(serial);
        }
        Ok(())
    }

    fn empty_save_log(&mut self) -> Result<(), Cause> {
        self.statement("DELETE FROM save_log")?.execute([]).map_err(|error| cause(&error))?;
        self.save_log.entries = 0;
        Ok(())
    }
}
