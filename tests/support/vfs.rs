//! A layer between SQLite and the file system, for tests: it sees every call on the files of a directory, and can make
//! them fail.
//!
//! [`watch`] puts a watcher over a directory. From the first one on, the layer is the default VFS of the process, so the
//! engine needs to know nothing of it; files of directories that nobody watches are opened by SQLite's own VFS and go
//! past it. So many tests run side by side. What is watched are files opened *after* [`watch`].
//!
//! ```text
//!   SQLite ──▶ before: may forbid, cut short, or pretend ──▶ SQLite's own VFS ──▶ after: may record ──▶ SQLite
//! ```
//!
//! The watchers here: [`Breaker`] makes the nth call of a kind fail. The rig for power cuts has one that records.

mod breaker;
mod raw;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use breaker::{Breaker, Times};
/// The codes that a call can fail with.
pub use rusqlite::ffi as codes;

/// What SQLite asks of a file or of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallKind {
    /// Opens a file, or makes it.
    Open,
    /// Asks whether a file is there.
    Access,
    /// Unlinks a file.
    Delete,
    Read,
    Write,
    Truncate,
    Sync,
    /// Asks for the length.
    FileSize,
    /// Takes a lock on the file.
    Lock,
    /// Maps the log's index into memory.
    SharedMap,
    /// Takes or gives back a lock on the log's index.
    SharedLock,
    Close,
}

impl CallKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Access,
        Self::Delete,
        Self::Read,
        Self::Write,
        Self::Truncate,
        Self::Sync,
        Self::FileSize,
        Self::Lock,
        Self::SharedMap,
        Self::SharedLock,
        Self::Close,
    ];
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    Database,
    /// The write-ahead log.
    Log,
    /// The log's index in shared memory: what [`CallKind::SharedMap`] and [`CallKind::SharedLock`] are about.
    SharedMemory,
    /// The rollback journal.
    Journal,
    /// Whatever else SQLite opens, such as files for sorting.
    Other,
}

/// A call, before or after it is made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub kind: CallKind,
    pub file: FileKind,
    pub path: &'a Path,
    /// Where a read or write begins; the new length of a truncation; the first of the index's locks.
    pub offset: u64,
    /// How many bytes are read or written; how many locks are taken.
    pub length: usize,
    /// What is written.
    pub bytes: &'a [u8],
    /// Flags of opening, locking and syncing; whether a deletion syncs the directory.
    pub flags: i32,
}

/// What is to become of a call. Codes are SQLite's extended ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Pass,
    /// It is not made, and answers this code.
    Fail(i32),
    /// It is made, and answers this code nevertheless.
    FailAfter(i32),
    /// A read or write of so many bytes only (at most those asked for), and then this code. Other calls are not made.
    Short(usize, i32),
    /// It is not made, and answers that all is well: a disk that lies.
    Pretend,
}

/// Sees the calls on the files of a directory, on whichever thread SQLite makes them.
pub trait Watcher: Send + Sync {
    /// Decides what becomes of a call.
    fn before(&self, _call: &Call<'_>) -> Verdict {
        Verdict::Pass
    }

    /// Hears what SQLite's own VFS answered to a call that was made, in full or (a short read or write) in part. Then the
    /// call is that part.
    fn after(&self, _call: &Call<'_>, _code: i32) {}
}

/// A watcher in force: dropped, files opened from then on are not watched. Those that are open stay so.
#[must_use]
pub struct Watch {
    directory: PathBuf,
}

/// Puts a watcher over the files in a directory, and not in those below. It takes the place of one that was there.
pub fn watch(directory: &Path, watcher: Arc<dyn Watcher>) -> Watch {
    raw::register();
    let directory = directory.canonicalize().expect("the directory to watch is there");
    let mut all = watched();
    all.retain(|(other, _)| *other != directory);
    all.push((directory.clone(), watcher));
    Watch { directory }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watched().retain(|(directory, _)| *directory != self.directory);
    }
}

/// Directories and who watches them.
type Watched = Vec<(PathBuf, Arc<dyn Watcher>)>;

static WATCHED: Mutex<Watched> = Mutex::new(Vec::new());

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns who watches a file.
fn watcher_of(path: &Path) -> Option<Arc<dyn Watcher>> {
    let directory = path.parent()?;
    watched().iter().find(|(watched, _)| watched == directory).map(|(_, watcher)| Arc::clone(watcher))
}
