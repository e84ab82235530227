//! Each call, dropped after each number of polls, in each state of the engine: it happened or it did not, by the rule of
//! admission, and nobody else notices.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use sessile::Outcome;
use sessile_tests::soon;
use tokio::sync::Notify;

use crate::{
    calls::{self, Answer, Asked, Call},
    ground::{Ground, Held, State},
};

/// Polls that any call ends within: one for room, one for the answer, and some more.
const POLLS_MAX: usize = 8;

/// Wakes a trial.
struct Flag(Notify);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// How a trial goes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    state: State,
    /// Polls after which the future is dropped; each but the first waits for a wake.
    polls: usize,
    /// The engine leaves its state before the drop, not after it.
    late: bool,
}

/// What must be seen of the call afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    DidNotHappen,
    Happened,
    Either,
}

fn verdict(call: &Call, plan: Plan, answer: Option<&Answer>) -> Verdict {
    match answer {
        Some(Err(error)) if error.outcome() == Outcome::DidNotHappen => Verdict::DidNotHappen,
        Some(Err(_)) => Verdict::Either,
        // A cast is answered when it is sent.
        Some(Ok(())) if call.name != "EngineMessage::CastTouch" => Verdict::Happened,
        None if plan.polls == 0 => Verdict::DidNotHappen,
        // Turned away, or served after the room was given back: the message was on its way already.
        Some(_) | None if plan.state == State::Full && call.is_message() => Verdict::Either,
        None if plan.state == State::Full && plan.polls == 1 => Verdict::DidNotHappen,
        Some(_) | None => Verdict::Happened,
    }
}

/// Polls a future as planned; returns its answer if it came within that.
async fn poll(mut future: Asked, plan: Plan, held: Held) -> Option<Answer> {
    let mut held = Some(held);
    let flag = Arc::new(Flag(Notify::new()));
    let waker = Waker::from(Arc::clone(&flag));
    for poll in 0..plan.polls {
        if poll > 0 {
            drop(held.take());
            soon("a wake", flag.0.notified()).await;
        }
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(answer);
        }
    }
    if plan.late {
        drop(held.take());
    }
    drop(future);
    None
}

/// Tries a call; returns whether it was answered.
async fn attempt(ground: &mut Ground, call: &Call, plan: Plan) -> bool {
    let trial = ground.prepare(call.is_sweep()).await;
    let before = ground.look(&trial).await;
    let mut after = before.clone();
    (call.happen)(&mut after);
    let held = ground.enter(plan.state).await;
    let bystanders = ground.bystanders(plan.state);
    tokio::task::yield_now().await;
    let answer = poll((call.ask)(&trial), plan, held).await;
    for bystander in bystanders {
        soon("a bystander", bystander).await.unwrap_or_else(|error| panic!("{}, {plan:?}: {error}", call.name));
    }
    ground.rest().await;
    let mut seen = ground.look(&trial).await;
    let verdict = verdict(call, plan, answer.as_ref());
    if verdict != Verdict::Happened {
        // The engine's own sweep may have come by.
        seen.over = before.over;
    }
    let as_it_should = match verdict {
        Verdict::DidNotHappen => seen == before,
        Verdict::Happened => seen == after,
        Verdict::Either => seen == before || seen == after,
    };
    let name = call.name;
    assert!(
        as_it_should,
        "{name}, {plan:?}, {answer:?}: {verdict:?}\nseen {seen:?}\nbefore {before:?}\nafter {after:?}"
    );
    answer.is_some()
}

async fn try_all(ground: &mut Ground, state: State) {
    let (mut trials, mut dropped) = (0, 0);
    for call in calls::all() {
        for polls in 0.. {
            assert!(polls < POLLS_MAX, "{} does not end", call.name);
            let plan = Plan { state, polls, late: false };
            let answered = attempt(ground, &call, plan).await;
            trials += 1;
            if answered {
                break;
            }
            attempt(ground, &call, Plan { late: true, ..plan }).await;
            trials += 1;
            dropped += 2;
        }
    }
    let load = ground.engine.stats();
    let unresolved = load.requests_in_flight + load.requests_waiting;
    assert_eq!(unresolved, 0);
    println!(
        "figure: cancellation state={state:?} trials={trials} futures_dropped={dropped} unresolved_replies={unresolved}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_at_any_poll_at_rest_happened_if_it_was_admitted() {
    let mut ground = Ground::open().await;
    try_all(&mut ground, State::AtRest).await;
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_while_it_waits_for_room_did_not_happen() {
    let mut ground = Ground::open().await;
    try_all(&mut ground, State::Full).await;
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_while_storage_stands_happens_all_the_same() {
    let mut ground = Ground::open().await;
    try_all(&mut ground, State::Stalled).await;
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_while_storage_recovers_happens_all_the_same() {
    let mut ground = Ground::open().await;
    try_all(&mut ground, State::Recovering).await;
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_while_sessions_leave_memory_happened_if_it_was_admitted() {
    let mut ground = Ground::forgetful().await;
    try_all(&mut ground, State::Passivating).await;
    ground.end().await;
}

/// The rig bites: a verdict of the wrong kind is noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_happens_against_the_rule_is_noticed() {
    let mut ground = Ground::open().await;
    let mut save = calls::all().into_iter().find(|call| call.name == "Session::save").expect("it is there");
    // A save that is said to change nothing.
    save.happen = |_| {};
    let plan = Plan { state: State::Stalled, polls: 1, late: false };
    let trial = tokio::task::LocalSet::new();
    let noticed = trial
        .run_until(async { tokio::task::spawn_local(async move { attempt(&mut ground, &save, plan).await }).await })
        .await;
    assert!(noticed.is_err_and(|error| error.is_panic()), "a save that happened passes for one that did not");
}
