//! Too much at once: a handle waits for half of its deadline, a message is turned away at once.

use std::time::{Duration, Instant};

use ractor::call;
use sessile::{
    Change, Data, Durability, Engine, Error, Filter, NewSession, Outcome, Query, Session, SessionId,
    actor::EngineMessage, testing::Faults,
};
use sessile_tests::{Place, eventually, poll_once, read, soon};

const DEADLINE: Duration = Duration::from_millis(60);
/// For so much of it a request waits for room; the rest is for its answer.
const WAIT: Duration = Duration::from_millis(30);

async fn engine(place: &Place) -> (Engine, Session) {
    let engine = place.builder().requests_max(4).request_timeout(Duration::from_secs(5)).open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
    (engine, session)
}

fn is_overloaded(error: &Error, at_least: Duration) {
    assert!(matches!(error, Error::Overloaded { waited } if *waited >= at_least), "{error:?}");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::DidNotHappen, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_waits_for_room_for_half_of_its_deadline() {
    let place = Place::new();
    let (engine, session) = engine(&place).await;
    let version = read(&session).await.version();
    let overload = Faults::of(&engine).overload();
    let hasty = session.clone().with_deadline(DEADLINE);
    let answers = [
        hasty.touch_with(Durability::Committed).await.err(),
        hasty.save("x").await.err(),
        hasty.save_if(version, "x").await.err(),
        hasty.apply(Change::new().user("ada")).await.err(),
        hasty.update(|data: &mut String| data.push('x')).await.err(),
        hasty.rotate(Change::new()).await.err(),
        hasty.delete().await.err(),
    ];
    for answer in answers {
        is_overloaded(&answer.expect("there is no room"), WAIT);
    }
    // What needs no room is served.
    assert!(hasty.get().await.unwrap().is_some());
    hasty.touch().await.unwrap();
    drop(overload);
    let record = read(&session).await;
    assert_eq!((record.version(), record.touch_count(), record.user()), (version, 1, None));
    session.save("b").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_that_waits_is_served_when_there_is_room() {
    let place = Place::new();
    let (engine, session) = engine(&place).await;
    let overload = Faults::of(&engine).overload();
    let saving: Vec<_> = (0..20)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.update(|data: &mut String| data.push('b')).await })
        })
        .collect();
    eventually("all wait", async || engine.stats().requests_waiting == 20).await;
    drop(overload);
    for saving in saving {
        soon("an update", saving).await.unwrap().unwrap();
    }
    assert_eq!(read(&session).await.data::<String>().unwrap().len(), 21);
    assert_eq!(engine.stats().requests_waiting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_turned_away_at_once() {
    let place = Place::new();
    let (engine, session) = engine(&place).await;
    let (actor, id) = (engine.actor(), session.id().clone());
    let overload = Faults::of(&engine).overload();
    let json = || Data::encode("x").unwrap();
    let began = Instant::now();
    let answers = [
        call!(actor, EngineMessage::create, NewSession::new()).unwrap().err(),
        call!(actor, EngineMessage::get_or_create, NewSession::new()).unwrap().err(),
        call!(actor, EngineMessage::get, id.clone()).unwrap().err(),
        call!(actor, EngineMessage::save, id.clone(), json()).unwrap().err(),
        call!(actor, EngineMessage::apply, id.clone(), Change::new()).unwrap().err(),
        call!(actor, EngineMessage::update, id.clone(), Box::new(|_| ())).unwrap().err(),
        call!(actor, EngineMessage::touch, id.clone()).unwrap().err(),
        call!(actor, EngineMessage::touch_with, id.clone(), Durability::Committed).unwrap().err(),
        call!(actor, EngineMessage::rotate, id.clone(), Change::new()).unwrap().err(),
        call!(actor, EngineMessage::delete, id.clone()).unwrap().err(),
        call!(actor, EngineMessage::list, Query::new(Filter::all())).unwrap().err(),
        call!(actor, EngineMessage::count, Filter::all()).unwrap().err(),
        call!(actor, EngineMessage::delete_where, Filter::all()).unwrap().err(),
        call!(actor, EngineMessage::sweep).unwrap().err(),
        call!(actor, EngineMessage::flush).unwrap().err(),
    ];
    assert!(began.elapsed() < Duration::from_secs(4), "they waited");
    for (n, answer) in answers.into_iter().enumerate() {
        is_overloaded(&answer.unwrap_or_else(|| panic!("message {n} was served")), Duration::ZERO);
    }
    drop(overload);
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a");
    assert_eq!(engine.count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_full_behind_a_standing_thread_turns_away_and_loses_nothing() {
    let place = Place::new();
    let (engine, session) = engine(&place).await;
    let stall = Faults::of(&engine).stall();
    let in_flight: Vec<_> = (0..4)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.update(|data: &mut String| data.push('b')).await })
        })
        .collect();
    eventually("the mailbox is full", async || engine.stats().requests_in_flight == 4).await;
    is_overloaded(&session.clone().with_deadline(DEADLINE).save("x").await.unwrap_err(), WAIT);
    let id = SessionId::try_from("a").unwrap();
    is_overloaded(&call!(engine.actor(), EngineMessage::delete, id).unwrap().unwrap_err(), Duration::ZERO);
    drop(stall);
    for update in in_flight {
        soon("an update", update).await.unwrap().unwrap();
    }
    assert_eq!(read(&session).await.data::<String>().unwrap(), "abbbb");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_that_wait_are_turned_away_at_once() {
    let place = Place::new();
    let (engine, session) = engine(&place).await;
    let overload = Faults::of(&engine).overload();
    let mut waiting = Vec::new();
    loop {
        let mut save = Box::pin(session.save("x"));
        match poll_once(save.as_mut()) {
            std::task::Poll::Pending => waiting.push(save),
            std::task::Poll::Ready(answer) => {
                is_overloaded(&answer.unwrap_err(), Duration::ZERO);
                break;
            }
        }
        assert!(waiting.len() < 10_000, "callers may wait without bound");
    }
    assert_eq!(engine.stats().requests_waiting, waiting.len());
    drop(waiting);
    assert_eq!(engine.stats().requests_waiting, 0);
    drop(overload);
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_room_hear_of_a_shutdown() {
    let place = Place::new();
    let (engine, session) = engine(&place).await;
    let overload = Faults::of(&engine).overload();
    let saving = tokio::spawn({
        let session = session.clone();
        async move { session.save("x").await }
    });
    eventually("it waits", async || engine.stats().requests_waiting == 1).await;
    let shutdown = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown().await }
    });
    let error = soon("the one who waits", saving).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Closed), "{error:?}");
    drop(overload);
    soon("the shutdown", shutdown).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_larger_than_all_room_is_served_alone() {
    let place = Place::new();
    let engine = place.builder().payload_bytes_max(48 << 20).open().await.unwrap();
    let session = engine.create(NewSession::new()).await.unwrap();
    let large = "x".repeat(40 << 20);
    let (one, other) = tokio::join!(session.save(&large), session.save("small"));
    one.unwrap();
    other.unwrap();
    assert_eq!(read(&session).await.data::<String>().unwrap(), "small");
}
