//! One engine per file: the lock beside the database (rule R19).

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::error::{Cause, CauseKind, OpenError};

/// How long a lock held by somebody else is waited for: a child of ours between fork and exec may hold a copy of it.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// An exclusive advisory lock on `<database>.lock`. The file stays: to unlink it would let two engines lock two files.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Locks the database at `path`, a canonical path.
    pub(super) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let lock_path = lock_path(path);
        let give_up = Instant::now() + LOCK_WAIT;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&lock_path)
                .map_err(|error| io_error(path, &error))?;
            match file.try_lock() {
                // Somebody may have replaced the file between open and lock.
                Ok(()) if is_same_file(&file, &lock_path) => return Ok(Self { file, path: lock_path }),
                Ok(()) | Err(TryLockError::WouldBlock) if Instant::now() < give_up => sleep(LOCK_RETRY),
                Ok(()) | Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(io_error(path, &error)),
            }
        }
    }

    /// Returns whether whoever wants the lock next will find this one.
    pub(super) fn is_in_place(&self) -> bool {
        is_same_file(&self.file, &self.path)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Explicitly: a forked child may hold the same open file, whose lock closing ours would not release.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the lock file could not be unlocked");
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let identities = file.metadata().ok().map(identity).zip(std::fs::metadata(path).ok().map(identity));
    identities.is_some_and(|(ours, there)| ours == there)
}

/// Sorts an error of the operating system on the way to the file at `path`.
pub(super) fn io_error(path: &Path, error: &std::io::Error) -> OpenError {
    use std::io::ErrorKind::{IsADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => OpenError::NotWritable { path: path.to_owned() },
        IsADirectory => OpenError::NotAFile { path: path.to_owned() },
        StorageFull | QuotaExceeded => OpenError::Storage { cause: Cause::new(CauseKind::Full, error) },
        _ => OpenError::Storage { cause: Cause::new(CauseKind::Io, error) },
    }
}
