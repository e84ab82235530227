//! Admission: the bounds hold, nobody waits for ever, and nobody is overtaken (R16, R18).

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use loom::{
    future::block_on,
    thread::{self, JoinHandle},
};

use crate::{
    admission::{Admission, Bounds, Permit, Refused},
    explore::{
        Preemptions::{AtMost, Unbounded},
        explore,
    },
    join,
    sync::{Arc, AtomicBool, AtomicUsize, Ordering},
};

fn admission(requests_max: usize, bytes_max: usize) -> Arc<Admission> {
    Arc::new(Admission::new(Bounds { requests_max, bytes_max, waiters_max: 8 }))
}

fn acquire(admission: &Arc<Admission>, bytes: usize) -> Result<Permit, Refused> {
    block_on(admission.acquire(bytes))
}

/// Polls once.
fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    let mut future = Some(future);
    block_on(poll_fn(|context| {
        Poll::Ready(match future.take().map(|future| future.poll(context)) {
            Some(Poll::Ready(output)) => Some(output),
            _ => None,
        })
    }))
}

fn spawn<T: 'static>(admission: &Arc<Admission>, body: impl FnOnce(&Arc<Admission>) -> T + 'static) -> JoinHandle<T> {
    let admission = Arc::clone(admission);
    thread::spawn(move || body(&admission))
}

fn assert_within_bounds(admission: &Admission, requests_max: usize, bytes_max: usize) {
    let (requests, bytes, _) = admission.load();
    assert!((1..=requests_max).contains(&requests) && bytes <= bytes_max, "{requests} requests of {bytes} bytes");
}

#[test]
fn everybody_is_served_within_the_bounds() {
    explore(AtMost(4), || {
        let admission = admission(2, 4);
        // Two of three fit by their number, and not every two by their bytes.
        let request = |bytes| {
            move |admission: &Arc<Admission>| {
                let permit = acquire(admission, bytes).expect("it is open");
                assert_within_bounds(admission, 2, 4);
                drop(permit);
            }
        };
        join([spawn(&admission, request(3)), spawn(&admission, request(2)), spawn(&admission, request(1))]);
        assert_eq!(admission.load(), (0, 0, 0));
    });
}

mutant!(release_without_grant:
    "admission: a release grants the head of the queue"
    is killed by everybody_is_served_within_the_bounds);

#[test]
fn a_waiter_that_goes_leaves_its_room_to_the_next() {
    explore(AtMost(4), || {
        let admission = admission(1, 4);
        let impatient = spawn(&admission, |admission| {
            // Dropped while it waits, or after it was granted, or with its permit.
            drop(poll(pin!(admission.acquire(1))));
        });
        let patient = |admission: &Arc<Admission>| drop(acquire(admission, 1).expect("it is open"));
        let others = [spawn(&admission, patient), spawn(&admission, patient)];
        impatient.join().unwrap();
        join(others);
        assert_eq!(admission.load(), (0, 0, 0));
    });
}

mutant!(keep_the_room_of_who_went:
    "admission: a granted waiter that is dropped gives its room back"
    is killed by a_waiter_that_goes_leaves_its_room_to_the_next);

#[test]
fn a_large_waiter_that_goes_lets_the_small_ones_behind_it_in() {
    explore(AtMost(3), || {
        let admission = admission(3, 4);
        let held = admission.try_acquire(2).expect("it is empty");
        let mut large = Box::pin(admission.acquire(4));
        assert!(poll(large.as_mut()).is_none());
        let small = spawn(&admission, |admission| acquire(admission, 1).map(drop));
        let goes = thread::spawn(move || drop(large));
        goes.join().unwrap();
        // There is room for the small one though nothing was released.
        assert!(small.join().unwrap().is_ok());
        drop(held);
        assert_eq!(admission.load(), (0, 0, 0));
    });
}

mutant!(go_without_a_word:
    "admission: a release grants the head of the queue"
    is killed by a_large_waiter_that_goes_lets_the_small_ones_behind_it_in);

#[test]
fn the_first_to_wait_is_the_first_served() {
    explore(AtMost(3), || {
        let admission = admission(1, 4);
        let held = admission.try_acquire(1).expect("it is empty");
        let (mut first, mut second) = (Box::pin(admission.acquire(1)), Box::pin(admission.acquire(1)));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        let is_served = Arc::new(AtomicBool::new(false));
        let serves = Arc::clone(&is_served);
        let second = thread::spawn(move || {
            let permit = block_on(second);
            assert!(is_served.load(Ordering::Relaxed), "overtaken");
            drop(permit);
        });
        let first = thread::spawn(move || {
            let permit = block_on(first);
            serves.store(true, Ordering::Relaxed);
            drop(permit);
        });
        let release = thread::spawn(move || drop(held));
        join([second, first, release]);
    });
}

mutant!(serve_nobody:
    "admission: a release grants the head of the queue"
    is killed by the_first_to_wait_is_the_first_served);

#[test]
fn a_small_request_does_not_overtake_a_large_one_that_waits() {
    explore(Unbounded, || {
        let admission = admission(3, 4);
        let held = admission.try_acquire(3).expect("it is empty");
        let mut large = Box::pin(admission.acquire(3));
        assert!(poll(large.as_mut()).is_none());
        let is_released = Arc::new(AtomicBool::new(false));
        let releases = Arc::clone(&is_released);
        let release = thread::spawn(move || {
            releases.store(true, Ordering::Relaxed);
            drop(held);
        });
        // One byte would fit beside the three that are held.
        let small = spawn(&admission, move |admission| {
            if let Ok(permit) = admission.try_acquire(1) {
                assert!(is_released.load(Ordering::Relaxed), "overtaken");
                drop(permit);
            }
        });
        join([release, small]);
        assert!(matches!(poll(large.as_mut()), Some(Ok(_))));
    });
}

mutant!(overtake:
    "admission: nobody overtakes the queue"
    is killed by a_small_request_does_not_overtake_a_large_one_that_waits);

/// Counts the end of an admission that is closed with [`End::word`].
#[derive(Clone)]
struct End(Arc<AtomicUsize>);

impl End {
    fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(0)))
    }

    fn word(&self) -> impl FnOnce() + Send + 'static {
        let end = self.clone();
        move || {
            end.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

#[test]
fn closing_answers_who_waits_and_the_last_one_out_tells_of_the_end() {
    explore(AtMost(3), || {
        let (admission, end) = (admission(1, 4), End::new());
        let request = |end: End| {
            move |admission: &Arc<Admission>| match acquire(admission, 1) {
                Ok(permit) => {
                    assert_eq!(end.times(), 0, "the end with a request in flight");
                    drop(permit);
                }
                Err(refused) => assert_eq!(refused, Refused::Closed),
            }
        };
        let requests = [spawn(&admission, request(end.clone())), spawn(&admission, request(end.clone()))];
        let word = end.word();
        let close = spawn(&admission, |admission| admission.close(word));
        // Only one is heard.
        admission.close(end.word());
        join(requests);
        close.join().unwrap();
        assert!(matches!(admission.try_acquire(1), Err(Refused::Closed)));
        assert_eq!((admission.load(), end.times()), ((0, 0, 0), 1));
    });
}

mutant!(end_without_a_word:
    "admission: the last permit tells of the end"
    is killed by closing_answers_who_waits_and_the_last_one_out_tells_of_the_end);
mutant!(end_with_requests_in_flight:
    "admission: the end waits for what is in flight"
    is killed by closing_answers_who_waits_and_the_last_one_out_tells_of_the_end);

#[test]
fn closing_wakes_who_waits_behind_a_request_that_stays() {
    explore(Unbounded, || {
        let (admission, end) = (admission(1, 4), End::new());
        let held = admission.try_acquire(1).expect("it is empty");
        let waiter = spawn(&admission, |admission| acquire(admission, 1).err());
        let word = end.word();
        let close = spawn(&admission, |admission| admission.close(word));
        assert_eq!(waiter.join().unwrap(), Some(Refused::Closed));
        close.join().unwrap();
        assert_eq!(end.times(), 0);
        drop(held);
        assert_eq!(end.times(), 1);
    });
}

mutant!(close_without_a_word:
    "admission: closing wakes those who wait"
    is killed by closing_wakes_who_waits_behind_a_request_that_stays);
