//! A client: asks for operations at random, by both faces, now and then without patience; and makes trouble.

use std::{
    collections::HashMap,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use sessile::{Clock, Error, Outcome, Session, actor::EngineMessage, testing::Faults, testing::ManualClock};
use sessile_tests::{Random, START};

use crate::{
    family::Family,
    history::{Answer, Call, Id, NEVER, OPEN_END, Op, Tag, Write},
    subject::{Subject, Way},
};

/// What befalls the engine meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Faults of storage, standstills, no room, deadlines too short, futures dropped; the clock runs.
    Storm,
    /// Sessions end by the clock, which stands still while operations run; futures are dropped.
    Expiry,
}

/// The families that clients share, and the order of all events.
#[derive(Debug)]
pub struct History {
    pub families: Vec<Arc<Family>>,
    pub clients: u8,
    /// Operations of one client in one phase.
    pub operations: u64,
    pub clock: Arc<ManualClock>,
    pub weather: Weather,
    pub events: AtomicU64,
}

impl History {
    /// Returns the place of an event in the order of all.
    pub fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::SeqCst)
    }

    /// Asks for an operation of `client`, and notes it.
    pub async fn perform(&self, client: u8, asking: Asking<'_>, patience: Patience, dice: u64) -> Option<Answer> {
        let Asking { subject, family, session, way, id, call } = asking;
        let (from, asked) = (self.clock.now().as_micros(), self.event());
        let outcome = match patience {
            Patience::Endless => Some(subject.perform(family, session, way, &call, dice).await),
            Patience::Polls(polls) => {
                let future = subject.perform(family, session, way, &call, dice);
                Impatient { future: pin!(future), polls }.await
            }
        };
        // Advancing moves the monotonic side of the clock first: this is never behind what the engine has seen.
        let (ended, until) = (self.event(), START.saturating_add(self.clock.elapsed()).as_micros());
        let answer = match outcome {
            None => Answer::Unknown,
            Some(Ok(answer)) => answer,
            Some(Err(error)) => answer_of(&error, family)?,
        };
        let ended = if answer == Answer::Unknown { OPEN_END } else { ended };
        family.note(Op { client, id, call, answer: answer.clone(), asked, ended, from, until });
        Some(answer)
    }
}

/// What is asked, of whom.
pub struct Asking<'a> {
    pub subject: &'a Arc<Subject>,
    pub family: &'a Arc<Family>,
    pub session: &'a Session,
    pub way: Way,
    pub id: Id,
    pub call: Call,
}

/// What an error says. `None`: the operation did not happen, and says nothing of the session.
fn answer_of(error: &Error, family: &Family) -> Option<Answer> {
    Some(match error {
        Error::NotFound => Answer::NotFound,
        Error::AlreadyExists => Answer::AlreadyExists,
        Error::Conflict { current } => Answer::Conflict(family.version(*current)),
        error if error.outcome() == Outcome::MayHaveHappened => Answer::Unknown,
        Error::Overloaded { .. } | Error::Unavailable { .. } => return None,
        error => panic!("nobody should be told this here: {error:?}"),
    })
}

/// How long an answer is awaited.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    Endless,
    /// The future is dropped after so many polls.
    Polls(u32),
}

/// Drops a future that is not ready after some polls.
struct Impatient<'a, F> {
    future: Pin<&'a mut F>,
    polls: u32,
}

impl<F: Future> Future for Impatient<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        self.polls -= 1;
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One client.
pub struct Client {
    pub number: u8,
    pub history: Arc<History>,
    pub subject: Arc<Subject>,
    pub random: Random,
    /// Handles are kept, as services do.
    handles: HashMap<(usize, Id), Session>,
    /// The version seen last, by family.
    seen: HashMap<usize, Tag>,
}

impl Client {
    pub fn new(number: u8, history: Arc<History>, subject: Arc<Subject>, random: Random) -> Self {
        Self { number, history, subject, random, handles: HashMap::new(), seen: HashMap::new() }
    }

    /// Asks for `count` operations, one after the other.
    pub async fn run(mut self, count: u64) {
        for _ in 0..count {
            self.disturb();
            self.ask().await;
        }
    }

    async fn ask(&mut self) {
        let at = self.random.below(self.history.families.len() as u64) as usize;
        let family = Arc::clone(&self.history.families[at]);
        let ids = family.ids() as u64;
        let id = match self.random.below(10) {
            0..6 => ids - 1,
            6..9 => 0,
            _ => self.random.below(ids),
        } as Id;
        let call = self.call(at, &family);
        let way = if self.random.below(4) == 0 { Way::Message } else { Way::Handle };
        let mut session = self.handle(at, &family, id);
        if self.history.weather == Weather::Storm && self.random.below(12) == 0 {
            session = session.with_deadline(Duration::from_micros(50 << self.random.below(7)));
        }
        let patience = match self.random.below(10) {
            0 => Patience::Polls(1 + self.random.below(4) as u32),
            _ => Patience::Endless,
        };
        if call == (Call::Touch { committed: false }) && self.random.below(12) == 0 {
            return self.cast_touch(&family, id);
        }
        let dice = self.random.below(1 << 20);
        let asking = Asking { subject: &self.subject, family: &family, session: &session, way, id, call };
        let answer = self.history.perform(self.number, asking, patience, dice).await;
        match answer {
            Some(Answer::Seen(Some(seen))) => self.seen.insert(at, seen.version),
            Some(Answer::Written(Some(version)) | Answer::Conflict(version)) => self.seen.insert(at, version),
            _ => None,
        };
    }

    /// Sends a touch that nobody answers.
    fn cast_touch(&self, family: &Family, id: Id) {
        let (from, asked) = (self.history.clock.now().as_micros(), self.history.event());
        self.subject.engine.actor().cast(EngineMessage::CastTouch { id: family.id(id) }).expect("the engine is there");
        let (call, answer) = (Call::Touch { committed: false }, Answer::Unknown);
        family.note(Op { client: self.number, id, call, answer, asked, ended: OPEN_END, from, until: NEVER });
    }

    fn handle(&mut self, at: usize, family: &Family, id: Id) -> Session {
        let make = || self.subject.engine.session(family.id(id)).expect("a valid id");
        if self.random.below(5) == 0 {
            return make();
        }
        // A clone shares nothing with the handle but the place where the session was last found.
        self.handles.entry((at, id)).or_insert_with(make).clone()
    }

    fn call(&mut self, at: usize, family: &Family) -> Call {
        match self.random.below(100) {
            0..26 => Call::Get,
            26..46 => Call::Write(self.write(at, family)),
            46..58 => Call::Update { add: (self.random.below(5) > 0).then(|| family.token()) },
            58..76 => Call::Touch { committed: false },
            76..81 => Call::Touch { committed: true },
            81..85 => Call::Delete,
            85..90 => {
                let is_plain = self.random.below(2) == 0;
                Call::Rotate(if is_plain { Write::default() } else { self.write(at, family) })
            }
            _ => self.create(family),
        }
    }

    /// Makes a creation.
    pub fn create(&mut self, family: &Family) -> Call {
        let (mut idle, mut end) = (NEVER, NEVER);
        if self.history.weather == Weather::Expiry {
            idle = (2 + self.random.below(8)) as i64 * 1_000_000;
            if self.random.below(3) == 0 {
                end = self.history.clock.now().as_micros() + (3 + self.random.below(12)) as i64 * 1_000_000;
            }
        }
        Call::Create { data: [family.token()].into(), or_existing: self.random.below(2) == 0, idle, end }
    }

    fn write(&mut self, at: usize, family: &Family) -> Write {
        let expected = if self.random.below(3) == 0 { self.seen.get(&at).copied() } else { None };
        // Now and then what others write too: then there may be nothing to change.
        let data = if self.random.below(4) == 0 { self.random.below(2) as u32 } else { family.token() };
        let (data, note) = match self.random.below(6) {
            0 => (None, Some(family.token())),
            1 => (Some([data].into()), Some(data)),
            _ => (Some([data].into()), None),
        };
        Write { data, note, expected, keep_idle: self.random.below(8) == 0 }
    }

    /// Makes trouble, or lets time pass.
    fn disturb(&mut self) {
        let engine = &self.subject.engine;
        if self.history.weather == Weather::Expiry {
            if self.random.below(30) == 0 {
                let engine = engine.clone();
                tokio::spawn(async move { engine.sweep().await });
            }
            return;
        }
        match self.random.below(160) {
            0 => Faults::of(engine).interrupt(self.random.below(2) == 0),
            1 => Faults::of(engine).fail_commit(self.random.below(2) == 0),
            2 => self.hold_for_a_while(Faults::of(engine).stall()),
            3 => self.hold_for_a_while(Faults::of(engine).overload()),
            4 => {
                let engine = engine.clone();
                tokio::spawn(async move { engine.flush().await });
            }
            5 => self.history.clock.advance(Duration::from_millis(1_000 + self.random.below(3_000))),
            6..40 => self.history.clock.advance(Duration::from_micros(self.random.below(200_000))),
            _ => {}
        }
    }

    fn hold_for_a_while(&mut self, held: impl Send + 'static) {
        let for_so_long = Duration::from_micros(100 + self.random.below(3_000));
        tokio::spawn(async move {
            tokio::time::sleep(for_so_long).await;
            drop(held);
        });
    }
}
