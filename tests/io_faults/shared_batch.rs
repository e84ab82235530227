//! One huge save that fills the disk, in a batch with many small changes.
//!
//! A batch with much in it is written before its COMMIT: where there is no room it is rolled back, and each request runs alone,
//! so the huge one fails alone (rule R3). Less is written by COMMIT itself: then nobody knows what the disk has, and all of the
//! batch are told so (rule R2).

use std::{future::Future, pin::Pin, sync::Arc};

use sessile::{
    CauseKind, Change, Durability, Engine, Error, Health, InterruptedBy, NewSession, Outcome,
    testing::{Faults, ManualClock},
};
use sessile_tests::{
    Place, START, poll_once, soon,
    vfs::{self, Watch},
};

use super::full_disk::{LittleRoom, is_whole};

/// Small changes, half of them before the huge one.
const SMALL: usize = 200;
/// Less than what fills a batch (8 MiB), so that all share one.
const HUGE_BYTES: usize = 7 << 20;
/// Room for all small changes, each in a transaction of its own, and not for the huge one.
const LOG_BYTES_MAX: u64 = 5 << 20;
/// Less than what is written before COMMIT, and more than there is room for.
const LARGE_BYTES: usize = 200 << 10;
const LOG_BYTES_FEW: u64 = 128 << 10;
/// The smallest cache: the huge save does not fit.
const CACHE_BYTES_SMALL: u64 = 64 << 10;
/// The engine's own: it does.
const CACHE_BYTES: u64 = 40_000_000;

type Answer = Result<(), Error>;
type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A small change: a save, a durable touch, a deletion, or a creation.
async fn change(engine: Engine, n: usize) -> Answer {
    let session = engine.session(format!("s{n}"))?;
    match n % 4 {
        0 => session.save("after").await.map(drop),
        1 => session.touch_with(Durability::Committed).await,
        2 => session.delete().await.map(drop),
        _ => engine.create(NewSession::with_id(format!("s{n}")).data("after")).await.map(drop),
    }
}

/// Reads whether a small change was made; the session must be as before it or as after it.
async fn is_made(engine: &Engine, n: usize) -> bool {
    let record = engine.session(format!("s{n}")).unwrap().get().await.unwrap();
    let shown = record.map(|record| (record.data::<String>().unwrap(), record.touch_count()));
    let state = |data: &str, touches| Some((data.to_owned(), touches));
    let (before, after) = match n % 4 {
        0 => (state("before", 0), state("after", 0)),
        1 => (state("before", 0), state("before", 1)),
        2 => (state("before", 0), None),
        _ => (None, state("after", 0)),
    };
    assert!(shown == before || shown == after, "s{n} shows {shown:?}");
    shown == after
}

async fn huge(engine: Engine, bytes: usize) -> Answer {
    engine.session("huge")?.apply(Change::new().bytes(vec![b'x'; bytes])).await.map(drop)
}

async fn huge_is_made(engine: &Engine) -> bool {
    engine.session("huge").unwrap().get().await.unwrap().expect("it is there").bytes().len() >= LARGE_BYTES
}

/// An engine on a disk with little room, and what became of a batch.
struct Ground {
    place: Place,
    engine: Engine,
    small: Vec<Answer>,
    huge: Answer,
    /// Transactions committed meanwhile.
    commits: u64,
    disk: Arc<LittleRoom>,
    _watch: Watch,
}

impl Ground {
    /// Has small changes and a huge save share a batch.
    async fn share_a_batch(cache_bytes: u64, huge_bytes: usize, log_bytes_max: u64) -> Self {
        let place = Place::new();
        let engine = place.builder().open().await.unwrap();
        let there = (0..SMALL).filter(|n| n % 4 != 3).map(|n| format!("s{n}")).chain(["huge".to_owned()]);
        for id in there {
            engine.create(NewSession::with_id(id).data("before")).await.unwrap();
        }
        engine.shutdown().await.unwrap();
        let disk = LittleRoom::new(log_bytes_max);
        let watch = vfs::watch(&place.directory(), disk.clone());
        let clock = Arc::new(ManualClock::new(START));
        let builder = place.builder().clock(clock).cache_bytes(cache_bytes).payload_bytes_max(HUGE_BYTES);
        let engine = builder.open().await.unwrap();
        let before = engine.stats();
        let stall = Faults::of(&engine).stall();
        let mut asked: Vec<Asked> = Vec::new();
        asked.extend((0..SMALL / 2).map(|n| -> Asked { Box::pin(change(engine.clone(), n)) }));
        asked.push(Box::pin(huge(engine.clone(), huge_bytes)));
        asked.extend((SMALL / 2..SMALL).map(|n| -> Asked { Box::pin(change(engine.clone(), n)) }));
        for request in &mut asked {
            assert!(poll_once(Pin::new(request)).is_pending(), "the storage thread stands");
        }
        drop(stall);
        let mut answers = Vec::new();
        for request in asked {
            answers.push(soon("an answer", request).await);
        }
        let stats = engine.stats();
        assert_eq!(stats.batches - before.batches, 1, "they did not share a batch");
        let huge = answers.remove(SMALL / 2);
        let commits = stats.commits - before.commits;
        Self { place, engine, small: answers, huge, commits, disk, _watch: watch }
    }

    /// Shuts down and opens again: all is as it was shown, and the file is whole.
    async fn stays_so(self) {
        let mut shown = Vec::new();
        for n in 0..SMALL {
            shown.push(is_made(&self.engine, n).await);
        }
        assert!(matches!(self.engine.health(), Health::Ready), "{:?}", self.engine.health());
        soon("the shutdown", self.engine.shutdown()).await.unwrap();
        is_whole(&self.place.path());
        let engine = self.place.builder().open().await.unwrap();
        for (n, shown) in shown.into_iter().enumerate() {
            assert_eq!(is_made(&engine, n).await, shown, "s{n}");
        }
        assert!(!huge_is_made(&engine).await);
        engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_huge_save_that_finds_no_room_fails_alone() {
    for cache_bytes in [CACHE_BYTES_SMALL, CACHE_BYTES] {
        fails_alone(Ground::share_a_batch(cache_bytes, HUGE_BYTES, LOG_BYTES_MAX).await).await;
    }
}

async fn fails_alone(ground: Ground) {
    let error = ground.huge.as_ref().expect_err("there was room");
    assert!(matches!(error, Error::Storage { cause } if cause.kind == CauseKind::Full), "{error:?}");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::DidNotHappen, true));
    for (n, answer) in ground.small.iter().enumerate() {
        assert!(answer.is_ok(), "s{n}: {answer:?}");
        assert!(is_made(&ground.engine, n).await, "s{n} was acknowledged");
    }
    assert!(!huge_is_made(&ground.engine).await);
    // Each by itself, after all of them together were rolled back.
    assert!(ground.commits >= SMALL as u64, "{} commits", ground.commits);
    assert_eq!(ground.engine.stats().restarts, 0);
    ground.stays_so().await;
}

#[tokio::test]
async fn a_batch_whose_commit_finds_no_room_is_in_doubt_and_together() {
    let ground = Ground::share_a_batch(CACHE_BYTES, LARGE_BYTES, LOG_BYTES_FEW).await;
    for answer in ground.small.iter().chain([&ground.huge]) {
        let error = answer.as_ref().expect_err("there was room");
        assert!(matches!(error, Error::Interrupted { by: InterruptedBy::CommitUnknown }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    }
    assert_eq!(ground.engine.stats().restarts, 1);
    // One transaction happens or not.
    let huge_is_made = huge_is_made(&ground.engine).await;
    for n in 0..SMALL {
        assert_eq!(is_made(&ground.engine, n).await, huge_is_made, "s{n}");
    }
    // Whoever reads and asks again is served, once there is room.
    ground.disk.lift();
    for n in 0..SMALL / 2 {
        soon("an answer", change(ground.engine.clone(), n)).await.unwrap();
        assert!(is_made(&ground.engine, n).await, "s{n} was acknowledged");
    }
    ground.stays_so().await;
}
