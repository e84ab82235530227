//! Which entries of a log count, row by row, and in what order they are folded: what the two logs ([`super::save_log`],
//! [`super::touch_log`]) have in common.
//!
//! A log is a table to whose right edge changes are appended, many to a page, and from which they are folded into their
//! rows later, in row order and in small steps: the changes of one row become one, and those of neighbouring rows share
//! their page. Once no entry counts any more, the table is emptied at one blow.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Rows folded in one transaction: a millisecond, for which commands wait. Where more come in meanwhile, twice as many as
/// those, so that a fold ends before the log is full.
const FOLD_ROWS: i64 = 256;

/// What a log holds; `E` is what counts for a row.
#[derive(Debug)]
pub(super) struct LogIndex<E> {
    /// What counts, by row.
    latest: HashMap<i64, E, RandomState>,
    /// Entries in the table, whether they count or not.
    entries: i64,
    /// Entries appended since the last step of a fold.
    appended: i64,
    /// Rows still to fold in this pass, the last in row order first.
    rows: Vec<i64>,
    /// What the open transaction has changed: rows with the entry they had, and how many entries there were.
    undo: Vec<(i64, Option<E>)>,
    entries_before: i64,
}

impl<E> Default for LogIndex<E> {
    fn default() -> Self {
        Self {
            latest: HashMap::default(),
            entries: 0,
            appended: 0,
            rows: Vec::new(),
            undo: Vec::new(),
            entries_before: 0,
        }
    }
}

impl<E: Copy> LogIndex<E> {
    /// Reads `entries` more entries of the table, without an open transaction to take them back.
    pub(super) fn read(&mut self, entries: i64) {
        self.entries += entries;
        self.entries_before = self.entries;
    }

    /// Notes what counts for a row, as read from the table.
    pub(super) fn read_entry(&mut self, serial: i64, entry: E) {
        self.latest.insert(serial, entry);
    }

    /// Returns what counts for a row.
    pub(super) fn get(&self, serial: i64) -> Option<&E> {
        self.latest.get(&serial)
    }

    /// Returns how many entries there are.
    pub(super) fn entries(&self) -> i64 {
        self.entries
    }

    /// Notes an entry appended to the table.
    pub(super) fn append(&mut self, serial: i64, entry: E) {
        self.set(serial, Some(entry));
        self.entries += 1;
        self.appended += 1;
    }

    /// Ends what the log holds for a row: the row itself is written, or deleted.
    pub(super) fn end(&mut self, serial: i64) {
        self.set(serial, None);
    }

    fn set(&mut self, serial: i64, entry: Option<E>) {
        let before = match entry {
            Some(entry) => self.latest.insert(serial, entry),
            None => self.latest.remove(&serial),
        };
        if before.is_some() || entry.is_some() {
            self.undo.push((serial, before));
        }
    }

    /// The table is empty.
    pub(super) fn emptied(&mut self) {
        self.entries = 0;
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

    /// Returns whether there is something to fold now: `from` so many entries on under load, too.
    pub(super) fn is_due(&self, from: i64, at_rest: bool) -> bool {
        !self.rows.is_empty() || self.entries >= from || at_rest && self.entries > 0
    }

    /// Returns how many rows the next step of a fold is to take.
    pub(super) fn step(&mut self) -> i64 {
        FOLD_ROWS.max(2 * std::mem::take(&mut self.appended))
    }

    /// Returns the next row whose newest state is in the log; `None` when no entry counts any more.
    pub(super) fn next_to_fold(&mut self) -> Option<(i64, E)> {
        loop {
            while let Some(serial) = self.rows.pop() {
                if let Some(entry) = self.latest.get(&serial) {
                    return Some((serial, *entry));
                }
            }
            // Those that were changed since they were folded.
            self.rows.extend(self.latest.keys());
            self.rows.sort_unstable_by(|one, other| other.cmp(one));
            if self.rows.is_empty() {
                return None;
            }
        }
    }
}
