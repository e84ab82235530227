//! What there is before a flood, and must be again after it: memory, threads, what is live, and how quick a request is.

use std::time::{Duration, Instant};

use sessile::{Change, Engine, Session, Stats};
use sessile_tests::{
    eventually,
    process::{Possessions, resident_bytes},
};

use crate::flood::{KEPT_BYTES_MAX, RECORD_BYTES_MAX};

/// What there is before a flood.
pub(crate) struct Before {
    latency: Duration,
    possessions: Possessions,
    stats: Stats,
    pub(crate) resident_bytes: u64,
}

impl Before {
    /// Looks now; the latency is that of a quiet time.
    pub(crate) fn now(engine: &Engine, latency: Duration) -> Self {
        let (possessions, stats) = (Possessions::now(), engine.stats());
        Self { latency, possessions, stats, resident_bytes: resident_bytes() }
    }

    /// Waits until all is as it was.
    pub(crate) async fn is_back(&self, engine: &Engine, session: &Session) {
        eventually("nothing is in flight", async || {
            let stats = engine.stats();
            (stats.requests_in_flight, stats.request_bytes_in_flight, stats.requests_waiting) == (0, 0, 0)
        })
        .await;
        let mut after = Duration::MAX;
        eventually("requests are as quick as before", async || {
            after = median_latency(session).await;
            after <= 3 * self.latency + Duration::from_millis(2)
        })
        .await;
        self.possessions.are_back();
        let (resident, stats) = (resident_bytes(), engine.stats());
        println!(
            "figure: overload latency_before_us={} latency_after_us={} resident_left_kib={}/{} live_sessions={}/{} \
             sessions_in_memory={}/{} touch_cells={}/{} record_bytes={}/{RECORD_BYTES_MAX}",
            self.latency.as_micros(),
            after.as_micros(),
            resident.saturating_sub(self.resident_bytes) >> 10,
            KEPT_BYTES_MAX >> 10,
            stats.live_sessions,
            self.stats.live_sessions,
            stats.sessions_in_memory,
            self.stats.sessions_in_memory,
            stats.touch_cells,
            self.stats.touch_cells,
            stats.record_bytes,
        );
        assert_eq!(stats.restarts, 0);
        assert_eq!(stats.live_sessions, self.stats.live_sessions);
        assert_eq!(stats.sessions_in_memory, self.stats.sessions_in_memory);
        assert!(stats.touch_cells <= self.stats.touch_cells, "{stats:?}");
        assert!(stats.record_bytes <= RECORD_BYTES_MAX, "{stats:?}");
        assert!(resident <= self.resident_bytes + KEPT_BYTES_MAX, "{resident} bytes stay");
    }
}

/// Measures how long a change takes.
pub(crate) async fn median_latency(session: &Session) -> Duration {
    let mut took = Vec::new();
    for n in 0..50 {
        let began = Instant::now();
        session.apply(Change::new().metadata("n", n.to_string())).await.expect("it is made");
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took[took.len() / 2]
}
