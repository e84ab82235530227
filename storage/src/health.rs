//! What the storage thread says of itself, read by everybody else.
//!
//! The generation counts the connections (and foreign writes) that records in memory may stem from: a record of an
//! earlier one is not served any more (rules R2, R4, R5).

use crate::sync::{AtomicI64, AtomicU8, AtomicU64, Ordering, omitted, ordering};

/// The state of the storage thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Serving.
    Running = 0,
    /// Reopening the connection; requests wait, or are answered `Unavailable` at their deadline.
    Recovering = 1,
    /// Given up; every request is answered `Unavailable`.
    Failed = 2,
    /// Over.
    Closed = 3,
}

/// Generation, phase and the time of the last look for foreign writes.
#[derive(Debug)]
pub struct Vitals {
    generation: AtomicU64,
    phase: AtomicU8,
    /// Monotonic microseconds of the last look for foreign writes.
    checked_at: AtomicI64,
}

impl Vitals {
    /// Starts in generation 1, running.
    pub fn new() -> Self {
        Self {
            generation: AtomicU64::new(1),
            phase: AtomicU8::new(Phase::Running as u8),
            checked_at: AtomicI64::new(0),
        }
    }

    /// Returns the generation whose records may be served.
    pub fn generation(&self) -> u64 {
        self.generation.load(ordering("health: a reader acquires the generation", Ordering::Acquire))
    }

    /// Makes every record in memory stale.
    pub fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Recovering,
            2 => Phase::Failed,
            _ => Phase::Closed,
        }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Notes a look for foreign writes at `now`, in monotonic microseconds.
    pub fn checked(&self, now: i64) {
        self.checked_at.store(now, Ordering::Relaxed);
    }

    /// Returns true for one caller when the last look is `interval` or more past.
    pub fn claim_check(&self, now: i64, interval: i64) -> bool {
        let last = self.checked_at.load(Ordering::Relaxed);
        now.saturating_sub(last) >= interval
            && (self.checked_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                || omitted("health: one caller claims the look"))
    }
}

impl Default for Vitals {
    fn default() -> Self {
        Self::new()
    }
}
