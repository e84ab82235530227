//! Creating, finding, reading.

use std::{collections::HashSet, time::Duration};

use sessile::{Durability, Error, NewSession, SessionId};
use sessile_tests::{Rig, START, read};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn create_keeps_all_that_it_was_given() {
    let rig = Rig::open().await;
    let ends = START.saturating_add(SECOND * 60);
    let new = NewSession::with_id("chat-1")
        .user("ada")
        .data(&["hello", "world"])
        .metadata("device", "phone")
        .metadata("place", "Zürich")
        .idle_timeout(SECOND * 10)
        .expires_at(ends);
    let session = rig.engine.create(new).await.unwrap();
    assert_eq!(session.id().as_str(), "chat-1");

    let record = read(&session).await;
    assert_eq!(record.id(), session.id());
    assert_eq!(record.user(), Some("ada"));
    assert_eq!(record.data::<Vec<String>>().unwrap(), ["hello", "world"]);
    assert_eq!(record.bytes().as_ref(), br#"["hello","world"]"#);
    assert!(record.is_json());
    let metadata: Vec<_> = record.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(metadata, [("device", "phone"), ("place", "Zürich")]);
    assert_eq!((record.created_at(), record.last_active_at(), record.touch_count()), (START, START, 0));
    assert_eq!(record.expires_at(), Some(START.saturating_add(SECOND * 10)));
}

#[tokio::test]
async fn a_session_of_nothing_is_null_without_end() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new()).await.unwrap();
    let record = read(&session).await;
    assert_eq!(record.bytes().as_ref(), b"null");
    assert_eq!((record.user(), record.metadata().len(), record.expires_at()), (None, 0, None));
}

#[tokio::test]
async fn generated_ids_differ_and_sort_by_time() {
    let rig = Rig::open().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.engine.create(NewSession::new()).await.unwrap().id().clone());
        rig.advance(SECOND);
    }
    assert!(ids.is_sorted());
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 20);
    assert!(ids.iter().all(|id| id.as_str().len() == 32));
}

#[tokio::test]
async fn a_taken_id_already_exists_and_its_session_stays() {
    let rig = Rig::open().await;
    rig.create("taken").await;
    let error = rig.engine.create(NewSession::with_id("taken").data("other")).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists), "{error:?}");
    assert_eq!(rig.record("taken").await.data::<String>().unwrap(), "taken");
}

#[tokio::test]
async fn get_or_create_creates_once_and_then_finds() {
    let rig = Rig::open().await;
    let (first, created) = rig.engine.get_or_create(NewSession::with_id("a").data("first")).await.unwrap();
    assert!(created);
    let (second, created) = rig.engine.get_or_create(NewSession::with_id("a").data("second")).await.unwrap();
    assert!(!created);
    assert_eq!(first.id(), second.id());
    assert_eq!(read(&second).await.data::<String>().unwrap(), "first");
    // Without an id there is nothing to find.
    assert!(rig.engine.get_or_create(NewSession::new()).await.unwrap().1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_get_or_create_at_once_one_creates() {
    let rig = Rig::open().await;
    let asked: Vec<_> = (0..64)
        .map(|n| {
            let engine = rig.engine.clone();
            tokio::spawn(async move { engine.get_or_create(NewSession::with_id("one").data(&n)).await.unwrap().1 })
        })
        .collect();
    let mut created = 0;
    for asked in asked {
        created += u32::from(asked.await.unwrap());
    }
    assert_eq!(created, 1);
    assert_eq!(rig.engine.count(sessile::Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_handle_does_no_io_and_get_asks() {
    let rig = Rig::open().await;
    let commands = rig.engine.stats().commands;
    let session = rig.engine.session("nobody").unwrap();
    assert_eq!(rig.engine.stats().commands, commands);
    assert!(session.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_handle_is_made_of_any_kind_of_id() {
    let rig = Rig::open().await;
    let session = rig.create("会话-0").await;
    let id: SessionId = session.id().clone();
    let text = id.as_str().to_owned();
    for handle in [
        rig.engine.session(&id).unwrap(),
        rig.engine.session(id.clone()).unwrap(),
        rig.engine.session(&text).unwrap(),
        rig.engine.session(text.as_str()).unwrap(),
        rig.engine.session(text.clone()).unwrap(),
        rig.engine.session(&session).unwrap(),
        session.clone(),
    ] {
        assert_eq!(read(&handle).await.serial(), read(&session).await.serial());
    }
}

#[tokio::test]
async fn an_id_of_255_bytes_is_whole() {
    let rig = Rig::open().await;
    let id = format!("{}x", "é".repeat(127));
    rig.create(&id).await;
    assert_eq!(rig.record(&id).await.id().as_str(), id);
}

#[tokio::test]
async fn get_never_refreshes() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    for _ in 0..3 {
        rig.advance(SECOND);
        let record = read(&session).await;
        assert_eq!((record.last_active_at(), record.touch_count()), (START, 0));
    }
    let rig = rig.restart().await;
    assert_eq!(rig.record("a").await.last_active_at(), START);
}

#[tokio::test]
async fn a_record_is_a_snapshot() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let before = read(&session).await;
    session.save("changed").await.unwrap();
    session.touch().await.unwrap();
    assert_eq!(before.data::<String>().unwrap(), "a");
    assert_eq!(before.touch_count(), 0);
}

#[tokio::test]
async fn serials_are_never_used_again() {
    let mut rig = Rig::open().await;
    let mut seen = HashSet::new();
    for round in 0..3 {
        for n in 0..3 {
            let session = rig.create(&format!("{round}-{n}")).await;
            assert!(seen.insert(read(&session).await.serial()));
            assert!(session.delete().await.unwrap());
        }
        rig = rig.restart().await;
    }
}

#[tokio::test]
async fn what_was_created_is_there_after_a_restart() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::with_id("a").user("ada").data(&1.1_f64).metadata("k", "v")).await;
    let before = read(&session.unwrap()).await;
    let rig = rig.restart().await;
    let after = rig.record("a").await;
    assert_eq!(after.stored(), before.stored());
    assert_eq!(after.data::<f64>().unwrap().to_bits(), 1.1_f64.to_bits());
}

#[tokio::test]
async fn an_engine_of_synced_durability_writes_as_any_other() {
    let rig = Rig::open_with(|builder| builder.durability(Durability::Synced)).await;
    let session = rig.create("a").await;
    session.save("b").await.unwrap();
    session.touch_with(Durability::Synced).await.unwrap();
    rig.create("c").await.with_durability(Durability::Synced).delete().await.unwrap();
    let rig = rig.restart().await;
    let record = rig.record("a").await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("b", 1));
    assert!(rig.session("c").get().await.unwrap().is_none());
}
