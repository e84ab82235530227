//! An engine linked to a supervisor, and engines that nobody holds any more.

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use sessile::{Change, Engine, Error, Filter, Health, NewSession, testing::Faults};
use sessile_tests::{Place, eventually, read, soon};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a supervisor saw of its child.
#[derive(Debug, PartialEq)]
enum Seen {
    Terminated,
    Failed,
}

struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = UnboundedSender<Seen>;
    type Arguments = UnboundedSender<Seen>;

    async fn pre_start(
        &self,
        _: ActorRef<()>,
        seen: UnboundedSender<Seen>,
    ) -> Result<UnboundedSender<Seen>, ActorProcessingErr> {
        Ok(seen)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        seen: &mut UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(..) => seen.send(Seen::Terminated)?,
            SupervisionEvent::ActorFailed(..) => seen.send(Seen::Failed)?,
            _ => {}
        }
        Ok(())
    }
}

async fn linked(place: &Place) -> (Engine, ActorRef<()>, UnboundedReceiver<Seen>) {
    let (sender, seen) = unbounded_channel();
    let (supervisor, _) = Actor::spawn(None, Supervisor, sender).await.unwrap();
    let engine = place.builder().open_linked(supervisor.get_cell()).await.unwrap();
    (engine, supervisor, seen)
}

#[tokio::test]
async fn a_supervisor_sees_a_shutdown_as_terminated() {
    let place = Place::new();
    let (engine, supervisor, mut seen) = linked(&place).await;
    engine.create(NewSession::with_id("a")).await.unwrap();
    soon("the shutdown", engine.shutdown()).await.unwrap();
    assert_eq!(soon("the event", seen.recv()).await, Some(Seen::Terminated));
    assert_eq!(supervisor.get_status(), ractor::ActorStatus::Running);
    supervisor.stop(None);
}

#[tokio::test]
async fn when_the_supervisor_dies_the_engine_writes_and_closes() {
    for kill in [false, true] {
        let place = Place::new();
        let (engine, supervisor, _seen) = linked(&place).await;
        let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
        session.save("b").await.unwrap();
        for _ in 0..7 {
            session.touch().await.unwrap();
        }
        if kill {
            supervisor.kill();
        } else {
            supervisor.stop(None);
        }
        eventually("it is closed", async || matches!(engine.health(), Health::Closed)).await;
        // The handles are all there still.
        let again = place.open_when_free().await;
        let record = read(&again.session("a").unwrap()).await;
        assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("b", 7));
        for error in [session.get().await.err(), session.touch().await.err(), session.save("c").await.err()] {
            assert!(matches!(error, Some(Error::Closed)), "{error:?}");
        }
        soon("a shutdown after the end", engine.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn a_linked_engine_whose_storage_gives_up_fails_before_its_supervisor() {
    let place = Place::new();
    let (engine, _supervisor, mut seen) = linked(&place).await;
    let session = engine.create(NewSession::with_id("a")).await.unwrap();
    for _ in 0..12 {
        Faults::of(&engine).interrupt(false);
        if let Err(Error::Unavailable { .. } | Error::Closed) = soon("a save", session.save("b")).await {
            break;
        }
    }
    assert_eq!(soon("the event", seen.recv()).await, Some(Seen::Failed));
    eventually("old handles say closed", async || matches!(session.get().await, Err(Error::Closed))).await;
    let again = place.open_when_free().await;
    assert_eq!(again.count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn an_engine_linked_heals_by_itself_from_a_fault() {
    let place = Place::new();
    let (engine, _supervisor, mut seen) = linked(&place).await;
    let session = engine.create(NewSession::with_id("a")).await.unwrap();
    for _ in 0..3 {
        Faults::of(&engine).interrupt(true);
        session.apply(Change::new().user("ada")).await.unwrap_err();
        session.touch().await.unwrap();
        engine.flush().await.unwrap();
    }
    assert_eq!(read(&session).await.touch_count(), 3);
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn dropping_all_handles_writes_and_closes_the_file() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
    session.save("b").await.unwrap();
    session.touch().await.unwrap();
    drop(engine);
    // A session's handle keeps the engine.
    session.touch().await.unwrap();
    let clone = session.clone();
    drop(session);
    assert_eq!(read(&clone).await.touch_count(), 2);
    drop(clone);
    let again = place.open_when_free().await;
    let record = read(&again.session("a").unwrap()).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("b", 2));
}

#[tokio::test]
async fn a_reference_to_the_actor_keeps_no_engine() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let actor = engine.actor();
    drop(engine);
    let again = place.open_when_free().await;
    eventually("the actor ends", async || actor.get_status() == ractor::ActorStatus::Stopped).await;
    again.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_open_given_up_leaves_the_file_free() {
    let place = Place::new();
    for _ in 0..5 {
        let mut opening = Box::pin(place.builder().open());
        drop(sessile_tests::poll_once(opening.as_mut()));
        drop(opening);
    }
    let engine = place.open_when_free().await;
    engine.create(NewSession::new()).await.unwrap();
}

#[test]
fn an_engine_outlives_the_runtime_of_a_caller() {
    let place = Place::new();
    let actors = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let worker = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let first = worker();
    let engine = first.block_on(async {
        let engine = place.builder().runtime(actors.handle().clone()).open().await.unwrap();
        let session = engine.create(NewSession::with_id("a").data(&0)).await.unwrap();
        session.update(|n: &mut i32| *n += 1).await.unwrap();
        engine
    });
    drop(first);
    worker().block_on(async {
        let session = engine.session("a").unwrap();
        session.update(|n: &mut i32| *n += 1).await.unwrap();
        assert_eq!(read(&session).await.data::<i32>().unwrap(), 2);
        engine.shutdown().await.unwrap();
    });
}

#[tokio::test]
async fn an_actor_that_is_ended_before_it_has_started_closes_the_engine_too() {
    for end in [ActorCell::kill as fn(&ActorCell), |actor| actor.stop(None), |actor| drain(actor)] {
        let place = Place::new();
        let (engine, _supervisor, _seen) = linked(&place).await;
        end(&engine.actor().get_cell());
        eventually("the engine is closed", async || matches!(engine.health(), Health::Closed)).await;
        assert!(matches!(engine.count(Filter::all()).await, Err(Error::Closed)));
        place.open_when_free().await.shutdown().await.unwrap();
    }
}

fn drain(actor: &ActorCell) {
    // It may have ended already.
    drop(actor.drain());
}
