//! Opening a database: lock, look, settings, migration; and reopening it after a fault.

use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::tz::TimeZone;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig, ffi};

use crate::{
    backend::{Backend, Meta},
    error::{Cause, CauseKind, OpenError},
    record::Durability,
};

use super::{
    lock::{FileLock, io_error},
    save_log::SaveLog,
    schema::{self, Contents, open_error},
    take_over::take_over,
};

/// How long SQLite waits for another process's lock, as the source document has it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared: all of ours and room for the many shapes of list queries.
const STATEMENTS_MAX: usize = 128;
/// To what the log's file is cut when it begins anew, in bytes: above what it reaches between two checkpoints, for to cut
/// and to grow it costs.
const LOG_SIZE_LIMIT: i64 = 64 << 20;

/// How to open a database.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The file, or `None` for memory.
    pub path: Option<PathBuf>,
    /// Memory for pages, in bytes.
    pub cache_bytes: u64,
    /// The zone of times in a database that is taken over.
    pub take_over_zone: TimeZone,
}

/// A database taken over from another service.
#[derive(Debug, Clone, Copy)]
pub struct TakenOver {
    /// How many sessions it held.
    pub sessions: u64,
}

/// The one connection.
#[derive(Debug)]
pub struct Sqlite {
    // The connection goes before the lock.
    pub(super) connection: Connection,
    options: OpenOptions,
    file: Option<OpenFile>,
    /// Pages in the log after the last commit.
    pub(super) log_pages: Arc<AtomicU64>,
    pub(super) data_version: i64,
    /// Row numbers handed out, and the end of the block that is on record.
    pub(super) serial_next: i64,
    pub(super) serial_end: i64,
    pub(super) save_log: SaveLog,
    pub(super) synced: bool,
    /// Whether the open transaction may write.
    pub(super) is_writing: bool,
}

/// The file behind the connection.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    /// Device and inode: another file in its place is not ours.
    identity: (u64, u64),
    _lock: FileLock,
}

impl Sqlite {
    /// Opens the database, makes or migrates its tables, and takes over a foreign one.
    pub fn open(options: OpenOptions) -> Result<(Self, Option<TakenOver>), OpenError> {
        let path = options.path.clone();
        Self::open_file(options).map_err(|error| match (path, error) {
            (Some(path), OpenError::Storage { cause }) if cause.code & 0xff == ffi::SQLITE_NOTADB => {
                OpenError::NotADatabase { path }
            }
            (Some(path), OpenError::Storage { cause }) if cause.kind == CauseKind::ReadOnly => {
                OpenError::NotWritable { path }
            }
            (_, error) => error,
        })
    }

    fn open_file(options: OpenOptions) -> Result<(Self, Option<TakenOver>), OpenError> {
        let file = options.path.as_deref().map(prepare_file).transpose()?;
        let connection = connect(file.as_ref().map(|file| file.path.as_path()), &options)?;
        let mut this = Self {
            connection,
            options,
            file,
            log_pages: Arc::default(),
            data_version: 0,
            serial_next: 0,
            serial_end: 0,
            save_log: SaveLog::default(),
            synced: false,
            is_writing: false,
        };
        let taken_over = this.migrate()?;
        this.settle()?;
        Ok((this, taken_over))
    }

    fn migrate(&mut self) -> Result<Option<TakenOver>, OpenError> {
        let contents = schema::classify(&self.connection)?;
        if contents == Contents::Ours(schema::VERSION) {
            return Ok(None);
        }
        if contents == Contents::Foreign {
            // This commit drops the only copy, perhaps under a rollback journal, which NORMAL does not sync in full.
            demand(&self.connection, "synchronous", "EXTRA", "3")?;
        }
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(open_error)?;
        // Another process may have written between the look and the lock.
        if schema::classify(&transaction)? != contents {
            return Err(OpenError::Storage { cause: Cause::new(CauseKind::Busy, "the file is being written") });
        }
        let from = if let Contents::Ours(version) = contents { version } else { 0 };
        schema::migrate(&transaction, from).map_err(open_error)?;
        let taken_over = match contents {
            Contents::Foreign => Some(TakenOver { sessions: take_over(&transaction, &self.options.take_over_zone)? }),
            _ => None,
        };
        transaction.commit().map_err(open_error)?;
        demand(&self.connection, "synchronous", "NORMAL", "1")?;
        Ok(taken_over)
    }

    /// Sets and verifies what rests on the connection, and leaves a mark that this engine has opened the file.
    fn settle(&mut self) -> Result<(), OpenError> {
        let journal = if self.file.is_some() { "wal" } else { "memory" };
        demand(&self.connection, "journal_mode", "wal", journal)?;
        demand(&self.connection, "wal_autocheckpoint", "0", "0")?;
        let limit = LOG_SIZE_LIMIT.to_string();
        if self.file.is_some() {
            demand(&self.connection, "journal_size_limit", &limit, &limit)?;
        }
        // After the pragma, which would replace the hook.
        let pages = Arc::clone(&self.log_pages);
        self.connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, in_log: i32| {
                pages.store(in_log as u64, Ordering::Relaxed);
                Ok(())
            }))
            .map_err(open_error)?;
        self.serial_next = self.serial_on_record().map_err(storage)?;
        self.serial_end = self.serial_next;
        // Buries or confirms frames of a commit that was in doubt before (rule R2).
        self.begin_write(Durability::Synced, BUSY_TIMEOUT).map_err(storage)?;
        let epoch = self.meta(Meta::Epoch).map_err(storage)?;
        self.set_meta(Meta::Epoch, epoch.wrapping_add(1)).map_err(storage)?;
        self.foreign_writes().map_err(storage)?;
        self.read_save_log().map_err(storage)?;
        self.commit().map_err(|error| match error {
            crate::backend::CommitError::Busy(cause) | crate::backend::CommitError::Unknown(cause) => storage(cause),
        })
    }

    /// Opens the same file anew after a fault.
    pub(super) fn open_again(&mut self) -> Result<(), Cause> {
        let Some(file) = &self.file else { return Ok(()) };
        let as_cause = |error: OpenError| match error {
            OpenError::Storage { cause } => cause,
            other => Cause::new(CauseKind::Other, other),
        };
        match fs::metadata(&file.path) {
            Ok(there) if (there.dev(), there.ino()) == file.identity => {}
            Ok(_) => return Err(Cause::new(CauseKind::Replaced, "the file was replaced by another one")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Cause::new(CauseKind::Replaced, "the file was deleted"));
            }
            Err(error) => return Err(Cause::new(CauseKind::Io, error)),
        }
        // Before the other is closed, so that the log is not checkpointed and unlinked in between.
        let connection = connect(Some(&file.path), &self.options).map_err(as_cause)?;
        drop(std::mem::replace(&mut self.connection, connection));
        self.synced = false;
        self.data_version = 0;
        self.settle().map_err(as_cause)
    }

    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }
}

fn storage(cause: Cause) -> OpenError {
    OpenError::Storage { cause }
}

/// Locks the file and makes it where it is missing.
fn prepare_file(path: &Path) -> Result<OpenFile, OpenError> {
    let path = canonical(path)?;
    if let Ok(there) = fs::metadata(&path) {
        if !there.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        // Two names of one file would have two locks.
        if there.nlink() > 1 {
            let reason = format!("{} has {} hard links", path.display(), there.nlink());
            return Err(storage(Cause::new(CauseKind::Other, reason)));
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
    Ok(OpenFile { identity: (there.dev(), there.ino()), path, _lock: lock })
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

/// Connects and sets what is set on every open.
fn connect(path: Option<&Path>, options: &OpenOptions) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match path {
        Some(path) => Connection::open_with_flags(path, flags),
        None => Connection::open_in_memory(),
    };
    let connection = connection.map_err(open_error)?;
    // The file may come from anywhere: <https://sqlite.org/security.html>.
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // Plans do not depend on bound values: else SQLite prepares a cached statement anew at every binding.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(setting, on).map_err(open_error)?;
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(open_error)?;
    let cache = format!("-{}", (options.cache_bytes / 1_000).max(1));
    demand(&connection, "busy_timeout", "5000", "5000")?;
    demand(&connection, "cell_size_check", "ON", "1")?;
    demand(&connection, "cache_size", &cache, &cache)?;
    demand(&connection, "temp_store", "MEMORY", "2")?;
    demand(&connection, "synchronous", "NORMAL", "1")?;
    if path.is_some() {
        demand(&connection, "mmap_size", "0", "0")?;
    }
    Ok(connection)
}

/// Sets a pragma and verifies that it took.
pub(super) fn demand(connection: &Connection, name: &'static str, value: &str, answer: &str) -> Result<(), OpenError> {
    let text = |row: &rusqlite::Row<'_>| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => String::from_utf8_lossy(other.as_bytes().unwrap_or_default()).into_owned(),
        })
    };
    let set = connection.query_row(&format!("PRAGMA {name} = {value}"), [], text);
    match set {
        Ok(_) | Err(rusqlite::Error::QueryReturnedNoRows) => {}
        Err(error) => return Err(open_error(error)),
    }
    let got = connection.pragma_query_value(None, name, text).map_err(open_error)?;
    if got.eq_ignore_ascii_case(answer) { Ok(()) } else { Err(OpenError::PragmaRefused { name, got }) }
}
