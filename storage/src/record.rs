//! What a session is: its stored state, and what readers get of it.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cell::{Activity, Deadlines, NEVER},
    clock::Timestamp,
    error::{DecodeCategory, Error, Result},
    held::Weigh,
    id::{Serial, SessionId, Version},
};

/// Names and values beside the data, by which sessions can be listed.
pub type Metadata = BTreeMap<String, String>;

/// What an acknowledgement promises. Touches are the one operation that may be lazier still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Committed: a crash of the process loses nothing. After a power cut the file is a prefix of what was committed.
    #[default]
    Committed,
    /// Committed, and the write-ahead log synced to the disk: a power cut loses nothing.
    Synced,
}

/// Memory for encoding that a thread keeps, in bytes.
const ENCODED_KEPT_BYTES: usize = 64 << 10;

thread_local! {
    /// Where values are encoded, so that what is kept of them takes one allocation of just its size.
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A session's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// JSON text; stored as TEXT, so people can read it with the sqlite3 shell.
    Json(Bytes),
    /// Bytes of the application's own format; stored as a BLOB.
    Raw(Bytes),
}

impl Data {
    /// Encodes a value as JSON.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        // Taken, not borrowed: the value's own code may encode something, too.
        let mut text = ENCODED.take();
        text.clear();
        let encoded = match serde_json::to_writer(&mut text, value) {
            Ok(()) => Ok(Self::Json(Bytes::copy_from_slice(&text))),
            Err(error) => Err(Error::Encode { reason: error.to_string().into() }),
        };
        if text.capacity() <= ENCODED_KEPT_BYTES {
            ENCODED.set(text);
        }
        encoded
    }

    /// Decodes JSON into a value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        let Self::Json(text) = self else { return Err(Error::NotJson) };
        serde_json::from_slice(text).map_err(|error| Error::Decode {
            line: error.line(),
            column: error.column(),
            category: match error.classify() {
                serde_json::error::Category::Syntax => DecodeCategory::Syntax,
                serde_json::error::Category::Eof => DecodeCategory::Eof,
                serde_json::error::Category::Data | serde_json::error::Category::Io => DecodeCategory::Data,
            },
        })
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Raw(bytes) => bytes,
        }
    }
}

impl Default for Data {
    /// JSON's `null`.
    fn default() -> Self {
        Self::Json(Bytes::from_static(b"null"))
    }
}

/// A session's state as stored, without its activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The row's number.
    pub serial: i64,
    /// The id.
    pub id: SessionId,
    /// The version's counter.
    pub counter: i64,
    /// The owner.
    pub user: Option<Arc<str>>,
    /// Metadata.
    pub metadata: Metadata,
    /// The data.
    pub data: Data,
    /// When it was created, in unix microseconds.
    pub created_at: i64,
    /// Its own idle timeout in microseconds, in place of the engine's.
    pub idle_timeout: Option<i64>,
    /// Its own end in unix microseconds, in place of the engine's lifetime.
    pub expires_at: Option<i64>,
}

impl Stored {
    /// Returns its version.
    pub fn version(&self) -> Version {
        Version { serial: self.serial, counter: self.counter }
    }
}

/// Weighs what `payload_bytes_max` limits: data, metadata and user name.
pub fn payload_bytes(data: &Data, metadata: &Metadata, user: Option<&str>) -> usize {
    let metadata: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    data.bytes().len() + metadata + user.map_or(0, str::len)
}

/// What a held record costs beside its payload, in bytes: the structures, the id, allocation overhead.
const RECORD_BYTES: usize = 256;

impl Weigh for Stored {
    fn bytes(&self) -> usize {
        RECORD_BYTES + payload_bytes(&self.data, &self.metadata, self.user.as_deref())
    }
}

/// The engine's defaults for sessions that do not set their own, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExpiryDefaults {
    /// How long a session may be idle.
    pub idle_timeout: Option<i64>,
    /// How long it may live.
    pub lifetime: Option<i64>,
}

impl ExpiryDefaults {
    /// Works out when a session ends.
    pub fn deadlines(self, stored: &Stored) -> Deadlines {
        let Stored { created_at, idle_timeout, expires_at, .. } = *stored;
        Deadlines {
            idle_timeout: idle_timeout.or(self.idle_timeout).unwrap_or(NEVER),
            expires_at: expires_at.or(self.lifetime.map(|life| created_at.saturating_add(life))).unwrap_or(NEVER),
        }
    }
}

/// A session as read: a snapshot. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Record {
    stored: Arc<Stored>,
    activity: Activity,
    deadlines: Deadlines,
}

impl Record {
    /// Puts a record together.
    #[doc(hidden)]
    pub fn new(stored: Arc<Stored>, activity: Activity, deadlines: Deadlines) -> Self {
        Self { stored, activity, deadlines }
    }

    /// Returns the id.
    pub fn id(&self) -> &SessionId {
        &self.stored.id
    }

    /// Decodes the JSON data.
    ///
    /// # Errors
    /// [`Error::NotJson`] for data of the application's own format, [`Error::Decode`] for another shape.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        self.stored.data.decode()
    }

    /// Returns the data's bytes: JSON text or the application's own format.
    pub fn bytes(&self) -> &Bytes {
        self.stored.data.bytes()
    }

    /// Returns whether the data is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.stored.data, Data::Json(_))
    }

    /// Returns the stored state.
    #[doc(hidden)]
    pub fn stored(&self) -> &Arc<Stored> {
        &self.stored
    }
}

/// What a record and a summary both tell of a session.
macro_rules! getters {
    ($($kind:ty),*) => {$(
        impl $kind {
            /// Returns the public name.
            pub fn serial(&self) -> Serial {
                Serial(self.stored.serial)
            }

            /// Returns the owner.
            pub fn user(&self) -> Option<&str> {
                self.stored.user.as_deref()
            }

            /// Returns the version.
            pub fn version(&self) -> Version {
                self.stored.version()
            }

            /// Returns the metadata.
            pub fn metadata(&self) -> &Metadata {
                &self.stored.metadata
            }

            /// Returns when the session was created.
            pub fn created_at(&self) -> Timestamp {
                Timestamp::from_micros(self.stored.created_at)
            }

            /// Returns when the session was last active.
            pub fn last_active_at(&self) -> Timestamp {
                Timestamp::from_micros(self.activity.last_active)
            }

            /// Returns how many touches were counted.
            pub fn touch_count(&self) -> u64 {
                self.activity.count
            }

            /// Returns when the session ends if nothing happens to it any more; `None` for never.
            pub fn expires_at(&self) -> Option<Timestamp> {
                end(self.activity, self.deadlines)
            }
        }
    )*};
}

getters!(Record, Summary);

fn end(activity: Activity, deadlines: Deadlines) -> Option<Timestamp> {
    let end = deadlines.end(activity.last_active);
    (end != NEVER).then(|| Timestamp::from_micros(end))
}

/// A session as listed: all but its data.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The stored state, its data left out.
    pub(crate) stored: Stored,
    pub(crate) data_bytes: u64,
    pub(crate) activity: Activity,
    pub(crate) deadlines: Deadlines,
}

impl Summary {
    /// Returns the id; `None` where ids are kept hashed.
    pub fn id(&self) -> Option<&SessionId> {
        Some(&self.stored.id)
    }

    /// Returns the size of the data in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}
