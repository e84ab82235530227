//! The simple model: a list of sessions, changed as `docs/semantics.md` says, without time passing by itself, without
//! concurrency, without faults.

use std::collections::BTreeMap;

use crate::operation::{Conditions, Data, IDS, Options, Set, USERS, WORDS};

pub(crate) const SECOND: i64 = 1_000_000;

/// A mistake to build into the model, which a run beside the engine must bring to light.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Flaw {
    TouchLeavesTheTime,
    TouchIsNotCounted,
    SameBytesMoveTheVersion,
    RotationMovesTheVersion,
    TheOldIdStays,
    KeepIdleIsForgotten,
    ARefusedUpdateIsWritten,
    DeletedComesBack,
    ClockStepsBack,
    IdleTimeoutIsIgnored,
    UserLimitIsIgnored,
    PrefixIsIgnored,
    NewestIsOldest,
    MetadataIsReplaced,
}

impl Flaw {
    pub(crate) const ALL: [Self; 14] = [
        Self::TouchLeavesTheTime,
        Self::TouchIsNotCounted,
        Self::SameBytesMoveTheVersion,
        Self::RotationMovesTheVersion,
        Self::TheOldIdStays,
        Self::KeepIdleIsForgotten,
        Self::ARefusedUpdateIsWritten,
        Self::DeletedComesBack,
        Self::ClockStepsBack,
        Self::IdleTimeoutIsIgnored,
        Self::UserLimitIsIgnored,
        Self::PrefixIsIgnored,
        Self::NewestIsOldest,
        Self::MetadataIsReplaced,
    ];
}

/// Why the engine is to refuse.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    NotFound,
    AlreadyExists,
    /// The state that is there.
    Conflict(u64),
    TooLarge(usize),
    SessionsLimit(u64),
    UserLimit(u64),
    InvalidOption(&'static str),
    NotJson,
    Decode,
    Panicked,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    /// The number of its name.
    pub(crate) name: usize,
    /// How many were created before it.
    pub(crate) born: u64,
    /// Stands for the version.
    pub(crate) state: u64,
    pub(crate) user: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) is_json: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) created_at: i64,
    pub(crate) last_active_at: i64,
    pub(crate) touches: u64,
    pub(crate) idle: Option<i64>,
    pub(crate) end: Option<i64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) options: Options,
    pub(crate) sessions: Vec<Session>,
    /// Sessions that are over, and may not have been swept away.
    pub(crate) over: u64,
    wall: i64,
    elapsed: i64,
    offset: i64,
    born: u64,
    states: u64,
    flaw: Option<Flaw>,
}

/// What a change weighs and sets, in the order of its setters.
#[derive(Debug, Default)]
struct Parts {
    keeps_idle: bool,
    if_state: Option<u64>,
    fault: Option<Refusal>,
    payload: usize,
}

pub(crate) fn encoded(data: &Data) -> (bool, Vec<u8>) {
    match data {
        Data::Number(number) => (true, serde_json::to_vec(number).unwrap()),
        Data::Text(text) => (true, serde_json::to_vec(text).unwrap()),
        Data::Long(length) => (true, serde_json::to_vec(&"x".repeat(*length)).unwrap()),
        Data::Raw(bytes) => (false, bytes.clone()),
    }
}

impl Model {
    pub(crate) fn new(options: Options, start: i64, flaw: Option<Flaw>) -> Self {
        let (sessions, over) = (Vec::new(), 0);
        Self { options, sessions, over, wall: start, elapsed: 0, offset: start, born: 0, states: 0, flaw }
    }

    pub(crate) fn now(&self) -> i64 {
        self.elapsed + self.offset
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) fn advance(&mut self, micros: i64) {
        self.wall += micros;
        self.elapsed += micros;
        // Time follows the wall ahead, never back.
        self.offset = self.offset.max(self.wall - self.elapsed);
        self.bury();
    }

    pub(crate) fn step(&mut self, micros: i64) {
        self.wall += micros;
        if self.has(Flaw::ClockStepsBack) && micros < 0 {
            self.offset += micros;
        }
    }

    /// Takes out the sessions that are over.
    fn bury(&mut self) {
        let (all, now) = (self.sessions.len(), self.now());
        let ends: Vec<i64> = self.sessions.iter().map(|session| self.end(session).unwrap_or(i64::MAX)).collect();
        let mut ends = ends.into_iter();
        self.sessions.retain(|_| ends.next().unwrap() > now);
        self.over += (all - self.sessions.len()) as u64;
    }

    /// Returns when a session ends.
    pub(crate) fn end(&self, session: &Session) -> Option<i64> {
        let micros = |seconds: Option<u64>| seconds.map(|seconds| seconds as i64 * SECOND);
        let idle = session.idle.or(micros(self.options.idle_seconds)).map(|idle| session.last_active_at + idle);
        let idle = idle.filter(|_| !self.has(Flaw::IdleTimeoutIsIgnored));
        let end = session.end.or(micros(self.options.lifetime_seconds).map(|life| session.created_at + life));
        idle.into_iter().chain(end).min()
    }

    fn position(&self, name: usize) -> Result<usize, Refusal> {
        self.sessions.iter().position(|session| session.name == name).ok_or(Refusal::NotFound)
    }

    pub(crate) fn find(&self, name: usize) -> Option<&Session> {
        self.sessions.iter().find(|session| session.name == name)
    }

    fn payload(session: &Session) -> usize {
        let metadata: usize = session.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        session.bytes.len() + metadata + session.user.as_ref().map_or(0, String::len)
    }

    /// Makes the change to a session, and tells what else it asks for.
    fn set(&self, sets: &[Set], session: &mut Session, seen: impl Fn(usize) -> Option<u64>) -> Parts {
        let mut parts = Parts::default();
        let (mut user, mut data, mut end) = (0, 0, None);
        for set in sets {
            match set {
                Set::Data(new) => {
                    (session.is_json, session.bytes) = encoded(new);
                    data = session.bytes.len();
                }
                Set::User(n) => {
                    session.user = Some(USERS[*n].to_owned());
                    user = USERS[*n].len();
                }
                Set::ClearUser => (session.user, user) = (None, 0),
                Set::Metadata(key, value) => {
                    let (key, value) = (WORDS[*key].to_owned(), WORDS[*value].to_owned());
                    parts.payload += key.len() + value.len();
                    if self.has(Flaw::MetadataIsReplaced) {
                        session.metadata.clear();
                    }
                    session.metadata.insert(key, value);
                }
                Set::RemoveMetadata(key) => {
                    parts.payload += WORDS[*key].len();
                    session.metadata.remove(WORDS[*key]);
                }
                Set::IdleSeconds(0) => drop(parts.fault.get_or_insert(Refusal::InvalidOption("idle_timeout"))),
                Set::IdleSeconds(seconds) => session.idle = Some(*seconds as i64 * SECOND),
                Set::ClearIdle => session.idle = None,
                Set::EndsInSeconds(seconds) => {
                    session.end = Some(self.now() + seconds * SECOND);
                    end = session.end;
                }
                Set::ClearEnd => (session.end, end) = (None, None),
                Set::KeepIdle => parts.keeps_idle = !self.has(Flaw::KeepIdleIsForgotten),
                Set::IfVersion(n) => parts.if_state = seen(*n).or(parts.if_state),
            }
        }
        parts.payload += user + data;
        if end.is_some_and(|end| end <= self.now()) {
            parts.fault.get_or_insert(Refusal::InvalidOption("expires_at"));
        }
        if parts.payload > self.options.payload_bytes_max {
            parts.fault.get_or_insert(Refusal::TooLarge(parts.payload));
        }
        parts
    }

    fn check_user(&self, user: Option<&String>) -> Result<(), Refusal> {
        let (Some(max), Some(user)) = (self.options.max_per_user, user) else { return Ok(()) };
        let theirs = self.sessions.iter().filter(|session| session.user.as_ref() == Some(user)).count() as u64;
        if theirs >= max && !self.has(Flaw::UserLimitIsIgnored) { Err(Refusal::UserLimit(max)) } else { Ok(()) }
    }

    /// Creates a session; false if it was there and that will do.
    pub(crate) fn create(&mut self, name: usize, sets: &[Set], or_existing: bool) -> Result<bool, Refusal> {
        let now = self.now();
        let mut session = Session {
            name,
            born: self.born,
            state: self.states,
            user: None,
            metadata: BTreeMap::new(),
            is_json: true,
            bytes: b"null".to_vec(),
            created_at: now,
            last_active_at: now,
            touches: 0,
            idle: None,
            end: None,
        };
        let parts = self.set(sets, &mut session, |_| None);
        if let Some(fault) = parts.fault {
            return Err(fault);
        }
        if self.find(name).is_some() {
            return if or_existing { Ok(false) } else { Err(Refusal::AlreadyExists) };
        }
        if let Some(max) = self.options.max_sessions
            && self.sessions.len() as u64 >= max
        {
            return Err(Refusal::SessionsLimit(max));
        }
        self.check_user(session.user.as_ref())?;
        self.sessions.push(session);
        self.born += 1;
        self.states += 1;
        Ok(true)
    }

    pub(crate) fn touch(&mut self, name: usize) -> Result<(), Refusal> {
        let (now, at) = (self.now(), self.position(name)?);
        let (leaves, counts) = (self.has(Flaw::TouchLeavesTheTime), !self.has(Flaw::TouchIsNotCounted));
        let session = &mut self.sessions[at];
        if !leaves {
            session.last_active_at = session.last_active_at.max(now);
        }
        session.touches += u64::from(counts);
        Ok(())
    }

    /// Changes a session, and gives it another name if one is given. Returns the state that it has then.
    pub(crate) fn write(
        &mut self,
        name: usize,
        sets: &[Set],
        rename: Option<usize>,
        seen: impl Fn(usize) -> Option<u64>,
    ) -> Result<u64, Refusal> {
        let now = self.now();
        let at = self.position(name);
        let nobody = Session {
            name,
            born: 0,
            state: 0,
            user: None,
            metadata: BTreeMap::new(),
            is_json: true,
            bytes: Vec::new(),
            created_at: 0,
            last_active_at: 0,
            touches: 0,
            idle: None,
            end: None,
        };
        let old = at.as_ref().map_or(nobody, |at| self.sessions[*at].clone());
        let mut new = old.clone();
        let parts = self.set(sets, &mut new, seen);
        if let Some(fault) = parts.fault {
            return Err(fault);
        }
        let at = at?;
        if parts.if_state.is_some_and(|state| state != old.state) {
            return Err(Refusal::Conflict(old.state));
        }
        let payload = Self::payload(&new);
        if payload > self.options.payload_bytes_max {
            return Err(Refusal::TooLarge(payload));
        }
        if new.user != old.user {
            self.check_user(new.user.as_ref())?;
        }
        let moves = new != old
            || self.has(Flaw::SameBytesMoveTheVersion)
            || rename.is_some() && self.has(Flaw::RotationMovesTheVersion);
        if moves {
            new.state = self.states;
            self.states += 1;
        }
        if !parts.keeps_idle {
            new.last_active_at = new.last_active_at.max(now);
        }
        let state = new.state;
        if let Some(rename) = rename {
            if self.has(Flaw::TheOldIdStays) {
                self.sessions.push(new.clone());
            }
            new.name = rename;
        }
        self.sessions[at] = new;
        self.bury();
        Ok(state)
    }

    /// Adds to a number. Returns the sum, or what keeps it.
    pub(crate) fn update(&mut self, name: usize, add: i64, refuses: bool) -> Result<i64, Refusal> {
        let session = &self.sessions[self.position(name)?];
        if !session.is_json {
            return Err(Refusal::NotJson);
        }
        let number: i64 = serde_json::from_slice(&session.bytes).map_err(|_| Refusal::Decode)?;
        let sum = number + add;
        if !refuses || self.has(Flaw::ARefusedUpdateIsWritten) {
            self.write(name, &[Set::Data(Data::Number(sum))], None, |_| None)?;
        }
        Ok(sum)
    }

    pub(crate) fn delete(&mut self, name: usize) -> bool {
        let there = self.position(name);
        if let Ok(at) = there
            && !self.has(Flaw::DeletedComesBack)
        {
            self.sessions.remove(at);
        }
        there.is_ok()
    }

    /// Returns those that match, in the order of a list: 0 oldest, 1 newest, 2 recently active first.
    pub(crate) fn list(&self, names: &[String], conditions: &Conditions, order: u8) -> Vec<&Session> {
        let within = |span: Option<(i64, i64)>, at: i64| {
            span.is_none_or(|(from, until)| (self.now() - from * SECOND..self.now() - until * SECOND).contains(&at))
        };
        let matches = |session: &&Session| {
            let id = &names[session.name];
            conditions.user.is_none_or(|n| session.user.as_deref() == Some(USERS[n]))
                && (conditions.prefix.is_none_or(|n| id.starts_with(IDS[n])) || self.has(Flaw::PrefixIsIgnored))
                && conditions.serial_of.is_none_or(|name| session.name == name)
                && conditions.except.iter().all(|name| session.name != *name)
                && within(conditions.created, session.created_at)
                && within(conditions.active, session.last_active_at)
                && conditions
                    .metadata
                    .iter()
                    .all(|(key, value)| session.metadata.get(WORDS[*key]).is_some_and(|found| found == WORDS[*value]))
        };
        let mut found: Vec<_> = self.sessions.iter().filter(matches).collect();
        found.sort_by_key(|session| match order {
            2 => (session.last_active_at, session.born),
            _ => (session.created_at, session.born),
        });
        if order > 0 && !self.has(Flaw::NewestIsOldest) {
            found.reverse();
        }
        found
    }

    pub(crate) fn delete_where(&mut self, names: &[String], conditions: &Conditions) -> u64 {
        let gone: Vec<u64> = self.list(names, conditions, 0).iter().map(|session| session.born).collect();
        self.sessions.retain(|session| !gone.contains(&session.born));
        gone.len() as u64
    }
}
