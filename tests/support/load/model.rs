//! What a session may be after requests of which some were answered: a model of one session, small enough to be certain
//! of.

use super::journal::{Answer, Found, Step};

/// The length of a generated id.
const GENERATED_ID_BYTES: usize = 32;

/// What a session's id is known to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Id {
    /// This one.
    Known(String),
    /// A generated one, in place of that one.
    Generated {
        /// What it is not.
        before: Option<String>,
    },
}

/// A session that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) id: Id,
    pub(super) seq: u64,
    pub(super) updates: u64,
    pub(super) pad: u32,
    pub(super) user: bool,
    pub(super) tag: Option<u64>,
    /// The request that created it.
    pub(super) born: u64,
    /// The highest row number known before that.
    pub(super) serial_floor: i64,
    /// Its row, once that is known.
    pub(super) serial: Option<i64>,
}

impl State {
    /// Returns whether this is what was found.
    pub(super) fn is(&self, found: &Found) -> bool {
        let id = match &self.id {
            Id::Known(id) => *id == found.id,
            Id::Generated { before } => found.id.len() == GENERATED_ID_BYTES && before.as_ref() != Some(&found.id),
        };
        let row = self.serial.map_or(found.serial > self.serial_floor, |serial| serial == found.serial);
        let data = (self.seq, self.updates, self.pad) == (found.seq, found.updates, found.pad) && found.is_sound;
        id && row && data && (self.user, self.tag) == (found.user, found.tag)
    }

    /// Takes over what is known now.
    pub(super) fn settle(&mut self, found: &Found) {
        self.id = Id::Known(found.id.clone());
        self.serial = Some(found.serial);
    }
}

/// A request that changes a session.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) op: u64,
    pub(super) step: Step,
    pub(super) answer: Option<Answer>,
    /// The highest row number known when it began.
    pub(super) serial_floor: i64,
}

/// How a request must be answered.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Done,
    Absent,
    Conflict,
    Existing,
    /// Done, whether there was anything to do or not.
    Anyhow,
}

impl Request {
    /// Returns what becomes of a session if this happens to it, and how it must be answered then.
    fn apply(&self, state: Option<&State>) -> (Option<State>, Expected) {
        let there = |id: &String| state.filter(|state| state.id == Id::Known(id.clone()));
        let absent = (state.cloned(), Expected::Absent);
        let given = match &self.answer {
            Some(Answer::Done { id }) => id.clone(),
            _ => None,
        };
        let write = |id: &String, pad: u32, change: &dyn Fn(&mut State)| {
            there(id).map_or(absent.clone(), |state| {
                let mut next = State { seq: self.op, updates: 0, pad, ..state.clone() };
                change(&mut next);
                (Some(next), Expected::Done)
            })
        };
        match &self.step {
            Step::Create { .. } if state.is_some() => (state.cloned(), Expected::Existing),
            Step::Create { id, pad, user } => {
                let id = given.or(id.clone()).map_or(Id::Generated { before: None }, Id::Known);
                let (op, serial_floor) = (self.op, self.serial_floor);
                let (seq, updates, tag, serial) = (op, 0, None, None);
                let next = State { id, seq, updates, pad: *pad, user: *user, tag, born: op, serial_floor, serial };
                (Some(next), Expected::Done)
            }
            Step::Save { id, pad, .. } | Step::SaveIf { id, pad } => write(id, *pad, &|_| ()),
            Step::SaveStale { id, .. } => match there(id) {
                Some(state) => (Some(state.clone()), Expected::Conflict),
                None => absent,
            },
            Step::Update { id, pad } => {
                let updates = state.map_or(0, |state| state.updates) + 1;
                write(id, *pad, &|next| next.updates = updates)
            }
            Step::Apply { id, pad, user } => write(id, *pad, &|next| (next.user, next.tag) = (*user, Some(self.op))),
            Step::Rotate { id, pad } => write(id, *pad, &|next| {
                next.id = given.clone().map_or(Id::Generated { before: Some(id.clone()) }, Id::Known);
            }),
            Step::Delete { id } => match there(id) {
                Some(_) => (None, Expected::Done),
                None => absent,
            },
            Step::DeleteWhere { .. } => (state.filter(|state| !state.user).cloned(), Expected::Anyhow),
            Step::Touch { .. } | Step::Flush | Step::Get { .. } => (state.cloned(), Expected::Anyhow),
        }
    }

    /// Returns whether it has an answer that tells that those before it are done. What is refused is not queued.
    fn is_answered_in_order(&self) -> bool {
        !matches!(self.answer, None | Some(Answer::Refused { .. } | Answer::Closed | Answer::Doubt))
    }

    /// Adds to `next` what a session in `state` may be after this.
    fn follow(&self, state: Option<&State>, next: &mut Vec<Option<State>>) {
        let (after, expected) = self.apply(state);
        let mut add = |state: Option<State>| {
            if !next.contains(&state) {
                next.push(state);
            }
        };
        match (&self.answer, expected) {
            (Some(Answer::Refused { .. } | Answer::Closed), _) => add(state.cloned()),
            (Some(Answer::Doubt), _) => {
                add(state.cloned());
                add(after);
            }
            (None, _)
            | (Some(Answer::Done { .. }), Expected::Done | Expected::Anyhow)
            | (Some(Answer::Absent), Expected::Absent)
            | (Some(Answer::Conflict), Expected::Conflict)
            | (Some(Answer::Existing), Expected::Existing) => add(after),
            _ => {}
        }
    }
}

/// Returns what a session may be after `requests`, which were admitted in this order. They take effect in this order, so
/// of those unanswered after the last answer any number may have happened, but none without those before it. Nothing is
/// possible if an answer was wrong.
pub(super) fn possible(start: Option<&State>, requests: &[Request]) -> Vec<Option<State>> {
    let answered = requests.iter().rposition(Request::is_answered_in_order).map_or(0, |last| last + 1);
    let mut states = vec![start.cloned()];
    let mut all = Vec::new();
    for (place, request) in requests.iter().enumerate() {
        if place >= answered {
            all.append(&mut states.clone());
        }
        let mut next = Vec::new();
        for state in &states {
            request.follow(state.as_ref(), &mut next);
        }
        states = next;
    }
    all.append(&mut states);
    all
}
