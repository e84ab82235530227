//! Opening a database: lock, look, settings, migration; and reopening it after a fault.

use std::{
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
    cause,
    file::{OpenFile, Place, beside, log_was_cut, prepare_file},
    lock::FileLock,
    log_sync::LogSync,
    save_log::SaveLog,
    schema::{self, Contents, open_error},
    take_over::take_over,
    touch_log::TouchLog,
    user_index::UserIndex,
    wal,
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
    /// Whether to refuse a file that is not there, or not a database of ours: none is made or taken over.
    pub only_existing: bool,
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
    pub(super) file: Option<OpenFile>,
    /// From the end of the opening on.
    pub(super) log_sync: Option<LogSync>,
    /// A sync of the database may have failed.
    pub(super) is_in_doubt: bool,
    /// Pages in the log after the last commit.
    pub(super) log_pages: Arc<AtomicU64>,
    pub(super) data_version: i64,
    /// Row numbers handed out, and the end of the block that is on record.
    pub(super) serial_next: i64,
    pub(super) serial_end: i64,
    pub(super) save_log: SaveLog,
    pub(super) touch_log: TouchLog,
    pub(super) user_index: UserIndex,
    /// Which of the three is folded first, counted on at each failure.
    pub(super) fold_turn: usize,
    pub(super) synced: bool,
    /// Whether the open transaction may write.
    pub(super) is_writing: bool,
    /// The opening that is ours. Another one on record is another engine's.
    epoch: i64,
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
        let file = options.path.as_deref().map(|path| prepare_file(path, options.only_existing)).transpose()?;
        let connection = connect(file.as_ref().map(|file| file.path.as_path()), &options)?;
        let mut this = Self {
            connection,
            options,
            file,
            log_sync: None,
            is_in_doubt: false,
            log_pages: Arc::default(),
            data_version: 0,
            serial_next: 0,
            serial_end: 0,
            save_log: SaveLog::default(),
            touch_log: TouchLog::default(),
            user_index: UserIndex::default(),
            fold_turn: 0,
            synced: false,
            is_writing: false,
            epoch: 0,
        };
        let taken_over = this.migrate()?;
        this.settle()?;
        if let Some(file) = &this.file {
            let log = file.beside[0].0.clone();
            this.log_sync = Some(LogSync::start(log).map_err(|error| storage(Cause::new(CauseKind::Other, error)))?);
        }
        Ok((this, taken_over))
    }

    fn migrate(&mut self) -> Result<Option<TakenOver>, OpenError> {
        let contents = schema::classify(&self.connection)?;
        if contents == Contents::Ours(schema::VERSION) {
            return Ok(None);
        }
        if self.options.only_existing && !matches!(contents, Contents::Ours(_)) {
            let found = match contents {
                Contents::Empty => "nothing yet",
                _ => "the sessions of the source document's service, which are not to be taken over here",
            };
            return Err(OpenError::NotOurs { found: found.to_owned() });
        }
        demand_full_syncs(&self.connection)?;
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
        Ok(taken_over)
    }

    /// Sets and verifies what rests on the connection, and leaves a mark that this engine has opened the file.
    fn settle(&mut self) -> Result<(), OpenError> {
        // Before anything is set that stays in the file.
        self.serial_next = self.serial_on_record().map_err(storage)?;
        self.serial_end = self.serial_next;
        let journal = if self.file.is_some() { "wal" } else { "memory" };
        demand_full_syncs(&self.connection)?;
        demand(&self.connection, "journal_mode", "wal", journal)?;
        demand(&self.connection, "synchronous", "NORMAL", "1")?;
        self.synced = false;
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
        // Buries or confirms frames of a commit that was in doubt before (rule R2).
        self.begin_write(Durability::Synced, BUSY_TIMEOUT).map_err(storage)?;
        self.write_log_again().map_err(storage)?;
        let epoch = self.meta(Meta::Epoch).map_err(storage)?;
        self.set_meta(Meta::Epoch, epoch.wrapping_add(1)).map_err(storage)?;
        self.epoch = epoch.wrapping_add(1);
        self.foreign_writes().map_err(storage)?;
        self.read_save_log().map_err(storage)?;
        self.read_touch_log().map_err(storage)?;
        self.read_user_index().map_err(storage)?;
        self.commit().map_err(|error| match error {
            crate::backend::CommitError::Busy(cause) | crate::backend::CommitError::Unknown(cause) => storage(cause),
        })?;
        if let Some(file) = &mut self.file {
            file.note_log();
        }
        // The file is accepted: from now on its log is ours to move.
        self.keep_log_on_close(false).map_err(storage)
    }

    pub(super) fn keep_log_on_close(&self, keep: bool) -> Result<(), Cause> {
        let set = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep);
        set.map(drop).map_err(|error| cause(&error))
    }

    /// Returns whether the log was deleted, so that our connection alone has it.
    pub(super) fn is_log_gone(&self) -> bool {
        self.file.as_ref().is_some_and(|file| matches!(file.look(), Place::LogGone))
    }

    /// Makes sure that what was committed just now can be found by whoever opens the file next: SQLite goes on with files
    /// that were deleted, and what it writes there is lost with the process.
    pub(super) fn is_in_place(&mut self) -> Result<(), Cause> {
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.look() {
            Place::AsWeLeftIt => {
                file.log_bytes = file.log_length();
                Ok(())
            }
            Place::LogGone => Err(Cause::new(CauseKind::Replaced, "the log was deleted")),
            Place::Gone(cause) => Err(cause),
        }
    }

    /// Has what was committed just now synced from beside, before long.
    pub(super) fn sync_log(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if let Some(sync) = &mut self.log_sync {
            sync.committed(pages);
        }
    }

    /// Fails once after a sync from beside that failed.
    pub(super) fn log_was_synced(&self) -> Result<(), Cause> {
        self.log_sync.as_ref().map_or(Ok(()), LogSync::check)
    }

    /// Makes sure, where nobody else has used the log, that it was not cut: SQLite would write on behind the hole, where
    /// no recovery finds it, and a checkpoint would move the hole into the database.
    pub(super) fn log_is_whole(&mut self) -> Result<(), Cause> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.log_length() >= file.log_bytes || !matches!(file.look(), Place::AsWeLeftIt) {
            // Where it is gone, the commit tells.
            return Ok(());
        }
        file.is_log_cut = true;
        self.keep_log_on_close(true)?;
        Err(log_was_cut())
    }

    /// Makes sure, where somebody else has written, that it was no engine: then its lock file was deleted under us, and
    /// the file is the other's now (invariant I1).
    pub(super) fn is_ours(&self) -> Result<(), Cause> {
        if self.meta_epoch()? == self.epoch {
            return Ok(());
        }
        Err(Cause::new(CauseKind::Replaced, "another engine has opened the file; was its lock file deleted?"))
    }

    /// Opens the same file anew after a fault.
    pub(super) fn open_again(&mut self) -> Result<(), Cause> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let is_log_gone = match file.look() {
            Place::AsWeLeftIt => false,
            Place::LogGone => true,
            Place::Gone(cause) => return Err(cause),
        };
        if !file.lock.is_in_place() {
            file.lock = FileLock::acquire(&file.path).map_err(|error| match error {
                OpenError::InUse { .. } => Cause::new(CauseKind::Replaced, "another engine has the file now"),
                other => as_cause(other),
            })?;
        }
        let path = file.path.clone();
        self.end_doubt(is_log_gone)?;
        if is_log_gone {
            // All that was committed is moved by the connection that can still read it; then a new log can begin.
            self.rollback()?;
            let moved = self.checkpoint()?;
            if moved.pages_left > 0 {
                return Err(Cause::new(CauseKind::Busy, "the log was deleted, and a reader keeps it from being moved"));
            }
            self.disconnect()?;
        }
        // Before the other is closed, so that the log is not checkpointed and unlinked in between.
        let connection = connect(Some(&path), &self.options).map_err(as_cause)?;
        if self.is_log_gone() {
            // In this moment, perhaps: then the other still has it, and this one an empty one.
            return Err(Cause::new(CauseKind::Busy, "the log was deleted while the file was opened again"));
        }
        drop(std::mem::replace(&mut self.connection, connection));
        self.synced = false;
        self.data_version = 0;
        if let Some(file) = &mut self.file {
            file.log_bytes = 0;
        }
        self.begin_log_anew()?;
        self.settle().map_err(as_cause)
    }

    /// Closes the connection. Whatever log is there next is ours.
    pub(super) fn disconnect(&mut self) -> Result<(), Cause> {
        let nothing = Connection::open_in_memory().map_err(|error| cause(&error))?;
        if let Err((connection, error)) = std::mem::replace(&mut self.connection, nothing).close() {
            self.connection = connection;
            return Err(cause(&error));
        }
        if let Some(file) = &mut self.file {
            file.beside.iter_mut().for_each(|(_, identity)| *identity = None);
        }
        Ok(())
    }

    /// Moves what the log holds into the database, and empties it, if nobody reads it.
    ///
    /// What a failed sync was to write is in the kernel's memory only, and counts there as written: no later sync writes
    /// it (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So the log is written once more first: else a power cut in
    /// the move would leave a database half overwritten, and a log that cannot mend it.
    fn begin_log_anew(&mut self) -> Result<(), Cause> {
        self.begin_write(Durability::Synced, BUSY_TIMEOUT)?;
        self.write_log_again()?;
        self.rollback()?;
        match self.checkpoint_and_truncate() {
            Err(cause) if matches!(cause.kind, CauseKind::Io | CauseKind::Corrupt) => Err(cause),
            _ => Ok(()),
        }
    }

    /// Writes the log once more. Under the write lock, so that nobody else writes to it.
    fn write_log_again(&self) -> Result<(), Cause> {
        let Some(file) = &self.file else { return Ok(()) };
        wal::write_again(&file.path).map_err(|error| Cause::new(CauseKind::Io, error))
    }

    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }
}

fn storage(cause: Cause) -> OpenError {
    OpenError::Storage { cause }
}

pub(super) fn as_cause(error: OpenError) -> Cause {
    match error {
        OpenError::Storage { cause } => cause,
        other => Cause::new(CauseKind::Other, other),
    }
}

/// Connects and sets what is set on every open.
fn connect(path: Option<&Path>, options: &OpenOptions) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match path {
        Some(path) => Connection::open_with_flags(path, flags),
        None => Connection::open_in_memory(),
    };
    let connection = connection.map_err(open_error)?;
    if path.is_some_and(|path| beside(path, "-wal").exists()) {
        // Until the file is accepted: to look into one and close it again would move its log and delete it. A log that is
        // not there yet is made by looking, and goes with the connection.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(open_error)?;
    }
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

/// For what may be written under a rollback journal: making the tables, a take-over, the switch to WAL. A power cut under
/// NORMAL can leave a journal that is taken for whole and is not (<https://sqlite.org/pragma.html#pragma_synchronous>).
fn demand_full_syncs(connection: &Connection) -> Result<(), OpenError> {
    demand(connection, "synchronous", "EXTRA", "3")
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
