//! tokio's runtimes: what they run ends with them, and what of them is left outside does no harm then.
//!
//! What rests on it: actors and the engine's own tasks end with the engine's runtime, whose handle the engine keeps; the
//! storage thread wakes callers whose runtimes may be gone; deadlines are told by a timer of a runtime that may be gone.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use sessile_tests::{PATIENCE, poll_once, soon};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
};

use crate::witness::Counted;

/// Often, where threads meet: they do so in different ways.
const RUNS: usize = 100;
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

/// The kinds of runtime that there are.
const KINDS: [fn() -> Builder; 2] = [Builder::new_current_thread, || {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2);
    builder
}];

fn runtime(kind: fn() -> Builder) -> Runtime {
    kind().enable_time().build().expect("a runtime")
}

/// Waits, on a thread without a runtime.
fn comes(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "not within {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

/// What is seen of tasks.
#[derive(Debug, Default, Clone)]
struct Seen {
    polls: Arc<AtomicUsize>,
    ends: Arc<AtomicUsize>,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// A task that is never done, and leaves its waker where others find it.
struct Endless {
    seen: Seen,
    _ends: Counted,
}

impl Seen {
    fn endless(&self) -> Endless {
        Endless { seen: self.clone(), _ends: Counted::by(&self.ends) }
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }

    fn ends(&self) -> usize {
        self.ends.load(Ordering::SeqCst)
    }

    fn waker(&self) -> Option<Waker> {
        self.waker.lock().expect("no panic").clone()
    }
}

impl Future for Endless {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.seen.polls.fetch_add(1, Ordering::SeqCst);
        *self.seen.waker.lock().expect("no panic") = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Starts an endless task and waits until it waits.
fn start(runtime: &Runtime, seen: &Seen) {
    drop(runtime.spawn(seen.endless()));
    runtime.block_on(async {
        while seen.waker().is_none() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn what_a_runtime_runs_is_dropped_with_it() {
    type EndIt = fn(Runtime);
    let ends: [EndIt; 3] = [drop, |runtime| runtime.shutdown_timeout(PATIENCE), Runtime::shutdown_background];
    for kind in KINDS {
        for end in ends {
            let (runtime, seen) = (runtime(kind), Seen::default());
            start(&runtime, &seen);
            // This one was hardly ever polled.
            drop(runtime.spawn(seen.endless()));
            assert_eq!(seen.ends(), 0, "nobody drops a task whose handle is dropped");
            end(runtime);
            // The last of the three ways does not wait for it.
            comes("both are dropped", || seen.ends() == 2);
        }
    }
}

#[test]
fn what_is_spawned_on_a_runtime_that_is_gone_is_dropped_at_once() {
    for kind in KINDS {
        let (runtime, seen) = (runtime(kind), Seen::default());
        let handle = runtime.handle().clone();
        drop(runtime);
        drop(handle.spawn(seen.endless()));
        assert_eq!((seen.polls(), seen.ends()), (0, 1));
        let _context = handle.enter();
        drop(tokio::spawn(seen.endless()));
        assert_eq!((seen.polls(), seen.ends()), (0, 2));
    }
}

#[test]
fn what_is_spawned_while_a_runtime_ends_is_dropped_by_one_or_the_other() {
    const TASKS: usize = 20;
    for kind in KINDS {
        for _ in 0..RUNS {
            let (runtime, seen) = (runtime(kind), Seen::default());
            let spawned = Arc::new(AtomicUsize::new(0));
            let spawners = [(); 2].map(|()| {
                let (handle, seen, spawned) = (runtime.handle().clone(), seen.clone(), Arc::clone(&spawned));
                thread::spawn(move || {
                    for _ in 0..TASKS {
                        drop(handle.spawn(seen.endless()));
                        spawned.fetch_add(1, Ordering::SeqCst);
                    }
                })
            });
            comes("some are spawned", || spawned.load(Ordering::SeqCst) > 5);
            drop(runtime);
            for spawner in spawners {
                spawner.join().expect("no panic");
            }
            assert_eq!(seen.ends(), 2 * TASKS);
        }
    }
}

#[test]
fn a_waker_whose_runtime_is_gone_wakes_nobody_and_does_no_harm() {
    for kind in KINDS {
        let (runtime, seen) = (runtime(kind), Seen::default());
        start(&runtime, &seen);
        let (waker, polls) = (seen.waker().expect("it was polled"), seen.polls());
        drop(runtime);
        assert_eq!(seen.ends(), 1, "a waker keeps a task");
        waker.wake_by_ref();
        let other = waker.clone();
        thread::spawn(move || other.wake()).join().expect("no panic");
        waker.wake();
        assert_eq!(seen.polls(), polls);
    }
}

#[test]
fn a_waker_may_be_called_while_its_runtime_ends() {
    for kind in KINDS {
        for _ in 0..RUNS {
            let (runtime, seen) = (runtime(kind), Seen::default());
            start(&runtime, &seen);
            let is_over = Arc::new(AtomicBool::new(false));
            let wakers = [(); 2].map(|()| {
                let (waker, is_over) = (seen.waker().expect("it was polled"), Arc::clone(&is_over));
                thread::spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        waker.wake_by_ref();
                    }
                })
            });
            drop(runtime);
            assert_eq!(seen.ends(), 1);
            is_over.store(true, Ordering::SeqCst);
            for waker in wakers {
                waker.join().expect("no panic");
            }
        }
    }
}

/// Counts how often it is called.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls a timer as the router does; true if it still waits.
fn waits(timer: Pin<&mut tokio::time::Sleep>, calls: &Arc<Calls>) -> bool {
    let waker = Waker::from(Arc::clone(calls));
    let polled = catch_unwind(AssertUnwindSafe(|| timer.poll(&mut Context::from_waker(&waker))));
    matches!(polled, Ok(Poll::Pending))
}

#[test]
fn a_timer_whose_runtime_ends_wakes_who_waits_and_waits_no_more() {
    for kind in KINDS {
        let runtime = runtime(kind);
        let mut timer = {
            let _context = runtime.enter();
            Box::pin(tokio::time::sleep(LONG))
        };
        let calls = Arc::new(Calls::default());
        assert!(waits(timer.as_mut(), &calls), "it lasts an hour");
        drop(runtime);
        assert!(calls.0.load(Ordering::SeqCst) > 0, "nobody tells who waits");
        assert!(!waits(timer.as_mut(), &calls), "it waits for a time that nobody tells");
    }
}

#[test]
fn a_timer_may_be_made_on_a_runtime_that_is_gone_and_does_not_wait() {
    for kind in KINDS {
        let handle = runtime(kind).handle().clone();
        let _context = handle.enter();
        let mut timer = pin!(tokio::time::sleep(LONG));
        assert!(!waits(timer.as_mut(), &Arc::default()), "it waits for a time that nobody tells");
    }
}

#[test]
fn a_timer_cannot_be_made_on_a_runtime_without_one() {
    for kind in KINDS {
        let runtime = kind().build().expect("a runtime");
        let _context = runtime.enter();
        assert!(catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_err(), "the builder asks by this");
    }
}

#[tokio::test]
async fn who_waits_for_a_sender_hears_what_it_said_last_or_that_it_is_gone() {
    // As the end of the storage thread is told: by a thread without a runtime.
    let (sender, mut ended) = watch::channel(false);
    let mut too = ended.clone();
    let mut early = Box::pin(too.wait_for(|ended| *ended));
    assert!(poll_once(early.as_mut()).is_pending());
    thread::spawn(move || sender.send_replace(true));
    assert!(*soon("the word", early).await.expect("it was said"));
    // And later, too, when the sender is long gone.
    assert!(*soon("the word", ended.wait_for(|ended| *ended)).await.expect("it was said"));
    let (sender, mut ended) = watch::channel(false);
    thread::spawn(move || drop(sender));
    soon("the end of the sender", ended.wait_for(|ended| *ended)).await.expect_err("nothing was said");
    // As the outcome of opening is told.
    let (sender, opened) = oneshot::channel::<()>();
    thread::spawn(move || drop(sender));
    soon("the end of the sender", opened).await.expect_err("nothing was said");
}
