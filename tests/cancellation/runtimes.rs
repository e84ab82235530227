//! Runtimes that end: the engine's own while others wait, all of them, one of one thread; and callers without any.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use sessile::{Change, Durability, Engine, Error, Filter, NewSession, Query, Session, testing::Faults};
use sessile_tests::{
    PATIENCE, Place, eventually, poll_once,
    process::{Possessions, alone, descriptors_in},
    read,
};
use tokio::runtime::Runtime;

/// Above what a request takes on a busy machine, and below the patience of the test.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

fn many() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime")
}

fn single() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Opens an engine whose actors live on `home`.
fn open(place: &Place, home: &Runtime) -> (Engine, Session) {
    home.block_on(async {
        let engine = place.builder().requests_max(32).request_timeout(REQUEST_TIMEOUT).open().await.expect("it opens");
        let session = engine.create(NewSession::with_id("a").data(&0)).await.expect("it is created");
        session.update(|n: &mut i32| *n += 1).await.expect("it is updated");
        (engine, session)
    })
}

fn is_free(place: &Place) {
    let runtime = single();
    let engine = runtime.block_on(place.open_when_free());
    let record = runtime.block_on(read(&engine.session("a").expect("a valid id")));
    assert!(record.data::<i32>().expect("a number") >= 1);
    runtime.block_on(engine.shutdown()).expect("it shuts down");
    let give_up = Instant::now() + PATIENCE;
    while !descriptors_in(&place.directory()).is_empty() {
        assert!(Instant::now() < give_up, "descriptors stay");
        thread::yield_now();
    }
}

type Asked = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Requests of every way through the engine.
fn requests(engine: &Engine, session: &Session) -> Vec<(&'static str, Asked)> {
    fn asked(future: impl Future<Output = Result<(), Error>> + Send + 'static) -> Asked {
        Box::pin(future)
    }
    let (e, s) = (|| engine.clone(), || session.clone());
    let other = engine.session("other").expect("a valid id");
    vec![
        (
            "update",
            asked({
                let s = s();
                async move { s.update(|n: &mut i32| *n += 1).await }
            }),
        ),
        (
            "save",
            asked({
                let s = s();
                async move { s.save(&9).await.map(drop) }
            }),
        ),
        (
            "apply",
            asked({
                let s = s();
                async move { s.apply(Change::new().user("ada")).await.map(drop) }
            }),
        ),
        (
            "touch_with",
            asked({
                let s = s();
                async move { s.touch_with(Durability::Synced).await }
            }),
        ),
        ("get", asked(async move { other.get().await.map(drop) })),
        (
            "create",
            asked({
                let e = e();
                async move { e.create(NewSession::with_id("b")).await.map(drop) }
            }),
        ),
        (
            "list",
            asked({
                let e = e();
                async move { e.list(Query::new(Filter::all())).await.map(drop) }
            }),
        ),
        (
            "count",
            asked({
                let e = e();
                async move { e.count(Filter::all()).await.map(drop) }
            }),
        ),
        (
            "flush",
            asked({
                let e = e();
                async move { e.flush().await }
            }),
        ),
    ]
}

/// Waits for futures on a thread each, by a runtime each.
fn wait_on_threads(requests: Vec<(&'static str, Asked)>) -> Vec<(&'static str, thread::JoinHandle<Result<(), Error>>)> {
    requests.into_iter().map(|(name, request)| (name, thread::spawn(move || single().block_on(request)))).collect()
}

#[test]
fn the_engines_runtime_dropped_while_callers_elsewhere_wait_leaves_none_of_them_waiting() {
    for full in [false, true] {
        let (place, home) = (Place::new(), many());
        let (engine, session) = open(&place, &home);
        let faults = Faults::of(&engine);
        let (stall, overload) = (faults.stall(), full.then(|| faults.overload()));
        let began = Instant::now();
        let callers = wait_on_threads(requests(&engine, &session));
        let expected = callers.len();
        while engine.stats().requests_in_flight < expected && engine.stats().requests_waiting < expected {
            assert!(began.elapsed() < PATIENCE, "not all are under way: {:?}", engine.stats());
            thread::yield_now();
        }
        home.shutdown_timeout(PATIENCE);
        for (name, caller) in callers {
            let answer = caller.join().unwrap_or_else(|_| panic!("{name} panicked in its caller's face"));
            let error = answer.expect_err("storage stands");
            let fits = match &error {
                Error::Overloaded { .. } => full,
                Error::Interrupted { .. } | Error::Unavailable { .. } => !full,
                _ => false,
            };
            assert!(fits, "{name}: {error:?}");
        }
        assert!(began.elapsed() < REQUEST_TIMEOUT + PATIENCE, "they waited past their deadlines");
        drop((stall, overload));
        let elsewhere = single();
        elsewhere.block_on(engine.shutdown()).expect("it needs no runtime to close");
        drop((engine, session, faults));
        is_free(&place);
    }
}

#[test]
fn an_engine_whose_runtime_is_gone_answers_every_request() {
    let (place, home) = (Place::new(), many());
    let (engine, session) = open(&place, &home);
    drop(home);
    let elsewhere = single();
    for (name, request) in requests(&engine, &session) {
        let began = Instant::now();
        let answer = elsewhere.block_on(request);
        assert!(began.elapsed() < REQUEST_TIMEOUT + PATIENCE, "{name} waited past its deadline");
        // Served by storage alone, or told that it is not; never a panic, never a hang.
        if let Err(error) = answer {
            assert!(matches!(error, Error::Unavailable { .. } | Error::Interrupted { .. }), "{name}: {error:?}");
        }
    }
    // What needs neither actor nor storage is served.
    elsewhere.block_on(engine.shutdown()).expect("it needs no runtime to close");
    drop((engine, session));
    is_free(&place);
}

#[test]
fn all_runtimes_dropped_with_requests_in_flight_leave_nothing_behind() {
    alone(|| {
        let before = Possessions::now();
        for stands in [false, true] {
            let (place, home, elsewhere) = (Place::new(), many(), many());
            let (engine, session) = open(&place, &home);
            let stall = stands.then(|| Faults::of(&engine).stall());
            let under_way = requests(&engine, &session);
            let tasks: Vec<_> = under_way.into_iter().map(|(_, request)| elsewhere.spawn(request)).collect();
            if stands {
                let began = Instant::now();
                while engine.stats().requests_in_flight < tasks.len() {
                    assert!(began.elapsed() < PATIENCE, "{:?}", engine.stats());
                    thread::yield_now();
                }
            }
            drop(tasks);
            drop(home);
            drop(elsewhere);
            drop((engine, session));
            drop(stall);
            is_free(&place);
        }
        before.are_back();
    });
}

#[test]
fn a_runtime_of_one_thread_serves_its_own_callers_and_may_end_with_all_handles_in_it() {
    alone(|| {
        let before = Possessions::now();
        let place = Place::new();
        let home = single();
        home.block_on(async {
            let engine = place.builder().open().await.expect("it opens");
            let session = engine.create(NewSession::with_id("a").data(&0)).await.expect("it is created");
            for _ in 0..16 {
                let session = session.clone();
                // Never awaited: the runtime ends with them.
                drop(tokio::spawn(async move { session.update(|n: &mut i32| *n += 1).await }));
            }
            session.update(|n: &mut i32| *n += 1).await.expect("it is updated");
        });
        drop(home);
        is_free(&place);
        before.are_back();
    });
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future as a plain thread does, without any runtime.
fn wait_plainly<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn plain_threads_without_a_runtime_are_served_and_their_deadlines_hold() {
    let (place, home) = (Place::new(), many());
    let (engine, session) = open(&place, &home);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let session = session.clone();
            thread::spawn(move || {
                for _ in 0..25 {
                    wait_plainly(session.update(|n: &mut i32| *n += 1)).expect("it is updated");
                    wait_plainly(session.touch()).expect("it is counted");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let record = wait_plainly(session.get()).expect("it can be read").expect("it is there");
    assert_eq!((record.data::<i32>().expect("a number"), record.touch_count()), (201, 200));
    let stall = Faults::of(&engine).stall();
    let hasty = session.clone().with_deadline(Duration::from_millis(20));
    assert!(matches!(wait_plainly(hasty.save(&1)), Err(Error::Interrupted { .. })));
    drop(stall);
    wait_plainly(engine.shutdown()).expect("it shuts down");
}

/// Past the deadline below, and past a flush interval.
const LONG_PAST: Duration = Duration::from_millis(400);

#[test]
fn while_nobody_drives_a_runtime_of_one_thread_storage_goes_on_and_no_deadline_ends_a_wait() {
    let (place, home, elsewhere) = (Place::new(), single(), many());
    let (engine, session) = open(&place, &home);
    let hasty = session.clone().with_deadline(Duration::from_millis(20));
    elsewhere.block_on(async {
        session.save(&2).await.expect("it is saved");
        engine.create(NewSession::with_id("b")).await.expect("it is created");
        let flushed = engine.stats().rows_flushed;
        session.touch().await.expect("it is counted");
        eventually("the touch is flushed", async || engine.stats().rows_flushed > flushed).await;
        let stall = Faults::of(&engine).stall();
        let mut saving = pin!(hasty.save(&3));
        tokio::time::timeout(LONG_PAST, &mut saving).await.expect_err("nobody tells the deadline");
        drop(stall);
        saving.await.expect("it is saved");
    });
    let mut updating = elsewhere.spawn({
        let session = session.clone();
        async move { session.update(|n: &mut i32| *n += 1).await }
    });
    let early = elsewhere.block_on(async { tokio::time::timeout(LONG_PAST, &mut updating).await });
    assert!(early.is_err(), "by an actor that does not run");
    home.block_on(updating).expect("no panic").expect("it is updated once somebody drives it");
    let stall = Faults::of(&engine).stall();
    assert!(matches!(home.block_on(hasty.save(&5)), Err(Error::Interrupted { .. })));
    drop(stall);
    home.block_on(engine.shutdown()).expect("it shuts down");
}

#[test]
fn a_runtime_that_ends_between_admission_and_answer_strands_no_session() {
    // The actor dies with a message in its mailbox, its slot with it: the next engine and the next caller find all well.
    for _ in 0..8 {
        let (place, home) = (Place::new(), many());
        let (engine, session) = open(&place, &home);
        let updates: Vec<_> = (0..16)
            .map(|_| {
                let mut update = Box::pin(session.update(|n: &mut i32| *n += 1));
                // It may be answered before this thread has looked.
                (poll_once(update.as_mut()), update)
            })
            .collect();
        home.shutdown_background();
        let answers: Vec<_> = updates
            .into_iter()
            .map(|(polled, update)| match polled {
                Poll::Ready(answer) => answer,
                Poll::Pending => single().block_on(update),
            })
            .collect();
        let served = i32::try_from(answers.iter().filter(|answer| answer.is_ok()).count()).expect("a few");
        single().block_on(engine.shutdown()).expect("it shuts down");
        drop((engine, session));
        let runtime = single();
        let engine = runtime.block_on(place.open_when_free());
        let n = runtime.block_on(read(&engine.session("a").expect("a valid id"))).data::<i32>().expect("a number");
        let refused = answers.iter().filter(|answer| matches!(answer, Err(Error::Unavailable { .. }))).count();
        let most = 17 - i32::try_from(refused).expect("a few");
        assert!((1 + served..=most).contains(&n), "{n} after {answers:?}");
    }
}
