//! An engine to try calls on, in each of the states in which a caller may meet it; and what is seen of a call afterwards.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension};
use sessile::{
    Clock, Engine, EngineBuilder, Filter, Health, NewSession, Query, Session, Timestamp, Version,
    testing::{Faults, ManualClock, Overload, Stall},
};
use sessile_tests::{PATIENCE, Place, START, eventually, read, soon};

/// The storage thread's name, by which a clock knows who asks.
pub(crate) const STORAGE_THREAD: &str = "sessile-storage";
/// Above all that a clock moved by hand moves in one trial.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// Sessions whose use drives others out of memory.
const CROWD: usize = 32;

/// A clock moved by hand that panics in the storage thread when asked to.
#[derive(Debug)]
pub(crate) struct TripClock {
    pub(crate) hand: ManualClock,
    once: AtomicBool,
    for_good: AtomicBool,
}

impl TripClock {
    pub(crate) fn new() -> Arc<Self> {
        let hand = ManualClock::new(START);
        Arc::new(Self { hand, once: AtomicBool::new(false), for_good: AtomicBool::new(false) })
    }

    /// Panics when the storage thread asks next.
    pub(crate) fn trip(&self) {
        self.once.store(true, Ordering::SeqCst);
    }

    /// Panics whenever the storage thread asks.
    pub(crate) fn trip_for_good(&self) {
        self.for_good.store(true, Ordering::SeqCst);
    }

    fn step(&self) {
        if std::thread::current().name() == Some(STORAGE_THREAD)
            && (self.for_good.load(Ordering::SeqCst) || self.once.swap(false, Ordering::SeqCst))
        {
            panic!("a clock that panics on order");
        }
    }
}

impl Clock for TripClock {
    fn now(&self) -> Timestamp {
        self.step();
        self.hand.now()
    }

    fn elapsed(&self) -> Duration {
        self.step();
        self.hand.elapsed()
    }
}

/// The state in which a call finds the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing else happens.
    AtRest,
    /// There is no room for a request.
    Full,
    /// The storage thread stands.
    Stalled,
    /// The storage thread has lost its connection and cannot open another yet.
    Recovering,
    /// Whatever is at rest leaves memory at once.
    Passivating,
}

/// What keeps the engine in a state.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Room(#[expect(dead_code, reason = "its drop gives the room back")] Overload),
    Thread(#[expect(dead_code, reason = "its drop lets the thread go")] Stall),
    Lock(OtherProcess),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Lock(other_process) = self {
            connected(other_process).execute_batch("ROLLBACK").expect("the lock is let go");
        }
    }
}

/// A connection as another process has one.
type OtherProcess = Arc<Mutex<Connection>>;

fn connected(other_process: &OtherProcess) -> MutexGuard<'_, Connection> {
    other_process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine and its surroundings.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<TripClock>,
    pub(crate) place: Place,
    other_process: OtherProcess,
    trials: u32,
}

/// What one call is tried on.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) engine: Engine,
    /// Data "a", of a user of its own.
    pub(crate) session: Session,
    pub(crate) version: Version,
    pub(crate) user: String,
    /// The id of a session that is not there yet.
    pub(crate) fresh: String,
    /// The id of a session that has expired, and whose row is there still.
    pub(crate) over: String,
}

/// What is seen of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) data: String,
    pub(crate) tag: Option<String>,
    pub(crate) touches: u64,
}

/// What is seen of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) session: Option<Content>,
    /// All of the user's sessions.
    pub(crate) owned: Vec<Content>,
    pub(crate) fresh: Option<Content>,
    /// Whether the row of the expired session is there.
    pub(crate) over: bool,
}

impl Ground {
    pub(crate) async fn open() -> Self {
        Self::open_with(|builder| builder).await
    }

    /// Opens an engine that keeps nothing in memory that is at rest.
    pub(crate) async fn forgetful() -> Self {
        let one = |builder: EngineBuilder| builder.sessions_in_memory_max(1).live_sessions_max(1);
        Self::open_with(|builder| one(builder).passivate_after(Duration::from_millis(2))).await
    }

    async fn open_with(configure: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Self {
        let (place, clock) = (Place::new(), TripClock::new());
        let builder = place.builder().clock(clock.clone()).request_timeout(REQUEST_TIMEOUT).requests_max(64);
        let engine = configure(builder).open().await.expect("a new file opens");
        let other_process = Arc::new(Mutex::new(place.connect()));
        for n in 0..CROWD {
            engine.create(NewSession::with_id(format!("crowd{n}")).data(&0)).await.expect("it is created");
        }
        Self { engine, clock, place, other_process, trials: 0 }
    }

    /// Makes what a call is tried on.
    pub(crate) async fn prepare(&mut self, with_expired: bool) -> Trial {
        self.trials += 1;
        let n = self.trials;
        let user = format!("user{n}");
        let new = NewSession::with_id(format!("session{n}")).user(user.as_str()).data("a");
        let session = self.engine.create(new).await.expect("it is created");
        let version = read(&session).await.version();
        let (fresh, over) = (format!("fresh{n}"), format!("over{n}"));
        if with_expired {
            let new = NewSession::with_id(over.as_str()).idle_timeout(Duration::from_micros(1));
            self.engine.create(new).await.expect("it is created");
            self.clock.hand.advance(Duration::from_micros(1));
        }
        Trial { engine: self.engine.clone(), session, version, user, fresh, over }
    }

    /// Brings the engine into a state, in which it stays until what is returned is dropped.
    pub(crate) async fn enter(&self, state: State) -> Held {
        match state {
            State::AtRest | State::Passivating => Held::Nothing,
            State::Full => Held::Room(Faults::of(&self.engine).overload()),
            State::Stalled => Held::Thread(Faults::of(&self.engine).stall()),
            State::Recovering => {
                connected(&self.other_process).execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
                self.clock.trip();
                // Wakes the thread, which then asks for the time.
                drop(Faults::of(&self.engine).stall());
                eventually("it recovers", async || matches!(self.engine.health(), Health::Degraded { .. })).await;
                Held::Lock(Arc::clone(&self.other_process))
            }
        }
    }

    /// Others that use the engine meanwhile; each must be served.
    pub(crate) fn bystanders(&self, state: State) -> Vec<tokio::task::JoinHandle<()>> {
        let crowd = if state == State::Passivating { CROWD } else { 2 };
        let (engine, clock) = (self.engine.clone(), Arc::clone(&self.clock));
        let mut all = vec![tokio::spawn(async move {
            engine.count(Filter::all()).await.expect("a bystander's count");
        })];
        all.extend((0..crowd).map(|n| {
            let session = self.engine.session(format!("crowd{n}")).expect("a valid id");
            let clock = (state == State::Passivating).then(|| Arc::clone(&clock));
            tokio::spawn(async move {
                session.update(|count: &mut u64| *count += 1).await.expect("a bystander's update");
                // Whatever is at rest was not used lately.
                clock.inspect(|clock| clock.hand.advance(Duration::from_secs(2)));
                session.get().await.expect("a bystander's get").expect("it is there");
            })
        }));
        all
    }

    /// Waits until nothing is in flight any more, whatever was sent before this.
    pub(crate) async fn rest(&self) {
        let actor = self.engine.actor();
        let counted = ractor::call!(actor, sessile::actor::EngineMessage::count, Filter::all());
        counted.expect("the actor lives").ok();
        eventually("nothing is in flight", async || {
            let stats = self.engine.stats();
            (stats.requests_in_flight, stats.request_bytes_in_flight, stats.requests_waiting) == (0, 0, 0)
        })
        .await;
    }

    /// Looks at what a call was tried on.
    pub(crate) async fn look(&self, trial: &Trial) -> Seen {
        let page = self.engine.list(Query::new(Filter::all().user(trial.user.as_str()))).await.expect("it lists");
        let mut owned = Vec::new();
        for item in page.items {
            let session = self.engine.session(item.id().expect("ids are shown")).expect("a valid id");
            owned.extend(content(&session).await);
        }
        let fresh = self.engine.session(trial.fresh.as_str()).expect("a valid id");
        let over = "SELECT 1 FROM session WHERE id = ?1";
        let over =
            connected(&self.other_process).query_row(over, [&trial.over], |_| Ok(())).optional().expect("it reads");
        Seen { session: content(&trial.session).await, owned, fresh: content(&fresh).await, over: over.is_some() }
    }

    /// Checks that no session is there by half, lets all leave memory, shuts down, and checks that nothing stays behind.
    pub(crate) async fn end(self) {
        let half = "SELECT (SELECT count(*) FROM session WHERE serial NOT IN (SELECT serial FROM activity))
                         + (SELECT count(*) FROM activity WHERE serial NOT IN (SELECT serial FROM session))";
        let halves: i64 = connected(&self.other_process).query_row(half, [], |row| row.get(0)).expect("it reads");
        assert_eq!(halves, 0, "sessions there by half");
        let check: String =
            connected(&self.other_process).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("reads");
        assert_eq!(check, "ok");
        drop(self.other_process);
        soon("the shutdown", self.engine.shutdown()).await.expect("it shuts down");
        let stats = self.engine.stats();
        assert_eq!((stats.sessions_in_memory, stats.requests_in_flight), (0, 0), "{stats:?}");
        eventually("all actors end", async || self.engine.stats().live_sessions == 0).await;
        let left = sessile_tests::process::descriptors_in(&self.place.directory());
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn content(session: &Session) -> Option<Content> {
    let record = tokio::time::timeout(PATIENCE, session.get()).await.expect("a get hangs").expect("it can be read")?;
    let tag = record.metadata().get("tag").cloned();
    Some(Content { data: record.data().expect("a string"), tag, touches: record.touch_count() })
}
