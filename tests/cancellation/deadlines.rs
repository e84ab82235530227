//! Deadlines of no length, of hardly any, and of a century, in each state of the engine.

use std::time::{Duration, Instant};

use sessile::{Change, Durability, Error, Filter, InterruptedBy, NewSession, Outcome, Query, Session, testing::Faults};
use sessile_tests::{Place, eventually, read, soon};

use crate::ground::{Ground, State};

/// The shortest there is, one that passes while a request waits, and the longest that is taken: 100 leap years.
const TINY: Duration = Duration::from_micros(1);
const SHORT: Duration = Duration::from_millis(30);
const HUGE: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);
/// By how much a caller may hear later than its deadline on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(2);

/// Asks all that needs room; returns what each was answered and when.
async fn ask_all(session: &Session) -> Vec<(&'static str, Result<(), Error>, Duration)> {
    let mut answers = Vec::new();
    macro_rules! ask {
        ($($name:ident: $call:expr;)*) => {$(
            let began = Instant::now();
            let answer = soon(stringify!($name), $call).await;
            answers.push((stringify!($name), answer.map(drop), began.elapsed()));
        )*};
    }
    let version = read(&session.clone().with_deadline(HUGE)).await.version();
    ask! {
        touch_with: session.touch_with(Durability::Committed);
        save: session.save("b");
        save_if: session.save_if(version, "b");
        apply: session.apply(Change::new().metadata("tag", "t"));
        update: session.update(|data: &mut String| data.push('b'));
        try_update: session.try_update(|data: &mut String| Err::<(), _>(data.clone()));
        rotate: session.rotate(Change::new());
        delete: session.delete();
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_of_no_length_or_over_a_century_is_refused_by_each_request_that_needs_one() {
    let mut ground = Ground::open().await;
    for deadline in [Duration::ZERO, HUGE + Duration::from_micros(1), Duration::MAX] {
        let trial = ground.prepare(false).await;
        // Not in memory any more under this handle's eyes: a get and a touch in memory need no deadline.
        for (name, answer, _) in ask_all_of_refused(&trial.session, deadline).await {
            let error = answer.expect_err(name);
            assert!(matches!(error, Error::InvalidOption { name: "deadline", .. }), "{name}: {error:?}");
            assert_eq!(error.outcome(), Outcome::DidNotHappen);
        }
        assert_eq!(read(&trial.session).await.data::<String>().expect("text"), "a");
    }
    ground.end().await;
}

async fn ask_all_of_refused(session: &Session, deadline: Duration) -> Vec<(&'static str, Result<(), Error>, Duration)> {
    let session = session.clone().with_deadline(deadline);
    let mut answers = Vec::new();
    let began = Instant::now();
    answers.push(("touch_with", session.touch_with(Durability::Committed).await, began.elapsed()));
    answers.push(("save", session.save("b").await.map(drop), began.elapsed()));
    answers.push(("update", session.update(|data: &mut String| data.push('b')).await, began.elapsed()));
    answers.push(("rotate", session.rotate(Change::new()).await.map(drop), began.elapsed()));
    answers.push(("delete", session.delete().await.map(drop), began.elapsed()));
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_hardly_is_ends_every_request_in_every_state() {
    let mut ground = Ground::open().await;
    for state in [State::AtRest, State::Full, State::Stalled, State::Recovering] {
        for deadline in [TINY, SHORT] {
            let trial = ground.prepare(false).await;
            let session = trial.session.clone().with_deadline(deadline);
            read(&session.clone().with_deadline(HUGE)).await;
            let held = ground.enter(state).await;
            if state == State::Recovering {
                // Records in memory are stale, and what is not in memory waits.
                let error = soon("a get", session.get()).await.expect_err("nobody can read now");
                let interrupted = matches!(error, Error::Interrupted { by: InterruptedBy::Deadline });
                // Or it is told before that, between two attempts.
                assert!(interrupted || matches!(error, Error::Unavailable { .. }), "{error:?}");
            }
            let answers = match state {
                State::Recovering => Vec::new(),
                _ => ask_all(&session).await,
            };
            drop(held);
            for (name, answer, took) in answers {
                assert!(took < deadline + LATE_MAX, "{name}, {state:?}: {took:?} for {deadline:?}");
                let interrupted = matches!(answer, Err(Error::Interrupted { by: InterruptedBy::Deadline }));
                let fits = match state {
                    State::Full => matches!(answer, Err(Error::Overloaded { .. })),
                    State::Stalled => interrupted,
                    // What went before it happened although nobody heard of it: the version moved, the id is another.
                    _ => interrupted || matches!(answer, Ok(()) | Err(Error::Conflict { .. } | Error::NotFound)),
                };
                assert!(fits, "{name}, {state:?}, {deadline:?}: {answer:?}");
            }
            ground.rest().await;
            if state == State::Full {
                assert_eq!(read(&trial.session).await.data::<String>().expect("text"), "a");
            }
        }
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_of_a_century_is_served_in_every_state() {
    let mut ground = Ground::open().await;
    for state in [State::AtRest, State::Full, State::Stalled, State::Recovering] {
        let trial = ground.prepare(false).await;
        let session = trial.session.clone().with_deadline(HUGE);
        let held = ground.enter(state).await;
        let asking = tokio::spawn(async move { ask_all(&session).await });
        tokio::task::yield_now().await;
        drop(held);
        for (name, answer, _) in soon("all calls", asking).await.expect("no panic") {
            match (name, answer) {
                // The save before it moved the version.
                (_, Ok(())) | ("save_if", Err(Error::Conflict { .. })) => {}
                (name, answer) => panic!("{name}, {state:?}: {answer:?}"),
            }
        }
        ground.rest().await;
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engines_own_deadline_ends_its_calls_and_messages() {
    let place = Place::new();
    let engine = place.builder().request_timeout(SHORT).open().await.expect("it opens");
    // On a busy machine not within the deadline.
    let made = async || engine.get_or_create(NewSession::with_id("a").data("a")).await.is_ok();
    eventually("it is created", made).await;
    let session = engine.session("a").expect("a valid id");
    let stall = Faults::of(&engine).stall();
    let answers = [
        soon("a create", engine.create(NewSession::with_id("b"))).await.map(drop),
        soon("a get_or_create", engine.get_or_create(NewSession::with_id("b"))).await.map(drop),
        soon("a list", engine.list(Query::new(Filter::all()))).await.map(drop),
        soon("a count", engine.count(Filter::all())).await.map(drop),
        soon("a delete_where", engine.delete_where(Filter::all().id_prefix("none"))).await.map(drop),
        soon("a sweep", engine.sweep()).await.map(drop),
        soon("a flush", engine.flush()).await,
        soon("a save", session.save("b")).await.map(drop),
    ];
    for answer in answers {
        let error = answer.expect_err("storage stands");
        assert!(matches!(error, Error::Interrupted { by: InterruptedBy::Deadline }), "{error:?}");
    }
    drop(stall);
    eventually("all are answered", async || engine.stats().requests_in_flight == 0).await;
    // What was admitted happened.
    let patient = session.with_deadline(HUGE);
    assert_eq!(read(&patient).await.data::<String>().expect("text"), "b");
    eventually("the create", async || {
        let created = engine.session("b").expect("a valid id").with_deadline(HUGE);
        created.get().await.expect("it can be read").is_some()
    })
    .await;
}
