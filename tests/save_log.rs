//! The log of saves under the rows: whatever is in it, one reads what was committed last.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use rusqlite::Connection;
use sessile::{Change, Error, NewSession, Record};
use sessile_storage::{
    backend::{Backend, Read},
    id::SessionId,
    record::{Data, Stored},
    sqlite::Sqlite,
};
use sessile_tests::{
    Place, Random, Rig,
    backend::{as_killed, downgrade, fold_all, json, open, row, stored, write},
    effort, eventually, read,
};

/// Steps of the random test.
const STEPS: (u64, u64) = (20_000, 400_000);
/// The bound on entries, as the log has it.
const ENTRIES_MAX: i64 = 131_072;
/// Past what is quiet.
const AT_REST: Duration = Duration::from_secs(1);

fn entries(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM save_log", [], |row| row.get(0)).unwrap()
}

/// What the backend must hold: the open transaction's, and what was committed.
#[derive(Default)]
struct Model {
    now: BTreeMap<i64, Stored>,
    committed: BTreeMap<i64, Stored>,
}

impl Model {
    fn assert_is_read(&self, backend: &mut Sqlite) {
        for stored in self.now.values() {
            let whole = backend.find(&stored.id, Read::All).unwrap().expect("it is there");
            assert_eq!(&whole.stored, stored);
            let without = backend.find_at(stored.serial, &stored.id, Read::WithoutData).unwrap().expect("it is there");
            assert_eq!(without.stored, Stored { data: Data::default(), ..stored.clone() });
        }
    }

    /// As another process sees it.
    fn assert_is_shown(&self, path: &Path) {
        let other = Connection::open(path).unwrap();
        let mut statement = other.prepare_cached("SELECT serial, id, counter, data FROM current_session").unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut seen = 0;
        while let Some(row) = rows.next().unwrap() {
            let stored = &self.committed[&row.get::<_, i64>(0).unwrap()];
            assert_eq!(row.get_ref(1).unwrap().as_str().unwrap(), stored.id.as_str());
            assert_eq!(row.get::<_, i64>(2).unwrap(), stored.counter);
            assert_eq!(row.get_ref(3).unwrap().as_bytes().unwrap(), stored.data.bytes());
            seen += 1;
        }
        assert_eq!(seen, self.committed.len());
    }
}

/// Changes a row in one of the ways that there are: most go to the log, some to the row.
fn changed(random: &mut Random, old: &Stored, step: u64) -> Stored {
    let mut new = Stored { counter: old.counter + 1, data: json(&format!("save {step}")), ..old.clone() };
    match random.below(12) {
        0 => new.data = Data::Raw(Bytes::from(step.to_be_bytes().to_vec())),
        1 => new.data = json(&"long ".repeat(500)),
        2 => new.user = Some(format!("user {}", random.below(3)).into()),
        3 => new.id = SessionId::try_from(format!("rotated {step}")).unwrap(),
        // Only the id: the version stays.
        4 => {
            let id = SessionId::try_from(format!("rotated {step}")).unwrap();
            new = Stored { id, ..old.clone() };
        }
        _ => {}
    }
    new
}

#[test]
fn any_order_of_saves_folds_and_faults_reads_as_if_there_were_no_log() {
    let place = Place::new();
    let path = place.path();
    let mut random = Random::seeded();
    let (mut backend, mut model) = (open(&path), Model::default());
    write(&mut backend);
    for step in 0..effort(STEPS.0, STEPS.1) {
        let any = |random: &mut Random, model: &Model| {
            let at = usize::try_from(random.below(model.now.len().max(1) as u64)).unwrap();
            model.now.values().nth(at).cloned()
        };
        match random.below(100) {
            0..10 => {
                if model.now.len() < 40 {
                    let new = stored(backend.next_serial().unwrap(), &format!("made {step}"));
                    assert!(backend.insert(&row(&new)).unwrap());
                    model.now.insert(new.serial, new);
                }
            }
            10..14 => {
                if let Some(old) = any(&mut random, &model) {
                    backend.delete(old.serial).unwrap();
                    model.now.remove(&old.serial);
                }
            }
            14..20 => backend.fold(true).unwrap(),
            20..24 => {
                backend.rollback().unwrap();
                model.now.clone_from(&model.committed);
                write(&mut backend);
            }
            24..34 => {
                backend.commit().unwrap();
                model.committed.clone_from(&model.now);
                write(&mut backend);
            }
            34..36 => {
                // A state that the row is not in.
                if let Some(mut old) = any(&mut random, &model) {
                    old.counter -= 1 + random.below(2).cast_signed() * 2;
                    let new = changed(&mut random, &old, step);
                    if new.counter != old.counter {
                        assert!(!backend.update(&old, &new).unwrap());
                    }
                }
            }
            36 => {
                model.assert_is_read(&mut backend);
                model.assert_is_shown(&path);
            }
            37 => {
                // The connection is given up with a transaction open.
                backend.reopen().unwrap();
                model.now.clone_from(&model.committed);
                write(&mut backend);
            }
            38 if random.below(4) == 0 => {
                backend.commit().unwrap();
                model.committed.clone_from(&model.now);
                drop(backend);
                backend = open(&path);
                write(&mut backend);
            }
            _ => {
                if let Some(old) = any(&mut random, &model) {
                    let new = changed(&mut random, &old, step);
                    assert!(backend.update(&old, &new).unwrap());
                    model.now.insert(new.serial, new);
                }
            }
        }
    }
    model.assert_is_read(&mut backend);
    backend.commit().unwrap();
    fold_all(&mut backend);
    model.committed.clone_from(&model.now);
    write(&mut backend);
    model.assert_is_read(&mut backend);
    model.assert_is_shown(&path);
    backend.commit().unwrap();
    assert_eq!(entries(&place.connect()), 0);
}

#[test]
fn the_log_is_bounded_and_a_foreign_write_is_newer_than_all_of_it() {
    let place = Place::new();
    let mut backend = open(&place.path());
    write(&mut backend);
    let mut last = stored(backend.next_serial().unwrap(), "a");
    assert!(backend.insert(&row(&last)).unwrap());
    for save in 0..ENTRIES_MAX + 9 {
        let new = Stored { counter: last.counter + 1, data: json(&save.to_string()), ..last.clone() };
        assert!(backend.update(&last, &new).unwrap());
        last = new;
        if save == ENTRIES_MAX - 2 {
            // Of the last entry but one, so that the log is at its longest without the row being written.
            backend.commit().unwrap();
            let other = place.connect();
            assert_eq!(entries(&other), ENTRIES_MAX - 1);
            other.execute("UPDATE session SET data = '\"foreign\"'", []).unwrap();
            write(&mut backend);
            let found = backend.find(&last.id, Read::All).unwrap().expect("it is there").stored;
            assert_eq!(found.data, json("foreign"));
            assert!(found.counter > last.counter);
            assert!(!backend.update(&last, &Stored { counter: last.counter + 1, ..last.clone() }).unwrap());
            last = found;
        }
    }
    backend.commit().unwrap();
    assert_eq!(entries(&place.connect()), ENTRIES_MAX);
    write(&mut backend);
    assert_eq!(backend.find(&last.id, Read::All).unwrap().expect("it is there").stored, last);
    backend.rollback().unwrap();
}

fn text(record: &Record) -> String {
    record.data().unwrap()
}

#[tokio::test]
async fn saves_are_there_after_a_kill_and_what_came_after_them_too() {
    let rig = Rig::open().await;
    for id in ["saved", "applied", "deleted", "replaced", "rotated"] {
        let session = rig.create(id).await;
        session.save("1").await.unwrap();
        session.save("2").await.unwrap();
    }
    let version = read(&rig.session("saved")).await.version();
    rig.session("applied").apply(Change::new().user("ada")).await.unwrap();
    rig.session("deleted").delete().await.unwrap();
    rig.session("replaced").delete().await.unwrap();
    rig.create("replaced").await;
    let rotated = rig.session("rotated").rotate(Change::new()).await.unwrap();
    let copy = as_killed(&rig.place);
    let left = entries(&copy.connect());
    assert!(left >= 10, "nothing is folded before it is at rest: {left}");
    let engine = copy.builder().clock(rig.clock.clone()).open().await.unwrap();
    let session = |id: &str| engine.session(id).unwrap();
    let saved = read(&session("saved")).await;
    assert_eq!((text(&saved), saved.version()), ("2".to_owned(), version));
    let applied = read(&session("applied")).await;
    assert_eq!((text(&applied), applied.user()), ("2".to_owned(), Some("ada")));
    assert!(session("deleted").get().await.unwrap().is_none());
    assert_eq!(text(&read(&session("replaced")).await), "replaced");
    assert!(session("rotated").get().await.unwrap().is_none());
    assert_eq!(text(&read(&session(rotated.id().as_str())).await), "2");
    // Saves go on from there, and a save on an older state does not.
    assert!(matches!(session("applied").save_if(version, "x").await, Err(Error::Conflict { .. })));
    session("saved").save_if(version, "3").await.unwrap();
    rig.advance(AT_REST);
    let other = copy.connect();
    eventually("it is folded", async || {
        // A touch wakes the storage thread, whose clock is moved by hand.
        session("applied").touch().await.unwrap();
        entries(&other) == 0
    })
    .await;
    let in_row = "SELECT data FROM session WHERE id = 'saved'";
    assert_eq!(other.query_row(in_row, [], |row| row.get::<_, String>(0)).unwrap(), "\"3\"");
    engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stop_leaves_nothing_in_the_log() {
    let rig = Rig::open().await;
    rig.create("a").await.save("b").await.unwrap();
    assert_eq!(entries(&rig.place.connect()), 1);
    rig.engine.shutdown().await.unwrap();
    let in_row = "SELECT data FROM session";
    assert_eq!(rig.place.connect().query_row(in_row, [], |row| row.get::<_, String>(0)).unwrap(), "\"b\"");
    assert_eq!(entries(&rig.place.connect()), 0);
}

#[tokio::test]
async fn a_foreign_writer_wins_over_saves_in_the_log() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.save("1").await.unwrap();
    let version = session.save("2").await.unwrap();
    let other = rig.place.connect();
    let shown = || other.query_row("SELECT data FROM current_session", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(shown(), "\"2\"");
    other.execute("UPDATE session SET data = '\"foreign\"'", []).unwrap();
    assert_eq!(shown(), "\"foreign\"");
    assert!(matches!(session.save_if(version, "3").await, Err(Error::Conflict { .. })));
    session.update(|data: &mut String| data.push('!')).await.unwrap();
    assert_eq!((text(&read(&session).await), shown()), ("foreign!".to_owned(), "\"foreign!\"".to_owned()));
    // Metadata is not in the log: a foreign change of it leaves the saves as they are.
    other.execute("UPDATE session SET user = 'ada'", []).unwrap();
    session.save("4").await.unwrap();
    let record = read(&session).await;
    assert_eq!((text(&record), record.user()), ("4".to_owned(), Some("ada")));
    assert_eq!(text(&rig.restart().await.record("a").await), "4");
}

#[tokio::test]
async fn a_list_tells_size_and_version_of_what_is_in_the_log() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let version = session.save("something longer").await.unwrap();
    let page = rig.engine.list(sessile::Query::new(sessile::Filter::all())).await.unwrap();
    assert_eq!(page.items[0].data_bytes(), "\"something longer\"".len() as u64);
    assert_eq!(page.items[0].version(), version);
}

#[tokio::test]
async fn a_file_of_the_first_schema_gets_its_log() {
    let rig = Rig::open().await;
    rig.create("a").await;
    rig.engine.shutdown().await.unwrap();
    downgrade(&rig.place, 1);
    let engine = rig.place.builder().open().await.unwrap();
    let session = engine.session("a").unwrap();
    session.save("b").await.unwrap();
    engine.create(NewSession::with_id("c")).await.unwrap();
    assert_eq!(text(&read(&session).await), "b");
    assert_eq!(entries(&rig.place.connect()), 1);
    engine.shutdown().await.unwrap();
}

#[test]
fn a_log_whose_last_position_is_taken_loses_no_save() {
    let place = Place::new();
    let mut backend = open(&place.path());
    let (a, b) = (stored(1, "a"), stored(2, "b"));
    write(&mut backend);
    for stored in [&a, &b] {
        assert!(backend.insert(&row(stored)).unwrap());
    }
    backend.commit().unwrap();
    let logged = Stored { counter: a.counter + 1, data: json("logged"), ..a };
    place
        .connect()
        .execute("INSERT INTO save_log VALUES (?1, 1, ?2, '\"logged\"')", (i64::MAX, logged.counter))
        .unwrap();
    // A save amid a fold, which takes all up to the last position for its own.
    write(&mut backend);
    backend.fold(true).unwrap();
    backend.commit().unwrap();
    let saved = Stored { counter: b.counter + 1, data: json("saved"), ..b.clone() };
    write(&mut backend);
    assert!(backend.update(&b, &saved).unwrap());
    backend.commit().unwrap();
    fold_all(&mut backend);
    for stored in [logged, saved] {
        write(&mut backend);
        assert_eq!(backend.find(&stored.id, Read::All).unwrap().expect("it is there").stored, stored);
        backend.rollback().unwrap();
    }
}
