//! The touch cell: where a touch is counted without a message.
//!
//! One cell stands for one row; session handles and the storage thread share it. A touch is two atomic steps on it; the
//! storage thread writes what has gathered to the row later (rules R7–R9, invariant I4).
//!
//! ```text
//!            touch: count + 1, queued      (handles, while LIVE)
//!            take:  queued off             (storage thread, at a flush)
//!   LIVE ──freeze──▶ FROZEN ──kill───▶ DEAD      the row is gone
//!    ▲                 │ └───retire──▶ RETIRED   nobody holds the cell and all of it is on disk
//!    └──────thaw───────┘
//! ```
//!
//! Only the storage thread moves the state. Everything a touch changes is in `word` but `last_active`, which a touch
//! raises *before* the step on `word` that counts it: whoever sees the count sees the time too.

use crate::sync::{AtomicI64, AtomicU64, Ordering, omitted, ordering};

const STATE: u64 = 0b011;
const LIVE: u64 = 0b00;
const FROZEN: u64 = 0b01;
const DEAD: u64 = 0b10;
const RETIRED: u64 = 0b11;
const QUEUED: u64 = 0b100;
const ONE: u64 = 0b1000;
const COUNT_SHIFT: u32 = 3;

/// The highest count a row may hold; a cell has room for many more touches on top.
pub const COUNT_MAX: u64 = 1 << 60;

/// Stands for "no deadline" among times in microseconds.
pub const NEVER: i64 = i64::MAX;

/// The activity of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// When the session was last active, in unix microseconds.
    pub last_active: i64,
    /// How many touches were counted.
    pub count: u64,
}

/// When a session ends. Both in microseconds, [`NEVER`] for no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// How long the session may be idle.
    pub idle_timeout: i64,
    /// The time at which it ends, active or not.
    pub expires_at: i64,
}

impl Deadlines {
    /// Returns when a session last active at `last_active` ends.
    pub fn end(self, last_active: i64) -> i64 {
        // A time may be so far back that even the longest timeout would end before now.
        let idle = if self.idle_timeout == NEVER { NEVER } else { last_active.saturating_add(self.idle_timeout) };
        idle.min(self.expires_at)
    }

    /// Whether a session last active at `last_active` is over at `now`.
    pub fn passed(self, last_active: i64, now: i64) -> bool {
        now >= self.end(last_active)
    }
}

/// What became of a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Counted, and a flush is under way or was asked for by an earlier touch.
    Counted,
    /// Counted, and the first since the last flush: the toucher sends the storage thread a hint.
    CountedFirst,
    /// The session is over.
    Expired,
    /// The storage thread is deciding over the row: send the touch to it.
    Frozen,
    /// This cell is out of use: resolve the session again.
    Gone,
}

/// The touch cell of a row.
#[derive(Debug)]
pub struct Cell {
    serial: i64,
    /// Count, queued bit and state.
    word: AtomicU64,
    last_active: AtomicI64,
    // Changed by the storage thread alone, after a commit; a touch that races with the change may go by either value, and by
    // one of each: where the session is alive by both, it is by those, too.
    idle_timeout: AtomicI64,
    expires_at: AtomicI64,
}

impl Cell {
    /// Makes a live cell for the row `serial`.
    pub fn new(serial: i64, activity: Activity, deadlines: Deadlines) -> Self {
        Self {
            serial,
            word: AtomicU64::new(activity.count << COUNT_SHIFT | LIVE),
            last_active: AtomicI64::new(activity.last_active),
            idle_timeout: AtomicI64::new(deadlines.idle_timeout),
            expires_at: AtomicI64::new(deadlines.expires_at),
        }
    }

    /// Returns the number of the row.
    pub fn serial(&self) -> i64 {
        self.serial
    }

    /// Counts a touch at `now`, if the session is alive and its row not under decision.
    pub fn touch(&self, now: i64) -> Touch {
        let mut word = self.word.load(Ordering::Acquire);
        match word & STATE {
            LIVE => {}
            FROZEN => return Touch::Frozen,
            _ => return Touch::Gone,
        }
        if self.expired(now) {
            return Touch::Expired;
        }
        // Before the count: whoever reads the count must find this time, or a flush would write an older one.
        self.last_active.fetch_max(now, Ordering::Relaxed);
        loop {
            match word & STATE {
                LIVE => {}
                _ if omitted("cell: a touch rechecks the state") => {}
                FROZEN => return Touch::Frozen,
                _ => return Touch::Gone,
            }
            let next = (word | QUEUED) + ONE;
            let release = ordering("cell: a touch releases its time", Ordering::AcqRel);
            match self.word.compare_exchange_weak(word, next, release, Ordering::Acquire) {
                Ok(_) if word & QUEUED == 0 => return Touch::CountedFirst,
                Ok(_) => return Touch::Counted,
                Err(seen) => word = seen,
            }
        }
    }

    /// Returns whether touches go to this cell.
    pub fn is_live(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE == LIVE
    }

    /// Returns whether the session is over at `now`.
    pub fn expired(&self, now: i64) -> bool {
        self.deadlines().passed(self.last_active.load(Ordering::Relaxed), now)
    }

    /// Reads the deadlines.
    pub fn deadlines(&self) -> Deadlines {
        let acquire = ordering("cell: who reads a deadline acquires the time", Ordering::Acquire);
        Deadlines { idle_timeout: self.idle_timeout.load(acquire), expires_at: self.expires_at.load(acquire) }
    }

    /// Reads count and time; the time is at least that of every touch counted.
    pub fn activity(&self) -> Activity {
        let acquire = ordering("cell: a reader acquires the times", Ordering::Acquire);
        self.activity_at(self.word.load(acquire))
    }

    fn activity_at(&self, word: u64) -> Activity {
        Activity { last_active: self.last_active.load(Ordering::Relaxed), count: word >> COUNT_SHIFT }
    }

    // From here on: the storage thread only.

    /// Takes what a flush is to write: from now on the next touch sends a hint again.
    pub fn take(&self) -> Activity {
        let acquire = ordering("cell: a flush acquires the times", Ordering::AcqRel);
        let queued = if omitted("cell: a flush asks for the next hint") { 0 } else { QUEUED };
        self.activity_at(self.word.fetch_and(!queued, acquire))
    }

    /// Adds touches that were committed with a batch, and raises the time.
    pub fn absorb(&self, last_active: i64, touches: u64) {
        self.last_active.fetch_max(last_active, Ordering::Relaxed);
        if touches > 0 {
            let release = ordering("cell: what a batch adds releases its time", Ordering::AcqRel);
            self.word.fetch_add(touches << COUNT_SHIFT, release);
        }
    }

    /// Raises count and time to at least what the row holds.
    pub fn raise(&self, stored: Activity) {
        self.last_active.fetch_max(stored.last_active, Ordering::Relaxed);
        let mut word = self.word.load(Ordering::Acquire);
        while word >> COUNT_SHIFT < stored.count {
            let next = stored.count << COUNT_SHIFT | word & (STATE | QUEUED);
            let release = ordering("cell: a raised count releases its time", Ordering::AcqRel);
            match self.word.compare_exchange_weak(word, next, release, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// Changes the deadlines, after the time of the write that did so was raised: by a new timeout and an old time the session
    /// might seem to be over.
    pub fn set_deadlines(&self, deadlines: Deadlines) {
        let release = ordering("cell: a deadline releases the time", Ordering::Release);
        self.idle_timeout.store(deadlines.idle_timeout, release);
        self.expires_at.store(deadlines.expires_at, release);
    }

    /// LIVE → FROZEN, and reads what was counted until then: nothing more is.
    pub fn freeze(&self) -> Activity {
        let acquire = ordering("cell: a freeze acquires the times", Ordering::AcqRel);
        let word = self.word.fetch_or(FROZEN, acquire);
        debug_assert_eq!(word & STATE, LIVE, "only a live cell is frozen");
        self.activity_at(word)
    }

    /// FROZEN → LIVE.
    pub fn thaw(&self) {
        let word = self.word.fetch_and(!STATE, Ordering::AcqRel);
        debug_assert_eq!(word & STATE, FROZEN, "only a frozen cell thaws");
    }

    /// FROZEN → DEAD.
    pub fn kill(&self) {
        let word = self.word.fetch_xor(FROZEN ^ DEAD, Ordering::AcqRel);
        debug_assert_eq!(word & STATE, FROZEN, "only a frozen cell dies");
    }

    /// FROZEN → RETIRED.
    pub fn retire(&self) {
        let word = self.word.fetch_or(RETIRED, Ordering::AcqRel);
        debug_assert_eq!(word & STATE, FROZEN, "only a frozen cell retires");
    }
}
