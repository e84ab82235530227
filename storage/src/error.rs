//! What can go wrong, and whether anything happened.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::id::{Serial, Version};

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a request that failed took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It had no effect.
    DidNotHappen,
    /// It may have had its effect: read before trying again.
    MayHaveHappened,
}

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The session is not there: unknown, deleted, expired, or rotated to another id.
    #[error("no such session")]
    NotFound,
    /// A session of this id is there already.
    #[error("a session of this id exists already")]
    AlreadyExists,
    /// The engine is shut down.
    #[error("the engine is closed")]
    Closed,
    /// The session's data is bytes of the application's own format, not JSON.
    #[error("the session's data is not JSON")]
    NotJson,
    /// The query's cursor or bounds cannot be used.
    #[error("invalid query: {reason}")]
    InvalidQuery {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The id cannot be the id of a session.
    #[error("invalid session id: {reason}")]
    InvalidId {
        /// What is wrong with it.
        reason: InvalidId,
    },
    /// A value in the request is out of range.
    #[error("invalid {name}: {reason}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
    /// The session's state is not of the version that was expected.
    #[error("the session has changed")]
    Conflict {
        /// The version it has.
        current: Version,
    },
    /// Data, metadata and user name together are too large.
    #[error("{bytes} bytes are over the limit of {bytes_max}")]
    TooLarge {
        /// Their size.
        bytes: usize,
        /// The limit, `payload_bytes_max`.
        bytes_max: usize,
    },
    /// The engine or the user has as many sessions as allowed.
    #[error("the limit of {max} {limit} is reached")]
    LimitReached {
        /// Which limit.
        limit: Limit,
        /// Its value.
        max: u64,
    },
    /// Too much is in flight. Retry later.
    #[error("overloaded (waited {waited:?})")]
    Overloaded {
        /// How long the request waited for room.
        waited: Duration,
    },
    /// Storage cannot serve now. Retry later.
    #[error("storage is unavailable")]
    Unavailable {
        /// What keeps it.
        #[source]
        cause: Cause,
    },
    /// The data could not be written as JSON.
    #[error("the data cannot be encoded as JSON: {reason}")]
    Encode {
        /// What the serializer said.
        reason: Arc<str>,
    },
    /// The stored JSON is not what was asked for. The value itself is never shown.
    #[error("the stored JSON does not decode ({category}, line {line}, column {column})")]
    Decode {
        /// The line, from 1; 0 if unknown.
        line: usize,
        /// The column, from 1; 0 if unknown.
        column: usize,
        /// The kind of fault.
        category: DecodeCategory,
    },
    /// The stored row is damaged.
    #[error("the stored row {serial} is damaged")]
    Corrupt {
        /// The session's row.
        serial: Serial,
    },
    /// The closure of an `update` panicked; nothing was written.
    #[error("the update panicked")]
    Panicked,
    /// The database refused; the change was rolled back.
    #[error("the database refused")]
    Storage {
        /// What it said.
        #[source]
        cause: Cause,
    },
    /// The database refused after a part was done: some sessions are deleted, each whole.
    #[error("the database refused after {done} sessions were deleted")]
    Partial {
        /// How many.
        done: u64,
        /// What it said.
        #[source]
        cause: Cause,
    },
    /// The answer was lost: the request may have taken effect or not.
    #[error("interrupted: {by}")]
    Interrupted {
        /// What came between.
        by: InterruptedBy,
    },
}

impl Error {
    /// Returns whether the request may have taken effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Interrupted { .. } | Self::Partial { .. } => Outcome::MayHaveHappened,
            _ => Outcome::DidNotHappen,
        }
    }

    /// Returns whether the same request may succeed later. An [`Outcome::MayHaveHappened`] is not retryable blindly.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overloaded { .. } | Self::Unavailable { .. } => true,
            Self::Storage { cause } => matches!(cause.kind, CauseKind::Busy | CauseKind::Full),
            _ => false,
        }
    }
}

/// What is wrong with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It is longer than an id may be.
    #[error("it has {bytes} bytes, {bytes_max} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest.
        bytes_max: usize,
    },
    /// It has a control character.
    #[error("it has a control character")]
    ControlCharacter,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// `max_sessions`.
    Sessions,
    /// `max_sessions_per_user`.
    SessionsPerUser,
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sessions => "sessions",
            Self::SessionsPerUser => "sessions of one user",
        })
    }
}

/// The kind of a decode error, as `serde_json` classifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeCategory {
    /// It is no JSON.
    Syntax,
    /// It ends early.
    Eof,
    /// It is JSON of another shape.
    Data,
}

impl fmt::Display for DecodeCategory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Syntax => "syntax",
            Self::Eof => "unexpected end",
            Self::Data => "another shape",
        })
    }
}

/// What lost an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterruptedBy {
    /// The request's deadline passed.
    Deadline,
    /// The storage thread failed while it had the request.
    StorageDied,
    /// COMMIT failed in a way that does not tell whether it took place.
    CommitUnknown,
}

impl fmt::Display for InterruptedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Deadline => "the deadline passed",
            Self::StorageDied => "the storage thread failed",
            Self::CommitUnknown => "the commit's result is unknown",
        })
    }
}

/// What the database or the operating system said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Cause {
    /// Its kind.
    pub kind: CauseKind,
    /// SQLite's extended result code, 0 where the cause is not SQLite's (<https://sqlite.org/rescode.html>).
    pub code: i32,
    /// In words.
    pub message: Arc<str>,
}

impl Cause {
    /// Makes a cause that is not SQLite's.
    pub fn new(kind: CauseKind, message: impl fmt::Display) -> Self {
        Self { kind, code: 0, message: message.to_string().into() }
    }
}

/// Kinds of [`Cause`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CauseKind {
    /// Another process holds the lock.
    Busy,
    /// The disk, or the database at its size limit, is full.
    Full,
    /// The file cannot be written.
    ReadOnly,
    /// The operating system failed to read, write or sync.
    Io,
    /// The file is damaged.
    Corrupt,
    /// The file was deleted or another one put in its place.
    Replaced,
    /// The storage thread is reopening the database or has given up.
    Recovering,
    /// Anything else.
    Other,
}

/// Why the engine did not open. The file is as it was.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another engine has the file open.
    #[error("{} is in use by another engine", .path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The path is a directory or a special file.
    #[error("{} is not a file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is not an SQLite database.
    #[error("{} is not a database", .path.display())]
    NotADatabase {
        /// The path.
        path: PathBuf,
    },
    /// The file is an SQLite database of something else.
    #[error("the database is not a session store ({found})")]
    NotOurs {
        /// What was found in it.
        found: String,
    },
    /// The file was written by a later release.
    #[error("the file has schema {found}, this release knows up to {supported}")]
    NewerSchema {
        /// Its schema.
        found: i32,
        /// The newest that this release knows.
        supported: i32,
    },
    /// The file or its directory cannot be written.
    #[error("{} cannot be written", .path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
    },
    /// SQLite did not take a setting that the engine rests on.
    #[error("PRAGMA {name} answered {got}")]
    PragmaRefused {
        /// The pragma.
        name: &'static str,
        /// What it answered.
        got: String,
    },
    /// A row of the database to take over cannot be kept as it is. Nothing was changed.
    #[error("row {row} cannot be taken over: {reason}")]
    TakeOver {
        /// The row's number in the old table.
        row: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// An option has a value that cannot be meant.
    #[error("invalid {name}: {reason}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no tokio runtime to run actors on, or it has no timer.
    #[error("no tokio runtime with its timer enabled: call from within one, or name one in the builder")]
    NoRuntime,
    /// The database or the operating system refused.
    #[error("the database cannot be opened")]
    Storage {
        /// What it said.
        #[source]
        cause: Cause,
    },
}
