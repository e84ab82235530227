//! The file behind the connection, and those beside it: made, locked, and looked after.

use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::error::{Cause, CauseKind, OpenError};

use super::lock::{FileLock, io_error};

/// Room that is left to others, in bytes: more than one step of what we do at rest writes to the log.
const ROOM_TO_SPARE: u64 = 16 << 20;

/// The file behind the connection, and those beside it.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    /// Another file in its place is not ours.
    identity: Identity,
    /// The log and its index, from the first commit on.
    pub(super) beside: [(PathBuf, Option<Identity>); 2],
    /// The length of the log after the last commit.
    pub(super) log_bytes: u64,
    /// Somebody has cut the log: frames that we count on are not there.
    pub(super) is_log_cut: bool,
    pub(super) lock: FileLock,
}

/// Device and inode.
type Identity = (u64, u64);

/// What has become of the files since they were opened.
#[derive(Debug)]
pub(super) enum Place {
    AsWeLeftIt,
    /// The log or its index is gone: what was committed is in the hands of our connection only.
    LogGone,
    /// Deleted, or another one in its place.
    Gone(Cause),
}

impl OpenFile {
    pub(super) fn look(&self) -> Place {
        if self.is_log_cut {
            return Place::Gone(log_was_cut());
        }
        match identity_of(&self.path) {
            Ok(Some(there)) if there == self.identity => {}
            Ok(Some(_)) => return Place::Gone(Cause::new(CauseKind::Replaced, "the file was replaced by another one")),
            Ok(None) => return Place::Gone(Cause::new(CauseKind::Replaced, "the file was deleted")),
            Err(error) => return Place::Gone(Cause::new(CauseKind::Io, error)),
        }
        let is_there = |(path, identity): &(PathBuf, Option<Identity>)| {
            identity.is_none_or(|identity| identity_of(path).is_ok_and(|there| there == Some(identity)))
        };
        if self.beside.iter().all(is_there) { Place::AsWeLeftIt } else { Place::LogGone }
    }

    /// Notes which log is ours.
    pub(super) fn note_log(&mut self) {
        for (path, identity) in &mut self.beside {
            *identity = identity_of(path).unwrap_or_default();
        }
        self.log_bytes = self.log_length();
    }

    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(&self.beside[0].0).map_or(0, |log| log.len())
    }

    /// Returns whether its disk has room for work that can wait.
    pub(super) fn has_room_to_spare(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_TO_SPARE)
    }
}

pub(super) fn log_was_cut() -> Cause {
    Cause::new(CauseKind::Replaced, "the log was cut short")
}

fn identity_of(path: &Path) -> std::io::Result<Option<Identity>> {
    match fs::metadata(path) {
        Ok(there) => Ok(Some((there.dev(), there.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Locks the file and makes it where it is missing.
pub(super) fn prepare_file(path: &Path, only_existing: bool) -> Result<OpenFile, OpenError> {
    let path = canonical(path)?;
    let there = fs::metadata(&path);
    if only_existing && let Err(error) = &there {
        return Err(io_error(&path, error));
    }
    if let Ok(there) = there {
        if !there.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        // Two names of one file would have two locks.
        if there.nlink() > 1 {
            let reason = format!("{} has {} hard links", path.display(), there.nlink());
            return Err(OpenError::Storage { cause: Cause::new(CauseKind::Other, reason) });
        }
        // Asked of the mode, too, for to root every file looks writable.
        if there.permissions().readonly() {
            return Err(OpenError::NotWritable { path });
        }
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    if fs::metadata(directory).is_ok_and(|directory| directory.permissions().readonly()) {
        return Err(OpenError::NotWritable { path });
    }
    warn_of_filesystem(directory);
    let lock = FileLock::acquire(&path)?;
    // SQLite would make it readable by all; never opened by hand otherwise, for closing it drops SQLite's locks.
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error(&path, &error)),
    }
    let there = fs::metadata(&path).map_err(|error| io_error(&path, &error))?;
    let beside = ["-wal", "-shm"].map(|suffix| (beside(&path, suffix), None));
    let identity = (there.dev(), there.ino());
    Ok(OpenFile { path, identity, beside, log_bytes: 0, is_log_cut: false, lock })
}

/// Names one of the files that SQLite keeps beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Resolves links, also where the file itself is still to be made.
fn canonical(path: &Path) -> Result<PathBuf, OpenError> {
    if let Ok(found) = path.canonicalize() {
        return Ok(found);
    }
    let Some(name) = path.file_name() else { return Err(OpenError::NotAFile { path: path.to_owned() }) };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(parent.canonicalize().map_err(|error| io_error(path, &error))?.join(name))
}

/// WAL needs shared memory and honest locks: <https://sqlite.org/wal.html>.
fn warn_of_filesystem(directory: &Path) {
    let Ok(found) = rustix::fs::statfs(directory) else { return };
    let name = match i128::from(found.f_type) & 0xffff_ffff {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x794c_7630 => "overlayfs",
        _ => return,
    };
    tracing::warn!(filesystem = name, "write-ahead logging is not reliable on this filesystem; use a local disk");
}
