//! Syncs the log from beside, while commits go on and after them.
//!
//! A commit that promises no more than `Committed` does not wait for the disk, and SQLite syncs the log only where a commit
//! promises more, and before a checkpoint that has something to move. Synced from a thread of its own every second and
//! every few megabytes, it is never far behind: so much a power cut loses at most, and a checkpoint finds little left to
//! wait for. The thread keeps the time itself: whatever holds the storage thread or its checkpoints back, a sync follows.
//!
//! What is said to be synced never rests on this: that is SQLite's own sync. The thread opens the file by its name, which may be
//! done with the log, unlike the database: SQLite's locks are not on it.

use std::{
    fs, io,
    path::PathBuf,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Cause, CauseKind};

/// How long the log may hold a commit that is not on its way to the disk.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pages added to the log after which it is synced (4 MB): an eighth of what a checkpoint waits for.
const PAGES: u64 = 1_024;

/// The thread, and what it is to sync.
#[derive(Debug)]
pub(super) struct LogSync {
    /// When to sync. Gone first at the end, which ends the thread.
    orders: Option<Sender<Instant>>,
    failures: Receiver<Cause>,
    thread: Option<JoinHandle<()>>,
    /// The next sync begins then, or later: it writes every commit before.
    due: Option<Instant>,
    /// Pages in the log when a sync was last ordered for them.
    pages: u64,
    #[cfg(feature = "testing")]
    faults: Sender<()>,
}

impl LogSync {
    /// Starts the thread for the log at `path`.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let (orders, ordered) = bounded(1);
        let (failed, failures) = bounded(1);
        #[cfg(feature = "testing")]
        let (faults, faulted) = bounded(1);
        let sync = move || {
            let mut next = None;
            while let Some(due) = next.take().or_else(|| ordered.recv().ok()) {
                next = wait(&ordered, due);
                #[cfg(feature = "testing")]
                let sync = |path| match faulted.try_recv() {
                    Ok(()) => Err(io::Error::other("a sync that failed on order")),
                    Err(_) => sync(path),
                };
                if let Err(error) = sync(&path) {
                    tracing::error!(%error, "the log cannot be synced");
                    // One that is still to be heard of is enough.
                    drop(failed.try_send(Cause::new(CauseKind::Io, error)));
                }
            }
        };
        let thread = std::thread::Builder::new().name("sessile-log-sync".to_owned()).spawn(sync)?;
        Ok(Self {
            orders: Some(orders),
            failures,
            thread: Some(thread),
            due: None,
            pages: 0,
            #[cfg(feature = "testing")]
            faults,
        })
    }

    /// Notes a commit, after which the log holds `pages`, and orders the sync that is to write it. Never waits.
    pub(super) fn committed(&mut self, pages: u64) {
        // Fewer than there were: the log has begun anew.
        self.pages = self.pages.min(pages);
        let now = Instant::now();
        if pages - self.pages >= PAGES {
            if self.order(now) {
                (self.due, self.pages) = (None, pages);
            }
        } else if self.due.is_none_or(|due| due <= now) && self.order(now + INTERVAL) {
            self.due = Some(now + INTERVAL);
        }
    }

    /// Fails once after a sync that failed: what was to be written may be in memory only, and no later sync would write it.
    pub(super) fn check(&self) -> Result<(), Cause> {
        self.failures.try_recv().map_or(Ok(()), Err)
    }

    /// Makes the next sync fail.
    #[cfg(feature = "testing")]
    pub(super) fn fail_next(&self) {
        // One that is ordered already will do.
        let _one_waits = self.faults.try_send(());
    }

    /// Returns whether the order was taken. Where one waits still, its sync writes what is in the log by now.
    fn order(&self, due: Instant) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(due).is_ok())
    }
}

impl Drop for LogSync {
    fn drop(&mut self) {
        // What is ordered is synced at once.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere.
            drop(thread.join());
        }
    }
}

/// Waits until a sync is due, or until one is ordered that is due earlier, or the end. Returns an order for later.
fn wait(ordered: &Receiver<Instant>, due: Instant) -> Option<Instant> {
    ordered.recv_deadline(due).ok().filter(|next| *next > due)
}

fn sync(path: &PathBuf) -> io::Result<()> {
    match fs::File::open(path) {
        Ok(log) => log.sync_data(),
        // Whether it ought to be there is seen after each commit.
        Err(error) => {
            tracing::debug!(%error, "the log is not there to be synced");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes no sync.
    const NO_LOG: &str = "/dev/null";
    const PATIENCE: Duration = Duration::from_secs(60);

    fn end(sync: &mut LogSync) {
        sync.orders = None;
        sync.thread.take().unwrap().join().unwrap();
    }

    #[test]
    fn a_failed_sync_is_told_once() {
        let mut sync = LogSync::start(NO_LOG.into()).unwrap();
        sync.committed(PAGES);
        end(&mut sync);
        assert_eq!(sync.check().unwrap_err().kind, CauseKind::Io);
        sync.check().unwrap();
    }

    #[test]
    fn a_commit_that_nothing_follows_is_synced() {
        let mut sync = LogSync::start(NO_LOG.into()).unwrap();
        for _ in 0..2 {
            let begun = Instant::now();
            sync.committed(1);
            // Its failure tells of the sync.
            sync.failures.recv_timeout(PATIENCE).unwrap();
            assert!(begun.elapsed() >= INTERVAL);
        }
    }

    #[test]
    fn a_sync_that_is_ordered_comes_before_the_end() {
        let mut sync = LogSync::start(NO_LOG.into()).unwrap();
        sync.committed(1);
        end(&mut sync);
        sync.check().unwrap_err();
    }

    #[test]
    fn an_order_for_later_is_kept_and_one_for_now_is_done() {
        let (orders, ordered) = bounded(1);
        let due = Instant::now();
        orders.send(due + INTERVAL).unwrap();
        assert_eq!(wait(&ordered, due), Some(due + INTERVAL));
        orders.send(due).unwrap();
        assert_eq!(wait(&ordered, due + INTERVAL), None);
        assert_eq!(wait(&ordered, due), None);
    }

    #[test]
    fn a_log_that_is_not_there_is_no_failure() {
        let mut sync = LogSync::start("/nowhere/a-wal".into()).unwrap();
        for orders in 1..=3 {
            sync.committed(orders * PAGES);
        }
        end(&mut sync);
        sync.check().unwrap();
    }
}
