//! More than there is room for: bounds hold, and who is turned away is turned away in time.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use sessile::{NewSession, testing::Faults};
use sessile_storage::admission::{Acquire, Admission, Bounds};
use sessile_tests::{Place, eventually, poll_once, read};

/// As many as leave at their deadline when the database stands still for a moment of high load.
const WAITERS: usize = 100_000;
/// In a debug build on a busy machine; by going through all who wait each time it would be minutes.
const LEAVING: Duration = Duration::from_secs(10);

#[test]
fn a_hundred_thousand_who_wait_leave_at_once_in_any_order() {
    let bounds = Bounds { requests_max: 1, bytes_max: 1, waiters_max: WAITERS };
    for is_reversed in [false, true] {
        let admission = Arc::new(Admission::new(bounds));
        let held = admission.try_acquire(0).unwrap();
        let mut waiting: Vec<Pin<Box<Acquire>>> = (0..WAITERS).map(|_| Box::pin(admission.acquire(0))).collect();
        for waiter in &mut waiting {
            assert!(poll_once(waiter.as_mut()).is_pending());
        }
        if is_reversed {
            waiting.reverse();
        }
        let began = Instant::now();
        drop(waiting);
        assert!(began.elapsed() < LEAVING, "{:?}", began.elapsed());
        assert_eq!(admission.load(), (1, 0, 0));
        drop(held);
    }
}

#[tokio::test]
async fn the_bound_on_actors_holds_among_many_sessions_without() {
    let place = Place::new();
    let engine = place.builder().live_sessions_max(20).open().await.unwrap();
    for n in 0..3_000 {
        let session = engine.create(NewSession::with_id(format!("s{n}")).data(&n)).await.unwrap();
        // In memory, and without an actor.
        session.touch().await.unwrap();
    }
    for n in 0..1_000 {
        engine.session(format!("s{n}")).unwrap().save(&(n + 1)).await.unwrap();
    }
    // The others are still there.
    assert!(engine.stats().sessions_in_memory >= 2_000);
    eventually("those too many have ended", async || engine.stats().live_sessions <= 20).await;
}

#[tokio::test]
async fn the_smallest_bounds_hold_too() {
    let place = Place::new();
    let engine = place.builder().live_sessions_max(1).sessions_in_memory_max(1).open().await.unwrap();
    for n in 0..500 {
        let session = engine.create(NewSession::with_id(format!("s{n}")).data(&n)).await.unwrap();
        session.save(&(n + 1)).await.unwrap();
        session.touch().await.unwrap();
    }
    assert!(engine.stats().sessions_in_memory <= 1, "{}", engine.stats().sessions_in_memory);
    eventually("those too many have ended", async || engine.stats().live_sessions <= 1).await;
    for n in 0..500 {
        assert_eq!(read(&engine.session(format!("s{n}")).unwrap()).await.touch_count(), 1);
    }
}

#[tokio::test]
async fn ids_that_are_no_sessions_keep_nothing_in_memory() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    for n in 0..200 {
        let session = engine.session(format!("guess {n}")).unwrap();
        assert!(session.get().await.unwrap().is_none());
        session.touch().await.unwrap_err();
        session.save("x").await.unwrap_err();
        session.update(|_: &mut String| ()).await.unwrap_err();
        assert!(!session.delete().await.unwrap());
    }
    // A deletion leaves a slot, which goes with its next use or with time.
    assert!(engine.stats().sessions_in_memory <= 200);
    for n in 0..200 {
        assert!(engine.session(format!("guess {n}")).unwrap().get().await.unwrap().is_none());
    }
    assert_eq!(engine.stats().sessions_in_memory, 0);
    eventually("their actors have ended", async || engine.stats().live_sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_take_room_for_what_they_have_come_to() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("")).await.unwrap();
    read(&session).await;
    let stall = Faults::of(&engine).stall();
    let mut updating = pin!(session.update(|data: &mut String| *data = "x".repeat(100_000)));
    assert!(poll_once(updating.as_mut()).is_pending());
    eventually("it is weighed", async || engine.stats().request_bytes_in_flight >= 100_000).await;
    drop(stall);
    updating.await.unwrap();
    assert_eq!(engine.stats().request_bytes_in_flight, 0);
    // From now on from the beginning.
    let stall = Faults::of(&engine).stall();
    let mut updating = pin!(session.update(String::clear));
    assert!(poll_once(updating.as_mut()).is_pending());
    assert!(engine.stats().request_bytes_in_flight >= 100_000);
    drop(stall);
    updating.await.unwrap();
}
