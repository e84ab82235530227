//! What was asked and answered, and when: the input of the checker.

use std::{fmt, sync::Arc};

/// A session's data: a list, so that what is lost or done twice shows in what comes after.
pub type List = Arc<[u32]>;
/// Stands for a version or a serial, which are opaque: equal tags, equal values.
pub type Tag = u16;
/// Stands for an id of a family: 0 is the one that its first session was created under, the others came by rotation.
pub type Id = u16;

/// How many operations, versions and serials one family may have.
pub const MANY: usize = 384;
/// The time of an end that never comes.
pub const NEVER: i64 = i64::MAX;
/// After all that happens.
pub const OPEN_END: u64 = u64::MAX;

/// A change to a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// The data to put in place.
    pub data: Option<List>,
    /// A metadata entry to set.
    pub note: Option<u32>,
    /// The version that it depends on.
    pub expected: Option<Tag>,
    /// Whether the time of activity stays.
    pub keep_idle: bool,
}

/// What is asked of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Create {
        data: List,
        /// `get_or_create`.
        or_existing: bool,
        /// How long the session may be idle, in microseconds.
        idle: i64,
        /// When it ends, in unix microseconds.
        end: i64,
    },
    Get,
    /// `save`, `save_if`, `apply`.
    Write(Write),
    /// `update`, which appends `add` to the data; or `try_update`, which only looks at them.
    Update {
        add: Option<u32>,
    },
    Touch {
        /// `touch_with`.
        committed: bool,
    },
    Delete,
    Rotate(Write),
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub serial: Tag,
    pub version: Tag,
    pub data: List,
    pub note: Option<u32>,
    pub touches: u64,
    pub last_active: i64,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of a touch.
    Done,
    /// Of a get.
    Seen(Option<Seen>),
    /// Of a write: the version after it, where that was told.
    Written(Option<Tag>),
    /// Of an update: the data before it, where that was told.
    Updated(Option<List>),
    /// Of a creation: whether there was none before.
    Created(bool),
    /// Of a deletion: whether there was one.
    Deleted(bool),
    /// Of a rotation.
    Moved(Id),
    NotFound,
    AlreadyExists,
    Conflict(Tag),
    /// It may have happened, or may happen still: nobody waited, or nobody knows.
    Unknown,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub client: u8,
    pub id: Id,
    pub call: Call,
    pub answer: Answer,
    /// When it was asked: a place in the order of all events of the history.
    pub asked: u64,
    /// When it was answered; or, if that is unknown, from when on it cannot happen any more.
    pub ended: u64,
    /// The clock when it was asked, in unix microseconds.
    pub from: i64,
    /// The clock when it was answered.
    pub until: i64,
}

impl Op {
    /// Whether it must have happened.
    pub fn is_certain(&self) -> bool {
        self.answer != Answer::Unknown
    }
}

/// A set of small numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Bits([u64; MANY / 64]);

impl Bits {
    pub fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    pub fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
}

impl fmt::Display for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, id, call, answer, asked, ended, .. } = self;
        let ended = if *ended == OPEN_END { "…".to_owned() } else { ended.to_string() };
        write!(formatter, "{asked:>6} ─ {ended:<6} client {client:<3} id {id:<3} ")?;
        match call {
            Call::Create { data, or_existing, idle, end } => {
                let name = if *or_existing { "get_or_create" } else { "create" };
                write!(formatter, "{name} {data:?}")?;
                if (*idle, *end) != (NEVER, NEVER) {
                    write!(formatter, " for {idle} us idle, until {end} us")?;
                }
            }
            Call::Get => write!(formatter, "get")?,
            Call::Write(change) => write!(formatter, "write {change}")?,
            Call::Update { add: Some(add) } => write!(formatter, "update: append {add}")?,
            Call::Update { add: None } => write!(formatter, "try_update that refuses")?,
            Call::Touch { committed } => write!(formatter, "touch{}", if *committed { " (committed)" } else { "" })?,
            Call::Delete => write!(formatter, "delete")?,
            Call::Rotate(change) => write!(formatter, "rotate {change}")?,
        }
        write!(formatter, "  →  ")?;
        match answer {
            Answer::Unknown => write!(formatter, "?"),
            Answer::Seen(None) => write!(formatter, "none"),
            Answer::Seen(Some(Seen { serial, version, data, note, touches, last_active })) => {
                let note = note.map(|note| format!(", note {note}")).unwrap_or_default();
                write!(
                    formatter,
                    "{data:?}{note}, version v{version}, {touches} touches, active {last_active}, serial s{serial}"
                )
            }
            Answer::Written(Some(version)) => write!(formatter, "version v{version}"),
            Answer::Updated(Some(before)) => write!(formatter, "it was {before:?}"),
            Answer::Written(None) | Answer::Updated(None) | Answer::Done => write!(formatter, "done"),
            Answer::Conflict(current) => write!(formatter, "conflict, it is v{current}"),
            Answer::Moved(to) => write!(formatter, "now id {to}"),
            other => write!(formatter, "{other:?}"),
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.data.as_ref().map(|data| format!("{data:?}")),
            self.note.map(|note| format!("note {note}")),
            self.expected.map(|expected| format!("if v{expected}")),
            self.keep_idle.then(|| "keeping idle".to_owned()),
        ];
        write!(formatter, "{}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Writes a history, one operation a line, in the order in which they were asked.
pub fn print(ops: &[Op]) -> String {
    ops.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
