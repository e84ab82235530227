//! The ledger: follows a load by its journal, and judges what is found in the database when the load has ended.

use std::collections::HashMap;

use super::{
    journal::{Answer, Entry, Found, Step},
    model::{Request, State, possible},
};

/// Violations told in full; the others are counted.
const TOLD_MAX: usize = 20;
/// How many waits of the storage thread a flush may have to go through beside the interval: that for what runs when the
/// touch comes, that for what runs when the flush comes due, and its own commit. A request that is to be committed and
/// is in flight meanwhile takes as long as the longest of them.
const WAITS_OF_A_FLUSH: u64 = 3;

/// How a load ended.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// The engine was shut down, and said so.
    Shutdown,
    /// The process was killed.
    Kill {
        /// Just before when, by [`super::now_us`].
        at_us: u64,
        /// For how long touches may have been in memory only, by the engine's promise.
        flush_interval_us: u64,
    },
}

/// What a ledger has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Writes acknowledged.
    pub writes: u64,
    /// Touches acknowledged.
    pub touches: u64,
    /// Touches of sessions judged, acknowledged so long before the end that they must be there.
    pub touches_due: u64,
    /// Touches of sessions judged that were acknowledged and are not there; they need not be.
    pub touches_lost: u64,
    /// Requests unanswered at the end of a load.
    pub unanswered: u64,
    /// Of these, writes that are there all the same.
    pub unanswered_there: u64,
    /// Requests refused otherwise than because the engine was closed.
    pub refused: u64,
    /// Requests of which the engine did not know what became of them.
    pub doubts: u64,
    /// Sessions compared with what was found.
    pub judged: u64,
    /// The most that was added to the flush interval, in microseconds, and the sum of what was, for so many kills.
    pub slack_us_max: u64,
    pub slack_us_sum: u64,
    pub slacks: u64,
    /// What was found wrong.
    pub violations: u64,
}

/// Follows a load and judges.
#[derive(Debug, Clone)]
pub struct Ledger {
    clients: u32,
    keys: Vec<Key>,
    open: HashMap<u64, Open>,
    /// The highest row number known.
    serial_high: i64,
    /// Touches acknowledged until then were flushed on demand.
    flushed_us: u64,
    /// How long requests took that wait for a commit.
    waits: Waits,
    bucket_us: u64,
    is_closed: bool,
    totals: Totals,
    told: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Key {
    settled: Option<State>,
    requests: Vec<Request>,
    touches: Touches,
    /// An answer was wrong: nothing is expected of it until it is looked at again.
    is_unknown: bool,
}

/// The touches of one session since it was last looked at in the database.
#[derive(Debug, Clone, Default)]
struct Touches {
    /// What was counted then.
    base: u64,
    last_active_us: i64,
    invoked: u64,
    acknowledged: u64,
    /// Acknowledged until when, how many: those of a short while together, by the last of them.
    when: Vec<(u64, u64)>,
    /// When it was seen as how recently active.
    seen: Vec<(u64, i64)>,
    /// Those acknowledged until then were committed with a touch that was to be.
    committed_us: u64,
}

#[derive(Debug, Clone)]
struct Open {
    at_us: u64,
    key: Option<u32>,
    step: Step,
}

/// How long requests took that wait for a commit, as a flush does.
#[derive(Debug, Clone, Default)]
struct Waits {
    /// The longest of all.
    longest_us: u64,
    /// When requests were answered, and how long they took: each took longer than all that were answered after it.
    answered: Vec<(u64, u64)>,
    /// Since when a shutdown is waited for.
    closing_us: Option<u64>,
}

impl Ledger {
    /// Begins with a database that has no session of a load of so many sessions. Touches within `bucket_us` count as
    /// acknowledged with the last of them.
    pub fn new(clients: u32, keys: u32, bucket_us: u64) -> Self {
        Self {
            clients,
            keys: (0..keys).map(|_| Key::default()).collect(),
            open: HashMap::new(),
            serial_high: 0,
            flushed_us: 0,
            waits: Waits::default(),
            bucket_us,
            is_closed: false,
            totals: Totals::default(),
            told: Vec::new(),
        }
    }

    /// Returns what was seen so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Returns the first violations in words.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// Follows the load.
    pub fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Ready => {}
            Entry::Closing { at_us } => self.waits.closing_us = Some(at_us),
            Entry::Closed { .. } => self.is_closed = true,
            Entry::Invoked { at_us, op, key, step } => self.invoked(at_us, op, key, step),
            Entry::Answered { at_us, op, answer } => self.answered(at_us, op, &answer),
            Entry::Resolved { key, found } => self.resolved(key, found.as_ref()),
        }
    }

    fn violation(&mut self, what: String) {
        self.totals.violations += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what);
        }
    }

    fn invoked(&mut self, at_us: u64, op: u64, key: Option<u32>, step: Step) {
        let request = Request { op, step: step.clone(), answer: None, serial_floor: self.serial_high };
        match &step {
            Step::Flush | Step::Get { .. } => {}
            Step::Touch { .. } => self.key(key).touches.invoked += 1,
            Step::DeleteWhere { client } => {
                let own = self.keys.iter_mut().skip(*client as usize).step_by(self.clients as usize);
                own.for_each(|key| key.requests.push(request.clone()));
            }
            _ => self.key(key).requests.push(request),
        }
        self.open.insert(op, Open { at_us, key, step });
    }

    fn key(&mut self, key: Option<u32>) -> &mut Key {
        &mut self.keys[key.expect("this step is for one session") as usize]
    }

    fn answered(&mut self, at_us: u64, op: u64, answer: &Answer) {
        let Some(Open { at_us: began_us, key, step }) = self.open.remove(&op) else {
            return self.violation(format!("request {op} was answered twice"));
        };
        match answer {
            Answer::Refused { .. } => self.totals.refused += 1,
            Answer::Doubt => self.totals.doubts += 1,
            _ => {}
        }
        if !matches!(step, Step::Touch { committed: false, .. } | Step::Get { .. }) {
            self.waits.answered(began_us, at_us);
        }
        match &step {
            Step::Flush => {
                if matches!(answer, Answer::Done { .. }) {
                    self.flushed_us = self.flushed_us.max(began_us);
                }
            }
            Step::Touch { committed, .. } => self.touched(key, began_us, at_us, *committed, answer),
            Step::Get { .. } => self.seen(key, at_us, answer),
            Step::DeleteWhere { client } => {
                let first = *client as usize;
                for place in (first..self.keys.len()).step_by(self.clients as usize) {
                    self.settle(place, op, answer);
                }
            }
            _ => self.settle(key.expect("this step is for one session") as usize, op, answer),
        }
    }

    fn touched(&mut self, key: Option<u32>, began_us: u64, at_us: u64, committed: bool, answer: &Answer) {
        let bucket_us = self.bucket_us;
        let Key { settled, touches, is_unknown, .. } = self.key(key);
        let is_there = settled.is_some();
        let is_unknown = *is_unknown;
        match answer {
            Answer::Done { .. } => {
                if committed {
                    touches.committed_us = touches.committed_us.max(began_us);
                }
                touches.acknowledge(if committed { 0 } else { at_us }, bucket_us);
                self.totals.touches += 1;
            }
            Answer::Doubt => {}
            _ => touches.invoked -= 1,
        }
        let is_wrong = match answer {
            Answer::Done { .. } => !is_there,
            Answer::Absent => is_there,
            _ => false,
        };
        if is_wrong && !is_unknown {
            self.violation(format!("session {key:?}: a touch was answered {answer:?}, is there: {is_there}"));
        }
    }

    /// Compares what a client has read.
    fn seen(&mut self, key: Option<u32>, at_us: u64, answer: &Answer) {
        let found = match answer {
            Answer::Seen(found) => Some(&**found),
            Answer::Absent => None,
            _ => return,
        };
        let place = key.expect("a get is for one session") as usize;
        if let Some(wrong) = self.compare(place, found, None) {
            return self.violation(format!("session {place} as read: {wrong}"));
        }
        if let Some(found) = found {
            let bucket_us = self.bucket_us;
            self.keys[place].touches.see(at_us, found.last_active_us, bucket_us);
        }
    }

    /// Notes an answer, and what the session is if all is answered.
    fn settle(&mut self, place: usize, op: u64, answer: &Answer) {
        let key = &mut self.keys[place];
        let Some(request) = key.requests.iter_mut().find(|request| request.op == op) else { return };
        if matches!(answer, Answer::Done { .. }) && !matches!(request.step, Step::DeleteWhere { .. }) {
            self.totals.writes += 1;
        }
        request.answer = Some(answer.clone());
        if key.is_unknown || key.requests.iter().any(|request| request.answer.is_none()) {
            return;
        }
        let is_in_doubt = key.requests.iter().any(|request| matches!(request.answer, Some(Answer::Doubt)));
        let mut states = possible(key.settled.as_ref(), &key.requests);
        if is_in_doubt && !states.is_empty() {
            // The client looks for it.
            return;
        }
        if states.is_empty() {
            let what = format!("session {place}: {:?} cannot be, after {:?}", key.requests, key.settled);
            key.is_unknown = true;
            key.requests.clear();
            return self.violation(what);
        }
        let state = states.swap_remove(0);
        key.requests.clear();
        key.become_state(state);
    }

    fn resolved(&mut self, key: u32, found: Option<&Found>) {
        let place = key as usize;
        if let Some(wrong) = self.compare(place, found, None) {
            self.violation(format!("session {key} as looked for: {wrong}"));
        }
    }

    /// Judges what is found in the database after the load has ended, and goes on from there. Returns what is wrong.
    pub fn judge(&mut self, end: End, found: &[Found]) -> Vec<String> {
        let (violations, told) = (self.totals.violations, self.told.len());
        let due_us = match end {
            End::Kill { at_us, flush_interval_us } if !self.is_closed => {
                let waits = self.open.values().filter(|open| !matches!(open.step, Step::Get { .. }));
                let waited_us = waits.map(|open| at_us.saturating_sub(open.at_us)).max().unwrap_or(0);
                let slack_us = self.waits.slack_us(at_us, flush_interval_us, waited_us);
                self.totals.slack_us_max = self.totals.slack_us_max.max(slack_us);
                self.totals.slack_us_sum += slack_us;
                self.totals.slacks += 1;
                at_us.saturating_sub(flush_interval_us + slack_us)
            }
            _ => u64::MAX,
        };
        let due_us = due_us.max(self.flushed_us);
        self.totals.unanswered += self.open.len() as u64;
        let mut by_key: HashMap<u32, &Found> = HashMap::new();
        for found in found {
            if found.key as usize >= self.keys.len() {
                self.violation(format!("nobody made {found:?}"));
            } else if let Some(twin) = by_key.insert(found.key, found) {
                self.violation(format!("one session is there twice: {twin:?} and {found:?}"));
            }
        }
        for (place, key) in (0..).zip(0..self.keys.len()) {
            self.totals.judged += 1;
            if let Some(wrong) = self.compare(key, by_key.get(&place).copied(), Some(due_us)) {
                self.violation(format!("session {place}: {wrong}"));
            }
        }
        self.open.clear();
        (self.flushed_us, self.waits, self.is_closed) = (0, Waits::default(), false);
        if self.totals.violations == violations {
            return Vec::new();
        }
        let mut all = self.told[told..].to_vec();
        all.push(format!("{} violations in all", self.totals.violations - violations));
        all
    }

    /// Compares a session with what was found of it and takes that over. With `due_us` it was found in the database,
    /// where touches acknowledged until then must be; without, by the engine, which must know all.
    fn compare(&mut self, place: usize, found: Option<&Found>, due_us: Option<u64>) -> Option<String> {
        let key = &mut self.keys[place];
        let is_unknown = std::mem::take(&mut key.is_unknown);
        let states = possible(key.settled.as_ref(), &key.requests);
        let fits = |state: &&Option<State>| match (state, found) {
            (None, None) => true,
            (Some(state), Some(found)) => state.is(found),
            _ => false,
        };
        // What is found may be the session of before or one made anew that looks the same; its touches tell which.
        let matching = states.iter().filter(fits).min_by_key(|state| {
            let is_as_before = born(state.as_ref()) == born(key.settled.as_ref());
            let touches = if is_as_before { key.touches.clone() } else { Touches::default() };
            found.is_some_and(|found| touches.compare(found, due_us).2.is_some())
        });
        let requests = std::mem::take(&mut key.requests);
        let wrong = if let Some(state) = matching {
            let mut state = state.clone();
            if let (Some(state), Some(found)) = (&mut state, found) {
                let there = |request: &&Request| request.answer.is_none() && state.seq >= request.op;
                self.totals.unanswered_there += requests.iter().filter(there).count() as u64;
                state.settle(found);
            }
            key.become_state(state);
            None
        } else {
            let wrong = format!("found {found:?}, where only these are possible: {states:?} after {requests:?}");
            key.become_state(found.map(State::from));
            Some(wrong)
        };
        let Some(found) = found else { return wrong.filter(|_| !is_unknown) };
        let touches = &mut key.touches;
        let (due, lost, late) = touches.compare(found, due_us);
        if due_us.is_some() {
            self.totals.touches_due += due;
            self.totals.touches_lost += lost;
            touches.rebase(found);
        }
        self.serial_high = self.serial_high.max(found.serial);
        wrong.or(late).filter(|_| !is_unknown)
    }
}

impl Waits {
    fn answered(&mut self, began_us: u64, at_us: u64) {
        let took_us = at_us.saturating_sub(began_us);
        self.longest_us = self.longest_us.max(took_us);
        while self.answered.pop_if(|(_, shorter_us)| *shorter_us <= took_us).is_some() {}
        self.answered.push((at_us, took_us));
    }

    /// Returns what is granted beside the interval, to touches that a kill may have found in memory; `waited_us` is the
    /// longest that a request was in flight then. It is what requests took between such a touch and the kill, for each
    /// wait of a flush: what was slow before excuses nothing. And no more than the slowest of all took: the flush is
    /// no slower than they.
    fn slack_us(&self, kill_us: u64, interval_us: u64, waited_us: u64) -> u64 {
        let closing_us = self.closing_us.map_or(0, |since_us| kill_us.saturating_sub(since_us));
        let mut slack_us = WAITS_OF_A_FLUSH * waited_us.max(closing_us);
        for (at_us, took_us) in self.answered.iter().rev() {
            if at_us + interval_us + slack_us < kill_us {
                break;
            }
            slack_us = slack_us.max(WAITS_OF_A_FLUSH * took_us);
        }
        slack_us.min(self.longest_us.max(waited_us))
    }
}

/// The request that made the session.
fn born(state: Option<&State>) -> Option<u64> {
    state.map(|state| state.born)
}

impl Key {
    fn become_state(&mut self, state: Option<State>) {
        if born(self.settled.as_ref()) != born(state.as_ref()) {
            self.touches = Touches::default();
        }
        self.settled = state;
    }
}

impl Touches {
    fn acknowledge(&mut self, at_us: u64, bucket_us: u64) {
        self.acknowledged += 1;
        match self.when.last_mut() {
            Some((last_us, count)) if at_us >= *last_us && at_us - *last_us < bucket_us => {
                (*last_us, *count) = (at_us, *count + 1);
            }
            _ => self.when.push((at_us, 1)),
        }
    }

    fn see(&mut self, at_us: u64, last_active_us: i64, bucket_us: u64) {
        match self.seen.last_mut() {
            Some((last_us, active_us)) if at_us - *last_us < bucket_us => {
                (*last_us, *active_us) = (at_us, last_active_us.max(*active_us));
            }
            _ => self.seen.push((at_us, last_active_us)),
        }
    }

    /// Compares with what was found. Returns how many acknowledged touches are due, how many are lost, and what is wrong.
    fn compare(&self, found: &Found, due_us: Option<u64>) -> (u64, u64, Option<String>) {
        let bound_us = due_us.map_or(u64::MAX, |due_us| due_us.max(self.committed_us));
        let due: u64 = self.when.iter().filter(|(at_us, _)| *at_us <= bound_us).map(|(_, count)| count).sum();
        let active = self.seen.iter().filter(|(at_us, _)| *at_us <= bound_us).map(|(_, active_us)| *active_us).max();
        let active = active.unwrap_or(i64::MIN).max(self.last_active_us);
        let (least, most) = (self.base + due, self.base + self.invoked);
        let lost = (self.base + self.acknowledged).saturating_sub(found.touches);
        let wrong = if found.touches < least || found.touches > most {
            Some(format!("{} touches are counted, of at least {least} and at most {most}", found.touches))
        } else if found.last_active_us < active {
            Some(format!("it was last active at {}, not later than {active}", found.last_active_us))
        } else {
            None
        };
        (due, lost, wrong)
    }

    /// Begins anew from what was found in the database.
    fn rebase(&mut self, found: &Found) {
        *self = Self { base: found.touches, last_active_us: found.last_active_us, ..Self::default() };
    }
}

impl From<&Found> for State {
    /// Takes what was found for granted.
    fn from(found: &Found) -> Self {
        Self {
            id: super::model::Id::Known(found.id.clone()),
            seq: found.seq,
            updates: found.updates,
            pad: found.pad,
            user: found.user,
            tag: found.tag,
            born: found.seq,
            serial_floor: found.serial - 1,
            serial: Some(found.serial),
        }
    }
}
