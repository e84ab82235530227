//! Sessions that are left to expire, as most do: what the sweep is for. And that they are gone in time.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sessile::{Engine, Error, NewSession, Session};
use sessile_tests::Random;

/// Between two visitors.
const PAUSE: Duration = Duration::from_millis(2);
/// For how long a visitor may be idle, at least; at most three times that.
const IDLE_MS: u64 = 700;
/// The most that are watched until they expire.
const WATCHED_MAX: usize = 4_096;

/// What became of visitors.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    pub(crate) created: AtomicU64,
    pub(crate) expired: AtomicU64,
    /// Sessions that were there after they had to be gone.
    pub(crate) late: AtomicU64,
}

/// Creates sessions, touches them a few times, leaves them, and looks whether they are gone, until told to stop.
pub(crate) async fn visit(engine: Engine, visits: Arc<Visits>, mut random: Random, stop: Arc<AtomicBool>) {
    let mut watched: VecDeque<(Session, Instant)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let idle = Duration::from_millis(IDLE_MS + random.below(2 * IDLE_MS));
        let new = NewSession::new().user("visitor").data(&"v".repeat(200)).idle_timeout(idle);
        let session = match engine.create(new).await {
            Ok(session) => session,
            Err(Error::Closed) => return,
            Err(_) => continue,
        };
        visits.created.fetch_add(1, Ordering::Relaxed);
        for _ in 0..random.below(4) {
            // A clock that steps ahead may have ended it.
            drop(session.touch().await);
        }
        // Engine time passes at least as fast as ours.
        watched.push_back((session, Instant::now() + idle));
        while let Some((session, end)) = watched.front() {
            if watched.len() < WATCHED_MAX && *end > Instant::now() {
                break;
            }
            if *end <= Instant::now() {
                match session.get().await {
                    Ok(None) => visits.expired.fetch_add(1, Ordering::Relaxed),
                    Ok(Some(_)) => visits.late.fetch_add(1, Ordering::Relaxed),
                    Err(_) => 0,
                };
            }
            watched.pop_front();
        }
    }
}
