//! The ids that rotations link, and what clients know of them: names for what is opaque, and the operations so far.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use sessile::{Change, Record, Serial, SessionId, Version};

use crate::history::{Answer, Id, OPEN_END, Op, Seen, Tag, Write};

/// The metadata entry that notes are kept in.
const NOTE: &str = "note";

/// A family of ids.
#[derive(Debug)]
pub struct Family {
    ids: Mutex<Vec<SessionId>>,
    versions: Mutex<Vec<Version>>,
    serials: Mutex<Vec<Serial>>,
    tokens: AtomicU32,
    ops: Mutex<Vec<Op>>,
}

impl Family {
    /// Begins with one id.
    pub fn new(id: SessionId) -> Self {
        Self {
            ids: Mutex::new(vec![id]),
            versions: Mutex::default(),
            serials: Mutex::default(),
            tokens: AtomicU32::new(10),
            ops: Mutex::default(),
        }
    }

    /// Returns how many ids there are.
    pub fn ids(&self) -> usize {
        lock(&self.ids).len()
    }

    /// Returns an id.
    pub fn id(&self, id: Id) -> SessionId {
        lock(&self.ids)[usize::from(id)].clone()
    }

    /// Adds an id that came by a rotation.
    pub fn add_id(&self, id: SessionId) -> Id {
        tag(&self.ids, id)
    }

    /// Names a version.
    pub fn version(&self, version: Version) -> Tag {
        tag(&self.versions, version)
    }

    /// Names what a record shows.
    pub fn seen(&self, record: &Record) -> Seen {
        Seen {
            serial: tag(&self.serials, record.serial()),
            version: self.version(record.version()),
            data: record.data::<Vec<u32>>().expect("a list was saved").into(),
            note: record.metadata().get(NOTE).map(|note| note.parse().expect("a number was noted")),
            touches: record.touch_count(),
            last_active: record.last_active_at().as_micros(),
        }
    }

    /// Makes the change that is meant.
    pub fn change(&self, write: &Write) -> Change {
        let mut change = Change::new();
        if let Some(data) = &write.data {
            change = change.data(&data[..]);
        }
        if let Some(note) = write.note {
            change = change.metadata(NOTE, note.to_string());
        }
        if let Some(expected) = write.expected {
            change = change.if_version(self.version_of(expected));
        }
        if write.keep_idle { change.keep_idle() } else { change }
    }

    /// Returns the version of this name.
    pub fn version_of(&self, tag: Tag) -> Version {
        lock(&self.versions)[usize::from(tag)]
    }

    /// Returns a number that nobody else in the family has.
    pub fn token(&self) -> u32 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the serials seen.
    pub fn serials(&self) -> Vec<Serial> {
        lock(&self.serials).clone()
    }

    /// Notes an operation.
    pub fn note(&self, op: Op) {
        lock(&self.ops).push(op);
    }

    /// Notes that what is unknown has happened by now, if ever.
    pub fn all_is_quiet(&self, now: u64) {
        for op in lock(&self.ops).iter_mut().filter(|op| op.ended == OPEN_END) {
            op.ended = now;
        }
    }

    /// Returns the operations that can have changed or shown anything.
    pub fn ops(&self) -> Vec<Op> {
        let ops = lock(&self.ops).clone();
        let is_lost_read = |op: &Op| op.answer == Answer::Unknown && op.call == crate::history::Call::Get;
        ops.into_iter().filter(|op| !is_lost_read(op)).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tag<T: PartialEq>(known: &Mutex<Vec<T>>, value: T) -> Tag {
    let mut known = lock(known);
    let at = known.iter().position(|other| *other == value).unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    });
    Tag::try_from(at).expect("few")
}
