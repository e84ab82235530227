//! What is watched while an engine is flooded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sessile::{Engine, Stats, testing::Faults};
use sessile_tests::process::resident_bytes;

/// How often the engine's load is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How often the heart beats.
const BEAT: Duration = Duration::from_millis(2);
/// How long the slow disk stands for each time that it works: long beside the pauses in which the scheduler of a busy
/// machine lets no sender run.
pub(crate) const STANDS: Duration = Duration::from_millis(80);
const WORKS: Duration = Duration::from_millis(1);

/// The most that was seen at once.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    pub(crate) waiting: usize,
    /// In flight and waiting together.
    pub(crate) at_once: usize,
    pub(crate) resident_bytes: u64,
    pub(crate) looks: u64,
}

/// What may be seen at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    pub(crate) waiting: usize,
    pub(crate) resident_bytes: u64,
}

impl Most {
    fn see(&mut self, stats: &Stats) {
        self.requests = self.requests.max(stats.requests_in_flight);
        self.bytes = self.bytes.max(stats.request_bytes_in_flight);
        self.waiting = self.waiting.max(stats.requests_waiting);
        self.at_once = self.at_once.max(stats.requests_in_flight + stats.requests_waiting);
        self.resident_bytes = self.resident_bytes.max(resident_bytes());
        self.looks += 1;
    }

    /// Whether all was within bounds.
    pub(crate) fn is_within(&self, bounds: Bounds) -> bool {
        self.requests <= bounds.requests
            && self.bytes <= bounds.bytes
            && self.waiting <= bounds.waiting
            && self.resident_bytes <= bounds.resident_bytes
    }
}

/// A thread beside the runtime, until told to end.
#[derive(Debug)]
pub(crate) struct Beside<T> {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Beside<T> {
    fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || work(&is_over)
        });
        Self { is_over, thread }
    }

    pub(crate) fn end(self) -> T {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("it watches to the end")
    }
}

/// Watches an engine's load.
pub(crate) fn watch(engine: &Engine) -> Beside<Most> {
    let engine = engine.clone();
    Beside::start(move |is_over| {
        let mut most = Most::default();
        while !is_over.load(Ordering::SeqCst) {
            most.see(&engine.stats());
            thread::sleep(LOOK);
        }
        most
    })
}

/// Makes an engine's disk slow: it stands far longer than it works.
pub(crate) fn slow_disk(engine: &Engine) -> Beside<()> {
    let faults = Faults::of(engine);
    // From now on, not from when the thread comes to it: a few milliseconds at full speed are a second of a slow disk.
    let mut stands = faults.stall();
    Beside::start(move |is_over| {
        loop {
            thread::sleep(STANDS);
            drop(stands);
            thread::sleep(WORKS);
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            stands = faults.stall();
        }
    })
}

/// How late a heart beat.
#[derive(Debug)]
pub(crate) struct Beats(Vec<Duration>);

impl Beats {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

/// Lets a heart beat on this runtime until told to end.
pub(crate) fn heartbeat() -> (Arc<AtomicBool>, tokio::task::JoinHandle<Beats>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let beating = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let mut late = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let due = Instant::now() + BEAT;
                tokio::time::sleep(BEAT).await;
                late.push(due.elapsed());
            }
            late.sort_unstable();
            Beats(late)
        }
    });
    (is_over, beating)
}
