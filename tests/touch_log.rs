//! The log of touches under the rows: whatever is in it, one reads the activity that was committed last.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rusqlite::Connection;
use sessile::{Filter, NewSession, Order, Query};
use sessile_storage::{
    backend::{Backend, Read},
    cell::{Activity, COUNT_MAX},
    record::Stored,
    sqlite::Sqlite,
};
use sessile_tests::{
    Place, Random, Rig,
    backend::{as_killed, downgrade, fold_all, open, row, stored, write},
    effort, eventually, read,
};

/// Steps of the random test.
const STEPS: (u64, u64) = (10_000, 200_000);
/// Sessions of a rig: enough for their flush to go to the log.
const SESSIONS: u64 = 20;
/// The bound on entries, as the log has it.
const ENTRIES_MAX: u64 = 131_072;

fn entries(connection: &Connection) -> u64 {
    let sql = "SELECT coalesce(sum(json_array_length(touches)), 0) FROM touch_log";
    number(connection, sql)
}

fn number(connection: &Connection, sql: &str) -> u64 {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

/// What the backend must hold: the open transaction's, and what was committed.
#[derive(Default)]
struct Model {
    now: BTreeMap<i64, (Stored, Activity)>,
    committed: BTreeMap<i64, (Stored, Activity)>,
}

impl Model {
    fn assert_is_read(&self, backend: &mut Sqlite) {
        for (stored, activity) in self.now.values() {
            let by_id = backend.find(&stored.id, Read::WithoutData).unwrap().expect("it is there");
            assert_eq!(by_id.activity, *activity, "{}", stored.serial);
            let at = backend.find_at(stored.serial, &stored.id, Read::All).unwrap().expect("it is there");
            assert_eq!(at.activity, *activity, "{}", stored.serial);
        }
    }

    /// As another process sees it.
    fn assert_is_shown(&self, path: &Path) {
        let other = Connection::open(path).unwrap();
        let sql = "SELECT serial, last_active_at, touch_count FROM current_session ORDER BY serial";
        let mut statement = other.prepare_cached(sql).unwrap();
        let shown = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let shown: Vec<(i64, i64, i64)> = shown.collect::<Result<_, _>>().unwrap();
        let committed = self.committed.values().map(|(stored, activity)| (stored, activity));
        let committed: Vec<_> =
            committed.map(|(s, activity)| (s.serial, activity.last_active, activity.count.cast_signed())).collect();
        assert_eq!(shown, committed);
    }

    /// Raises some rows, and returns what is to be written.
    fn touch(&mut self, random: &mut Random) -> Vec<(i64, Activity)> {
        let one_in = 1 + random.below(6);
        let mut rows = Vec::new();
        for (serial, (_, activity)) in &mut self.now {
            if random.below(one_in) == 0 {
                activity.count += random.below(3);
                activity.last_active += random.below(1_000_000).cast_signed();
                rows.push((*serial, *activity));
            }
        }
        rows
    }

    fn commit(&mut self, backend: &mut Sqlite) {
        backend.commit().unwrap();
        self.committed.clone_from(&self.now);
    }
}

#[test]
fn any_order_of_flushes_folds_and_faults_reads_as_if_there_were_no_log() {
    let place = Place::new();
    let path = place.path();
    let mut random = Random::seeded();
    let (mut backend, mut model) = (open(&path), Model::default());
    write(&mut backend);
    for step in 0..effort(STEPS.0, STEPS.1) {
        match random.below(100) {
            0..10 => {
                if model.now.len() < 60 {
                    let new = stored(backend.next_serial().unwrap(), &format!("made {step}"));
                    assert!(backend.insert(&row(&new)).unwrap());
                    let activity = row(&new).activity;
                    model.now.insert(new.serial, (new, activity));
                }
            }
            10..13 => {
                let serials: Vec<i64> = model.now.keys().copied().collect();
                if let Some(serial) = serials.get(random.below(60) as usize) {
                    backend.delete(*serial).unwrap();
                    model.now.remove(serial);
                }
            }
            13..20 => backend.fold(true).unwrap(),
            20..24 => {
                backend.rollback().unwrap();
                model.now.clone_from(&model.committed);
                write(&mut backend);
            }
            24..36 => {
                model.commit(&mut backend);
                write(&mut backend);
            }
            36..40 => {
                model.assert_is_read(&mut backend);
                model.assert_is_shown(&path);
            }
            40 => {
                // The connection is given up with a transaction open.
                backend.reopen().unwrap();
                model.now.clone_from(&model.committed);
                write(&mut backend);
            }
            41 if random.below(4) == 0 => {
                model.commit(&mut backend);
                drop(backend);
                backend = open(&path);
                write(&mut backend);
            }
            42..45 => {
                // Another process counts, too; or deletes, and makes another session of the same number.
                model.commit(&mut backend);
                let other = Connection::open(&path).unwrap();
                let any = random.below(model.now.len().max(1) as u64) as usize;
                match (random.below(4), model.now.keys().copied().nth(any)) {
                    (0, Some(serial)) => {
                        other
                            .execute("UPDATE activity SET touch_count = touch_count + 5 WHERE serial = ?1", [serial])
                            .unwrap();
                        model.now.get_mut(&serial).unwrap().1.count += 5;
                    }
                    (1, Some(serial)) => {
                        other.execute("DELETE FROM activity WHERE serial = ?1", [serial]).unwrap();
                        other.execute("INSERT INTO activity VALUES (?1, 1, 1, 0, NULL, NULL)", [serial]).unwrap();
                        model.now.get_mut(&serial).unwrap().1 = Activity { last_active: 1, count: 0 };
                    }
                    (2, Some(serial)) => {
                        // A number that the engine is done with, whose touches are in the log still.
                        write(&mut backend);
                        backend.delete(serial).unwrap();
                        backend.commit().unwrap();
                        let new = stored(serial, &format!("foreign {step}"));
                        let sql = "INSERT INTO session (serial, id, counter, data) VALUES (?1, ?2, 1, '\"new\"')";
                        other.execute(sql, (serial, new.id.as_str())).unwrap();
                        other.execute("INSERT INTO activity VALUES (?1, 1, 1, 0, NULL, NULL)", [serial]).unwrap();
                        let activity = row(&new).activity;
                        model.now.insert(serial, (new, activity));
                    }
                    _ => {
                        other.execute("UPDATE activity SET touch_count = touch_count + 7", []).unwrap();
                        model.now.values_mut().for_each(|(_, activity)| activity.count += 7);
                    }
                }
                model.committed.clone_from(&model.now);
                write(&mut backend);
            }
            _ => {
                let rows = model.touch(&mut random);
                backend.raise_activities(&rows).unwrap();
            }
        }
    }
    model.assert_is_read(&mut backend);
    model.commit(&mut backend);
    fold_all(&mut backend);
    model.assert_is_shown(&path);
    let other = place.connect();
    assert_eq!(entries(&other), 0);
    // The rows themselves are complete.
    let counts = number(&other, "SELECT sum(touch_count) FROM activity");
    assert_eq!(counts, model.now.values().map(|(_, activity)| activity.count).sum::<u64>());
}

#[test]
fn the_log_is_bounded() {
    let place = Place::new();
    let mut backend = open(&place.path());
    write(&mut backend);
    let mut rows: Vec<(i64, Activity)> = Vec::new();
    for n in 0..1_000 {
        let new = stored(backend.next_serial().unwrap(), &format!("{n}"));
        assert!(backend.insert(&row(&new)).unwrap());
        rows.push((new.serial, Activity { last_active: 1, count: 0 }));
    }
    for _ in 0..200 {
        for (_, activity) in &mut rows {
            activity.count += 1;
        }
        backend.raise_activities(&rows).unwrap();
    }
    backend.commit().unwrap();
    let left = entries(&place.connect());
    assert!((ENTRIES_MAX - 1_000..=ENTRIES_MAX).contains(&left), "{left}");
    write(&mut backend);
    let found = backend.find(&"7".try_into().unwrap(), Read::WithoutData).unwrap().expect("it is there");
    assert_eq!(found.activity.count, 200);
    backend.rollback().unwrap();
}

/// Opens a backend with twenty rows, whose activity is appended to the log.
fn logged(place: &Place, activity: Activity) -> (Sqlite, Vec<Stored>) {
    let mut backend = open(&place.path());
    write(&mut backend);
    let rows: Vec<Stored> = (0..20)
        .map(|n| {
            let new = stored(backend.next_serial().unwrap(), &format!("{n}"));
            assert!(backend.insert(&row(&new)).unwrap());
            new
        })
        .collect();
    let activities: Vec<_> = rows.iter().map(|stored| (stored.serial, activity)).collect();
    backend.raise_activities(&activities).unwrap();
    backend.commit().unwrap();
    assert_eq!(entries(&place.connect()), 20);
    (backend, rows)
}

/// Checks that all rows have this activity, to the engine and to others.
fn assert_activity(place: &Place, backend: &mut Sqlite, rows: &[Stored], activity: Activity) {
    write(backend);
    for stored in rows {
        let found = backend.find(&stored.id, Read::WithoutData).unwrap().expect("it is there");
        assert_eq!(found.activity, activity);
    }
    backend.commit().unwrap();
    let sql = "SELECT count(*) FROM current_session WHERE last_active_at = ?1 AND touch_count = ?2";
    let shown = place.connect().query_row(sql, (activity.last_active, activity.count.cast_signed()), |row| row.get(0));
    assert_eq!(shown, Ok(rows.len() as i64));
}

#[test]
fn a_damaged_entry_takes_nothing_else_with_it() {
    let damaged = [
        "",
        "no json",
        "{}",
        r#"{"a":[1,500,9]}"#,
        "null",
        "[1,2,3]",
        "[[1]]",
        "[[1,500,9,1]]",
        "[[1,500,-9]]",
        "[[1,500,9.5]]",
        "[[1,500,9e0]]",
        "[[1,true,9]]",
        r#"[[1,"500",9]]"#,
        "[[1,[500],9]]",
        "[[1,500,9223372036854775808]]",
        "[[9223372036854775808,500,9]]",
        "[[1,9223372036854775807,9]]",
        "[[1,500,9],[2,500,-9]]",
        "[[1,500,9],7]",
    ];
    let place = Place::new();
    let (activity, at) = (Activity { last_active: 100, count: 3 }, 10);
    let (mut backend, rows) = logged(&place, activity);
    let other = place.connect();
    for touches in damaged {
        other.execute("INSERT INTO touch_log (since, touches) VALUES (?1, ?2)", (at, touches)).unwrap();
    }
    assert_activity(&place, &mut backend, &rows, activity);
    drop(backend);
    let mut backend = open(&place.path());
    assert_activity(&place, &mut backend, &rows, activity);
    // Nor does it keep another process from writing.
    assert_eq!(other.execute("UPDATE activity SET touch_count = touch_count + 1", []), Ok(rows.len()));
    assert_activity(&place, &mut backend, &rows, Activity { count: 4, ..activity });
    for touches in damaged {
        other.execute("INSERT INTO touch_log (since, touches) VALUES (?1, ?2)", (at, touches)).unwrap();
    }
    assert_activity(&place, &mut backend, &rows, Activity { count: 4, ..activity });
    fold_all(&mut backend);
    assert_eq!(number(&other, "SELECT count(*) FROM touch_log"), 0);
}

#[test]
fn no_count_in_the_log_is_more_than_a_row_may_hold() {
    let place = Place::new();
    let most = Activity { last_active: 100, count: COUNT_MAX };
    let (mut backend, rows) = logged(&place, Activity { count: COUNT_MAX + 1, ..most });
    assert_activity(&place, &mut backend, &rows, most);
    let other = place.connect();
    let beyond = format!("[[1,0,{}]]", i64::MAX);
    other.execute("INSERT INTO touch_log (since, touches) VALUES (1, ?1)", [beyond]).unwrap();
    assert_activity(&place, &mut backend, &rows, most);
    // Folded by another process, by the trigger.
    other.execute("UPDATE activity SET touch_count = touch_count WHERE serial = 2", []).unwrap();
    assert_eq!(number(&other, "SELECT count(*) FROM touch_log"), 0);
    assert_activity(&place, &mut backend, &rows, most);
}

#[test]
fn a_count_that_is_none_gives_way_to_the_log_before_a_fold_as_after_it() {
    let place = Place::new();
    let activity = Activity { last_active: 100, count: 3 };
    let (mut backend, rows) = logged(&place, activity);
    // A process that has no triggers.
    let other = place.connect();
    let triggers = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
    other.set_db_config(triggers, false).unwrap();
    other.execute("UPDATE activity SET touch_count = -1", []).unwrap();
    assert_activity(&place, &mut backend, &rows, activity);
    fold_all(&mut backend);
    assert_activity(&place, &mut backend, &rows, activity);
}

async fn touched(rig: &Rig, touches: u64) {
    for n in 0..SESSIONS {
        let id = format!("{n}");
        let session = match rig.engine.session(&id).unwrap().get().await.unwrap() {
            Some(_) => rig.session(&id),
            None => rig.create(&id).await,
        };
        for _ in 0..touches {
            session.touch().await.unwrap();
        }
    }
}

#[tokio::test]
async fn touches_are_there_after_a_kill_and_end_in_their_rows() {
    let rig = Rig::open().await;
    touched(&rig, 3).await;
    rig.advance(Duration::from_secs(1));
    let other = rig.place.connect();
    eventually("they are flushed, to the log", async || entries(&other) >= SESSIONS).await;
    let copy = as_killed(&rig.place);
    let engine = copy.builder().clock(rig.clock.clone()).open().await.unwrap();
    for n in 0..SESSIONS {
        let session = engine.session(format!("{n}")).unwrap();
        assert_eq!(read(&session).await.touch_count(), 3);
        session.touch().await.unwrap();
    }
    engine.shutdown().await.unwrap();
    let other = copy.connect();
    assert_eq!(entries(&other), 0);
    let counts = "SELECT count(*) FROM activity WHERE touch_count = 4";
    assert_eq!(number(&other, counts), SESSIONS);
}

#[tokio::test]
async fn queries_see_touches_in_the_log() {
    let rig = Rig::open().await;
    touched(&rig, 1).await;
    rig.advance(Duration::from_secs(1));
    let other = rig.place.connect();
    eventually("they are flushed, to the log", async || entries(&other) >= SESSIONS).await;
    let since = rig.session("0").get().await.unwrap().unwrap().last_active_at();
    assert_eq!(rig.engine.count(Filter::all().active(since..)).await.unwrap(), SESSIONS);
    rig.advance(Duration::from_secs(1));
    rig.session("7").touch().await.unwrap();
    let page = rig.engine.list(Query::new(Filter::all()).order(Order::RecentlyActive)).await.unwrap();
    assert_eq!((page.items[0].id().unwrap().as_str(), page.items[0].touch_count()), ("7", 2));
    assert!(page.items[1..].iter().all(|item| item.touch_count() == 1));
}

#[tokio::test]
async fn a_sweep_spares_who_is_alive_by_the_log() {
    let idle = Duration::from_secs(60);
    let rig = Rig::open_with(|builder| builder.idle_timeout(Duration::from_secs(60))).await;
    touched(&rig, 0).await;
    rig.advance(idle / 2);
    touched(&rig, 1).await;
    rig.advance(Duration::from_secs(1));
    let other = rig.place.connect();
    eventually("they are flushed, to the log", async || entries(&other) >= SESSIONS).await;
    rig.advance(idle / 2);
    assert_eq!(rig.engine.delete_where(Filter::over()).await.unwrap(), 0);
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), SESSIONS);
}

#[tokio::test]
async fn a_file_of_the_second_schema_gets_its_log() {
    let rig = Rig::open().await;
    touched(&rig, 2).await;
    rig.engine.shutdown().await.unwrap();
    downgrade(&rig.place, 2);
    let engine = rig.place.builder().open().await.unwrap();
    for n in 0..SESSIONS {
        engine.session(format!("{n}")).unwrap().touch().await.unwrap();
    }
    engine.flush().await.unwrap();
    let other = rig.place.connect();
    assert_eq!(entries(&other), SESSIONS);
    let shown = "SELECT count(*) FROM current_session WHERE touch_count = 3";
    assert_eq!(number(&other, shown), SESSIONS);
    engine.create(NewSession::with_id("new")).await.unwrap();
    engine.shutdown().await.unwrap();
}
