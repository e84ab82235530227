//! Deleting many sessions: `delete_where` and the sweep of expired ones are the same job with another filter.
//!
//! A job looks at a bounded range of rows per step and deletes a bounded number in one transaction; between two steps
//! commands are served. It ends at the row that was the highest when it began (rule R11). A cell is frozen before its
//! row is decided over, and the row judged once more with what the cell held, so a touch that came meanwhile keeps its
//! session alive (rule R9).

use crate::{
    backend::{BEFORE_ALL_ROWS, Backend},
    cell::Activity,
    command::{Command, ReplyTo},
    error::{Cause, CauseKind, Error},
    query::{Filter, Liveness},
    record::Durability,
};

use super::{Broken, JUMP_US, LOCK_WAIT, LOCK_WAIT_FIRST, Worker};

/// Rows looked at in one step; some milliseconds of scan.
const STEP_ROWS_MAX: i64 = 32_768;
/// Rows deleted in one step: a delete writes several pages.
const STEP_DELETES_MAX: usize = 256;
/// Expired sessions deleted to make room for a new one.
pub(super) const EXPIRED_FIRST_MAX: usize = 64;

/// A deletion under way.
#[derive(Debug)]
pub(super) struct DeleteJob {
    filter: Filter,
    durability: Durability,
    /// The last row decided over.
    after: i64,
    /// The highest row when it began.
    until: i64,
    deleted: u64,
    /// Nobody, for the periodic sweep.
    reply: Option<ReplyTo<u64>>,
}

impl<B: Backend> Worker<B> {
    /// Takes up a `DeleteWhere`, alone in its batch.
    pub(super) fn begin_deletion(&mut self, batch: &mut Vec<Command>) -> Result<(), Broken> {
        match self.last_serial() {
            Ok(until) => {
                for command in batch.drain(..) {
                    if let Command::DeleteWhere { filter, durability, reply } = command {
                        let job = Self::job(*filter, durability, until, Some(reply));
                        self.jobs.push_back(job);
                    }
                }
                Ok(())
            }
            Err(cause) => self.refuse(batch, &cause),
        }
    }

    fn job(filter: Filter, durability: Durability, until: i64, reply: Option<ReplyTo<u64>>) -> DeleteJob {
        DeleteJob { filter, durability, after: BEFORE_ALL_ROWS, until, deleted: 0, reply }
    }

    fn last_serial(&mut self) -> Result<i64, Cause> {
        self.begin(None, LOCK_WAIT)?;
        let last = self.backend.last_serial();
        self.backend.rollback()?;
        last
    }

    /// Starts the periodic sweep when it is due.
    pub(super) fn sweep_if_due(&mut self, now: i64) {
        self.clock.look();
        let offset = self.clock.offset();
        let jumped = offset.saturating_sub(std::mem::replace(&mut self.timers.offset, offset));
        if jumped >= JUMP_US {
            // The machine slept, or its clock is wrong: give somebody the time to set it right.
            tracing::warn!(seconds = jumped / 1_000_000, "the clock jumped ahead; the sweep waits");
            self.timers.sweep = self.timers.sweep.max(now.saturating_add(self.settings.sweep_grace));
            self.jobs.retain(|job| job.reply.is_some());
        }
        if now < self.timers.sweep {
            return;
        }
        self.timers.sweep = now.saturating_add(self.settings.sweep_interval);
        match self.last_serial() {
            Ok(until) => {
                let job = Self::job(Filter::over(), Durability::Committed, until, None);
                self.jobs.push_back(job);
            }
            // The next one tries again: a sweep that fails once must not end for good.
            Err(cause) => self.trouble(&cause),
        }
    }

    /// Does one step of the first job.
    pub(super) fn step_deletion(&mut self) -> Result<(), Broken> {
        let Some(mut job) = self.jobs.pop_front() else { return Ok(()) };
        match self.delete_step(&mut job)? {
            Ok(()) if job.after < job.until => {
                self.jobs.push_front(job);
            }
            Err(cause) if cause.kind == CauseKind::Busy && self.may_wait_on() => {
                self.jobs.push_front(job);
            }
            Ok(()) => {
                if let Some(reply) = job.reply {
                    drop(reply.answer(Ok(job.deleted)));
                }
            }
            Err(cause) => {
                self.trouble(&cause);
                if let Some(reply) = job.reply {
                    drop(reply.answer(Err(match job.deleted {
                        0 => Error::Storage { cause },
                        done => Error::Partial { done, cause },
                    })));
                }
            }
        }
        Ok(())
    }

    /// Decides over the next range of rows, or the first so many in it.
    fn delete_step(&mut self, job: &mut DeleteJob) -> Result<Result<(), Cause>, Broken> {
        if job.filter.liveness == Liveness::Over {
            // Most ranges hold none: look without the write lock. No touch can have ended a session meanwhile.
            match self.none_match_until(job) {
                Ok(Some(until)) => {
                    job.after = until;
                    return Ok(Ok(()));
                }
                Ok(None) => {}
                Err(cause) => return Ok(Err(cause)),
            }
        }
        if let Err(cause) = self.begin(Some(job.durability), LOCK_WAIT_FIRST) {
            return Ok(Err(cause));
        }
        match self.delete_matching(job) {
            Ok((after, deleted)) => {
                self.commit()?;
                job.after = after;
                job.deleted += deleted;
                if job.filter.liveness == Liveness::Over {
                    self.shared.counters.expired.add(deleted);
                }
                Ok(Ok(()))
            }
            Err(cause) => {
                self.roll_back(&cause)?;
                Ok(Err(cause))
            }
        }
    }

    /// Returns the end of the next range of rows if none in it matches.
    fn none_match_until(&mut self, job: &DeleteJob) -> Result<Option<i64>, Cause> {
        self.begin(None, LOCK_WAIT)?;
        let judging = self.judging(self.clock.now());
        let found = self.next_range(job).and_then(|(after, until)| {
            let found = self.backend.matching(&job.filter, judging, after, until, 1)?;
            Ok(found.is_empty().then_some(until))
        });
        self.backend.rollback()?;
        found
    }

    /// Returns the next range of rows, which begins at one that is there: numbers may be far apart, and a walk over those
    /// between would not end.
    fn next_range(&mut self, job: &DeleteJob) -> Result<(i64, i64), Cause> {
        let after = self.backend.first_serial_after(job.after)?.map_or(job.until, |first| first - 1);
        Ok((after, job.until.min(after.saturating_add(STEP_ROWS_MAX))))
    }

    /// Deletes what matches; returns the last row decided over and how many were deleted.
    fn delete_matching(&mut self, job: &DeleteJob) -> Result<(i64, u64), Cause> {
        let (after, until) = self.next_range(job)?;
        let judging = self.judging(self.clock.now());
        if job.filter.liveness == Liveness::Alive {
            // The filter may ask for times of activity, or a session may be alive by its cell only.
            self.table.scan();
            self.write_dirty(usize::MAX)?;
        }
        let candidates = self.backend.matching(&job.filter, judging, after, until, STEP_DELETES_MAX)?;
        let after = if candidates.len() == STEP_DELETES_MAX { candidates[STEP_DELETES_MAX - 1] } else { until };
        let mut deleted = 0;
        for serial in candidates {
            self.refresh(serial)?;
            if let Some(exact) = self.table.freeze(serial) {
                self.backend.raise_activity(serial, exact)?;
                if self.backend.matching(&job.filter, judging, serial - 1, serial, 1)?.is_empty() {
                    self.table.thaw(serial);
                    self.table.note_written(serial, exact);
                    continue;
                }
            }
            self.remove_row(serial)?;
            deleted += 1;
        }
        Ok((after, deleted))
    }

    /// Deletes up to `most` expired sessions in the running transaction, to make room for a new one.
    pub(super) fn expire_some(&mut self, most: usize, now: i64) -> Result<(), Cause> {
        if now < self.none_over_before {
            return Ok(());
        }
        let over = self.backend.matching(&Filter::over(), self.judging(now), BEFORE_ALL_ROWS, i64::MAX, most)?;
        let mut found = false;
        for serial in over {
            self.refresh(serial)?;
            let deadlines = self.table.get(serial).map(|entry| entry.cell.deadlines());
            if let (Some(deadlines), Some(Activity { last_active, .. })) = (deadlines, self.table.freeze(serial))
                && !deadlines.passed(last_active, now)
            {
                self.table.thaw(serial);
                continue;
            }
            self.remove_row(serial)?;
            found = true;
        }
        if !found {
            // Each look is a scan: the next one when it can find something. Cells only ever put an end off.
            self.none_over_before = self.backend.next_end(self.judging(now))?.unwrap_or(i64::MAX);
        }
        Ok(())
    }
}
