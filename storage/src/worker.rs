//! The worker: runs batches of commands on a backend, one transaction each, and answers after COMMIT.
//!
//! Owns the table of touch cells, the timers and the jobs that take several steps; it outlives the connection. It knows
//! no thread and no channel: [`crate::thread`] hands it commands and tells it when to look at its timers.
//!
//! A batch goes through here top to bottom: [`Worker::run`] begins the transaction, `execute` works out each command's
//! answer and keeps it back, the flush that is due joins in, COMMIT, then [`Table::commit`] makes it visible, then the
//! replies go out in order. An error before COMMIT rolls back and runs the commands one by one, so that one bad command
//! fails alone (rule R3); a COMMIT whose outcome is unknown, or a rollback that fails, gives the connection up (rule R2).

mod deletion;
mod execute;
mod locked;
mod table;
mod upkeep;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    backend::{Backend, CommitError, Judging, Meta, Read, ReadError},
    clock::EngineClock,
    command::Command,
    error::{Cause, CauseKind, Error, InterruptedBy},
    health::Vitals,
    record::{Durability, ExpiryDefaults},
    shared::{Shared, Work},
    sync::omitted,
};

use deletion::DeleteJob;
use table::Table;

/// How long a batch waits for another process's write lock before its writes are set aside and reads go ahead.
const LOCK_WAIT_FIRST: Duration = Duration::from_millis(50);
/// How long the steps wait that cannot be set aside: reads, and the last write of all.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Payload bytes from which on a batch is written before its COMMIT (256 KiB): where the disk is full, the one huge save in it is
/// then refused alone, and leaves nobody else in doubt (rule R3).
const LARGE_BATCH_BYTES: usize = 256 << 10;
/// Rows written by one flush: more go into the next transaction, so that no batch waits long behind a flush.
const FLUSH_ROWS_MAX: usize = 16_384;
/// Time without a write after which the rest of the log is moved, in microseconds.
const QUIET_US: i64 = 500_000;
/// A mark further ahead than this is not believed, in microseconds: one day.
const CLOCK_MARK_AHEAD_MAX_US: i64 = 24 * 3_600 * 1_000_000;
/// A jump of the wall clock from here on makes the sweep wait, in microseconds.
const JUMP_US: i64 = 60_000_000;

/// What the worker goes by. Durations in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The engine's own expiry.
    pub expiry: ExpiryDefaults,
    /// How long a touch may stay in memory.
    pub flush_interval: i64,
    /// How often expired sessions are swept away.
    pub sweep_interval: i64,
    /// How long the sweep waits after the wall clock jumped ahead: for somebody to set it right before rows are deleted.
    pub sweep_grace: i64,
    /// The largest payload.
    pub payload_bytes_max: usize,
    /// How many sessions there may be.
    pub sessions_max: Option<u64>,
    /// How many sessions of one user there may be.
    pub sessions_per_user_max: Option<u64>,
}

/// The connection cannot be used any more.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) cause: Cause,
    pub(crate) by: InterruptedBy,
}

/// Runs commands on a backend.
#[derive(Debug)]
pub(crate) struct Worker<B> {
    backend: B,
    settings: Settings,
    clock: Arc<EngineClock>,
    shared: Arc<Shared>,
    table: Table,
    /// Deletions that take several steps; the first is in work.
    jobs: VecDeque<DeleteJob>,
    /// Commands that wait for another process's write lock.
    deferred: VecDeque<Command>,
    /// How often in a row the lock was waited for in vain: while another process keeps it, those that come later fail
    /// fast.
    lock_attempts: u32,
    timers: Timers,
    /// Rows in the database, kept where they are limited.
    rows: u64,
    /// What the running batch adds to them.
    rows_staged: i64,
    /// Whether the running transaction may write.
    is_writing: bool,
    /// Rows whose activity the running batch is to write, because a touch in it is to be committed.
    commit_now: Vec<i64>,
    /// The engine time before which no session is over, as far as the last look for such told.
    none_over_before: i64,
    #[cfg(feature = "testing")]
    faults: crate::testing::Pending,
}

/// How an attempt to run a batch went.
enum Attempt {
    /// Every command is answered.
    Done,
    /// Another process holds the write lock; nothing was done.
    LockedOut(Cause),
}

/// When what is due, in monotonic microseconds.
#[derive(Debug)]
struct Timers {
    flush: Option<i64>,
    sweep: i64,
    /// The log is to be emptied once it has been quiet.
    quiet: Option<i64>,
    /// No checkpoint for too many pages before: the last one could not finish.
    checkpoint_not_before: i64,
    /// No fold before: the last one could not be done.
    fold_not_before: i64,
    /// From then on nothing has been written for anybody for a while.
    at_rest: i64,
    /// The engine time that is on record in the file.
    clock_mark: i64,
    /// What the running transaction puts there.
    clock_mark_staged: Option<i64>,
    /// The database is to be tried again, for it has refused something.
    try_again: Option<i64>,
    /// How far the wall clock had been followed ahead at the last look.
    offset: i64,
}

impl<B: Backend> Worker<B> {
    pub(crate) fn new(
        mut backend: B,
        settings: Settings,
        clock: Arc<EngineClock>,
        shared: Arc<Shared>,
    ) -> Result<Self, Cause> {
        backend.begin_read()?;
        let mark = backend.meta(Meta::Clock)?;
        let judging = Judging { now: 0, defaults: ExpiryDefaults::default() };
        let everything = crate::query::Filter::all();
        let rows = if settings.sessions_max.is_some() { count_all(&mut backend, &everything, judging)? } else { 0 };
        backend.rollback()?;
        let is_believed = (0..=clock.now().saturating_add(CLOCK_MARK_AHEAD_MAX_US)).contains(&mark);
        if is_believed {
            clock.raise(mark);
        } else {
            tracing::warn!(
                mark,
                "the file's clock is before 1970 or over a day ahead of this machine's; it is ignored"
            );
        }
        let now = clock.monotonic();
        let timers = Timers {
            flush: None,
            sweep: now.saturating_add(settings.sweep_interval),
            quiet: Some(now),
            checkpoint_not_before: now,
            fold_not_before: now,
            at_rest: now,
            clock_mark: if is_believed { mark } else { i64::MIN },
            clock_mark_staged: None,
            try_again: None,
            offset: clock.offset(),
        };
        Ok(Self {
            backend,
            settings,
            clock,
            shared,
            table: Table::default(),
            jobs: VecDeque::new(),
            deferred: VecDeque::new(),
            lock_attempts: 0,
            timers,
            rows,
            rows_staged: 0,
            is_writing: false,
            commit_now: Vec::new(),
            none_over_before: i64::MIN,
            #[cfg(feature = "testing")]
            faults: crate::testing::Pending::default(),
        })
    }

    #[cfg(feature = "testing")]
    pub(crate) fn order(&mut self, fault: crate::testing::Fault) {
        match fault {
            crate::testing::Fault::FailLogSync => self.backend.fail_log_sync(),
            fault => self.faults.order(fault),
        }
    }

    fn vitals(&self) -> &Vitals {
        &self.shared.vitals
    }

    /// Runs commands in one transaction and answers them.
    pub(crate) fn run(&mut self, batch: &mut Vec<Command>) -> Result<(), Broken> {
        self.shared.counters.batches.add(1);
        let flush = self.deferred.is_empty() && self.flush_is_due(self.clock.monotonic());
        if !self.deferred.is_empty() {
            self.defer_writes(batch);
        }
        match self.attempt(batch, flush)? {
            Attempt::Done => Ok(()),
            Attempt::LockedOut(_) => {
                if flush {
                    self.flush_later();
                }
                self.defer_writes(batch);
                match self.attempt(batch, false)? {
                    Attempt::Done => Ok(()),
                    Attempt::LockedOut(cause) => self.refuse(batch, &cause),
                }
            }
        }
    }

    fn attempt(&mut self, batch: &mut Vec<Command>, flush: bool) -> Result<Attempt, Broken> {
        if batch.is_empty() {
            return Ok(Attempt::Done);
        }
        if matches!(batch[..], [Command::DeleteWhere { .. }]) {
            self.begin_deletion(batch)?;
            return Ok(Attempt::Done);
        }
        match self.begin(needs_write(batch, flush), LOCK_WAIT_FIRST) {
            Ok(()) => {}
            Err(cause) if cause.kind == CauseKind::Busy => return Ok(Attempt::LockedOut(cause)),
            Err(cause) if cause.kind == CauseKind::Replaced => return Err(replaced(cause)),
            Err(cause) => {
                self.refuse(batch, &cause)?;
                return Ok(Attempt::Done);
            }
        }
        match self.execute_all(batch, flush) {
            Ok(()) => {
                if omitted("worker: a batch is visible before its replies") {
                    batch.drain(..).for_each(|command| drop(command.complete()));
                }
                self.commit()?;
                self.shared.wakes.wake_all(batch.drain(..).map(Command::complete).collect());
            }
            Err(cause) => {
                self.roll_back(&cause)?;
                self.run_one_by_one(batch)?;
            }
        }
        Ok(Attempt::Done)
    }

    /// Begins a transaction and looks for foreign writes in it.
    fn begin(&mut self, write: Option<Durability>, wait: Duration) -> Result<(), Cause> {
        let begun = match write {
            Some(durability) => self.backend.begin_write(durability, wait),
            None => self.backend.begin_read(),
        };
        let begun = begun.and_then(|()| {
            let foreign = self.backend.foreign_writes()?;
            self.vitals().checked(self.clock.monotonic());
            if foreign {
                self.shared.counters.foreign_writes.add(1);
                self.vitals().next_generation();
                self.none_over_before = i64::MIN;
                self.recount()?;
            }
            Ok(())
        });
        self.is_writing = write.is_some();
        match &begun {
            Ok(()) if self.is_writing => self.lock_attempts = 0,
            Err(cause) if cause.kind == CauseKind::Busy => self.lock_attempts += 1,
            _ => {}
        }
        if begun.is_err() {
            // A rollback that fails too shows at the next begin.
            drop(self.backend.rollback());
        }
        begun
    }

    /// Looks for foreign writes outside of a batch.
    pub(crate) fn look_for_foreign_writes(&mut self) {
        if self.begin(None, LOCK_WAIT_FIRST).is_ok() {
            drop(self.backend.rollback());
        }
    }

    fn recount(&mut self) -> Result<(), Cause> {
        if self.settings.sessions_max.is_some() {
            let judging = Judging { now: 0, defaults: ExpiryDefaults::default() };
            self.rows = count_all(&mut self.backend, &crate::query::Filter::all(), judging)?;
        }
        Ok(())
    }

    fn execute_all(&mut self, batch: &mut [Command], flush: bool) -> Result<(), Cause> {
        let now = self.clock.now();
        self.commit_now.clear();
        for command in &mut *batch {
            self.execute(command, now)?;
        }
        let mut rows = std::mem::take(&mut self.commit_now);
        rows.sort_unstable();
        rows.dedup();
        let activity: Vec<_> = rows.iter().filter_map(|serial| self.table.take_one(*serial)).collect();
        self.commit_now = rows;
        self.write_activity(&activity)?;
        if flush {
            self.flush(FLUSH_ROWS_MAX)?;
        }
        if !self.is_writing {
            return Ok(());
        }
        self.timers.at_rest = self.clock.monotonic() + QUIET_US;
        self.mark_clock(now)?;
        let bytes: usize = batch.iter().map(Command::payload_bytes).sum();
        if bytes >= LARGE_BATCH_BYTES { self.backend.write_ahead() } else { Ok(()) }
    }

    /// Commits, and makes the batch's doings visible.
    fn commit(&mut self) -> Result<(), Broken> {
        match self.commit_backend() {
            Ok(()) => {
                self.vitals_committed();
                Ok(())
            }
            Err(CommitError::Busy(cause) | CommitError::Unknown(cause)) => {
                self.table.doubt();
                self.rows_staged = 0;
                Err(Broken { cause, by: InterruptedBy::CommitUnknown })
            }
        }
    }

    fn commit_backend(&mut self) -> Result<(), CommitError> {
        #[cfg(feature = "testing")]
        {
            self.faults.before_commit();
            if self.faults.fails_without_commit() {
                return Err(crate::testing::Pending::doubt());
            }
        }
        let mut committed = self.backend.commit();
        if let Err(CommitError::Busy(_)) = committed {
            // The busy timeout has waited already; the transaction is open still.
            committed = self.backend.commit();
        }
        #[cfg(feature = "testing")]
        let committed = self.faults.after_commit(committed);
        committed
    }

    fn vitals_committed(&mut self) {
        self.table.commit(self.shared.vitals.generation());
        self.timers.clock_mark = self.timers.clock_mark_staged.take().unwrap_or(self.timers.clock_mark);
        self.rows = self.rows.saturating_add_signed(std::mem::take(&mut self.rows_staged));
        self.shared.counters.commits.add(1);
        self.shared.counters.cells.set(self.table.len() as u64);
        if self.is_writing {
            self.shared.works(Work::Writing);
        } else {
            self.shared.works(Work::Reading);
        }
        if self.table.has_dirty() {
            self.flush_soon();
        }
        // A read puts nothing off: what was written is to reach the disk however much is read.
        if self.is_writing && self.backend.log_pages() > 0 {
            self.timers.quiet = Some(self.clock.monotonic() + QUIET_US);
        }
        self.shared.counters.log_pages.set(self.backend.log_pages());
        self.shared.counters.saves_in_log.set(self.backend.saves_in_log());
        self.shared.counters.touches_in_log.set(self.backend.touches_in_log());
        self.shared.counters.sessions_unindexed.set(self.backend.sessions_unindexed());
    }

    fn roll_back(&mut self, cause: &Cause) -> Result<(), Broken> {
        tracing::debug!(%cause, "a batch is rolled back");
        let is_undone = if self.backend.is_spoilt_by(cause) { Err(cause.clone()) } else { Ok(()) };
        if let Err(cause) = self.backend.rollback().and(is_undone) {
            self.table.doubt();
            return Err(Broken { cause, by: InterruptedBy::StorageDied });
        }
        self.table.roll_back();
        self.timers.clock_mark_staged = None;
        self.rows_staged = 0;
        self.none_over_before = i64::MIN;
        if self.table.has_dirty() {
            // A flush in the transaction may have put the timer off.
            self.flush_soon();
        }
        Ok(())
    }

    /// Runs each command of a batch in a transaction of its own.
    fn run_one_by_one(&mut self, batch: &mut Vec<Command>) -> Result<(), Broken> {
        // Taken from the front, so that on a fault those not yet run are still in the caller's hands.
        batch.reverse();
        while let Some(command) = batch.pop() {
            let mut alone = [command];
            let outcome = self.run_alone(Some(&mut alone[0]));
            let [command] = alone;
            match outcome {
                Ok(Attempt::Done) => drop(command.complete()),
                Ok(Attempt::LockedOut(_)) => {
                    // Not each of them waits for the lock in its turn: all set aside, but for reads.
                    batch.push(command);
                    batch.reverse();
                    let waiting = self.deferred.len();
                    self.defer_writes(batch);
                    // Ahead of what waits already: they are from its head.
                    self.deferred.rotate_left(waiting);
                    batch.reverse();
                }
                Err(broken) => {
                    batch.push(command);
                    batch.reverse();
                    return Err(broken);
                }
            }
        }
        Ok(())
    }

    /// Runs one command, or the flush that is due, in a transaction of its own; the answer is kept back.
    fn run_alone(&mut self, command: Option<&mut Command>) -> Result<Attempt, Broken> {
        let flush = command.is_none();
        let batch = command.map_or(&mut [][..], std::slice::from_mut);
        let durability = needs_write(batch, flush);
        let failed = match self.begin(durability, LOCK_WAIT_FIRST) {
            Err(cause) if cause.kind == CauseKind::Busy && !flush && durability.is_some() => {
                return Ok(Attempt::LockedOut(cause));
            }
            Err(cause) if cause.kind == CauseKind::Replaced => return Err(replaced(cause)),
            Err(cause) => Some(cause),
            Ok(()) => match self.execute_all(batch, flush) {
                Ok(()) => {
                    self.commit()?;
                    None
                }
                Err(cause) => {
                    self.roll_back(&cause)?;
                    Some(cause)
                }
            },
        };
        if let Some(cause) = failed {
            self.trouble(&cause);
            if flush {
                self.flush_later();
            }
            for reply in batch.iter_mut().filter_map(Command::reply_mut) {
                reply.prepare_error(Error::Storage { cause: cause.clone() });
            }
        }
        Ok(Attempt::Done)
    }

    /// Answers all with what the database said; nothing was done for them.
    fn refuse(&mut self, batch: &mut Vec<Command>, cause: &Cause) -> Result<(), Broken> {
        self.trouble(cause);
        for command in batch.drain(..) {
            command.refuse(Error::Storage { cause: cause.clone() });
        }
        // A begin that failed leaves no transaction; this makes sure.
        self.roll_back(cause)
    }

    /// Opens the connection anew, and decides over what was in doubt.
    pub(crate) fn reopen(&mut self) -> Result<(), Cause> {
        self.table.doubt();
        self.timers.clock_mark_staged = None;
        self.rows_staged = 0;
        self.none_over_before = i64::MIN;
        if self.backend.is_durable() {
            self.backend.reopen()?;
        } else {
            self.backend.rollback()?;
        }
        self.backend.begin_read()?;
        let backend = &mut self.backend;
        let settled = self.table.settle_doubts(|serial, id| {
            let row = backend.find_at(serial, id, Read::WithoutData);
            row.map(|row| row.is_some()).map_err(|error| match error {
                ReadError::Failed(cause) => cause,
                ReadError::Corrupt(serial) => {
                    Cause::new(CauseKind::Corrupt, format_args!("the row {serial} is damaged"))
                }
            })
        });
        let settled = settled.and_then(|()| self.recount());
        self.backend.rollback()?;
        settled?;
        if self.table.has_dirty() {
            self.flush_soon();
        }
        // A checkpoint may have been what failed.
        self.timers.quiet = Some(self.clock.monotonic() + QUIET_US);
        Ok(())
    }

    /// Returns whether the connection can be made anew; one to memory cannot.
    pub(crate) fn is_durable(&self) -> bool {
        self.backend.is_durable()
    }

    /// Gives up what was begun or set aside. What was set aside comes back: nothing was done for it.
    pub(crate) fn give_up(&mut self) -> impl Iterator<Item = Command> {
        self.jobs.clear();
        std::mem::take(&mut self.deferred).into_iter()
    }

    /// Writes everything, syncs, empties the log. The connection is closed when the worker is dropped.
    pub(crate) fn close(&mut self) -> Result<(), Cause> {
        self.jobs.clear();
        self.begin(Some(Durability::Synced), LOCK_WAIT)?;
        // Frozen first: a touch from here on finds the engine closed, and is not counted in vain.
        let (generation, expiry, backend) = (self.shared.vitals.generation(), self.settings.expiry, &mut self.backend);
        let frozen =
            self.table.freeze_all(generation, |serial, id| match backend.find_at(serial, id, Read::WithoutData) {
                Ok(row) => Ok(row.map(|row| (row.activity, expiry.deadlines(&row.stored)))),
                Err(ReadError::Corrupt(_)) => Ok(None),
                Err(ReadError::Failed(cause)) => Err(cause),
            });
        let written = frozen.and_then(|rows| {
            rows.iter().try_for_each(|(serial, activity)| self.backend.raise_activity(*serial, *activity))?;
            self.shared.counters.rows_flushed.add(rows.len() as u64);
            self.backend.set_meta(Meta::Clock, self.clock.now())
        });
        if let Err(cause) = written {
            drop(self.backend.rollback());
            return Err(cause);
        }
        self.commit().map_err(|broken| broken.cause)?;
        // All is safe: what goes wrong from here on loses nothing.
        if let Err(Broken { cause, .. }) = self.fold_everything() {
            tracing::warn!(%cause, "the file was not tidied up at the end; the next opening does that");
            return Ok(());
        }
        // Another process may be reading; the log is then moved by whoever opens the file next.
        if let Err(cause) = self.backend.checkpoint_and_truncate() {
            tracing::info!(%cause, "the log could not be emptied at the end");
        }
        Ok(())
    }
}

/// Returns the durability of the transaction that a batch needs; `None` for one that only reads.
fn needs_write(batch: &[Command], flush: bool) -> Option<Durability> {
    // A list writes the touches first, so that it sees them.
    let lists = batch.iter().any(Command::is_engine_wide);
    let highest = batch.iter().filter_map(Command::durability).max();
    highest.or((flush || lists).then_some(Durability::Committed))
}

/// The file is not ours any more.
fn replaced(cause: Cause) -> Broken {
    Broken { cause, by: InterruptedBy::StorageDied }
}

fn count_all<B: Backend>(backend: &mut B, all: &crate::query::Filter, judging: Judging) -> Result<u64, Cause> {
    let over = crate::query::Filter::over();
    Ok(backend.count(all, judging)? + backend.count(&over, judging)?)
}
