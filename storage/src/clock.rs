//! Time: stamps, the clock an application may replace, and the engine's own time that never steps back (rule R21).

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::sync::{Arc, AtomicI64, Ordering};

/// A moment, in microseconds since the unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes one of unix microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns unix microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the moment `duration` later, the last one there is where that is too far.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Returns how long before `later` this moment is, zero if it is after it.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0).max(0).cast_unsigned())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => micros(since),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        })
    }
}

impl From<Timestamp> for SystemTime {
    fn from(stamp: Timestamp) -> Self {
        let distance = Duration::from_micros(stamp.0.unsigned_abs());
        if stamp.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC with microseconds.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(stamp) => write!(formatter, "{stamp:.6}"),
            Err(_) => write!(formatter, "{}us", self.0),
        }
    }
}

/// Returns a duration in microseconds; longer than `i64` holds is the longest.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Where time comes from. The engine asks nothing else (invariant I10).
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the wall time. It may step either way.
    fn now(&self) -> Timestamp;

    /// Returns monotonic time since some fixed moment.
    fn elapsed(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// How often the wall clock is compared with the monotonic one, in microseconds of the latter. A machine that sleeps
/// stops its monotonic clock; this bounds for how long engine time is behind afterwards.
const WALL_CHECK_INTERVAL_US: i64 = 50_000;

/// The latest engine time: before what stands for "never" among deadlines, whatever the wall clock shows.
const TIME_MAX: i64 = i64::MAX - 1;

/// Engine time: monotonic time plus an offset that only grows, when the wall clock is ahead.
///
/// So it never steps back, and a wall clock that does neither expires nor prolongs a session.
#[derive(Debug)]
pub struct EngineClock {
    clock: Arc<dyn Clock>,
    offset: AtomicI64,
    checked_at: AtomicI64,
}

impl EngineClock {
    /// Starts at the wall's time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let this = Self { clock, offset: AtomicI64::new(0), checked_at: AtomicI64::new(i64::MIN) };
        this.now();
        this
    }

    /// Returns engine time in unix microseconds.
    pub fn now(&self) -> i64 {
        self.read().1
    }

    /// Returns monotonic and engine time, in microseconds, by one look at the clock.
    pub fn read(&self) -> (i64, i64) {
        let elapsed = self.monotonic();
        let checked_at = self.checked_at.load(Ordering::Relaxed);
        if checked_at == i64::MIN || elapsed - checked_at >= WALL_CHECK_INTERVAL_US {
            self.checked_at.store(elapsed, Ordering::Relaxed);
            self.look();
        }
        (elapsed, elapsed.saturating_add(self.offset.load(Ordering::Relaxed)).min(TIME_MAX))
    }

    /// Compares with the wall clock now.
    pub fn look(&self) {
        let wall = self.clock.now().as_micros();
        // The wall first: what passes between the two looks, if the thread is held up, would put engine time ahead for
        // good. This way it is behind until the next look.
        self.offset.fetch_max(ahead(wall, self.monotonic()), Ordering::Relaxed);
    }

    /// Returns monotonic microseconds.
    pub fn monotonic(&self) -> i64 {
        micros(self.clock.elapsed())
    }

    /// Raises engine time to at least `mark`, which an earlier run of the engine had reached.
    pub fn raise(&self, mark: i64) {
        // A damaged file may name any time at all.
        self.offset.fetch_max(ahead(mark, self.monotonic()), Ordering::Relaxed);
    }

    /// Returns by how much engine time has been moved ahead of monotonic time.
    pub fn offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }
}

/// Returns by how much `time` is ahead of monotonic time; a wall clock, or a mark in a file, may show anything.
fn ahead(time: i64, elapsed: i64) -> i64 {
    time.saturating_sub(elapsed)
}

/// A clock that tests move by hand.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    elapsed: AtomicI64,
}

#[cfg(feature = "testing")]
impl ManualClock {
    /// Starts at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { wall: AtomicI64::new(now.as_micros()), elapsed: AtomicI64::new(0) }
    }

    /// Lets time pass, on the wall and monotonic.
    pub fn advance(&self, by: Duration) {
        // In this order, so that who looks meanwhile does not find the wall ahead.
        self.elapsed.fetch_add(micros(by), Ordering::SeqCst);
        self.wall.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// Steps the wall clock forward, as an administrator or a machine that wakes would.
    pub fn step_forward(&self, by: Duration) {
        self.wall.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// Steps the wall clock back.
    pub fn step_back(&self, by: Duration) {
        self.wall.fetch_sub(micros(by), Ordering::SeqCst);
    }
}

#[cfg(feature = "testing")]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed.load(Ordering::SeqCst).cast_unsigned())
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    #[test]
    fn stamps_print_rfc_3339_and_convert() {
        let stamp = Timestamp::from_micros(1_700_000_000_123_456);
        assert_eq!(stamp.to_string(), "2023-11-14T22:13:20.123456Z");
        assert_eq!(Timestamp::from(SystemTime::from(stamp)), stamp);
        let early = Timestamp::from_micros(-5);
        assert_eq!(Timestamp::from(SystemTime::from(early)), early);
    }

    #[cfg(feature = "testing")]
    #[test]
    fn engine_time_follows_the_wall_forward_and_never_back() {
        let manual = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000)));
        let clock = EngineClock::new(Arc::clone(&manual) as Arc<dyn Clock>);
        manual.step_back(Duration::from_secs(3_600));
        manual.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), 2_000_000);
        manual.step_forward(Duration::from_secs(7_200));
        manual.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), 1_000_000 + 2_000_000 + 3_600_000_000);
    }

    #[test]
    fn a_thread_held_up_while_it_looks_does_not_put_engine_time_ahead() {
        /// A clock whose first look at the wall takes ten seconds.
        #[derive(Debug, Default)]
        struct HeldUpOnce(AtomicI64);

        impl Clock for HeldUpOnce {
            fn now(&self) -> Timestamp {
                self.0.fetch_max(10_000_000, Ordering::SeqCst);
                Timestamp::from_micros(self.0.load(Ordering::SeqCst))
            }

            fn elapsed(&self) -> Duration {
                Duration::from_micros(self.0.load(Ordering::SeqCst).cast_unsigned())
            }
        }

        let clock = EngineClock::new(Arc::new(HeldUpOnce::default()));
        assert_eq!(clock.now(), 10_000_000);
    }

    #[cfg(feature = "testing")]
    #[test]
    fn a_mark_before_all_times_moves_nothing() {
        let manual = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000)));
        let clock = EngineClock::new(Arc::clone(&manual) as Arc<dyn Clock>);
        manual.advance(Duration::from_secs(1));
        clock.raise(i64::MIN);
        assert_eq!(clock.now(), 2_000_000);
    }
}
