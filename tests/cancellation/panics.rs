//! Panics in what callers bring along, closures, codecs, a clock, a subscriber, and in the storage thread: the one who
//! brought it hears of it, nothing is written, everybody else is served.

use std::{
    panic::panic_any,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Wake, Waker},
};

use ractor::rpc::CallResult;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use sessile::{
    Change, Durability, Engine, Error, Health, NewSession, Outcome, Session, SessionId, actor::EngineMessage,
    testing::Faults,
};
use sessile_tests::{
    Place, eventually,
    process::{Possessions, alone, descriptors_in},
    read, soon,
};

use crate::ground::{Ground, STORAGE_THREAD, State, TripClock};

/// A value whose drop panics, though never while another panic is under way.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a drop that panics");
    }
}

/// What a codec of the caller's does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Codec {
    Works,
    Panics,
    ErrsHalfWay,
}

/// Data that is a number, by a codec that may not work.
#[derive(Debug)]
struct Writes(u32, Codec);

impl Serialize for Writes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use ser::SerializeSeq;
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&self.0)?;
        match self.1 {
            Codec::Works => list.end(),
            Codec::Panics => panic!("a serializer that panics"),
            Codec::ErrsHalfWay => Err(ser::Error::custom("half-way")),
        }
    }
}

impl<'de> Deserialize<'de> for Writes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::<u32>::deserialize(deserializer)?.into_iter().sum(), Codec::Works))
    }
}

/// The same data, read by a codec that panics, or errs when it has read a part.
#[derive(Debug)]
struct Reads<const PANICS: bool>;

impl<const PANICS: bool> Serialize for Reads<PANICS> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        unreachable!("it is never read, so never written")
    }
}

impl<'de, const PANICS: bool> Deserialize<'de> for Reads<PANICS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Vec::<u32>::deserialize(deserializer)?;
        assert!(!PANICS, "a deserializer that panics");
        Err(de::Error::custom(format_args!("half-way at {}", read.len())))
    }
}

async fn open(place: &Place) -> (Engine, Session) {
    let engine = place.builder().open().await.expect("it opens");
    let session = engine.create(NewSession::with_id("a").data(&Writes(1, Codec::Works))).await.expect("it is created");
    (engine, session)
}

async fn value(session: &Session) -> u32 {
    read(session).await.data::<Writes>().expect("a list").0
}

/// Sends an update, a bad one, and an update, which are applied together; returns what the bad one was answered.
async fn among_others<T: Send + 'static>(
    engine: &Engine,
    session: &Session,
    bad: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let add = || {
        let session = session.clone();
        async move { session.update(|data: &mut Writes| data.0 += 10).await }
    };
    let stall = Faults::of(engine).stall();
    let sent = async |most| {
        eventually("it is sent", async || engine.stats().requests_in_flight == most).await;
    };
    // The first keeps the actor busy; the others wait together behind it.
    let first = tokio::spawn(add());
    sent(1).await;
    let second = tokio::spawn(add());
    sent(2).await;
    let bad = tokio::spawn(bad);
    sent(3).await;
    let last = tokio::spawn(add());
    sent(4).await;
    drop(stall);
    for innocent in [first, second, last] {
        soon("an update beside", innocent).await.expect("no panic").expect("it did nothing wrong");
    }
    soon("the bad one", bad).await.expect("the panic stays inside")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_that_panics_is_told_so_and_those_applied_with_it_are_made() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let mut expected = 1;
    for by_trying in [false, true] {
        for payload in 0..3 {
            let it = session.clone();
            let panics = move |data: &mut Writes| -> Result<(), ()> {
                data.0 = 1_000;
                match payload {
                    0 => panic!("an update that panics"),
                    1 => panic_any(7_u8),
                    _ => panic_any(PanicsWhenDropped),
                }
            };
            let answer = if by_trying {
                let bad = async move { it.try_update(panics).await };
                among_others(&engine, &session, bad).await.map(drop)
            } else {
                let bad = async move { it.update(move |data| panics(data).unwrap_or_default()).await };
                among_others(&engine, &session, bad).await
            };
            assert!(matches!(answer, Err(Error::Panicked)), "payload {payload}: {answer:?}");
            expected += 30;
            assert_eq!(value(&session).await, expected);
        }
    }
    assert_eq!(engine.stats().restarts, 0);
    engine.shutdown().await.expect("it shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_that_panics_when_it_is_dropped_harms_nobody() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let other = engine.create(NewSession::with_id("other").data(&0)).await.expect("it is created");
    for _ in 0..20 {
        let kept = PanicsWhenDropped;
        let update = session.update(move |data: &mut Writes| {
            let _kept = &kept;
            data.0 += 1;
        });
        soon("the update", update).await.expect("it is made");
        // At once, while what the closure held is being dropped.
        soon("an update behind it", session.update(|data: &mut Writes| data.0 += 1)).await.expect("it is made");
    }
    // The session goes on, and so does the engine.
    soon("an update", other.update(|n: &mut i32| *n += 1)).await.expect("it is made");
    assert_eq!(value(&session).await, 41);
    eventually("nothing is in flight", async || engine.stats().requests_in_flight == 0).await;
    engine.shutdown().await.expect("it shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_codec_that_panics_or_errs_half_way_writes_nothing() {
    let place = Place::new();
    let (engine, session) = open(&place).await;
    let mut expected = 1;
    // In the caller's own task, before anything is sent.
    for bad in [Codec::Panics, Codec::ErrsHalfWay] {
        let it = session.clone();
        let saved = tokio::spawn(async move { it.save(&Writes(9, bad)).await }).await;
        match saved {
            Err(panic) => assert!(bad == Codec::Panics && panic.is_panic()),
            Ok(answer) => assert!(matches!(answer, Err(Error::Encode { .. })), "{answer:?}"),
        }
        let it = engine.clone();
        let new = move || NewSession::with_id("b").data(&Writes(9, bad));
        let created = tokio::spawn(async move { it.create(new()).await.map(drop) }).await;
        assert_eq!(created.is_err(), bad == Codec::Panics);
        assert!(engine.session("b").expect("a valid id").get().await.expect("it can be read").is_none());
    }
    // In the session's actor.
    for bad in [Codec::Panics, Codec::ErrsHalfWay] {
        let it = session.clone();
        let update = async move { it.update(move |data: &mut Writes| *data = Writes(9, bad)).await };
        match (bad, among_others(&engine, &session, update).await) {
            (Codec::Panics, Err(Error::Panicked)) | (Codec::ErrsHalfWay, Err(Error::Encode { .. })) => {}
            (_, answer) => panic!("{bad:?}: {answer:?}"),
        }
        expected += 30;
        assert_eq!(value(&session).await, expected);
    }
    let it = session.clone();
    let answer = among_others(&engine, &session, async move { it.update(|_: &mut Reads<true>| ()).await }).await;
    assert!(matches!(answer, Err(Error::Panicked)), "{answer:?}");
    let it = session.clone();
    let answer = among_others(&engine, &session, async move { it.update(|_: &mut Reads<false>| ()).await }).await;
    assert!(matches!(answer, Err(Error::Decode { .. })), "{answer:?}");
    expected += 60;
    assert_eq!(value(&session).await, expected);
    // In the caller's hands: a record is only read.
    let record = read(&session).await;
    assert!(std::panic::catch_unwind(|| record.data::<Reads<true>>()).is_err());
    assert!(record.data::<Reads<false>>().is_err());
    assert_eq!(record.data::<Writes>().expect("a list").0, expected);
    engine.shutdown().await.expect("it shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_panics_once_in_the_storage_thread_costs_a_restart_and_no_answer() {
    let mut ground = Ground::open().await;
    for round in 1..=3 {
        let trial = ground.prepare(false).await;
        trial.session.touch().await.expect("it is counted");
        ground.clock.trip();
        let bystanders = ground.bystanders(State::Stalled);
        for bystander in bystanders {
            // Those in the thread's hands may be interrupted; each is answered.
            drop(soon("a bystander", bystander).await);
        }
        soon("a flush", ground.engine.flush()).await.or_else(may_have_happened).expect("it is made or in doubt");
        let record = soon("a get", trial.session.get()).await.expect("it can be read").expect("it is there");
        assert_eq!(record.touch_count(), 1);
        eventually("it is whole again", async || matches!(ground.engine.health(), Health::Ready)).await;
        assert_eq!(ground.engine.stats().restarts, round);
    }
    ground.rest().await;
    ground.end().await;
}

fn may_have_happened(error: Error) -> Result<(), Error> {
    if error.outcome() == Outcome::MayHaveHappened { Ok(()) } else { Err(error) }
}

async fn all_are_refused(session: &Session) {
    let answers = [
        soon("a save", session.save("c")).await.map(drop),
        soon("a touch", session.touch_with(Durability::Committed)).await,
        soon("an apply", session.apply(Change::new().user("ada"))).await.map(drop),
        soon("a delete", session.delete()).await.map(drop),
    ];
    for answer in answers {
        let error = answer.expect_err("nobody can write it");
        assert!(matches!(error, Error::Unavailable { .. } | Error::Closed), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_panics_for_good_ends_storage_and_strands_nobody() {
    let (place, clock) = (Place::new(), TripClock::new());
    let engine = place.builder().clock(clock.clone()).open().await.expect("it opens");
    let session = engine.create(NewSession::with_id("a").data("a")).await.expect("it is created");
    session.touch().await.expect("it is counted");
    let stall = Faults::of(&engine).stall();
    let waiting: Vec<_> = (0..8)
        .map(|n| {
            let session = session.clone();
            tokio::spawn(async move {
                if n % 2 == 0 { session.save("b").await.map(drop) } else { session.get().await.map(drop) }
            })
        })
        .collect();
    eventually("all are in flight", async || engine.stats().requests_in_flight == 8).await;
    clock.trip_for_good();
    drop(stall);
    for one in waiting {
        soon("one in flight", one).await.expect("no panic in a caller's face").expect_err("storage is broken");
    }
    eventually("it is known", async || !matches!(engine.health(), Health::Ready)).await;
    all_are_refused(&session).await;
    // The touch was acknowledged and is lost: who shuts down is told.
    let ended = soon("the shutdown", engine.shutdown()).await;
    assert!(matches!(ended, Err(Error::Storage { .. })), "{ended:?}");
    let again = soon("the file", place.open_when_free()).await;
    assert_eq!(read(&again.session("a").expect("a valid id")).await.data::<String>().expect("text"), "a");
}

/// Panics in the storage thread for so many events.
struct BadSubscriber(Arc<AtomicU32>);

impl tracing::Subscriber for BadSubscriber {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        let left = |left: u32| left.checked_sub(1);
        if std::thread::current().name() == Some(STORAGE_THREAD)
            && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
        {
            panic!("a subscriber that panics");
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_subscriber_that_panics_in_the_storage_thread_costs_restarts_and_strands_nobody() {
    alone(|| {
        let left = Arc::new(AtomicU32::new(0));
        tracing::subscriber::set_global_default(BadSubscriber(Arc::clone(&left))).expect("it is the first");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            for panics in [1, 3, u32::MAX] {
                let place = Place::new();
                let engine = place.builder().open().await.expect("it opens");
                let session = engine.create(NewSession::with_id("a").data("a")).await.expect("it is created");
                left.store(panics, Ordering::SeqCst);
                // A fault, of which the thread tells the log.
                Faults::of(&engine).fail_commit(true);
                let error = soon("a save", session.save("b")).await.expect_err("it is in doubt");
                assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error:?}");
                if panics < u32::MAX {
                    soon("a save", session.save("c")).await.expect("storage is whole again");
                    soon("the shutdown", engine.shutdown()).await.expect("it shuts down");
                } else {
                    // Whether it heals or ends, everybody is answered.
                    drop(soon("a save", session.save("c")).await);
                    drop(soon("the shutdown", engine.shutdown()).await);
                }
                left.store(0, Ordering::SeqCst);
                let again = soon("the file", place.open_when_free()).await;
                let data: String = read(&again.session("a").expect("a valid id")).await.data().expect("text");
                assert!(["b", "c"].contains(&data.as_str()), "{data}");
                again.shutdown().await.expect("it shuts down");
            }
        });
    });
}

#[test]
fn restarts_of_storage_leave_no_thread_and_no_descriptor() {
    alone(|| {
        // The first runtime of a process opens a pair of sockets for signals, for good.
        drop(tokio::runtime::Runtime::new().expect("a runtime"));
        let before = Possessions::now();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let place = Place::new();
            let (engine, session) = open(&place).await;
            session.touch().await.expect("it is counted");
            engine.flush().await.expect("it is flushed");
            let files = descriptors_in(&place.directory());
            for round in 0..20_u64 {
                let faults = Faults::of(&engine);
                match round % 4 {
                    0 => faults.interrupt(false),
                    1 => faults.interrupt(true),
                    2 => faults.fail_commit(false),
                    _ => faults.fail_commit(true),
                }
                let error = soon("a save", session.save(&Writes(9, Codec::Works))).await;
                if let Err(error) = error {
                    assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error:?}");
                }
                soon("a save", session.apply(Change::new().metadata("round", round.to_string()))).await.expect("whole");
                // SQLite keeps one that it closes while another connection has locks, and uses it again.
                let now = descriptors_in(&place.directory());
                assert!(now.len() <= files.len() + 1, "round {round}: {now:?}, at first {files:?}");
            }
            let restarts = engine.stats().restarts;
            assert!(restarts >= 18, "{restarts}");
            engine.shutdown().await.expect("it shuts down");
            println!("figure: restarts={restarts} descriptors_left=0 threads_left=0");
        });
        drop(runtime);
        before.are_back();
    });
}

/// A waker of an executor that is broken.
#[derive(Default)]
struct PanicsWhenWoken(AtomicU32);

impl Wake for PanicsWhenWoken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a waker that panics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waker_that_panics_on_the_storage_thread_harms_nobody() {
    let place = Place::new();
    let engine = place.builder().requests_max(3).open().await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..5 {
        sessions.push(engine.create(NewSession::with_id(format!("s{n}")).data(&0)).await.unwrap());
    }
    let stall = Faults::of(&engine).stall();
    let broken = Arc::new(PanicsWhenWoken::default());
    let waker = Waker::from(Arc::clone(&broken));
    let poll = |errand: &mut Pin<Box<dyn Future<Output = bool> + Send>>| {
        assert!(errand.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    };
    let save = |n: usize| {
        let session = sessions[n].clone();
        async move { session.save(&1).await.is_ok() }
    };
    // Three ways to be woken by the storage thread: by an answer, by a message's answer, by room.
    let mut answer: Pin<Box<dyn Future<Output = bool> + Send>> = Box::pin(save(0));
    poll(&mut answer);
    let actor = engine.actor();
    let deletion = async move {
        let id = SessionId::try_from("s1").unwrap();
        matches!(actor.call(|reply| EngineMessage::delete(id, reply), None).await, Ok(CallResult::Success(Ok(true))))
    };
    let mut message: Pin<Box<dyn Future<Output = bool> + Send>> = Box::pin(deletion);
    poll(&mut message);
    eventually("the message has come", async || engine.stats().requests_in_flight == 2).await;
    let third = tokio::spawn(save(2));
    eventually("there is no room", async || engine.stats().requests_in_flight == 3).await;
    let mut room: Pin<Box<dyn Future<Output = bool> + Send>> = Box::pin(save(3));
    poll(&mut room);
    let behind = tokio::spawn(save(4));
    eventually("two wait for room", async || engine.stats().requests_waiting == 2).await;
    drop(stall);
    assert!(soon("beside", third).await.unwrap());
    assert!(soon("behind", behind).await.unwrap());
    eventually("all three were woken", async || broken.0.load(Ordering::Relaxed) >= 3).await;
    for errand in [answer, message, room] {
        assert!(soon("whose waker panicked", errand).await);
    }
    assert_eq!(engine.stats().restarts, 0);
}
