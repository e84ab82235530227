//! What the engine does by itself meets a full disk: nobody has to wait for that, and nothing is lost by it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sessile::{Engine, NewSession, testing::ManualClock};
use sessile_storage::{backend::Backend, record::Stored};
use sessile_tests::{
    Place, START, backend, eventually,
    vfs::{self, Call, CallKind, FileKind, Verdict, Watcher, codes},
};

/// As many rows as are indexed although commands wait, and some more.
const ROWS: i64 = 33_000;
/// Longer than the engine waits after a fold that cost it the connection.
const HELD_BACK: Duration = Duration::from_secs(6);

/// A disk with room for what is synced only: the openings of the engine and its last words, and none of its folds.
#[derive(Default)]
struct Tight {
    is_on: AtomicBool,
    /// Something is in the log to be synced, beside its header.
    has_written: AtomicBool,
    is_full: AtomicBool,
}

/// The header of the log, which is synced alone: <https://sqlite.org/walformat.html>.
const HEADER_BYTES: usize = 32;

impl Tight {
    fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
        self.begin();
    }

    fn begin(&self) {
        self.is_full.store(false, Ordering::Relaxed);
        self.has_written.store(false, Ordering::Relaxed);
    }
}

impl Watcher for Tight {
    fn before(&self, call: &Call<'_>) -> Verdict {
        match (call.kind, call.file) {
            (CallKind::Open, FileKind::Database) => self.begin(),
            (CallKind::Write, FileKind::Log) if self.is_full.load(Ordering::Relaxed) => {
                return Verdict::Fail(codes::SQLITE_FULL);
            }
            (CallKind::Write, FileKind::Log) if call.length > HEADER_BYTES => {
                self.has_written.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        Verdict::Pass
    }

    fn after(&self, call: &Call<'_>, _code: i32) {
        if (call.kind, call.file) == (CallKind::Sync, FileKind::Log) && self.has_written.load(Ordering::Relaxed) {
            self.is_full.store(self.is_on.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

async fn open(place: &Place) -> (Engine, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START));
    (place.builder().clock(clock.clone()).open().await.unwrap(), clock)
}

#[tokio::test]
async fn a_fold_that_costs_the_connection_is_not_tried_again_at_once() {
    let place = Place::new();
    let mut rows = backend::open(&place.path());
    backend::write(&mut rows);
    for _ in 0..ROWS {
        let serial = rows.next_serial().unwrap();
        let new = Stored { user: Some("ada".into()), ..backend::stored(serial, &format!("s{serial}")) };
        assert!(rows.insert(&backend::row(&new)).unwrap());
    }
    rows.commit().unwrap();
    drop(rows);
    let disk = Arc::new(Tight::default());
    let _watch = vfs::watch(&place.directory(), disk.clone());
    disk.set(true);
    let (engine, clock) = open(&place).await;
    eventually("a fold has failed", async || engine.stats().restarts > 0).await;
    // Whoever reads does not wait for it.
    for n in 1..=200 {
        assert!(engine.session(format!("s{n}")).unwrap().get().await.unwrap().is_some());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(engine.stats().restarts, 1);
    clock.advance(HELD_BACK);
    eventually("it is tried again", async || engine.stats().restarts == 2).await;
    disk.set(false);
    eventually("it is made up for", async || {
        clock.advance(HELD_BACK);
        engine.session("s1").unwrap().get().await.unwrap();
        engine.stats().sessions_unindexed == 0
    })
    .await;
    engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_that_cannot_fold_has_lost_nothing_and_says_so() {
    let place = Place::new();
    let disk = Arc::new(Tight::default());
    let _watch = vfs::watch(&place.directory(), disk.clone());
    let (engine, _clock) = open(&place).await;
    for n in 0..20 {
        let session = engine.create(NewSession::with_id(format!("s{n}")).user("ada").data("new")).await.unwrap();
        session.save("saved").await.unwrap();
        session.touch().await.unwrap();
    }
    assert!(engine.stats().saves_in_log > 0 && engine.stats().sessions_unindexed > 0);
    disk.set(true);
    engine.shutdown().await.unwrap();
    assert!(disk.is_full.load(Ordering::Relaxed), "nothing was synced");
    disk.set(false);
    let (engine, _clock) = open(&place).await;
    for n in 0..20 {
        let record = engine.session(format!("s{n}")).unwrap().get().await.unwrap().unwrap();
        assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("saved", 1));
    }
}
