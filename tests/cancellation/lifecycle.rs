//! The calls that make an engine and that end one, dropped after each number of polls.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use sessile::{Engine, Error, NewSession, OpenError, testing::Faults};
use sessile_tests::{Place, eventually, poll_once, process::descriptors_in, read, soon};

/// Polls that either call ends within, and some more.
const POLLS_MAX: usize = 8;

struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Polls a future so often at most, as its task is woken.
async fn polls<F: Future>(mut future: Pin<&mut F>, most: usize) -> Option<F::Output> {
    let mut done = 0;
    poll_fn(move |context| {
        if done == most {
            return Poll::Ready(None);
        }
        done += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if done == most => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn is_free(place: &Place) {
    soon("the file", place.open_when_free()).await.shutdown().await.expect("it shuts down");
    eventually("nothing of the file is open", async || descriptors_in(&place.directory()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_dropped_at_any_poll_leaves_the_file_free() {
    for linked in [false, true] {
        let mut opened = None;
        for most in 0..POLLS_MAX {
            let place = Place::new();
            let (supervisor, _) = Actor::spawn(None, Supervisor, ()).await.expect("a supervisor");
            let cell = supervisor.get_cell();
            let open =
                async { if linked { place.builder().open_linked(cell).await } else { place.builder().open().await } };
            let outcome: Option<Result<Engine, OpenError>> = soon("an open", polls(pin!(open), most)).await;
            let is_open = outcome.is_some();
            drop(outcome.transpose().expect("a new file opens"));
            is_free(&place).await;
            supervisor.stop(None);
            if is_open {
                opened = Some(most);
                break;
            }
        }
        println!("figure: cancellation call=open linked={linked} polls={}", opened.expect("it opens in the end"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_once_polled_proceeds_without_its_future() {
    let mut ended = None;
    for most in 0..POLLS_MAX {
        let place = Place::new();
        let engine = place.builder().open().await.expect("a new file opens");
        let session = engine.create(NewSession::with_id("a").data(&0)).await.expect("it is created");
        session.touch().await.expect("it is counted");
        let update = tokio::spawn({
            let session = session.clone();
            async move { session.update(|n: &mut i32| *n += 1).await }
        });
        let update = soon("an update", update).await.expect("no panic");
        update.expect("it is updated");
        let outcome = soon("a shutdown", polls(pin!(engine.shutdown()), most)).await;
        if most == 0 {
            session.touch().await.expect("nothing has happened yet");
            soon("another shutdown", engine.shutdown()).await.expect("it shuts down");
        }
        // With the handles still there.
        let again = soon("the file", place.open_when_free()).await;
        let record = read(&again.session("a").expect("a valid id")).await;
        assert_eq!((record.data::<i32>().expect("a number"), record.touch_count()), (1, 1 + u64::from(most == 0)));
        assert!(matches!(session.touch().await, Err(Error::Closed)));
        soon("another shutdown", engine.shutdown()).await.expect("it has shut down");
        if let Some(outcome) = outcome {
            outcome.expect("it shuts down");
            ended = Some(most);
            break;
        }
    }
    println!("figure: cancellation call=shutdown polls={}", ended.expect("it ends in the end"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_dropped_while_storage_stands_answers_what_is_in_flight_first() {
    let place = Place::new();
    let engine = place.builder().open().await.expect("a new file opens");
    let session = engine.create(NewSession::with_id("a").data("a")).await.expect("it is created");
    let stall = Faults::of(&engine).stall();
    let saving = tokio::spawn({
        let session = session.clone();
        async move { session.save("b").await }
    });
    eventually("it is in flight", async || engine.stats().requests_in_flight == 1).await;
    assert!(poll_once(pin!(engine.shutdown())).is_pending());
    assert!(matches!(soon("a get", session.get()).await, Err(Error::Closed)));
    drop(stall);
    soon("the save", saving).await.expect("no panic").expect("it was admitted before");
    let again = soon("the file", place.open_when_free()).await;
    assert_eq!(read(&again.session("a").expect("a valid id")).await.data::<String>().expect("text"), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdowns_by_many_at_once_all_hear_of_the_end() {
    let place = Place::new();
    let engine = place.builder().open().await.expect("a new file opens");
    let all: Vec<_> = (0..16)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move {
                if n % 2 == 0 {
                    return Some(engine.shutdown().await);
                }
                // Every other one goes away.
                polls(pin!(engine.shutdown()), 1).await
            })
        })
        .collect();
    for one in all {
        if let Some(outcome) = soon("a shutdown", one).await.expect("no panic") {
            outcome.expect("it shuts down");
        }
    }
    is_free(&place).await;
}
