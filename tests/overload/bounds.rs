//! Bounds met one at a time: bytes, waiters, a disk that stands.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sessile::{Change, Error, NewSession, Outcome, testing::Faults};
use sessile_tests::{Place, eventually, read, soon};

use crate::watch::watch;

/// By how much an answer may come late on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_payloads_wait_for_room_in_bytes_and_are_all_served() {
    const BYTES_MAX: usize = 64 << 20;
    let place = Place::new();
    let engine = place.builder().payload_bytes_max(8 << 20).open().await.unwrap();
    let huge = Bytes::from(vec![b'x'; 6 << 20]);
    let mut sessions = Vec::new();
    for n in 0..24 {
        sessions.push(engine.create(NewSession::with_id(format!("s{n}"))).await.unwrap());
    }
    let watching = watch(&engine);
    let stall = Faults::of(&engine).stall();
    let saving: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (session, huge) = (session.clone(), huge.clone());
            tokio::spawn(async move { session.apply(Change::new().bytes(huge)).await })
        })
        .collect();
    // Ten of them fill the room, and the others wait.
    eventually("the room is full", async || engine.stats().requests_waiting == 14).await;
    // A small one does not overtake those who wait.
    let later = tokio::spawn({
        let session = sessions[0].clone();
        async move { session.save("small").await }
    });
    eventually("it waits too", async || engine.stats().requests_waiting == 15).await;
    drop(stall);
    for saving in saving.into_iter().chain([later]) {
        soon("a save", saving).await.unwrap().unwrap();
    }
    let most = watching.end();
    println!("figure: overload kind=huge request_bytes={}/{BYTES_MAX} waiting={}", most.bytes, most.waiting);
    assert!(most.bytes > BYTES_MAX / 2 && most.bytes <= BYTES_MAX, "{most:?}");
    assert_eq!(read(&sessions[0]).await.data::<String>().unwrap(), "small");
    assert_eq!(read(&sessions[23]).await.bytes().len(), huge.len());
    assert_eq!(engine.stats().request_bytes_in_flight, 0);
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_who_wait_before_a_disk_that_stands_all_hear_at_their_deadlines() {
    const CALLERS: usize = 10_000;
    const DEADLINE: Duration = Duration::from_millis(300);
    let place = Place::new();
    let engine = place.builder().requests_max(256).open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
    let hasty = session.clone().with_deadline(DEADLINE);
    let stall = Faults::of(&engine).stall();
    let began = Instant::now();
    let saving: Vec<_> = (0..CALLERS)
        .map(|_| {
            let hasty = hasty.clone();
            tokio::spawn(async move { hasty.save("b").await })
        })
        .collect();
    let (mut overloaded, mut interrupted) = (0, 0);
    for saving in saving {
        match soon("a save", saving).await.unwrap() {
            Err(Error::Overloaded { waited }) => {
                assert!(waited >= DEADLINE / 2 && waited <= DEADLINE / 2 + LATE_MAX, "{waited:?}");
                overloaded += 1;
            }
            Err(error) => {
                assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error:?}");
                interrupted += 1;
            }
            Ok(_) => panic!("the disk stands"),
        }
    }
    let took = began.elapsed();
    println!(
        "figure: overload kind=standing_disk callers={CALLERS} overloaded={overloaded} interrupted={interrupted} \
         answered_within_ms={} hangs=0",
        took.as_millis()
    );
    assert_eq!((overloaded, interrupted), (CALLERS - 256, 256));
    assert!(took < DEADLINE + LATE_MAX, "{took:?}");
    drop(stall);
    eventually("nothing is in flight", async || engine.stats().requests_in_flight == 0).await;
    assert_eq!(read(&session).await.data::<String>().unwrap(), "b");
    session.save("c").await.unwrap();
    engine.shutdown().await.unwrap();
}
