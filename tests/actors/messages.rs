//! Every operation as a message.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, call, cast};
use sessile::{
    Change, Data, Durability, Error, Filter, NewSession, Outcome, Query, Record, SessionId, actor::EngineMessage,
};
use sessile_tests::{Rig, START, eventually, read};

const SECOND: Duration = Duration::from_secs(1);

fn id(text: &str) -> SessionId {
    SessionId::try_from(text).unwrap()
}

async fn get(actor: &ActorRef<EngineMessage>, id: &SessionId) -> Record {
    call!(actor, EngineMessage::get, id.clone()).unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn each_message_does_what_the_method_of_its_name_does() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(SECOND * 50)).await;
    let actor = rig.engine.actor();
    let new = || NewSession::with_id("a").user("ada").data(&1);
    let a = call!(actor, EngineMessage::create, new()).unwrap().unwrap();
    assert_eq!(a, id("a"));
    let taken = call!(actor, EngineMessage::create, new()).unwrap().unwrap_err();
    assert!(matches!(taken, Error::AlreadyExists), "{taken:?}");
    assert_eq!(call!(actor, EngineMessage::get_or_create, new()).unwrap().unwrap(), (a.clone(), false));
    let (b, created) = call!(actor, EngineMessage::get_or_create, NewSession::new()).unwrap().unwrap();
    assert!(created);

    rig.advance(SECOND);
    let version = call!(actor, EngineMessage::save, a.clone(), Data::encode(&2).unwrap()).unwrap().unwrap();
    let record = get(&actor, &a).await;
    assert_eq!((record.version(), record.data::<i32>().unwrap()), (version, 2));
    assert_eq!(record.last_active_at(), START.saturating_add(SECOND));
    let change = Change::new().metadata("k", "v").if_version(version);
    let applied = call!(actor, EngineMessage::apply, a.clone(), change).unwrap().unwrap();
    assert_ne!(applied, version);
    let stale = call!(actor, EngineMessage::apply, a.clone(), Change::new().if_version(version)).unwrap();
    assert!(matches!(stale, Err(Error::Conflict { current }) if current == applied), "{stale:?}");
    let double = Box::new(|value: &mut serde_json::Value| *value = (value.as_i64().unwrap() * 2).into());
    call!(actor, EngineMessage::update, a.clone(), double).unwrap().unwrap();
    call!(actor, EngineMessage::touch, a.clone()).unwrap().unwrap();
    call!(actor, EngineMessage::touch_with, a.clone(), Durability::Synced).unwrap().unwrap();
    let record = get(&actor, &a).await;
    assert_eq!((record.data::<i32>().unwrap(), record.touch_count()), (4, 2));

    let rotated = call!(actor, EngineMessage::rotate, a.clone(), Change::new().user("bob")).unwrap().unwrap();
    assert!(call!(actor, EngineMessage::get, a.clone()).unwrap().unwrap().is_none());
    assert_eq!(get(&actor, &rotated).await.user(), Some("bob"));
    let page = call!(actor, EngineMessage::list, Query::new(Filter::all().user("bob"))).unwrap().unwrap();
    assert_eq!(page.items[0].id(), Some(&rotated));
    assert_eq!(call!(actor, EngineMessage::count, Filter::all()).unwrap().unwrap(), 2);
    call!(actor, EngineMessage::flush).unwrap().unwrap();
    assert!(call!(actor, EngineMessage::delete, b.clone()).unwrap().unwrap());
    assert!(!call!(actor, EngineMessage::delete, b).unwrap().unwrap());
    assert_eq!(call!(actor, EngineMessage::delete_where, Filter::all().user("bob")).unwrap().unwrap(), 1);
    call!(actor, EngineMessage::create, NewSession::new()).unwrap().unwrap();
    // Not yet a minute: the engine has not swept by itself.
    rig.advance(SECOND * 50);
    assert_eq!(call!(actor, EngineMessage::sweep).unwrap().unwrap(), 1);
}

#[tokio::test]
async fn messages_are_answered_with_the_same_errors_as_methods() {
    let rig = Rig::open_with(|builder| builder.payload_bytes_max(10)).await;
    let actor = rig.engine.actor();
    let nobody = id("nobody");
    let json = Data::encode("x").unwrap();
    for (n, answer) in [
        call!(actor, EngineMessage::save, nobody.clone(), json).unwrap().err(),
        call!(actor, EngineMessage::apply, nobody.clone(), Change::new()).unwrap().err(),
        call!(actor, EngineMessage::update, nobody.clone(), Box::new(|_| ())).unwrap().err(),
        call!(actor, EngineMessage::touch, nobody.clone()).unwrap().err(),
        call!(actor, EngineMessage::touch_with, nobody.clone(), Durability::Committed).unwrap().err(),
        call!(actor, EngineMessage::rotate, nobody.clone(), Change::new()).unwrap().err(),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(matches!(answer, Some(Error::NotFound)), "message {n}: {answer:?}");
    }
    assert!(call!(actor, EngineMessage::get, nobody).unwrap().unwrap().is_none());
    let large = Data::Raw(vec![0; 11].into());
    for answer in [
        call!(actor, EngineMessage::create, NewSession::new().bytes(vec![0; 11])).unwrap().err(),
        call!(actor, EngineMessage::save, id("a"), large).unwrap().err(),
        call!(actor, EngineMessage::rotate, id("a"), Change::new().user("0123456789a")).unwrap().err(),
    ] {
        assert!(matches!(answer, Some(Error::TooLarge { bytes: 11, bytes_max: 10 })), "{answer:?}");
    }
    let error = call!(actor, EngineMessage::create, NewSession::with_id("")).unwrap().unwrap_err();
    assert!(matches!(error, Error::InvalidId { .. }), "{error:?}");
    let error = call!(actor, EngineMessage::list, Query::new(Filter::all()).limit(0)).unwrap().unwrap_err();
    assert!(matches!(error, Error::InvalidQuery { .. }), "{error:?}");
}

#[tokio::test]
async fn an_update_by_a_message_that_panics_is_answered() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let actor = rig.engine.actor();
    let error = call!(actor, EngineMessage::update, id("a"), Box::new(|_| panic!("on purpose"))).unwrap().unwrap_err();
    assert!(matches!(error, Error::Panicked), "{error:?}");
    assert_eq!(error.outcome(), Outcome::DidNotHappen);
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a");
    call!(actor, EngineMessage::touch, id("a")).unwrap().unwrap();
}

#[tokio::test]
async fn a_cast_touch_that_fails_shows_in_the_stats_only() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let actor = rig.engine.actor();
    for target in ["a", "nobody", "a", "nobody", "a"] {
        cast!(actor, EngineMessage::cast_touch(id(target))).unwrap();
    }
    eventually("all are counted", async || {
        read(&session).await.touch_count() == 3 && rig.engine.stats().casts_failed == 2
    })
    .await;
    assert_eq!(rig.restart().await.record("a").await.touch_count(), 3);
}

#[tokio::test]
async fn the_messages_of_one_sender_are_ordered_for_each_session() {
    let rig = Rig::open().await;
    rig.create("a").await;
    let actor = rig.engine.actor();
    for n in 0..50 {
        let push = |c| Box::new(move |v: &mut serde_json::Value| *v = format!("{}{c}", v.as_str().unwrap()).into());
        let (first, second, third, last) = tokio::join!(
            async { call!(actor, EngineMessage::save, id("a"), Data::encode(&format!("{n}")).unwrap()) },
            async { call!(actor, EngineMessage::update, id("a"), push('x')) },
            async { call!(actor, EngineMessage::update, id("a"), push('y')) },
            async { call!(actor, EngineMessage::get, id("a")) },
        );
        first.unwrap().unwrap();
        second.unwrap().unwrap();
        third.unwrap().unwrap();
        assert_eq!(last.unwrap().unwrap().unwrap().data::<String>().unwrap(), format!("{n}xy"));
    }
}

/// An actor of a service, which asks the engine with its own reply port.
struct Greeter;

enum GreeterMessage {
    Greet(SessionId, ractor::RpcReplyPort<String>),
}

impl Actor for Greeter {
    type Msg = GreeterMessage;
    type State = ActorRef<EngineMessage>;
    type Arguments = ActorRef<EngineMessage>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        engine: ActorRef<EngineMessage>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(engine)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        GreeterMessage::Greet(id, reply): GreeterMessage,
        engine: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let record = call!(engine, EngineMessage::get, id)??;
        let name = record.as_ref().and_then(Record::user).unwrap_or("stranger");
        reply.send(format!("hello {name}"))?;
        Ok(())
    }
}

#[tokio::test]
async fn an_actor_of_a_service_asks_the_engine() {
    let rig = Rig::open().await;
    rig.engine.create(NewSession::with_id("a").user("ada")).await.unwrap();
    let (greeter, ended) = Actor::spawn(None, Greeter, rig.engine.actor()).await.unwrap();
    assert_eq!(call!(greeter, GreeterMessage::Greet, id("a")).unwrap(), "hello ada");
    assert_eq!(call!(greeter, GreeterMessage::Greet, id("b")).unwrap(), "hello stranger");
    greeter.stop(None);
    ended.await.unwrap();
}

#[tokio::test]
async fn the_engine_outlives_its_actor() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let actor = rig.engine.actor();
    actor.stop_and_wait(None, None).await.unwrap();
    assert!(call!(actor, EngineMessage::touch, id("a")).is_err());
    session.touch().await.unwrap();
    session.save("b").await.unwrap();
    assert_eq!(rig.restart().await.record("a").await.touch_count(), 1);
}

#[tokio::test]
async fn after_shutdown_the_actor_is_gone() {
    let rig = Rig::open().await;
    let actor = rig.engine.actor();
    rig.engine.shutdown().await.unwrap();
    eventually("the actor ends", async || {
        matches!(call!(actor, EngineMessage::count, Filter::all()), Err(_) | Ok(Err(Error::Closed)))
            && actor.get_status() == ractor::ActorStatus::Stopped
    })
    .await;
}
