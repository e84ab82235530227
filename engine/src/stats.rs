//! What the engine counts, and how it is.

use sessile_actors::router::Router;
use sessile_storage::{clock::Timestamp, error::Cause, health::Phase};

/// Numbers since the engine was opened, and some of now. They inform; none is exact at one moment together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions in memory now: touched or read lately.
    pub sessions_in_memory: usize,
    /// Sessions with an actor now.
    pub live_sessions: usize,
    /// Bytes of session records held in memory now.
    pub record_bytes: usize,
    /// Touch cells in memory now.
    pub touch_cells: u64,
    /// Requests in flight now.
    pub requests_in_flight: usize,
    /// Bytes of requests in flight now.
    pub request_bytes_in_flight: usize,
    /// Callers that wait for room now.
    pub requests_waiting: usize,
    /// Commands that the storage thread has taken.
    pub commands: u64,
    /// Batches that it has run.
    pub batches: u64,
    /// Transactions that it has committed.
    pub commits: u64,
    /// Rows of activity that flushes have written.
    pub rows_flushed: u64,
    /// Expired sessions deleted.
    pub expired: u64,
    /// Pages in the write-ahead log now, of 4 KiB; normally under some thousand.
    pub log_pages: u64,
    /// Saves in the log of saves now, counted until they are folded into their rows: under 131,072, and none at rest on
    /// a disk with 16 MiB to spare.
    pub saves_in_log: u64,
    /// Touched rows in the log of touches now, counted until they are folded: at most 131,072, and none at rest,
    /// likewise.
    pub touches_in_log: u64,
    /// Sessions that the index of users does not know of yet, so that queries by user look at them one by one: normally under
    /// 50,000, and none at rest, likewise.
    pub sessions_unindexed: u64,
    /// Checkpoints run.
    pub checkpoints: u64,
    /// Checkpoints that a reader in another process kept from finishing.
    pub checkpoints_busy: u64,
    /// Times that another process was found to have written to the file.
    pub foreign_writes: u64,
    /// Times that the connection was opened anew after a fault.
    pub restarts: u64,
    /// Fire-and-forget touches that failed.
    pub casts_failed: u64,
}

/// How the engine is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Health {
    /// All is well.
    Ready,
    /// The database refuses, or is being opened again.
    Degraded {
        /// Since when.
        since: Timestamp,
        /// What it said last.
        cause: Cause,
    },
    /// The engine is shut down.
    Closed,
}

pub(crate) fn stats(router: &Router) -> Stats {
    let shared = router.shared();
    let counters = &shared.counters;
    let (sessions_in_memory, live_sessions) = router.sessions();
    let (requests_in_flight, request_bytes_in_flight, requests_waiting) = router.admission().load();
    Stats {
        sessions_in_memory,
        live_sessions,
        record_bytes: shared.bytes_held.load(std::sync::atomic::Ordering::Relaxed),
        touch_cells: counters.cells.read(),
        requests_in_flight,
        request_bytes_in_flight,
        requests_waiting,
        commands: counters.commands.read(),
        batches: counters.batches.read(),
        commits: counters.commits.read(),
        rows_flushed: counters.rows_flushed.read(),
        expired: counters.expired.read(),
        log_pages: counters.log_pages.read(),
        saves_in_log: counters.saves_in_log.read(),
        touches_in_log: counters.touches_in_log.read(),
        sessions_unindexed: counters.sessions_unindexed.read(),
        checkpoints: counters.checkpoints.read(),
        checkpoints_busy: counters.checkpoints_busy.read(),
        foreign_writes: counters.foreign_writes.read(),
        restarts: counters.restarts.read(),
        casts_failed: counters.casts_failed.read(),
    }
}

pub(crate) fn health(router: &Router) -> Health {
    let shared = router.shared();
    if shared.vitals.phase() == Phase::Closed || router.admission().is_closed() {
        return Health::Closed;
    }
    match shared.current_trouble() {
        None => Health::Ready,
        Some((since, cause)) => Health::Degraded { since: Timestamp::from_micros(since), cause },
    }
}
