//! Saving, changing, rotating, deleting; versions.

use std::time::Duration;

use sessile::{Change, Durability, Error, NewSession};
use sessile_tests::{Rig, START, read};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn save_replaces_the_data_and_moves_the_version() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let first = read(&session).await.version();
    let second = session.save(&vec![1, 2]).await.unwrap();
    assert_ne!(first, second);
    let record = read(&session).await;
    assert_eq!((record.data::<Vec<u8>>().unwrap(), record.version()), (vec![1, 2], second));
}

#[tokio::test]
async fn save_save_if_apply_and_update_refresh_without_counting() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let mut now = START;
    let mut later = || {
        rig.advance(SECOND);
        now = now.saturating_add(SECOND);
        now
    };
    let at = later();
    let version = session.save("b").await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at);
    let at = later();
    session.save_if(version, "c").await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at);
    let at = later();
    session.apply(Change::new().user("ada")).await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at);
    let at = later();
    session.update(|data: &mut String| data.push('d')).await.unwrap();
    let record = read(&session).await;
    assert_eq!((record.last_active_at(), record.touch_count()), (at, 0));
    let rig = rig.restart().await;
    assert_eq!(rig.record("a").await.last_active_at(), at);
}

#[tokio::test]
async fn keep_idle_leaves_the_activity_as_it_is() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    session.apply(Change::new().data("b").keep_idle()).await.unwrap();
    let record = read(&session).await;
    assert_eq!((record.last_active_at(), record.data::<String>().unwrap().as_str()), (START, "b"));
    let rig = rig.restart().await;
    assert_eq!(rig.record("a").await.last_active_at(), START);
}

#[tokio::test]
async fn identical_bytes_are_not_written_but_refresh() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let version = session.save("b").await.unwrap();
    rig.advance(SECOND);
    assert_eq!(session.save("b").await.unwrap(), version);
    session.update(|data: &mut String| data.truncate(9)).await.unwrap();
    assert_eq!(session.apply(Change::new()).await.unwrap(), version);
    let record = read(&session).await;
    assert_eq!((record.version(), record.last_active_at()), (version, START.saturating_add(SECOND)));
}

#[tokio::test]
async fn json_and_raw_bytes_that_look_alike_are_not_the_same() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new().data(&1)).await.unwrap();
    let json = read(&session).await.version();
    assert_ne!(session.apply(Change::new().bytes(&b"1"[..])).await.unwrap(), json);
    assert!(!read(&session).await.is_json());
}

#[tokio::test]
async fn save_if_of_another_version_is_a_conflict_and_writes_nothing() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let old = read(&session).await.version();
    let new = session.save_if(old, "b").await.unwrap();
    rig.advance(SECOND);
    match session.save_if(old, "c").await.unwrap_err() {
        Error::Conflict { current } => assert_eq!(current, new),
        other => panic!("{other:?}"),
    }
    let record = read(&session).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.last_active_at()), ("b", START));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_save_if_of_one_version_one_succeeds() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let version = read(&session).await.version();
    let asked: Vec<_> = (0..64)
        .map(|n| {
            let session = session.clone();
            tokio::spawn(async move { session.save_if(version, &n).await.is_ok() })
        })
        .collect();
    let mut succeeded = 0;
    for asked in asked {
        succeeded += u32::from(asked.await.unwrap());
    }
    assert_eq!(succeeded, 1);
}

#[tokio::test]
async fn a_version_of_a_deleted_session_does_not_match_its_successor() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let old = read(&session).await.version();
    session.delete().await.unwrap();
    rig.create("a").await;
    let new = read(&session).await.version();
    assert_ne!(old, new);
    let error = session.save_if(old, "stale").await.unwrap_err();
    assert!(matches!(error, Error::Conflict { current } if current == new), "{error:?}");
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a");
}

#[tokio::test]
async fn a_version_outlives_a_restart() {
    let rig = Rig::open().await;
    let version = rig.create("a").await.save("b").await.unwrap();
    let rig = rig.restart().await;
    rig.session("a").save_if(version, "c").await.unwrap();
}

#[tokio::test]
async fn apply_changes_all_in_one_write_and_leaves_what_is_unset() {
    let rig = Rig::open().await;
    let new = NewSession::with_id("a").data("data").user("ada").metadata("x", "1").metadata("y", "2");
    let session = rig.engine.create(new).await.unwrap();
    let change = Change::new().user("bob").metadata("z", "3").remove_metadata("x").metadata("y", "two");
    session.apply(change).await.unwrap();
    for record in [read(&session).await, rig.restart().await.record("a").await] {
        assert_eq!((record.user(), record.data::<String>().unwrap().as_str()), (Some("bob"), "data"));
        let metadata: Vec<_> = record.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(metadata, [("y", "two"), ("z", "3")]);
    }
}

#[tokio::test]
async fn apply_takes_back_owner_and_expiry() {
    let rig = Rig::open().await;
    let new = NewSession::with_id("a").user("ada").idle_timeout(SECOND).expires_at(START.saturating_add(SECOND * 2));
    let session = rig.engine.create(new).await.unwrap();
    assert_eq!(read(&session).await.expires_at(), Some(START.saturating_add(SECOND)));
    session.apply(Change::new().clear_user().clear_idle_timeout()).await.unwrap();
    let record = read(&session).await;
    assert_eq!((record.user(), record.expires_at()), (None, Some(START.saturating_add(SECOND * 2))));
    session.apply(Change::new().clear_expires_at()).await.unwrap();
    assert_eq!(read(&session).await.expires_at(), None);
    rig.advance(SECOND * 100);
    assert!(session.get().await.unwrap().is_some());
}

#[tokio::test]
async fn apply_on_another_version_is_a_conflict() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let old = read(&session).await.version();
    session.apply(Change::new().metadata("k", "v")).await.unwrap();
    let error = session.apply(Change::new().user("ada").if_version(old)).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    assert_eq!(read(&session).await.user(), None);
}

#[tokio::test]
async fn raw_bytes_are_kept_byte_for_byte() {
    let rig = Rig::open().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let session = rig.engine.create(NewSession::with_id("a").bytes(bytes.clone())).await.unwrap();
    let record = read(&session).await;
    assert!(!record.is_json());
    assert_eq!(record.bytes().as_ref(), bytes);
    assert!(matches!(record.data::<u8>(), Err(Error::NotJson)));
    let rig = rig.restart().await;
    assert_eq!(rig.record("a").await.bytes().as_ref(), bytes);
    rig.session("a").apply(Change::new().bytes(Vec::new())).await.unwrap();
    assert!(rig.restart().await.record("a").await.bytes().is_empty());
}

#[tokio::test]
async fn writes_demand_what_get_asks() {
    let rig = Rig::open().await;
    let nobody = rig.session("nobody");
    let version = read(&rig.create("a").await).await.version();
    let answers = [
        nobody.touch().await.err(),
        nobody.touch_with(Durability::Committed).await.err(),
        nobody.save("x").await.err(),
        nobody.save_if(version, "x").await.err(),
        nobody.apply(Change::new()).await.err(),
        nobody.update(|_: &mut String| ()).await.err(),
        nobody.try_update(|_: &mut String| Ok::<_, ()>(())).await.err(),
        nobody.rotate(Change::new()).await.err(),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(Error::NotFound)), "{answer:?}");
    }
    assert!(nobody.get().await.unwrap().is_none());
    assert!(!nobody.delete().await.unwrap());
}

#[tokio::test]
async fn delete_says_whether_it_was_there() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    assert!(session.delete().await.unwrap());
    assert!(!session.delete().await.unwrap());
    assert!(session.get().await.unwrap().is_none());
    let rig = rig.restart().await;
    assert!(!rig.session("a").delete().await.unwrap());
}

#[tokio::test]
async fn nothing_brings_a_deleted_session_back() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    let other_handle = session.clone();
    session.delete().await.unwrap();
    assert!(matches!(other_handle.touch().await, Err(Error::NotFound)));
    assert!(matches!(other_handle.save("x").await, Err(Error::NotFound)));
    rig.engine.flush().await.unwrap();
    let rig = rig.restart().await;
    assert!(rig.session("a").get().await.unwrap().is_none());
}

#[tokio::test]
async fn touches_of_a_deleted_session_do_not_reach_its_successor() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    for _ in 0..5 {
        session.touch().await.unwrap();
    }
    session.delete().await.unwrap();
    let successor = rig.create("a").await;
    session.touch().await.unwrap();
    assert_eq!(read(&successor).await.touch_count(), 1);
    assert_eq!(rig.restart().await.record("a").await.touch_count(), 1);
}

#[tokio::test]
async fn rotate_kills_the_old_id_and_keeps_all_else() {
    let rig = Rig::open().await;
    let new = NewSession::with_id("before").user("ada").data("data").metadata("k", "v");
    let old = rig.engine.create(new).await.unwrap();
    old.touch().await.unwrap();
    old.touch().await.unwrap();
    let before = read(&old).await;
    let new = old.rotate(Change::new()).await.unwrap();
    assert_ne!(new.id(), old.id());

    assert!(old.get().await.unwrap().is_none());
    assert!(matches!(old.touch().await, Err(Error::NotFound)));
    assert!(matches!(old.save("x").await, Err(Error::NotFound)));
    assert!(!old.delete().await.unwrap());
    for after in [read(&new).await, rig.restart().await.record(new.id().as_str()).await] {
        assert_eq!((after.serial(), after.version()), (before.serial(), before.version()));
        assert_eq!((after.touch_count(), after.user()), (2, Some("ada")));
        assert_eq!((after.bytes(), after.metadata()), (before.bytes(), before.metadata()));
        assert_eq!((after.created_at(), after.id()), (before.created_at(), new.id()));
    }
}

#[tokio::test]
async fn rotate_makes_its_change_in_the_same_commit() {
    let rig = Rig::open().await;
    let visitor = rig.create("visitor").await;
    let version = read(&visitor).await.version();
    rig.advance(SECOND);
    let user = visitor.rotate(Change::new().user("ada").data("logged in").if_version(version)).await.unwrap();
    let record = read(&user).await;
    assert_eq!((record.user(), record.data::<String>().unwrap().as_str()), (Some("ada"), "logged in"));
    assert_ne!(record.version(), version);
    assert_eq!(record.last_active_at(), START.saturating_add(SECOND));
    let error = user.rotate(Change::new().if_version(version)).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    assert!(user.get().await.unwrap().is_some());
}

#[tokio::test]
async fn the_old_id_of_a_rotated_session_is_free() {
    let rig = Rig::open().await;
    let old = rig.create("a").await;
    let rotated = old.rotate(Change::new()).await.unwrap();
    let anew = rig.create("a").await;
    old.touch().await.unwrap();
    assert_ne!(read(&anew).await.serial(), read(&rotated).await.serial());
    assert_eq!((read(&anew).await.touch_count(), read(&rotated).await.touch_count()), (1, 0));
}

#[tokio::test]
async fn touch_and_rotate_do_not_move_the_version() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let version = read(&session).await.version();
    session.touch().await.unwrap();
    session.touch_with(Durability::Committed).await.unwrap();
    assert_eq!(read(&session).await.version(), version);
    let rotated = session.rotate(Change::new()).await.unwrap();
    assert_eq!(read(&rotated).await.version(), version);
    rotated.save_if(version, "b").await.unwrap();
}
