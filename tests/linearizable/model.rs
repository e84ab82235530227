//! What a family of ids does, one operation after the other: the specification that histories are held against.
//!
//! A family is the ids that rotations link. Versions and serials are opaque, and not every answer tells one: the model
//! leaves them open until an answer names them, which must then be a name never used before.

use crate::history::{Answer, Bits, Call, Id, List, NEVER, Op, Seen, Tag, Write};

/// The sessions of a family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// In order of their ids.
    sessions: Vec<Session>,
    /// Versions and serials that were named so far.
    versions: Bits,
    serials: Bits,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Session {
    id: Id,
    serial: Option<Tag>,
    version: Option<Tag>,
    data: List,
    note: Option<u32>,
    touches: u64,
    /// The time of last activity, at least: where the clock moves while operations run, nobody knows it exactly.
    active: i64,
    idle: i64,
    end: i64,
}

impl Session {
    fn is_over(&self, now: i64) -> bool {
        now >= self.end || now >= self.active.saturating_add(self.idle)
    }

    fn has_limits(&self) -> bool {
        (self.idle, self.end) != (NEVER, NEVER)
    }

    /// Refreshes the time of activity. It is lazy: of a write whose commit is in doubt, the data may be there without it.
    /// Where sessions end by the clock, no commit is.
    fn refresh(&mut self, op: &Op) {
        if op.is_certain() || self.has_limits() {
            self.active = self.active.max(op.from);
        }
    }

    /// Makes a change; a version that was known is so no more, if anything is another than before.
    fn write(&mut self, change: &Write, op: &Op) {
        let data = change.data.as_ref().unwrap_or(&self.data).clone();
        let note = change.note.or(self.note);
        if data != self.data || note != self.note {
            (self.data, self.note, self.version) = (data, note, None);
        }
        if !change.keep_idle {
            self.refresh(op);
        }
    }
}

/// Names what was open, or compares it with its name.
fn name(open: &mut Option<Tag>, used: &mut Bits, tag: Tag) -> Option<()> {
    match *open {
        Some(named) => (named == tag).then_some(()),
        None if used.has(tag.into()) => None,
        None => {
            used.insert(tag.into());
            *open = Some(tag);
            Some(())
        }
    }
}

impl State {
    /// Lets an operation happen. `None`: it cannot have had this answer here; or, where its answer is unknown, it would
    /// change nothing.
    pub fn step(&self, op: &Op) -> Option<Self> {
        let mut next = self.clone();
        next.apply(op)?;
        (op.is_certain() || next != *self).then_some(next)
    }

    fn apply(&mut self, op: &Op) -> Option<()> {
        let now = op.from;
        // An operation with a limit on time is alone with its time: the clock stands still while it can happen.
        self.sessions.retain(|session| !session.is_over(now));
        let at = self.sessions.binary_search_by_key(&op.id, |session| session.id);
        let Self { sessions, versions, serials } = self;
        match (&op.call, at) {
            (Call::Create { data, idle, end, .. }, Err(at)) => {
                let (data, idle, end) = (data.clone(), *idle, *end);
                let (id, active) = (op.id, now);
                let new = Session { id, serial: None, version: None, data, note: None, touches: 0, active, idle, end };
                sessions.insert(at, new);
                allow(matches!(op.answer, Answer::Created(true) | Answer::Unknown))
            }
            (Call::Create { or_existing, .. }, Ok(_)) => allow(match &op.answer {
                Answer::Created(created) => *or_existing && !created,
                Answer::AlreadyExists => !or_existing,
                answer => *answer == Answer::Unknown,
            }),
            (Call::Get, Err(_)) => allow(op.answer == Answer::Seen(None)),
            (Call::Get, Ok(at)) => match &op.answer {
                Answer::Seen(Some(seen)) => sessions[at].shows(seen, op, versions, serials),
                _ => None,
            },
            (Call::Delete, Err(_)) => allow(matches!(op.answer, Answer::Deleted(false) | Answer::Unknown)),
            (Call::Delete, Ok(at)) => {
                sessions.remove(at);
                allow(matches!(op.answer, Answer::Deleted(true) | Answer::Unknown))
            }
            (_, Err(_)) => allow(matches!(op.answer, Answer::NotFound | Answer::Unknown)),
            (Call::Touch { .. }, Ok(at)) => {
                sessions[at].touches += 1;
                sessions[at].refresh(op);
                allow(matches!(op.answer, Answer::Done | Answer::Unknown))
            }
            (Call::Update { add }, Ok(at)) => {
                let session = &mut sessions[at];
                match &op.answer {
                    Answer::Updated(before) => allow(before.as_ref().is_none_or(|before| *before == session.data))?,
                    answer => allow(*answer == Answer::Unknown)?,
                }
                if let Some(add) = add {
                    let data = Some(appended(&session.data, *add));
                    session.write(&Write { data, ..Write::default() }, op);
                }
                Some(())
            }
            (Call::Write(change) | Call::Rotate(change), Ok(at)) => {
                let session = &mut sessions[at];
                if let Some(expected) = change.expected {
                    let answer = &op.answer;
                    if let Answer::Conflict(current) = answer {
                        allow(*current != expected)?;
                        return name(&mut session.version, versions, *current);
                    }
                    if name(&mut session.version, versions, expected).is_none() {
                        return allow(*answer == Answer::Unknown);
                    }
                }
                session.write(change, op);
                match (&op.call, &op.answer) {
                    (Call::Write(_), Answer::Written(Some(version))) => name(&mut session.version, versions, *version),
                    (Call::Write(_), Answer::Written(None) | Answer::Unknown) => Some(()),
                    (Call::Rotate(_), Answer::Moved(to)) => {
                        let mut session = sessions.remove(at);
                        session.id = *to;
                        let free = sessions.binary_search_by_key(to, |session| session.id).err()?;
                        sessions.insert(free, session);
                        Some(())
                    }
                    // Nobody knows the new id.
                    (Call::Rotate(_), Answer::Unknown) => {
                        sessions.remove(at);
                        Some(())
                    }
                    _ => None,
                }
            }
        }
    }
}

impl Session {
    fn shows(&mut self, seen: &Seen, op: &Op, versions: &mut Bits, serials: &mut Bits) -> Option<()> {
        allow((&self.data, self.note, self.touches) == (&seen.data, seen.note, seen.touches))?;
        // A touch shows its time before it counts, so a get may see what is a little later.
        allow(self.active <= seen.last_active && seen.last_active <= op.until)?;
        if self.has_limits() {
            allow(seen.last_active == self.active || seen.last_active == op.from)?;
        }
        name(&mut self.version, versions, seen.version)?;
        name(&mut self.serial, serials, seen.serial)
    }
}

fn allow(is_right: bool) -> Option<()> {
    is_right.then_some(())
}

/// A list may have so many entries before it begins anew.
const LIST_MAX: usize = 5;

/// What an update makes of the data.
pub fn appended(data: &[u32], add: u32) -> List {
    let kept = if data.len() < LIST_MAX { data } else { &[] };
    kept.iter().copied().chain([add]).collect()
}
