//! The machine's clock, but that the wall's time is stepped.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use sessile::{Clock, SystemClock, Timestamp};

/// A clock whose wall time is off by a number of microseconds.
#[derive(Debug, Default)]
pub(crate) struct SteppedClock {
    system: SystemClock,
    off_us: AtomicI64,
}

impl SteppedClock {
    /// Steps the wall's time, forth or back, to be off by this.
    pub(crate) fn step_to(&self, off_us: i64) {
        self.off_us.store(off_us, Ordering::Relaxed);
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.system.now().as_micros() + self.off_us.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed()
    }
}
