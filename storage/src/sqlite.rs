//! The SQLite backend: the one place that knows rusqlite.

mod doubt;
mod file;
mod lock;
mod log_index;
mod log_sync;
mod open;
mod query;
mod rows;
mod save_log;
mod schema;
mod take_over;
mod touch_log;
mod user_index;
mod wal;

pub use open::{OpenOptions, Sqlite, TakenOver};

use rusqlite::ffi;

use crate::error::{Cause, CauseKind};

/// Sorts an SQLite error into our kinds.
pub(crate) fn cause(error: &rusqlite::Error) -> Cause {
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    let kind = match code & 0xff {
        // The log's index grows by writing to it; what fails then is the disk's room, whatever it is called.
        _ if code == ffi::SQLITE_IOERR_SHMSIZE => CauseKind::Full,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => CauseKind::Busy,
        ffi::SQLITE_FULL => CauseKind::Full,
        ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM => CauseKind::ReadOnly,
        ffi::SQLITE_IOERR => CauseKind::Io,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => CauseKind::Corrupt,
        _ => CauseKind::Other,
    };
    Cause { kind, code, message: error.to_string().into() }
}
