//! What the worker does beside commands, by its timers: flushes, sweeps, folds, checkpoints.

use std::sync::Arc;

use crate::{
    backend::{Backend, Meta, Read, ReadError},
    cell::Activity,
    command::{Command, HeldRecord},
    error::{Cause, CauseKind, InterruptedBy},
    record::Durability,
    shared::Work,
};

use super::{Broken, LOCK_WAIT_FIRST, QUIET_US, Worker};

/// Pages in the log at which a checkpoint runs although commands wait (32 MB): the more the log holds, the fewer times
/// a page is written that many commits changed.
const LOG_PAGES_HIGH: u64 = 8_192;
/// How far engine time goes before it is put on record again, in microseconds: so much of it a kill may lose.
const CLOCK_MARK_INTERVAL_US: i64 = 60_000_000;
/// How long after a checkpoint that a reader cut short, and no write since, the rest is tried; how long after a fold that
/// found no room, or cost the connection, the next is; in microseconds.
const HELD_BACK_US: i64 = 5_000_000;
/// How long after a refusal the database is tried again by ourselves, in microseconds: a service that was taken out of use
/// for its trouble asks nothing more, and is to be found well again.
const TRY_AGAIN_US: i64 = 1_000_000;

impl<B: Backend> Worker<B> {
    /// Lets go of a passivated session.
    pub(crate) fn release(&mut self, held: &Arc<HeldRecord>) {
        self.table.release(held);
        if self.table.has_dirty() {
            self.flush_soon();
        }
        self.shared.counters.cells.set(self.table.len() as u64);
    }

    /// Begins the interval at whose end there is a flush, if none has begun.
    pub(crate) fn flush_soon(&mut self) {
        if self.timers.flush.is_none() {
            self.timers.flush = Some(self.clock.monotonic().saturating_add(self.settings.flush_interval));
        }
    }

    /// Puts the flush off for another interval; the touches stay in their cells.
    pub(super) fn flush_later(&mut self) {
        self.timers.flush = None;
        self.flush_soon();
    }

    pub(super) fn flush_is_due(&self, now: i64) -> bool {
        self.timers.flush.is_some_and(|due| due <= now)
    }

    /// Returns in how many microseconds [`Worker::tick`] has something to do; 0 for now.
    pub(crate) fn idle_for(&self) -> i64 {
        if !self.jobs.is_empty() || !self.deferred.is_empty() {
            return 0;
        }
        let timers = &self.timers;
        let fold = if self.backend.fold_is_due(false) {
            Some(timers.fold_not_before)
        } else {
            self.backend.fold_is_due(true).then_some(timers.fold_not_before.max(timers.at_rest))
        };
        let due =
            [timers.flush, timers.quiet, timers.try_again, fold].into_iter().flatten().fold(timers.sweep, i64::min);
        (due - self.clock.monotonic()).max(0)
    }

    /// Does what is due beside commands: a flush, a step of a deletion, a sweep, a checkpoint.
    ///
    /// What it does for commands it does by the hands of the caller, who answers those left in them on a fault.
    pub(crate) fn tick(&mut self, in_hand: &mut Vec<Command>) -> Result<(), Broken> {
        self.retry_deferred(in_hand)?;
        let now = self.clock.monotonic();
        if self.flush_is_due(now) {
            self.run_alone(None)?;
        }
        self.try_again_if_due(now)?;
        self.sweep_if_due(now);
        self.step_deletion()?;
        self.fold_if_due(now)?;
        self.checkpoint_if_due(now)
    }

    /// Does one step of folding what waits for that, if it is due.
    fn fold_if_due(&mut self, now: i64) -> Result<(), Broken> {
        let at_rest = self.timers.at_rest <= now;
        if now < self.timers.fold_not_before || !self.backend.fold_is_due(at_rest) {
            return Ok(());
        }
        // However it ends but well: nothing is lost by waiting.
        self.timers.fold_not_before = now + HELD_BACK_US;
        // On a full disk it would be our own COMMIT that fails, and readers would wait though nobody writes.
        if at_rest && !self.backend.has_room_to_spare() {
            return Ok(());
        }
        match self.fold_step(at_rest)? {
            Ok(()) => self.timers.fold_not_before = now,
            Err(cause) => {
                self.timers.fold_not_before = now + QUIET_US;
                if cause.kind != CauseKind::Busy {
                    self.trouble(&cause);
                }
            }
        }
        Ok(())
    }

    /// Notes that the database refused what the last transaction was to do.
    pub(super) fn trouble(&mut self, cause: &Cause) {
        let work = if self.is_writing { Work::Writing } else { Work::Reading };
        self.shared.trouble(work, cause, self.clock.now());
        self.timers.try_again.get_or_insert(self.clock.monotonic().saturating_add(TRY_AGAIN_US));
    }

    /// Reads and writes a number, if the database has refused something and nothing has succeeded since.
    fn try_again_if_due(&mut self, now: i64) -> Result<(), Broken> {
        if self.timers.try_again.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.timers.try_again = None;
        if self.shared.current_trouble().is_some() {
            // The flush writes it.
            self.timers.clock_mark = now.saturating_sub(CLOCK_MARK_INTERVAL_US);
            self.run_alone(None)?;
        }
        Ok(())
    }

    /// Folds everything, at the end. Whatever stays in a log is as safe there.
    pub(super) fn fold_everything(&mut self) -> Result<(), Broken> {
        while self.backend.fold_is_due(true) && self.backend.has_room_to_spare() {
            if let Err(cause) = self.fold_step(true)? {
                tracing::info!(%cause, "saves or touches stay in their log; the next opening folds them");
                break;
            }
        }
        Ok(())
    }

    fn fold_step(&mut self, at_rest: bool) -> Result<Result<(), Cause>, Broken> {
        let begun = self.begin(Some(Durability::Committed), LOCK_WAIT_FIRST);
        match begun.and_then(|()| self.backend.fold(at_rest)) {
            Ok(()) => self.commit().map(Ok),
            Err(cause) => {
                self.roll_back(&cause)?;
                Ok(Err(cause))
            }
        }
    }

    /// Writes up to `rows_max` dirty cells in the running transaction.
    pub(super) fn flush(&mut self, rows_max: usize) -> Result<(), Cause> {
        for cell in self.shared.dirty.take_all() {
            self.table.note_dirty(&cell);
        }
        self.write_dirty(rows_max)?;
        let now = self.clock.monotonic();
        // What did not fit goes next.
        self.timers.flush = self.table.has_dirty().then_some(now);
        Ok(())
    }

    /// Puts engine time on record in a transaction that writes anyway, once it has moved on enough. It is engine time that
    /// counts: after a step ahead and a kill, a clock set right again would take it back by the whole step.
    pub(super) fn mark_clock(&mut self, now: i64) -> Result<(), Cause> {
        if now.saturating_sub(self.timers.clock_mark) < CLOCK_MARK_INTERVAL_US {
            return Ok(());
        }
        self.backend.set_meta(Meta::Clock, now)?;
        self.timers.clock_mark_staged = Some(now);
        Ok(())
    }

    /// Writes up to `rows_max` dirty cells; those whose rows may have changed are first read again (rule R5).
    pub(super) fn write_dirty(&mut self, rows_max: usize) -> Result<(), Cause> {
        let (mut rows, stale) = self.table.take_dirty(rows_max, self.shared.vitals.generation());
        for serial in stale {
            self.refresh(serial)?;
            rows.extend(self.table.take_one(serial));
        }
        self.write_activity(&rows)
    }

    /// Reads a row again that was not seen in this generation, before it is decided over or written to.
    pub(super) fn refresh(&mut self, serial: i64) -> Result<(), Cause> {
        let generation = self.shared.vitals.generation();
        let Some(id) = self.table.stale(serial, generation) else { return Ok(()) };
        match self.backend.find_at(serial, id, Read::WithoutData) {
            Ok(Some(row)) => {
                let deadlines = self.settings.expiry.deadlines(&row.stored);
                self.table.enter(&row, deadlines, generation);
            }
            // A damaged row, too: whoever asks for the session next is told.
            Ok(None) | Err(ReadError::Corrupt(_)) => self.table.row_is_gone(serial),
            Err(ReadError::Failed(cause)) => return Err(cause),
        }
        Ok(())
    }

    pub(super) fn write_activity(&mut self, rows: &[(i64, Activity)]) -> Result<(), Cause> {
        self.backend.raise_activities(rows)?;
        self.shared.counters.rows_flushed.add(rows.len() as u64);
        Ok(())
    }

    pub(super) fn checkpoint_if_due(&mut self, now: i64) -> Result<(), Broken> {
        let pages = self.backend.log_pages();
        let is_quiet = self.timers.quiet.is_some_and(|due| due <= now);
        if is_quiet {
            self.timers.quiet = None;
        }
        let many = pages >= LOG_PAGES_HIGH && now >= self.timers.checkpoint_not_before;
        if !(many || is_quiet && pages > 0) {
            return Ok(());
        }
        match self.backend.checkpoint() {
            Ok(checkpoint) => {
                self.shared.counters.checkpoints.add(1);
                if checkpoint.pages_left > 0 {
                    // A reader holds on to old pages: not again at every batch.
                    self.shared.counters.checkpoints_busy.add(1);
                    self.timers.checkpoint_not_before = now + QUIET_US;
                    if is_quiet {
                        self.timers.quiet = Some(now + HELD_BACK_US);
                    }
                }
                self.shared.counters.log_pages.set(checkpoint.pages_left);
                self.shared.works(Work::Checkpoint);
                Ok(())
            }
            Err(cause) if matches!(cause.kind, CauseKind::Busy | CauseKind::Full | CauseKind::ReadOnly) => {
                // The log keeps what it could not move; nothing is in doubt.
                self.shared.counters.checkpoints_busy.add(1);
                self.timers.checkpoint_not_before = now + QUIET_US;
                self.timers.quiet = Some(now + QUIET_US);
                if cause.kind != CauseKind::Busy {
                    self.shared.trouble(Work::Checkpoint, &cause, self.clock.now());
                }
                Ok(())
            }
            // Among what may have failed is a sync, and a failed sync is never repeated on the same connection.
            Err(cause) => {
                self.timers.checkpoint_not_before = now + QUIET_US;
                Err(Broken { cause, by: InterruptedBy::StorageDied })
            }
        }
    }
}
