//! What a load does and what it was answered, entry by entry: enough to tell afterwards what must be in the database.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sessile::Record;

/// The metadata entry by which a session is found whatever its id.
pub const KEY: &str = "key";
/// The metadata entry that an `apply` changes.
pub const TAG: &str = "tag";

/// An entry of the journal. What is invoked is entered before it is, what is answered after it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Entry {
    /// The engine is open.
    Ready,
    /// A shutdown begins.
    Closing {
        /// When, by [`now_us`].
        at_us: u64,
    },
    /// The shutdown was answered.
    Closed {
        /// When, by [`now_us`].
        at_us: u64,
    },
    /// A request begins.
    Invoked {
        /// When, by [`now_us`].
        at_us: u64,
        /// Its number: none is used twice, later ones of a session are higher.
        op: u64,
        /// The session it is for; what is for many has none.
        key: Option<u32>,
        /// What is asked for.
        step: Step,
    },
    /// A request was answered.
    Answered {
        /// When, by [`now_us`].
        at_us: u64,
        /// Its number.
        op: u64,
        /// The answer.
        answer: Answer,
    },
    /// After an answer that left it open what happened, the session was looked for.
    Resolved {
        /// The session.
        key: u32,
        /// What was found.
        found: Option<Found>,
    },
}

/// A request. The data it writes has the request's number in it, and `pad` bytes made from that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Creates the session, under this id or a generated one.
    Create { id: Option<String>, pad: u32, user: bool },
    /// Replaces the data.
    Save { id: String, pad: u32, synced: bool },
    /// Replaces the data of the version there is.
    SaveIf { id: String, pad: u32 },
    /// Replaces the data of a version that is no more.
    SaveStale { id: String, pad: u32 },
    /// Changes the data by a function.
    Update { id: String, pad: u32 },
    /// Changes data, owner and metadata.
    Apply { id: String, pad: u32, user: bool },
    /// Gives a new id, and new data with it.
    Rotate { id: String, pad: u32 },
    /// Deletes the session.
    Delete { id: String },
    /// Deletes the sessions of a client that have an owner.
    DeleteWhere { client: u32 },
    /// Touches.
    Touch { id: String, committed: bool },
    /// Flushes the touches of all.
    Flush,
    /// Reads.
    Get { id: String },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// It is done; the session's new id, where it has one.
    Done { id: Option<String> },
    /// There is no such session.
    Absent,
    /// The version is no more.
    Conflict,
    /// There is such a session already.
    Existing,
    /// It was read.
    Seen(Box<Found>),
    /// It did not happen, says the engine.
    Refused { error: String },
    /// It may have happened, says the engine.
    Doubt,
    /// The engine is closed; it did not happen.
    Closed,
}

/// A session as found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Which of the load's sessions it is.
    pub key: u32,
    /// Its id.
    pub id: String,
    /// Its row.
    pub serial: i64,
    /// The number of the request that wrote the data.
    pub seq: u64,
    /// How many updates there were since the data was last replaced.
    pub updates: u64,
    /// How many bytes of padding.
    pub pad: u32,
    /// Whether the padding is what the request wrote.
    pub is_sound: bool,
    /// Whether it has an owner.
    pub user: bool,
    /// The number of the last `apply`.
    pub tag: Option<u64>,
    /// How many touches are counted.
    pub touches: u64,
    /// When it was last active.
    pub last_active_us: i64,
}

impl Found {
    /// Takes a record apart.
    ///
    /// # Errors
    /// Says what is wrong with data that the load cannot have written.
    pub fn read(record: &Record) -> Result<Self, String> {
        let payload: Payload = record.data().map_err(|error| format!("row {}: {error}", record.serial()))?;
        Ok(Self {
            key: payload.key,
            id: record.id().as_str().to_owned(),
            serial: record.serial().get(),
            seq: payload.seq,
            updates: payload.updates,
            pad: u32::try_from(payload.pad.len()).unwrap_or(u32::MAX),
            is_sound: payload.pad == padding(payload.seq, payload.pad.len()),
            user: record.user().is_some(),
            tag: record.metadata().get(TAG).and_then(|tag| tag.parse().ok()),
            touches: record.touch_count(),
            last_active_us: record.last_active_at().as_micros(),
        })
    }
}

/// A session's data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    /// Which of the load's sessions it is.
    pub key: u32,
    /// The number of the request that wrote this.
    pub seq: u64,
    /// How many updates there were since the data was last replaced.
    pub updates: u64,
    /// Made from `seq`, so that a torn page shows.
    pub pad: String,
}

impl Payload {
    /// Makes what request `seq` writes.
    pub fn new(key: u32, seq: u64, pad: u32) -> Self {
        Self { key, seq, updates: 0, pad: padding(seq, pad as usize) }
    }

    /// Changes it as an update by request `seq` does.
    pub fn update(&mut self, seq: u64, pad: u32) {
        self.seq = seq;
        self.updates += 1;
        self.pad = padding(seq, pad as usize);
    }
}

fn padding(seq: u64, bytes: usize) -> String {
    let mut pad = format!("{seq:016x}").repeat(bytes.div_ceil(16));
    pad.truncate(bytes);
    pad
}

/// Where a load writes what it does.
pub trait Journal: Send + Sync + 'static {
    /// Writes an entry, before it returns.
    fn enter(&self, entry: Entry);

    /// Hears how long a request took.
    fn took(&self, _step: &Step, _took: std::time::Duration) {}
}

/// Returns monotonic microseconds, the same for all processes of the machine.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}
