//! Syncs the log from beside, while commits go on.
//!
//! A commit that promises no more than `Committed` does not wait for the disk, and SQLite syncs the log only where a commit
//! promises more, and before a checkpoint. Synced from a thread of its own every second and every few megabytes, it is never
//! far behind: so much a power cut loses at most, and a checkpoint finds little left to wait for.
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

/// The thread, and what is to be synced.
#[derive(Debug)]
pub(super) struct LogSync {
    /// Gone first at the end, which ends the thread.
    orders: Option<Sender<()>>,
    failures: Receiver<Cause>,
    thread: Option<JoinHandle<()>>,
    /// The first commit since the last order.
    since: Option<Instant>,
    /// Pages in the log at the last order.
    pages: u64,
}

impl LogSync {
    /// Starts the thread for the log at `path`.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let (orders, ordered) = bounded(1);
        let (failed, failures) = bounded(1);
        let sync = move || {
            for () in ordered {
                if let Err(error) = sync(&path) {
                    tracing::error!(%error, "the log cannot be synced");
                    // One that is still to be heard of is enough.
                    drop(failed.try_send(Cause::new(CauseKind::Io, error)));
                }
            }
        };
        let thread = std::thread::Builder::new().name("sessile-log-sync".to_owned()).spawn(sync)?;
        Ok(Self { orders: Some(orders), failures, thread: Some(thread), since: None, pages: 0 })
    }

    /// Notes a commit, after which the log holds `pages`; orders a sync if that is due. Never waits. Fails once after a
    /// sync that failed: what was to be written may be in memory only, and no later sync would write it.
    pub(super) fn committed(&mut self, pages: u64) -> Result<(), Cause> {
        if let Ok(cause) = self.failures.try_recv() {
            return Err(cause);
        }
        // Fewer than there were: the log has begun anew.
        self.pages = self.pages.min(pages);
        let since = *self.since.get_or_insert_with(Instant::now);
        if pages - self.pages >= PAGES || since.elapsed() >= INTERVAL {
            (self.since, self.pages) = (None, pages);
            if let Some(orders) = &self.orders {
                // One that waits already will do for this commit, too.
                let _one_waits = orders.try_send(());
            }
        }
        Ok(())
    }
}

impl Drop for LogSync {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere.
            drop(thread.join());
        }
    }
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

    #[test]
    fn a_failed_sync_is_told_once() {
        // Takes no sync.
        let mut sync = LogSync::start("/dev/null".into()).unwrap();
        sync.committed(PAGES).unwrap();
        sync.orders = None;
        sync.thread.take().unwrap().join().unwrap();
        assert_eq!(sync.committed(PAGES).unwrap_err().kind, CauseKind::Io);
        sync.committed(PAGES).unwrap();
    }

    #[test]
    fn a_log_that_is_not_there_is_no_failure() {
        let mut sync = LogSync::start("/nowhere/a-wal".into()).unwrap();
        for orders in 1..=3 {
            sync.committed(orders * PAGES).unwrap();
        }
        sync.orders = None;
        sync.thread.take().unwrap().join().unwrap();
        assert!(sync.failures.try_recv().is_err());
    }
}
