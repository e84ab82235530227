//! Opening an engine.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ractor::ActorCell;
use sessile_actors::{
    router::Limits,
    start::{Blueprint, start},
};
use sessile_storage::{
    Settings,
    admission::Bounds,
    change::{DURATION_MAX, DURATION_MIN},
    clock::{Clock, EngineClock, SystemClock, micros},
    error::OpenError,
    record::{Durability, ExpiryDefaults},
    sqlite::{self, OpenOptions, Sqlite},
};
use tokio::runtime::Handle;

use crate::engine::Engine;

/// Callers that may wait for room, for each request in flight: beyond that they are turned away at once.
const WAITERS_PER_REQUEST: usize = 64;
/// The shortest that a session may live, and what is said of less.
const LIFE_MIN: (Duration, &str) = (DURATION_MIN, "it is under a microsecond");
/// The shortest interval between two doings of the engine, and wait for an answer: less keeps a thread busy for nothing,
/// or lets no request be answered in time.
const INTERVAL_MIN: (Duration, &str) = (Duration::from_millis(1), "it is under a millisecond");
/// How often expired sessions are swept away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// How long the sweep waits after the clock jumped ahead.
const SWEEP_GRACE: Duration = Duration::from_secs(300);
/// The smallest and the largest page cache.
const CACHE_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 30;
/// The largest payload that may be allowed: SQLite's own limit of a row is 1 GB.
const PAYLOAD_BYTES_LIMIT: usize = 512 << 20;
/// A zone that does not exist is told apart from any that does.
type Zone = Result<jiff::tz::TimeZone, &'static str>;

/// The options of an engine. Each has a default that suits a service on one machine; a value that cannot be meant is an
/// [`OpenError::InvalidOption`] at `open`.
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `open`"]
pub struct EngineBuilder {
    path: Option<PathBuf>,
    idle_timeout: Option<Duration>,
    lifetime: Option<Duration>,
    durability: Durability,
    flush_interval: Duration,
    request_timeout: Duration,
    payload_bytes_max: usize,
    requests_max: usize,
    live_sessions_max: usize,
    sessions_in_memory_max: usize,
    record_bytes_max: usize,
    passivate_after: Duration,
    max_sessions: Option<u64>,
    max_sessions_per_user: Option<u64>,
    cache_bytes: u64,
    take_over_time_zone: Option<String>,
    only_existing: bool,
    runtime: Option<Handle>,
    clock: Option<Arc<dyn Clock>>,
}

impl EngineBuilder {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            idle_timeout: None,
            lifetime: None,
            durability: Durability::Committed,
            flush_interval: Duration::from_millis(250),
            request_timeout: Duration::from_secs(10),
            payload_bytes_max: 1 << 20,
            requests_max: 4_096,
            live_sessions_max: 10_000,
            sessions_in_memory_max: 100_000,
            record_bytes_max: 64 << 20,
            passivate_after: Duration::from_secs(300),
            max_sessions: None,
            max_sessions_per_user: None,
            cache_bytes: 40_000_000,
            take_over_time_zone: None,
            only_existing: false,
            runtime: None,
            clock: None,
        }
    }

    /// How long a session may be idle before it ends, unless it sets its own: a microsecond to 100 years. Default: for
    /// ever.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// How long a session may live, active or not, unless it sets its own end: a microsecond to 100 years. Default: for
    /// ever.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// What acknowledgements of writes promise. Default: [`Durability::Committed`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a touch may be in memory only: a millisecond to 100 years. Default: 250 ms.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// How long a request may take, waiting for room included: a millisecond to 100 years. Default: 10 s, above SQLite's
    /// busy timeout of 5 s. The timer of the engine's [`runtime`](Self::runtime) tells it.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The most bytes of one session's data, metadata and user name. Default: 1 MiB.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// The most requests in flight. Default: 4,096.
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests;
        self
    }

    /// The most sessions with an actor, 7 KB each; those in flight can exceed it. Default: 10,000.
    pub fn live_sessions_max(mut self, sessions: usize) -> Self {
        self.live_sessions_max = sessions;
        self
    }

    /// The most sessions in memory, with an actor or without, some 500 bytes each beside their records; those in flight
    /// can exceed it. Default: 100,000.
    pub fn sessions_in_memory_max(mut self, sessions: usize) -> Self {
        self.sessions_in_memory_max = sessions;
        self
    }

    /// The most bytes of session records in memory, from where on the least recently used sessions are passivated.
    /// Default: 64 MiB.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// How long a session stays in memory after its last use: a millisecond to 100 years. Default: 5 minutes.
    pub fn passivate_after(mut self, idle: Duration) -> Self {
        self.passivate_after = idle;
        self
    }

    /// The most sessions. Default: no limit.
    pub fn max_sessions(mut self, sessions: u64) -> Self {
        self.max_sessions = Some(sessions);
        self
    }

    /// The most sessions of one user. Default: no limit.
    pub fn max_sessions_per_user(mut self, sessions: u64) -> Self {
        self.max_sessions_per_user = Some(sessions);
        self
    }

    /// Memory for database pages, in bytes. Default: 40 MB, as the source document has it.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The zone, by its IANA name, of the times in a database that is taken over: they carry none. Default: the
    /// machine's.
    pub fn take_over_time_zone(mut self, zone: impl Into<String>) -> Self {
        self.take_over_time_zone = Some(zone.into());
        self
    }

    /// Opens only a database of this engine that is there already, for tools that look into one: none is made, and none is
    /// taken over. Default: off.
    pub fn only_existing(mut self) -> Self {
        self.only_existing = true;
        self
    }

    /// The runtime on which actors live; its timer must be enabled. Default: the one that `open` is called on. Where a
    /// service has a runtime per worker, name one that outlives them all.
    ///
    /// A `current_thread` runtime works only while something is awaited on it. While nobody drives it, storage goes on (it
    /// commits and answers what has reached it, flushes touches, sweeps and syncs); but no deadline ends a wait, and
    /// what session actors do (updates, messages, passivation) stands still.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Where time comes from. Default: the operating system.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Opens the engine.
    ///
    /// # Errors
    /// [`OpenError`]; the file is as it was.
    ///
    /// # Cancellation
    /// Dropped, the database is closed again as soon as it is open.
    pub async fn open(self) -> Result<Engine, OpenError> {
        self.open_under(None).await
    }

    /// Opens the engine as a child of an actor: a failure that storage cannot heal reaches it as `ActorFailed`, a
    /// shutdown as `ActorTerminated`, and its own end closes the engine.
    ///
    /// # Errors
    /// As for [`EngineBuilder::open`].
    ///
    /// # Cancellation
    /// As for [`EngineBuilder::open`].
    pub async fn open_linked(self, supervisor: ActorCell) -> Result<Engine, OpenError> {
        self.open_under(Some(supervisor)).await
    }

    async fn open_under(self, supervisor: Option<ActorCell>) -> Result<Engine, OpenError> {
        let take_over_zone = self.check()?;
        let runtime = self.runtime_with_timer()?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let clock = Arc::new(EngineClock::new(clock));
        let options = OpenOptions {
            path: self.path,
            cache_bytes: self.cache_bytes,
            take_over_zone,
            only_existing: self.only_existing,
        };
        let settings = Settings {
            expiry: ExpiryDefaults { idle_timeout: self.idle_timeout.map(micros), lifetime: self.lifetime.map(micros) },
            flush_interval: micros(self.flush_interval),
            sweep_interval: micros(SWEEP_INTERVAL),
            sweep_grace: micros(SWEEP_GRACE),
            payload_bytes_max: self.payload_bytes_max,
            sessions_max: self.max_sessions,
            sessions_per_user_max: self.max_sessions_per_user,
        };
        let bounds = Bounds {
            requests_max: self.requests_max,
            // Room for the two largest at once, and for a batch of middling ones.
            bytes_max: (2 * self.payload_bytes_max).max(64 << 20),
            waiters_max: self.requests_max.saturating_mul(WAITERS_PER_REQUEST),
        };
        let limits = Limits {
            live_sessions_max: self.live_sessions_max,
            slots_max: self.sessions_in_memory_max,
            held_bytes_max: self.record_bytes_max,
            payload_bytes_max: self.payload_bytes_max,
            message_timeout: self.request_timeout,
        };
        let blueprint = Blueprint {
            open: Box::new(move || open_sqlite(options)),
            settings,
            bounds,
            limits,
            clock,
            runtime,
            durability: self.durability,
            passivate_after: self.passivate_after,
            supervisor,
        };
        let (router, actor) = start(blueprint).await?;
        Ok(Engine::new(router, actor, self.durability, self.request_timeout))
    }

    /// Checks every option; returns the zone for a take-over.
    fn check(&self) -> Result<jiff::tz::TimeZone, OpenError> {
        let durations = [
            ("idle_timeout", self.idle_timeout, LIFE_MIN),
            ("lifetime", self.lifetime, LIFE_MIN),
            ("flush_interval", Some(self.flush_interval), INTERVAL_MIN),
            ("request_timeout", Some(self.request_timeout), INTERVAL_MIN),
            ("passivate_after", Some(self.passivate_after), INTERVAL_MIN),
        ];
        for (name, duration, (shortest, reason)) in durations {
            match duration {
                Some(duration) if duration < shortest => return invalid(name, reason),
                Some(duration) if duration > DURATION_MAX => return invalid(name, "it is over 100 years"),
                _ => {}
            }
        }
        let counts = [
            ("payload_bytes_max", self.payload_bytes_max),
            ("requests_max", self.requests_max),
            ("live_sessions_max", self.live_sessions_max),
            ("sessions_in_memory_max", self.sessions_in_memory_max),
            ("record_bytes_max", self.record_bytes_max),
            ("max_sessions", self.max_sessions.map_or(1, |sessions| sessions as usize)),
            ("max_sessions_per_user", self.max_sessions_per_user.map_or(1, |sessions| sessions as usize)),
        ];
        for (name, count) in counts {
            if count == 0 {
                return invalid(name, "it is zero");
            }
        }
        if self.payload_bytes_max > PAYLOAD_BYTES_LIMIT {
            return invalid("payload_bytes_max", "it is over 512 MiB");
        }
        if !CACHE_BYTES.contains(&self.cache_bytes) {
            return invalid("cache_bytes", "it is not between 64 KiB and 64 GiB");
        }
        let zone: Zone = match &self.take_over_time_zone {
            None => Ok(jiff::tz::TimeZone::system()),
            Some(name) => jiff::tz::TimeZone::get(name).map_err(|_| "there is no zone of this name"),
        };
        zone.map_err(|reason| OpenError::InvalidOption { name: "take_over_time_zone", reason })
    }

    /// Finds the runtime and makes sure that its timer runs.
    fn runtime_with_timer(&self) -> Result<Handle, OpenError> {
        let runtime = match &self.runtime {
            Some(runtime) => runtime.clone(),
            None => Handle::try_current().map_err(|_| OpenError::NoRuntime)?,
        };
        let timer = {
            let _context = runtime.enter();
            // The only way to ask: making a timer panics where the runtime has none.
            std::panic::catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO)))
        };
        timer.map(|()| runtime).map_err(|_| OpenError::NoRuntime)
    }
}

fn invalid<T>(name: &'static str, reason: &'static str) -> Result<T, OpenError> {
    Err(OpenError::InvalidOption { name, reason })
}

fn open_sqlite(options: OpenOptions) -> Result<Sqlite, OpenError> {
    let (sqlite, taken_over) = Sqlite::open(options)?;
    if let Some(sqlite::TakenOver { sessions }) = taken_over {
        tracing::info!(sessions, "a database of the source document's service was taken over");
    }
    Ok(sqlite)
}
