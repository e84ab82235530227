//! What the storage thread shows to the rest: its vitals, its counters, its last trouble.

use std::sync::Arc;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{cell::Cell, dirty::Dirty, error::Cause, health::Vitals, wake::Wakes};

/// A number that only informs: nothing is decided by it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the storage thread counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches run.
    pub batches: Counter,
    /// Commands taken from the mailbox.
    pub commands: Counter,
    /// Transactions committed.
    pub commits: Counter,
    /// Rows written by flushes.
    pub rows_flushed: Counter,
    /// Touch cells in memory now.
    pub cells: Counter,
    /// Pages in the log now.
    pub log_pages: Counter,
    /// Saves that wait to be folded into their rows now.
    pub saves_in_log: Counter,
    /// Touches that wait likewise.
    pub touches_in_log: Counter,
    /// Sessions that are not in the index of users yet.
    pub sessions_unindexed: Counter,
    /// Checkpoints run.
    pub checkpoints: Counter,
    /// Checkpoints that a reader kept from finishing.
    pub checkpoints_busy: Counter,
    /// Times that another process was found to have written.
    pub foreign_writes: Counter,
    /// Times that the connection was opened anew.
    pub restarts: Counter,
    /// Expired sessions deleted.
    pub expired: Counter,
    /// Fire-and-forget messages that failed.
    pub casts_failed: Counter,
}

/// What the database does for us; each may fail while the others work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A transaction that reads.
    Reading,
    /// A transaction that writes; it reads, too.
    Writing,
    /// Moving the log into the database.
    Checkpoint,
}

/// What everybody may read of the storage thread.
#[derive(Debug, Default)]
pub struct Shared {
    /// Generation and phase.
    pub vitals: Vitals,
    /// Counters.
    pub counters: Counters,
    /// Cells with touches to flush.
    pub dirty: Dirty<Arc<Cell>>,
    /// Callers to wake.
    pub wakes: Wakes,
    /// Bytes of records held in memory.
    pub bytes_held: Arc<AtomicUsize>,
    /// Since when, in unix microseconds, and why the database refuses, by the kind of work.
    trouble: Mutex<[Option<(i64, Cause)>; 3]>,
    /// How the end went.
    closing: Mutex<Option<Cause>>,
}

impl Shared {
    /// Notes that the database refused some work.
    pub fn trouble(&self, work: Work, cause: &Cause, now: i64) {
        let mut all = self.lock_trouble();
        let trouble = &mut all[work as usize];
        let since = trouble.as_ref().map_or(now, |(since, _)| *since);
        *trouble = Some((since, cause.clone()));
        drop(all);
        // Last: what listens to the log may panic.
        tracing::warn!(%cause, code = cause.code, ?work, "the database refused");
    }

    /// Notes that the database has done some work. A log that could not be moved is mended by moving it only: commits
    /// may go on for long while the database cannot grow.
    pub fn works(&self, work: Work) {
        let mut trouble = self.lock_trouble();
        match work {
            Work::Reading => trouble[Work::Reading as usize] = None,
            Work::Writing => trouble[..=Work::Writing as usize].fill(None),
            Work::Checkpoint => trouble[Work::Checkpoint as usize] = None,
        }
    }

    /// Notes that the database was opened anew, and has been written to.
    pub fn recovered(&self) {
        self.lock_trouble().fill(None);
    }

    /// Returns the trouble there is longest, and since when in unix microseconds.
    pub fn current_trouble(&self) -> Option<(i64, Cause)> {
        self.lock_trouble().iter().flatten().min_by_key(|(since, _)| *since).cloned()
    }

    fn lock_trouble(&self) -> std::sync::MutexGuard<'_, [Option<(i64, Cause)>; 3]> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what went wrong at the end.
    pub fn closed_with(&self, cause: Cause) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    /// Returns what went wrong at the end.
    pub fn closing_trouble(&self) -> Option<Cause> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
