//! Files that cannot be opened; each is left as it was.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use sessile::{CauseKind, Clock, Engine, Filter, NewSession, OpenError, SystemClock, Timestamp};
use sessile_tests::{Place, read};

/// Makes a file of ours and closes it.
async fn written() -> Place {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    engine.create(NewSession::with_id("a").data(&1)).await.unwrap();
    engine.shutdown().await.unwrap();
    place
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    for content in [&b"this is the text of a letter, long enough to be taken for a header by nobody at all"[..], b"x"] {
        let place = Place::new();
        let content = content.repeat(100);
        fs::write(place.path(), &content).unwrap();
        let error = place.refusal().await;
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
        assert_eq!(fs::read(place.path()).unwrap(), content);
    }
}

#[tokio::test]
async fn a_file_cut_short() {
    let place = written().await;
    let whole = fs::read(place.path()).unwrap();
    for bytes in [10, 99, 100, 512, 4_096, whole.len() / 2] {
        fs::write(place.path(), &whole[..bytes]).unwrap();
        let opened = place.builder().open().await;
        let error = opened.err().unwrap_or_else(|| panic!("{bytes} bytes were opened"));
        let named = matches!(error, OpenError::NotADatabase { .. } | OpenError::Storage { .. });
        assert!(named, "{bytes} bytes: {error:?}");
    }
    fs::write(place.path(), &whole).unwrap();
    assert_eq!(place.builder().open().await.unwrap().count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn an_empty_file_is_as_good_as_none() {
    let place = Place::new();
    fs::write(place.path(), b"").unwrap();
    let engine = place.builder().open().await.unwrap();
    engine.create(NewSession::new()).await.unwrap();
}

#[tokio::test]
async fn a_directory_or_a_device_is_not_a_file() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
    for path in ["/dev/null", "/"] {
        let error = Engine::builder(path).open().await.unwrap_err();
        assert!(matches!(error, OpenError::NotAFile { .. }), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_or_no_directory() {
    let place = Place::new();
    let error = Engine::builder(place.directory().join("no/sessions.db")).open().await.unwrap_err();
    assert!(matches!(error, OpenError::Storage { .. }), "{error:?}");
    fs::write(place.directory().join("file"), b"").unwrap();
    let error = Engine::builder(place.directory().join("file/sessions.db")).open().await.unwrap_err();
    assert!(matches!(error, OpenError::Storage { .. }), "{error:?}");
    let error = Engine::builder("").open().await.unwrap_err();
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
}

#[tokio::test]
async fn a_read_only_file() {
    let place = written().await;
    set_mode(&place.path(), 0o400);
    let before = fs::read(place.path()).unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
    assert_eq!(fs::read(place.path()).unwrap(), before);
    set_mode(&place.path(), 0o600);
    place.builder().open().await.unwrap();
}

#[tokio::test]
async fn a_read_only_directory() {
    let place = written().await;
    set_mode(&place.directory(), 0o500);
    let error = place.refusal().await;
    let new = Engine::builder(place.directory().join("new.db")).open().await.unwrap_err();
    set_mode(&place.directory(), 0o700);
    for error in [error, new] {
        assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
    }
    place.builder().open().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema() {
    let place = written().await;
    let supported: i32 = place.connect().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    place.connect().pragma_update(None, "user_version", supported + 1).unwrap();
    match place.refusal().await {
        OpenError::NewerSchema { found, supported: known } => assert_eq!((found, known), (supported + 1, supported)),
        other => panic!("{other:?}"),
    }
    place.connect().pragma_update(None, "user_version", supported).unwrap();
    place.builder().open().await.unwrap();
}

#[tokio::test]
async fn a_schema_that_never_was() {
    let place = written().await;
    for version in [-1, i32::MIN] {
        place.connect().pragma_update(None, "user_version", version).unwrap();
        let error = place.refusal().await;
        assert!(matches!(&error, OpenError::NotOurs { found } if found.contains(&format!("{version}"))), "{error:?}");
    }
}

#[tokio::test]
async fn a_file_of_ours_without_its_tables() {
    for table in ["session", "activity", "meta"] {
        let place = written().await;
        place.connect().execute_batch(&format!("DROP TABLE {table}")).unwrap();
        match place.builder().open().await {
            Err(error) => assert!(matches!(error, OpenError::Storage { .. }), "{table}: {error:?}"),
            Ok(engine) => {
                // Nothing may look as if the session had never been.
                let error = engine.session("a").unwrap().get().await.unwrap_err();
                assert!(matches!(error, sessile::Error::Storage { .. }), "{table}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn numbers_on_record_that_never_were() {
    let began = SystemClock::default().now();
    for (key, value) in [
        ("serial_next", i64::MAX),
        ("serial_next", i64::MIN),
        ("serial_next", 0),
        ("epoch", i64::MAX),
        ("sync_seq", i64::MAX),
        ("clock", i64::MAX),
        ("clock", i64::MIN),
        ("clock", -1),
    ] {
        let place = written().await;
        place.connect().execute("UPDATE meta SET value = ?2 WHERE key = ?1", (key, value)).unwrap();
        let opened = place.builder().idle_timeout(Duration::from_secs(3_600)).open().await;
        if key == "serial_next" && value < 1 {
            // From there on, numbers would come that were used before.
            let error = opened.expect_err("it is refused");
            assert!(
                matches!(&error, OpenError::Storage { cause } if cause.kind == CauseKind::Corrupt),
                "{value}: {error:?}"
            );
            continue;
        }
        let engine = opened.unwrap_or_else(|error| panic!("{key} {value}: {error:?}"));
        match engine.create(NewSession::with_id("b")).await {
            Err(error) => {
                assert!(matches!(error, sessile::Error::Storage { .. }), "{key} {value}: {error:?}");
                assert_eq!(key, "serial_next");
            }
            Ok(session) => {
                let created = read(&session).await.created_at();
                let age = began.until(created);
                assert!(created >= began && age < Duration::from_secs(3_600), "{key} {value}: {created}");
            }
        }
        assert!(engine.session("a").unwrap().get().await.unwrap().is_some(), "{key} {value}");
        engine.sweep().await.unwrap();
        engine.shutdown().await.unwrap();
        assert_eq!(engine.stats().restarts, 0, "{key} {value}");
    }
}

/// A clock that panics on the storage thread, the first time that it is asked there.
#[derive(Debug, Default)]
struct ClockThatPanicsThere(SystemClock);

impl Clock for ClockThatPanicsThere {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        assert!(std::thread::current().name() != Some("sessile-storage"), "not on this thread");
        self.0.elapsed()
    }
}

#[tokio::test]
async fn a_panic_while_a_file_is_opened_is_told_and_leaves_it_free() {
    let place = written().await;
    let clock = Arc::new(ClockThatPanicsThere::default());
    match place.builder().clock(clock).open().await.unwrap_err() {
        OpenError::Storage { cause } => assert!(cause.message.contains("not on this thread"), "{cause:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(place.builder().open().await.unwrap().count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn another_applications_database() {
    let place = Place::new();
    let other = place.connect();
    other.execute_batch("CREATE TABLE track (title TEXT); INSERT INTO track VALUES ('So What')").unwrap();
    let error = place.refusal().await;
    assert!(matches!(&error, OpenError::NotOurs { found } if found.contains("track")), "{error:?}");
    assert_eq!(other.query_row("SELECT count(*) FROM track", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    other.execute_batch("DROP TABLE track").unwrap();
    other.pragma_update(None, "application_id", 0x1234).unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
}

#[tokio::test]
async fn a_second_engine_on_the_same_file() {
    let place = Place::new();
    let first = place.builder().open().await.unwrap();
    first.create(NewSession::with_id("a")).await.unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    // By another name, too.
    let link = place.directory().join("link.db");
    std::os::unix::fs::symlink(place.path(), &link).unwrap();
    let error = Engine::builder(&link).open().await.unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    first.create(NewSession::with_id("b")).await.unwrap();
    first.shutdown().await.unwrap();
    assert_eq!(Engine::builder(&link).open().await.unwrap().count(Filter::all()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_file_of_two_names() {
    let place = written().await;
    fs::hard_link(place.path(), place.directory().join("other.db")).unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::Storage { .. }), "{error:?}");
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    engine.create(NewSession::new()).await.unwrap();
    for entry in fs::read_dir(place.directory()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}
