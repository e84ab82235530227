//! What the tests share: a place on disk, an engine whose clock is moved by hand, waiting for a condition, polling a
//! future once.

mod announce;
pub mod backend;
pub mod fuzz;
pub mod load;
pub mod process;
pub mod trend;
pub mod vfs;

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

pub use announce::{announce, not_run};
use rusqlite::Connection;
use sessile::{Engine, EngineBuilder, NewSession, OpenError, Record, Session, Timestamp, testing::ManualClock};
use tempfile::TempDir;

/// When manual clocks start.
pub const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(2);

/// A directory of a test's own, with room for a database.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

impl Place {
    /// Makes a directory.
    pub fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    /// Returns the directory.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Returns where the database is, or is to be.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("sessions.db")
    }

    /// Begins to open an engine here, by the machine's clock.
    pub fn builder(&self) -> EngineBuilder {
        Engine::builder(self.path())
    }

    /// Connects to the database as another process would.
    pub fn connect(&self) -> Connection {
        Connection::open(self.path()).expect("a connection of another process")
    }

    /// Opens an engine here, which must fail.
    pub async fn refusal(&self) -> OpenError {
        self.builder().open().await.expect_err("the file is refused")
    }

    /// Opens an engine here, once whoever has it open has let go.
    pub async fn open_when_free(&self) -> Engine {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.builder().open().await {
                Err(OpenError::InUse { .. }) if Instant::now() < give_up => {}
                opened => return opened.expect("the file was let go"),
            }
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// How a test sets its engine up.
pub type Configure = fn(EngineBuilder) -> EngineBuilder;

/// An engine in a place of its own, with a clock moved by hand.
#[derive(Debug)]
pub struct Rig {
    /// The engine.
    pub engine: Engine,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Its place.
    pub place: Place,
    configure: Configure,
}

impl Rig {
    /// Opens an engine with the defaults.
    pub async fn open() -> Self {
        Self::open_with(|builder| builder).await
    }

    /// Opens an engine.
    pub async fn open_with(configure: Configure) -> Self {
        let (place, clock) = (Place::new(), Arc::new(ManualClock::new(START)));
        let engine = configure(place.builder().clock(clock.clone())).open().await.expect("a new file opens");
        Self { engine, clock, place, configure }
    }

    /// Shuts the engine down and opens it again, set up as before.
    #[must_use]
    pub async fn restart(self) -> Self {
        let clock = Arc::clone(&self.clock);
        self.restart_at(clock).await
    }

    /// Shuts the engine down and opens it again with another clock.
    #[must_use]
    pub async fn restart_at(self, clock: Arc<ManualClock>) -> Self {
        let Self { engine, place, configure, .. } = self;
        engine.shutdown().await.expect("it shuts down");
        let engine = configure(place.builder().clock(clock.clone())).open().await.expect("it opens again");
        Self { engine, clock, place, configure }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Creates a session of this id, with its id as data.
    pub async fn create(&self, id: &str) -> Session {
        self.engine.create(NewSession::with_id(id).data(id)).await.expect("it is created")
    }

    /// Makes a handle.
    pub fn session(&self, id: &str) -> Session {
        self.engine.session(id).expect("a valid id")
    }

    /// Reads a session that is there.
    pub async fn record(&self, id: &str) -> Record {
        read(&self.session(id)).await
    }
}

/// Reads a session that is there.
pub async fn read(session: &Session) -> Record {
    session.get().await.expect("it can be read").expect("it is there")
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Awaits what must not hang.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("it hangs: {what}"),
    }
}

/// Polls a future once, as a caller that goes away then would have.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Chooses how much a test does: `brief` on every run of the tests, `long` where `SESSILE_LONG` is set.
pub fn effort<T>(brief: T, long: T) -> T {
    if std::env::var_os("SESSILE_LONG").is_some() { long } else { brief }
}

/// A generator for random tests, which print its seed and take one from `SESSILE_SEED`. It is `SplitMix64`.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Takes the seed named, or one at random, and prints it.
    #[expect(clippy::missing_panics_doc, reason = "a seed that is no number is a mistake at the keyboard")]
    pub fn seeded() -> Self {
        use std::hash::BuildHasher;
        let named = std::env::var("SESSILE_SEED").ok().map(|seed| seed.parse().expect("SESSILE_SEED is a number"));
        let seed = named.unwrap_or_else(|| std::hash::RandomState::new().hash_one(0));
        println!("SESSILE_SEED={seed}");
        Self(seed)
    }

    /// Takes this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a generator of its own for one of several tasks.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
