//! The last handle, dropped wherever one may be: with requests in flight or without, in a worker of a runtime, outside of
//! any, on the storage thread itself. What was admitted is served, the file is let go, nothing is left behind.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use sessile::{Change, Durability, Engine, Error, NewSession, Session, testing::Faults};
use sessile_tests::{
    PATIENCE, Place, eventually, poll_once,
    process::{Possessions, alone, descriptors_in},
    read, soon,
};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

async fn open(place: &Place) -> (Engine, Session) {
    let engine = place.builder().open().await.expect("it opens");
    let session = engine.get_or_create(NewSession::with_id("a").data(&0)).await.expect("it is there").0;
    (engine, session)
}

/// Waits until the file is let go; returns what its session holds.
async fn outcome(place: &Place) -> (i32, u64) {
    let engine = soon("the file", place.open_when_free()).await;
    let record = read(&engine.session("a").expect("a valid id")).await;
    engine.shutdown().await.expect("it shuts down");
    eventually("nothing of the file is open", async || descriptors_in(&place.directory()).is_empty()).await;
    (record.data().expect("a number"), record.touch_count())
}

/// Runs what may stand for ever, with an end to waiting.
fn within_patience(what: &str, work: impl FnOnce() + Send + 'static) {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        work();
        sender.send(()).expect("somebody waits");
    });
    done.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_dropped_with_requests_in_flight_lets_them_proceed() {
    for stands in [false, true] {
        let place = Place::new();
        let (engine, session) = open(&place).await;
        session.touch().await.expect("it is counted");
        let stall = stands.then(|| Faults::of(&engine).stall());
        {
            let mut update = Box::pin(session.update(|n: &mut i32| *n += 1));
            let mut touch = Box::pin(session.touch_with(Durability::Synced));
            let mut apply = Box::pin(session.apply(Change::new().user("ada")));
            // Where nothing stands they may be answered before this thread has looked.
            assert!(poll_once(update.as_mut()).is_pending() || !stands);
            assert!(poll_once(touch.as_mut()).is_pending() || !stands);
            assert!(poll_once(apply.as_mut()).is_pending() || !stands);
        }
        drop((engine, session));
        drop(stall);
        assert_eq!(outcome(&place).await, (1, 2), "storage stands: {stands}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_dropped_with_callers_waiting_for_room_ends_them() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let overload = Faults::of(&engine).overload();
    let mut waiting: Vec<_> = (0..8)
        .map(|_| {
            let session = session.clone();
            Box::pin(async move { session.update(|n: &mut i32| *n += 1).await })
        })
        .collect();
    for one in &mut waiting {
        assert!(poll_once(one.as_mut()).is_pending());
    }
    drop((engine, session));
    drop(waiting);
    drop(overload);
    assert_eq!(outcome(&place).await, (0, 0));
}

#[test]
fn handles_dropped_by_turns_leave_no_thread_and_no_descriptor() {
    alone(|| {
        let before = Possessions::now();
        for round in 0..12 {
            let place = Place::new();
            let runtime = runtime();
            let (engine, session) = runtime.block_on(open(&place));
            runtime.block_on(session.touch()).expect("it is counted");
            let drop_all = move || drop((engine, session));
            match round % 4 {
                // In a worker of the runtime.
                0 => runtime.block_on(async { tokio::spawn(async move { drop_all() }).await.expect("no panic") }),
                // Outside of any.
                1 => drop_all(),
                // On a thread of nobody.
                2 => thread::spawn(drop_all).join().expect("no panic"),
                // Where blocking is allowed.
                _ => runtime.block_on(runtime.spawn_blocking(drop_all)).expect("no panic"),
            }
            assert_eq!(runtime.block_on(outcome(&place)), (0, 1));
            drop(runtime);
        }
        before.are_back();
        println!("figure: handles rounds=12 threads_left=0 descriptors_left=0");
    });
}

#[tokio::test]
async fn the_last_handle_dropped_on_a_runtime_of_one_thread_lets_the_file_go() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let stall = Faults::of(&engine).stall();
    let update = tokio::spawn({
        let session = session.clone();
        async move { session.update(|n: &mut i32| *n += 1).await }
    });
    drop((engine, session));
    drop(stall);
    soon("the update", update).await.expect("no panic").expect("it is made");
    assert_eq!(outcome(&place).await, (1, 0));
}

type Errand = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A waker that drops the very future that it is for, with the last handle in it.
struct DropsAll(Mutex<Option<Errand>>);

impl Wake for DropsAll {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl DropsAll {
    /// Polls an errand for the first time, which must leave it waiting.
    fn begin(mut errand: Errand) -> Arc<Self> {
        let this = Arc::new(Self(Mutex::new(None)));
        let waker = Waker::from(Arc::clone(&this));
        // Held while polling: a wake meanwhile finds the future there afterwards.
        let mut place = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(errand.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        *place = Some(errand);
        drop(place);
        this
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_dropped_on_the_storage_threads_way_to_an_answer_closes_the_engine() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let stall = Faults::of(&engine).stall();
    let save = DropsAll::begin(Box::pin(async move { session.save(&7).await.map(drop) }));
    drop(engine);
    // The storage thread answers, wakes, and so drops the last handle itself.
    drop(stall);
    eventually("the future is gone", async || save.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()).await;
    assert_eq!(outcome(&place).await, (7, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_dropped_by_a_grant_of_room_closes_the_engine() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let overload = Faults::of(&engine).overload();
    let save = DropsAll::begin(Box::pin(async move { session.save(&7).await.map(drop) }));
    drop(engine);
    // Whoever gives room back wakes the one who waits for it, who goes away with what was granted.
    within_patience("the room is given back", move || drop(overload));
    assert!(save.0.lock().unwrap_or_else(PoisonError::into_inner).is_none());
    assert_eq!(outcome(&place).await, (0, 0));
}

/// A waker that looks at the engine when it is dropped, as does one that keeps a task with a handle in it.
struct LooksAtTheEnd {
    engine: Engine,
    is_woken: Arc<AtomicBool>,
}

impl Wake for LooksAtTheEnd {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
    }
}

impl Drop for LooksAtTheEnd {
    fn drop(&mut self) {
        assert!(self.engine.stats().requests_waiting <= 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waker_may_use_the_engine_when_it_is_dropped() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let overload = Faults::of(&engine).overload();
    let hasty = session.with_deadline(Duration::from_millis(20));
    let is_woken = Arc::new(AtomicBool::new(false));
    let looks = {
        let (engine, is_woken) = (engine.clone(), Arc::clone(&is_woken));
        move || Waker::from(Arc::new(LooksAtTheEnd { engine: engine.clone(), is_woken: Arc::clone(&is_woken) }))
    };
    within_patience("a waker is replaced, and dropped with its future", move || {
        for is_polled_again in [true, false] {
            is_woken.store(false, Ordering::SeqCst);
            let mut save = Box::pin(hasty.save(&7));
            assert!(save.as_mut().poll(&mut Context::from_waker(&looks())).is_pending());
            // The timer lets go of its own, and the place in the queue keeps the last.
            while !is_woken.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            if is_polled_again {
                let answer = save.as_mut().poll(&mut Context::from_waker(&looks()));
                assert!(matches!(answer, Poll::Ready(Err(Error::Overloaded { .. }))), "{answer:?}");
            }
        }
    });
    drop((engine, overload));
    assert_eq!(outcome(&place).await, (0, 0));
}
