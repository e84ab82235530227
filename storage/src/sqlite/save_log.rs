//! Saves that wait in a log ([`super::log_index`]).
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

use rusqlite::params;

use crate::{
    backend::ReadError,
    error::Cause,
    record::{Data, Stored},
};

use super::{
    cause,
    log_index::LogIndex,
    open::Sqlite,
    rows::{DataColumn, prepare, read_data},
};

/// Data up to so many bytes is appended. A larger row shares its page with few others, so a log would only write it twice.
const APPEND_BYTES_MAX: usize = 1_024;
/// Entries from which on they are folded although commands wait: as many as let the saves of one row, and of its
/// neighbours, meet; 64 MiB at most.
const FOLD_FROM: i64 = 65_536;
/// Entries beyond which a save goes to its row at once: bounds the file, and the time to open it. Stands in the schema,
/// too: a foreign write moves a row's counter past all entries by so much.
const ENTRIES_MAX: i64 = 131_072;
/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct SaveLog {
    pub(super) index: LogIndex<Entry>,
    /// The last position there is is taken: where the next entry would go, nobody knows. We never get there.
    is_at_end: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    position: i64,
    counter: i64,
    bytes: i64,
}

impl SaveLog {
    /// Returns whether there is something to fold now.
    pub(super) fn is_due(&self, at_rest: bool) -> bool {
        self.index.is_due(FOLD_FROM, at_rest)
    }

    /// Overlays a row's counter, and returns how large its data is, where the log has it.
    pub(super) fn overlay(&self, stored: &mut Stored) -> Option<u64> {
        let entry = self.index.get(stored.serial)?;
        stored.counter = entry.counter;
        Some(entry.bytes.cast_unsigned())
    }

    /// Returns the counter that a row's own is to have for a write over `old`: its very own, or any below where the log
    /// holds what was saved since. `None`: the row is not in the state `old`.
    pub(super) fn counters_under(&self, old: &Stored) -> Option<std::ops::RangeInclusive<i64>> {
        match self.index.get(old.serial) {
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
                log.index.read(1);
                let read = || -> rusqlite::Result<_> {
                    let entry = Entry { position: row.get(1)?, counter: row.get(2)?, bytes: row.get(3)? };
                    // Of a row that is gone, or damaged, none counts.
                    Ok((row.get(0)?, entry, row.get(4).unwrap_or_default()))
                };
                let (serial, entry, counter): (i64, Entry, Option<i64>) = read().map_err(|error| cause(&error))?;
                log.is_at_end |= entry.position == i64::MAX;
                let is_newer = log.index.get(serial).is_none_or(|other| other.counter < entry.counter);
                if is_newer && counter.is_some_and(|counter| counter < entry.counter) {
                    log.index.read_entry(serial, entry);
                }
            }
        }
        self.save_log = log;
        Ok(())
    }

    /// Returns whether the change from `old` to `new` may go to the log.
    pub(super) fn is_appended(&self, old: &Stored, new: &Stored) -> bool {
        self.has_file()
            && new.data.bytes().len() <= APPEND_BYTES_MAX
            && self.save_log.index.entries() < ENTRIES_MAX
            && !self.save_log.is_at_end
            && (&old.id, &old.user, &old.metadata) == (&new.id, &new.user, &new.metadata)
            && (old.idle_timeout, old.expires_at) == (new.idle_timeout, new.expires_at)
    }

    /// Appends the data of `new`; false if the row is not in the state `old`.
    pub(super) fn append(&mut self, old: &Stored, new: &Stored) -> Result<bool, Cause> {
        let serial = old.serial;
        let is_there = match self.save_log.index.get(serial) {
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
        self.save_log.index.append(serial, Entry { position, counter: new.counter, bytes });
        Ok(true)
    }

    /// Reads the data of a row from the log, where the log has it.
    pub(super) fn appended_data(&self, serial: i64) -> Result<Option<Data>, ReadError> {
        let Some(entry) = self.save_log.index.get(serial) else { return Ok(None) };
        let mut statement = self.statement("SELECT data FROM save_log WHERE position = ?1")?;
        let mut rows = statement.query([entry.position]).map_err(|error| cause(&error))?;
        match rows.next().map_err(|error| cause(&error))? {
            Some(row) => read_data(row.get_ref(0).map_err(|error| cause(&error))?, serial).map(Some),
            None => Err(ReadError::Corrupt(serial)),
        }
    }

    /// Folds some of the saves into their rows, in the open transaction. Once all rows are as the log has them, it is emptied at
    /// one blow: milliseconds, and far cheaper than entry by entry.
    pub(super) fn fold_saves(&mut self) -> Result<(), Cause> {
        let mut fold = prepare(
            &self.connection,
            "UPDATE session SET counter = ?2, data = (SELECT data FROM save_log WHERE position = ?3) \
             WHERE serial = ?1 AND counter < ?2",
        )?;
        for _ in 0..self.save_log.index.step() {
            let Some((serial, entry)) = self.save_log.index.next_to_fold() else {
                drop(fold);
                return self.empty_save_log();
            };
            fold.execute(params![serial, entry.counter, entry.position]).map_err(|error| cause(&error))?;
            self.save_log.index.end(serial);
        }
        Ok(())
    }

    fn empty_save_log(&mut self) -> Result<(), Cause> {
        self.statement("DELETE FROM save_log")?.execute([]).map_err(|error| cause(&error))?;
        self.save_log.index.emptied();
        Ok(())
    }
}
