//! Rows that hold what the engine never wrote.

use std::time::Duration;

use rusqlite::Connection;
use sessile::{Change, DecodeCategory, Durability, Error, Filter, Health, Metadata, NewSession, Outcome, Query};
use sessile_tests::{Rig, backend::as_killed, read};

/// What is done to the session `bad` behind the engine's back.
type Damage = fn(&Connection);

/// A file with the sessions `good` and `bad`, the latter as `damage` left it.
async fn damaged(damage: impl FnOnce(&Connection)) -> Rig {
    let rig = Rig::open().await;
    rig.create("good").await;
    rig.engine.create(NewSession::with_id("bad").user("ada").data("bad").metadata("k", "v")).await.unwrap();
    rig.engine.shutdown().await.unwrap();
    damage(&rig.place.connect());
    rig.restart().await
}

/// Makes the columns of a table take any type.
fn loosen(connection: &Connection, table: &str) {
    connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
    let sql = "UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = ?1";
    assert_eq!(connection.execute(sql, [table]).unwrap(), 1);
    connection.execute_batch("PRAGMA writable_schema = RESET").unwrap();
}

fn session(connection: &Connection, set: &str) {
    let changed = connection.execute(&format!("UPDATE session SET {set} WHERE id = 'bad'"), []).unwrap();
    assert_eq!(changed, 1);
}

fn activity(connection: &Connection, set: &str) {
    let one = "serial = (SELECT serial FROM session WHERE id = 'bad')";
    assert_eq!(connection.execute(&format!("UPDATE activity SET {set} WHERE {one}"), []).unwrap(), 1);
}

#[tokio::test]
async fn a_damaged_row_with_a_save_in_the_log_keeps_nobody_from_opening_the_file() {
    let rig = Rig::open().await;
    for id in ["good", "bad"] {
        rig.create(id).await.save("saved").await.unwrap();
    }
    assert_eq!(rig.engine.stats().saves_in_log, 2);
    let killed = as_killed(&rig.place);
    let connection = killed.connect();
    loosen(&connection, "session");
    session(&connection, "counter = 'many'");
    drop(connection);
    let engine = killed.builder().open().await.unwrap();
    let good = engine.session("good").unwrap().get().await.unwrap().unwrap();
    assert_eq!(good.data::<String>().unwrap(), "saved");
    let bad = engine.session("bad").unwrap().get().await;
    assert!(matches!(bad, Err(Error::Corrupt { .. })), "{bad:?}");
}

/// Checks that every operation on `bad` says that it is damaged, and that `good` is whole.
async fn is_corrupt(rig: &Rig, what: &str) {
    let bad = rig.session("bad");
    let version = rig.record("good").await.version();
    let answers = [
        bad.get().await.err(),
        bad.touch().await.err(),
        bad.touch_with(Durability::Committed).await.err(),
        bad.save("x").await.err(),
        bad.save_if(version, "x").await.err(),
        bad.apply(Change::new().user("bob")).await.err(),
        bad.update(|_: &mut String| ()).await.err(),
        bad.rotate(Change::new()).await.err(),
        rig.engine.create(NewSession::with_id("bad")).await.err(),
        rig.engine.get_or_create(NewSession::with_id("bad")).await.err(),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        // To touch or to find a session loads no data, and so does not meet what is wrong with that.
        if answer.is_none() && what.starts_with("the data") && [1, 2, 9].contains(&n) {
            continue;
        }
        let error = answer.unwrap_or_else(|| panic!("{what}: call {n} was served"));
        // What is taken is taken, whatever it holds.
        let named = matches!(error, Error::Corrupt { .. }) || n >= 8 && matches!(error, Error::AlreadyExists);
        assert!(named, "{what}: call {n}: {error:?}");
        assert_eq!(error.outcome(), Outcome::DidNotHappen);
    }
    assert_eq!(rig.engine.stats().restarts, 0, "{what}");
    assert!(matches!(rig.engine.health(), Health::Ready), "{what}");
    let good = rig.session("good");
    good.touch().await.unwrap();
    good.save("still good").await.unwrap();
    assert_eq!(read(&good).await.data::<String>().unwrap(), "still good");
}

#[tokio::test]
async fn a_damaged_row_is_corrupt_and_never_absent() {
    let cases: [(&str, Damage); 13] = [
        ("metadata is no JSON", |c| session(c, "metadata = '{'")),
        ("metadata is a list", |c| session(c, "metadata = '[1]'")),
        ("metadata has numbers", |c| session(c, "metadata = '{\"k\": 1}'")),
        ("metadata is a blob", |c| {
            loosen(c, "session");
            session(c, "metadata = x'ff'");
        }),
        ("the counter is text", |c| {
            loosen(c, "session");
            session(c, "counter = 'many'");
        }),
        ("the user is a blob", |c| {
            loosen(c, "session");
            session(c, "user = x'ff'");
        }),
        ("the data is a number", |c| session(c, "data = 7")),
        ("the data is a float", |c| session(c, "data = 7.5")),
        ("the count is negative", |c| activity(c, "touch_count = -1")),
        ("the count is beyond all touches", |c| activity(c, "touch_count = 9223372036854775807")),
        ("the time of activity is text", |c| {
            loosen(c, "activity");
            activity(c, "last_active_at = 'yesterday'");
        }),
        ("the timeout is text", |c| {
            loosen(c, "activity");
            activity(c, "idle_timeout = 'soon'");
        }),
        ("there is no activity", |c| {
            c.execute("DELETE FROM activity WHERE serial = (SELECT serial FROM session WHERE id = 'bad')", []).unwrap();
        }),
    ];
    for (what, damage) in cases {
        let rig = damaged(damage).await;
        is_corrupt(&rig, what).await;
        rig.engine.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_row_can_be_deleted_by_its_serial() {
    let rig = damaged(|c| session(c, "metadata = '{'")).await;
    let Err(Error::Corrupt { serial }) = rig.session("bad").get().await else { panic!("it is damaged") };
    assert_eq!(rig.engine.delete_where(Filter::all().serial(serial)).await.unwrap(), 1);
    assert!(rig.session("bad").get().await.unwrap().is_none());
    rig.create("bad").await;
}

#[tokio::test]
async fn a_list_that_meets_a_damaged_row_names_it() {
    let rig = damaged(|c| session(c, "metadata = '{'")).await;
    let error = rig.engine.list(Query::new(Filter::all())).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 2);
    assert_eq!(rig.engine.list(Query::new(Filter::all().id_prefix("good"))).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_filter_by_metadata_survives_damaged_metadata() {
    let rig = damaged(|c| session(c, "metadata = '{'")).await;
    rig.session("good").apply(Change::new().metadata("k", "v")).await.unwrap();
    assert_eq!(rig.engine.count(Filter::all().metadata("k", "v")).await.unwrap(), 1);
}

#[tokio::test]
async fn numbers_at_their_ends_neither_panic_nor_wrap() {
    let rig = damaged(|c| session(c, "counter = 9223372036854775807")).await;
    let bad = rig.session("bad");
    let error = bad.save("x").await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. } | Error::Storage { .. }), "{error:?}");
    assert_eq!(rig.engine.stats().restarts, 0);
}

#[tokio::test]
async fn times_at_their_ends_neither_panic_nor_wrap() {
    for value in [i64::MIN, i64::MAX] {
        for column in ["created_at", "last_active_at", "idle_timeout", "expires_at"] {
            let rig = damaged(|c| activity(c, &format!("{column} = {value}"))).await;
            let bad = rig.session("bad");
            let outcome = bad.get().await;
            assert!(matches!(outcome, Ok(_) | Err(Error::Corrupt { .. })), "{column} {value}: {outcome:?}");
            if let Ok(Some(_)) = outcome {
                bad.touch().await.unwrap();
                bad.save("x").await.unwrap();
            }
            rig.engine.list(Query::new(Filter::all())).await.unwrap();
            rig.engine.sweep().await.unwrap();
            assert_eq!(rig.engine.stats().restarts, 0, "{column} {value}");
            rig.engine.shutdown().await.unwrap();
        }
    }
}

#[tokio::test]
async fn text_that_is_no_json_does_not_decode_but_can_be_read_and_replaced() {
    let rig = damaged(|c| session(c, "data = '{\"cut'")).await;
    let bad = rig.session("bad");
    let record = read(&bad).await;
    assert_eq!(record.bytes().as_ref(), b"{\"cut");
    let error = record.data::<Metadata>().unwrap_err();
    assert!(matches!(error, Error::Decode { line: 1, category: DecodeCategory::Eof, .. }), "{error:?}");
    let error = bad.update(|_: &mut String| ()).await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    bad.save("whole").await.unwrap();
    assert_eq!(read(&bad).await.data::<String>().unwrap(), "whole");
}

#[tokio::test]
async fn text_that_is_no_utf_8_does_not_decode() {
    let rig = damaged(|c| session(c, "data = CAST(x'22ff22' AS TEXT)")).await;
    let record = rig.record("bad").await;
    assert!(matches!(record.data::<String>(), Err(Error::Decode { .. })));
    assert_eq!(record.bytes().as_ref(), b"\"\xff\"");
}

#[tokio::test]
async fn a_damaged_page_is_a_storage_error_and_not_an_absence() {
    let rig = Rig::open().await;
    for n in 0..200 {
        rig.engine.create(NewSession::with_id(format!("s{n:03}")).data(&"x".repeat(500))).await.unwrap();
    }
    rig.engine.shutdown().await.unwrap();
    let mut file = std::fs::read(rig.place.path()).unwrap();
    // All pages from the tenth on: rows and index entries, but no schema.
    file[10 * 4_096..].fill(0xa5);
    std::fs::write(rig.place.path(), &file).unwrap();
    let engine = rig.place.builder().open().await;
    let Ok(engine) = engine else { return };
    let mut refused = 0;
    for n in 0..200 {
        match tokio::time::timeout(Duration::from_secs(5), engine.session(format!("s{n:03}")).unwrap().get()).await {
            Ok(Ok(None)) => panic!("s{n:03} looks as if it had never been"),
            Ok(Ok(Some(_))) => {}
            Ok(Err(_)) => refused += 1,
            Err(_) => panic!("s{n:03} hangs"),
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn data_that_is_null_is_damaged_and_not_json_null() {
    let rig = damaged(|c| {
        c.execute_batch("PRAGMA writable_schema = ON").unwrap();
        c.execute_batch("UPDATE sqlite_schema SET sql = replace(sql, 'data ANY NOT NULL', 'data ANY')").unwrap();
        c.execute_batch("PRAGMA writable_schema = RESET").unwrap();
        session(c, "data = NULL");
    })
    .await;
    is_corrupt(&rig, "the data is NULL").await;
    let error = rig.engine.list(Query::new(Filter::all())).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn rows_of_far_apart_numbers_are_swept_and_deleted_without_walking_between() {
    for serial in [i64::MIN + 1, -1, i64::MAX / 2, i64::MAX] {
        let rig = damaged(|c| {
            c.execute("UPDATE session SET serial = ?1 WHERE id = 'bad'", [serial]).unwrap();
            c.execute("UPDATE activity SET serial = ?1 WHERE serial <> 1", [serial]).unwrap();
        })
        .await;
        assert_eq!(rig.engine.sweep().await.unwrap(), 0, "{serial}");
        let (none, bad) = (Filter::all().user("nobody"), Filter::all().serial(serial.into()));
        assert_eq!(rig.engine.delete_where(none).await.unwrap(), 0, "{serial}");
        assert_eq!(rig.engine.delete_where(bad).await.unwrap(), 1, "{serial}");
        rig.engine.session("good").unwrap().apply(Change::new().idle_timeout(Duration::from_secs(1))).await.unwrap();
        rig.advance(Duration::from_secs(2));
        assert_eq!(rig.engine.sweep().await.unwrap(), 1, "{serial}");
    }
}

#[tokio::test]
async fn times_before_1970_are_told_as_they_are() {
    let rig = damaged(|c| activity(c, "created_at = -7, last_active_at = -5")).await;
    for _ in 0..2 {
        let record = rig.record("bad").await;
        assert_eq!((record.created_at().as_micros(), record.last_active_at().as_micros()), (-7, -5));
    }
    rig.session("bad").touch().await.unwrap();
    assert_eq!(rig.record("bad").await.last_active_at(), sessile_tests::START);
}
