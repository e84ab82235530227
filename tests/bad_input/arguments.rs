//! Arguments and options that cannot be meant.

use std::{collections::HashMap, time::Duration};

use ractor::call;
use sessile::{
    Change, Data, Engine, EngineBuilder, Error, Filter, InvalidId, NewSession, OpenError, Outcome, Session, Timestamp,
    actor::EngineMessage,
};
use sessile_tests::{Rig, START, eventually, poll_once, read};

const SECOND: Duration = Duration::from_secs(1);

/// Checks that nothing happened to the one session there is.
async fn is_as_it_was(rig: &Rig, session: &Session) {
    let record = read(session).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.last_active_at()), ("a", START));
    assert_eq!((record.user(), record.metadata().len(), record.touch_count()), (None, 0, 0));
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_bad_id_is_refused_by_its_fault() {
    let rig = Rig::open().await;
    let long = "x".repeat(256);
    for (id, fault) in [
        ("", InvalidId::Empty),
        (long.as_str(), InvalidId::TooLong { bytes: 256, bytes_max: 255 }),
        ("a\0b", InvalidId::ControlCharacter),
        ("a\u{7f}", InvalidId::ControlCharacter),
        ("\u{85}", InvalidId::ControlCharacter),
    ] {
        for error in [
            rig.engine.session(id).unwrap_err(),
            rig.engine.create(NewSession::with_id(id)).await.unwrap_err(),
            rig.engine.get_or_create(NewSession::with_id(id)).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::InvalidId { reason } if reason == fault), "{id:?}: {error:?}");
            assert_eq!((error.outcome(), error.is_retryable()), (Outcome::DidNotHappen, false));
        }
    }
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 0);
}

#[tokio::test]
async fn data_over_the_limit_is_too_large_wherever_it_comes_in() {
    let rig = Rig::open_with(|builder| builder.payload_bytes_max(100)).await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    let version = read(&session).await.version();
    let large = "x".repeat(99);
    let copy = large.clone();
    let answers = [
        rig.engine.create(NewSession::new().data(&large)).await.err(),
        rig.engine.create(NewSession::new().bytes(vec![0; 101])).await.err(),
        rig.engine.create(NewSession::new().user("x".repeat(101))).await.err(),
        rig.engine.create(NewSession::new().metadata("k", "x".repeat(100))).await.err(),
        session.save(&large).await.err(),
        session.save_if(version, &large).await.err(),
        session.apply(Change::new().bytes(vec![0; 101])).await.err(),
        session.rotate(Change::new().data(&large)).await.err(),
        session.update(move |data: &mut String| data.clone_from(&copy)).await.err(),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        let error = answer.unwrap_or_else(|| panic!("call {n} was served"));
        assert!(matches!(error, Error::TooLarge { bytes: 101, bytes_max: 100 }), "call {n}: {error:?}");
        assert_eq!(error.outcome(), Outcome::DidNotHappen);
    }
    is_as_it_was(&rig, &session).await;
}

#[tokio::test]
async fn the_limit_is_on_all_of_a_session_together_and_is_itself_allowed() {
    let rig = Rig::open_with(|builder| builder.payload_bytes_max(100)).await;
    let session = rig.engine.create(NewSession::with_id("a").bytes(vec![0; 90])).await.unwrap();
    session.apply(Change::new().metadata("12345", "67890")).await.unwrap();
    let error = session.apply(Change::new().user("x")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 101, bytes_max: 100 }), "{error:?}");
    // JSON text of 91 bytes by an update, with metadata of 10.
    session.save("short").await.unwrap();
    let error = session.update(|data: &mut String| *data = "x".repeat(89)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 101, bytes_max: 100 }), "{error:?}");
    session.update(|data: &mut String| *data = "x".repeat(88)).await.unwrap();
    session.apply(Change::new().remove_metadata("12345").user("1234567890")).await.unwrap();
}

#[tokio::test]
async fn an_update_too_large_leaves_those_beside_it_whole() {
    let rig = Rig::open_with(|builder| builder.payload_bytes_max(20)).await;
    let session = rig.create("a").await;
    session.apply(Change::new().metadata("1234567", "89")).await.unwrap();
    let (small, large, also_small) = tokio::join!(
        session.update(|data: &mut String| data.push('1')),
        // Within the limit alone, over it with the metadata.
        session.update(|data: &mut String| data.push_str("0123456789")),
        session.update(|data: &mut String| data.push('2')),
    );
    assert!(matches!(large, Err(Error::TooLarge { .. })), "{large:?}");
    small.unwrap();
    also_small.unwrap();
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a12");
}

#[tokio::test]
async fn data_that_is_no_json_value_is_an_encode_error() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    let keys_are_no_text: HashMap<(u8, u8), u8> = HashMap::from([((1, 2), 3)]);
    for error in [
        rig.engine.create(NewSession::new().data(&keys_are_no_text)).await.unwrap_err(),
        session.save(&keys_are_no_text).await.unwrap_err(),
        session.apply(Change::new().user("ada").data(&keys_are_no_text)).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Encode { .. }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::DidNotHappen);
    }
    is_as_it_was(&rig, &session).await;
}

#[tokio::test]
async fn encoded_data_that_no_reader_could_decode_is_an_encode_error() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    let too_deep = "[".repeat(200) + &"]".repeat(200);
    let texts: [&[u8]; 11] = [
        b"",
        b"\xff",
        b"[1",
        b"1 2",
        b"\"\xff\"",
        b"{\"\xff\": 1}",
        b"[\"\\ud800\"]",
        b"{\"\\ud800\": 1}",
        b"\"\\udc00\\ud800\"",
        b"1e999",
        too_deep.as_bytes(),
    ];
    for text in texts {
        let data = Data::Json(text.to_vec().into());
        let message = call!(rig.engine.actor(), EngineMessage::save, session.id().clone(), data.clone());
        for error in [session.apply(Change::new().encoded(data)).await.unwrap_err(), message.unwrap().unwrap_err()] {
            assert!(matches!(error, Error::Encode { .. }), "{text:?}: {error:?}");
            assert_eq!(error.outcome(), Outcome::DidNotHappen);
        }
    }
    is_as_it_was(&rig, &session).await;
    for text in ["null", " [1, -2.5e3, true, {\"k\": \"\\ud83d\\ude00\"}] ", "18446744073709551615", "\"\""] {
        session.apply(Change::new().encoded(Data::Json(text.into()))).await.unwrap();
        assert!(read(&session).await.data::<serde_json::Value>().is_ok(), "{text}");
    }
}

#[tokio::test]
async fn a_timeout_of_next_to_nothing_or_absurd_length_is_refused() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    let nothing_in_microseconds = Duration::from_nanos(999);
    for timeout in [Duration::ZERO, nothing_in_microseconds, Duration::from_secs(101 * 366 * 24 * 3_600), Duration::MAX]
    {
        for error in [
            rig.engine.create(NewSession::new().idle_timeout(timeout)).await.unwrap_err(),
            session.apply(Change::new().idle_timeout(timeout)).await.unwrap_err(),
            session.rotate(Change::new().idle_timeout(timeout)).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::InvalidOption { name: "idle_timeout", .. }), "{error:?}");
            assert_eq!(error.outcome(), Outcome::DidNotHappen);
        }
    }
    is_as_it_was(&rig, &session).await;
}

#[tokio::test]
async fn an_end_that_is_not_ahead_is_refused() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    for at in [START, Timestamp::from_micros(0), Timestamp::from_micros(i64::MIN)] {
        for error in [
            rig.engine.create(NewSession::new().expires_at(at)).await.unwrap_err(),
            session.apply(Change::new().expires_at(at)).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::InvalidOption { name: "expires_at", .. }), "{error:?}");
        }
    }
    is_as_it_was(&rig, &session).await;
    session.apply(Change::new().expires_at(Timestamp::from_micros(i64::MAX))).await.unwrap();
    assert!(session.get().await.unwrap().is_some());
    assert_eq!(rig.restart().await.engine.count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_deadline_of_next_to_nothing_or_absurd_length_is_refused_by_each_request() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    for deadline in
        [Duration::ZERO, Duration::from_nanos(999), Duration::MAX, Duration::from_secs(101 * 366 * 24 * 3_600)]
    {
        let session = session.clone().with_deadline(deadline);
        for error in [
            session.get().await.unwrap_err(),
            session.touch_with(sessile::Durability::Committed).await.unwrap_err(),
            session.save("x").await.unwrap_err(),
            session.update(|data: &mut String| data.push('x')).await.unwrap_err(),
            session.rotate(Change::new()).await.unwrap_err(),
            session.delete().await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::InvalidOption { name: "deadline", .. }), "{error:?}");
            assert_eq!(error.outcome(), Outcome::DidNotHappen);
        }
    }
    is_as_it_was(&rig, &session).await;
}

#[tokio::test]
async fn options_that_cannot_be_meant_are_named() {
    let century = Duration::from_secs(101 * 366 * 24 * 3_600);
    let (nanosecond, nanoseconds) = (Duration::from_nanos(1), Duration::from_nanos(999_999));
    let cases: Vec<(&str, EngineBuilder)> = vec![
        ("idle_timeout", Engine::in_memory().idle_timeout(Duration::from_nanos(999))),
        ("lifetime", Engine::in_memory().lifetime(nanosecond)),
        ("flush_interval", Engine::in_memory().flush_interval(nanosecond)),
        ("flush_interval", Engine::in_memory().flush_interval(nanoseconds)),
        ("request_timeout", Engine::in_memory().request_timeout(nanoseconds)),
        ("passivate_after", Engine::in_memory().passivate_after(nanosecond)),
        ("passivate_after", Engine::in_memory().passivate_after(nanoseconds)),
        ("idle_timeout", Engine::in_memory().idle_timeout(Duration::ZERO)),
        ("idle_timeout", Engine::in_memory().idle_timeout(century)),
        ("lifetime", Engine::in_memory().lifetime(Duration::ZERO)),
        ("lifetime", Engine::in_memory().lifetime(Duration::MAX)),
        ("flush_interval", Engine::in_memory().flush_interval(Duration::ZERO)),
        ("flush_interval", Engine::in_memory().flush_interval(Duration::MAX)),
        ("request_timeout", Engine::in_memory().request_timeout(Duration::ZERO)),
        ("request_timeout", Engine::in_memory().request_timeout(Duration::MAX)),
        ("passivate_after", Engine::in_memory().passivate_after(Duration::ZERO)),
        ("passivate_after", Engine::in_memory().passivate_after(Duration::MAX)),
        ("payload_bytes_max", Engine::in_memory().payload_bytes_max(0)),
        ("payload_bytes_max", Engine::in_memory().payload_bytes_max(usize::MAX)),
        ("requests_max", Engine::in_memory().requests_max(0)),
        ("live_sessions_max", Engine::in_memory().live_sessions_max(0)),
        ("sessions_in_memory_max", Engine::in_memory().sessions_in_memory_max(0)),
        ("record_bytes_max", Engine::in_memory().record_bytes_max(0)),
        ("max_sessions", Engine::in_memory().max_sessions(0)),
        ("max_sessions_per_user", Engine::in_memory().max_sessions_per_user(0)),
        ("cache_bytes", Engine::in_memory().cache_bytes(0)),
        ("cache_bytes", Engine::in_memory().cache_bytes(u64::MAX)),
        ("take_over_time_zone", Engine::in_memory().take_over_time_zone("Mars/Olympus")),
    ];
    for (option, builder) in cases {
        let error = builder.open().await.unwrap_err();
        assert!(matches!(error, OpenError::InvalidOption { name, .. } if name == option), "{option}: {error:?}");
    }
}

#[tokio::test]
async fn the_largest_options_that_are_allowed_work() {
    let engine = Engine::in_memory()
        .idle_timeout(Duration::from_secs(100 * 366 * 24 * 3_600))
        .lifetime(Duration::from_secs(100 * 366 * 24 * 3_600))
        .flush_interval(Duration::from_secs(100 * 366 * 24 * 3_600))
        .request_timeout(Duration::from_secs(100 * 366 * 24 * 3_600))
        .passivate_after(Duration::from_secs(100 * 366 * 24 * 3_600))
        .payload_bytes_max(512 << 20)
        .requests_max(usize::MAX)
        .live_sessions_max(usize::MAX)
        .sessions_in_memory_max(usize::MAX)
        .record_bytes_max(usize::MAX)
        .max_sessions(u64::MAX)
        .max_sessions_per_user(u64::MAX)
        .open()
        .await
        .unwrap();
    let session = engine.create(NewSession::new().user("ada")).await.unwrap();
    session.save(&1).await.unwrap();
    session.touch().await.unwrap();
    assert_eq!(engine.count(Filter::all()).await.unwrap(), 1);
    engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_shortest_options_that_are_allowed_work() {
    let millisecond = Duration::from_millis(1);
    let engine = Engine::in_memory().flush_interval(millisecond).passivate_after(millisecond).open().await.unwrap();
    let session = engine.create(NewSession::new().idle_timeout(Duration::from_micros(1))).await.unwrap();
    eventually("it is over", async || session.get().await.unwrap().is_none()).await;
    engine.shutdown().await.unwrap();
}

#[test]
fn without_a_runtime_open_says_so() {
    let opening = std::pin::pin!(Engine::in_memory().open());
    match poll_once(opening) {
        std::task::Poll::Ready(Err(OpenError::NoRuntime)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_without_timer_is_none() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(Engine::in_memory().open()).unwrap_err();
    assert!(matches!(error, OpenError::NoRuntime), "{error:?}");
    let handle = runtime.handle().clone();
    let other = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let error = other.block_on(Engine::in_memory().runtime(handle).open()).unwrap_err();
    assert!(matches!(error, OpenError::NoRuntime), "{error:?}");
}

#[test]
fn callers_need_no_timer_of_their_own() {
    let ours = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let callers = tokio::runtime::Builder::new_current_thread().build().unwrap();
    callers.block_on(async {
        let engine = Engine::in_memory().runtime(ours.handle().clone()).open().await.unwrap();
        let session = engine.create(NewSession::new().data(&1)).await.unwrap();
        session.touch().await.unwrap();
        session.update(|n: &mut i32| *n += 1).await.unwrap();
        assert_eq!(read(&session).await.data::<i32>().unwrap(), 2);
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn when_the_engines_runtime_is_gone_requests_fail_and_do_not_hang() {
    let ours = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let callers = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    callers.block_on(async {
        let engine = Engine::in_memory().runtime(ours.handle().clone()).open().await.unwrap();
        let session = engine.create(NewSession::new().data(&1)).await.unwrap();
        // It waits until the runtime is gone, which no async block may: on a thread of its own.
        std::thread::spawn(|| ours.shutdown_timeout(Duration::from_secs(30))).join().unwrap();
        let saving = tokio::time::timeout(Duration::from_secs(15), session.save(&2));
        let error = saving.await.expect("it hangs").unwrap_err();
        assert!(!matches!(error, Error::NotFound), "{error:?}");
    });
}

#[tokio::test]
async fn a_filter_of_too_many_conditions_is_refused() {
    let rig = Rig::open().await;
    rig.create("a").await;
    let filter = |conditions| (0..conditions).fold(Filter::all(), |filter, n| filter.metadata("key", format!("{n}")));
    assert_eq!(rig.engine.count(filter(100)).await.unwrap(), 0);
    for error in [
        rig.engine.count(filter(101)).await.unwrap_err(),
        rig.engine.delete_where(filter(101)).await.unwrap_err(),
        rig.engine.list(sessile::Query::new(filter(101))).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::InvalidQuery { .. }), "{error:?}");
    }
}
