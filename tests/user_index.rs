//! The index of users, which may be behind: whatever it knows, a query by user finds what was committed, and all of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rusqlite::Connection;
use sessile::{Filter, NewSession, Order, Query};
use sessile_storage::{
    backend::{BEFORE_ALL_ROWS, Backend, Judging},
    cell::Activity,
    record::{ExpiryDefaults, Stored},
    sqlite::Sqlite,
};
use sessile_tests::{
    Place, Random, Rig,
    backend::{as_killed, downgrade, fold_all, open, row, stored, write},
    effort, eventually,
    vfs::{self, Breaker, CallKind, FileKind, Times, Verdict, codes},
};

/// Steps of the random test.
const STEPS: (u64, u64) = (10_000, 200_000);
/// Longer than what the index remembers of a name, and alike so far.
const USERS: [&str; 4] = ["", "ada", "0123456789abcdef and more", "0123456789abcdef and others"];
/// Rows from which on they are indexed although commands wait.
const FOLD_FROM: usize = 32_768;

const JUDGING: Judging = Judging { now: 2, defaults: ExpiryDefaults { idle_timeout: None, lifetime: None } };

fn of(user: &str) -> Filter {
    Filter::all().user(user)
}

fn any_user(random: &mut Random) -> Option<Arc<str>> {
    USERS.get(random.below(5) as usize).map(|user| Arc::from(*user))
}

/// The entries of the index, and what they must be once it knows everything.
fn entries(connection: &Connection) -> [Vec<(String, i64)>; 2] {
    ["SELECT user, serial FROM session_of_user", "SELECT user, serial FROM session WHERE typeof(user) = 'text'"].map(
        |sql| {
            let mut statement = connection.prepare_cached(&format!("{sql} ORDER BY user, serial")).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        },
    )
}

fn assert_is_complete(connection: &Connection) {
    let [indexed, there] = entries(connection);
    assert_eq!(indexed, there);
}

/// What the backend must hold: the open transaction's, and what was committed.
#[derive(Default)]
struct Model {
    now: BTreeMap<i64, Stored>,
    committed: BTreeMap<i64, Stored>,
}

impl Model {
    fn assert_is_found(&self, backend: &mut Sqlite) {
        for user in USERS {
            let rows = || self.now.values().filter(|stored| stored.user.as_deref() == Some(user));
            assert_eq!(backend.count(&of(user), JUDGING).unwrap(), rows().count() as u64);
            let listed = backend.list(&Query::new(of(user)).order(Order::Oldest).limit(1_000), JUDGING).unwrap();
            let listed: Vec<i64> = listed.into_iter().map(|summary| summary.serial().get()).collect();
            assert_eq!(listed, rows().map(|stored| stored.serial).collect::<Vec<_>>());
            let mut after = BEFORE_ALL_ROWS;
            let mut matching = Vec::new();
            loop {
                let step = backend.matching(&of(user), JUDGING, after, i64::MAX, 3).unwrap();
                let Some(last) = step.last() else { break };
                after = *last;
                matching.extend(step);
            }
            assert_eq!(matching, listed);
        }
    }

    /// Any of the rows.
    fn any(&self, random: &mut Random) -> Option<Stored> {
        self.now.values().nth(random.below(60) as usize).cloned()
    }

    fn commit(&mut self, backend: &mut Sqlite) {
        backend.commit().unwrap();
        self.committed.clone_from(&self.now);
    }
}

#[test]
fn any_order_of_changes_folds_and_faults_is_found_by_user() {
    let place = Place::new();
    let path = place.path();
    let mut random = Random::seeded();
    let (mut backend, mut model) = (open(&path), Model::default());
    write(&mut backend);
    for step in 0..effort(STEPS.0, STEPS.1) {
        match random.below(100) {
            0..30 => {
                if model.now.len() < 60 {
                    let user = any_user(&mut random);
                    let new = Stored { user, ..stored(backend.next_serial().unwrap(), &format!("made {step}")) };
                    assert!(backend.insert(&row(&new)).unwrap());
                    model.now.insert(new.serial, new);
                }
            }
            30..40 => {
                if let Some(old) = model.any(&mut random) {
                    backend.delete(old.serial).unwrap();
                    model.now.remove(&old.serial);
                }
            }
            40..50 => {
                if let Some(old) = model.any(&mut random) {
                    let new = Stored { user: any_user(&mut random), counter: old.counter + 1, ..old.clone() };
                    assert!(backend.update(&old, &new).unwrap());
                    model.now.insert(new.serial, new);
                }
            }
            50 => {
                // One that is not in that state any more keeps its user.
                if let Some(old) = model.any(&mut random) {
                    let old = Stored { counter: old.counter + 1, ..old };
                    let new = Stored { user: any_user(&mut random), counter: old.counter + 1, ..old.clone() };
                    assert!(!backend.update(&old, &new).unwrap());
                }
            }
            51..65 => backend.fold(true).unwrap(),
            65..72 => {
                backend.rollback().unwrap();
                model.now.clone_from(&model.committed);
                write(&mut backend);
            }
            72..82 => {
                model.commit(&mut backend);
                write(&mut backend);
            }
            82..87 => model.assert_is_found(&mut backend),
            87..92 => {
                // In a transaction that only reads, nothing can be indexed first.
                model.commit(&mut backend);
                backend.begin_read().unwrap();
                model.assert_is_found(&mut backend);
                backend.commit().unwrap();
                write(&mut backend);
            }
            92 => {
                // The connection is given up with a transaction open.
                backend.reopen().unwrap();
                model.now.clone_from(&model.committed);
                write(&mut backend);
            }
            93 if random.below(4) == 0 => {
                model.commit(&mut backend);
                drop(backend);
                backend = open(&path);
                write(&mut backend);
            }
            94..98 => {
                // Another process, with an SQLite that knows of nothing but triggers.
                model.commit(&mut backend);
                let other = Connection::open(&path).unwrap();
                let user = any_user(&mut random);
                match (random.below(3), model.any(&mut random)) {
                    (0, Some(mut row)) => {
                        (row.user, row.counter) = (user, row.counter + 1);
                        let sql = "UPDATE session SET user = ?2, counter = ?3 WHERE serial = ?1";
                        other.execute(sql, (row.serial, &row.user, row.counter)).unwrap();
                        model.now.insert(row.serial, row);
                    }
                    (1, Some(row)) => {
                        other.execute("DELETE FROM session WHERE serial = ?1", [row.serial]).unwrap();
                        other.execute("DELETE FROM activity WHERE serial = ?1", [row.serial]).unwrap();
                        model.now.remove(&row.serial);
                    }
                    _ => {
                        // Below all numbers that the engine gives.
                        let new = stored(-(step.cast_signed()), &format!("foreign {step}"));
                        let sql =
                            "INSERT INTO session (serial, id, user, counter, data) VALUES (?1, ?2, ?3, 1, '\"new\"')";
                        other.execute(sql, (new.serial, new.id.as_str(), &user)).unwrap();
                        other.execute("INSERT INTO activity VALUES (?1, 1, 1, 0, NULL, NULL)", [new.serial]).unwrap();
                        model.now.insert(new.serial, Stored { user, counter: 131_073, ..new });
                    }
                }
                model.committed.clone_from(&model.now);
                write(&mut backend);
            }
            _ => {
                // Touches and saves have logs of their own, which are folded in between.
                let rows: Vec<_> =
                    model.now.keys().map(|serial| (*serial, Activity { last_active: 2, count: step })).collect();
                backend.raise_activities(&rows).unwrap();
            }
        }
    }
    model.assert_is_found(&mut backend);
    model.commit(&mut backend);
    fold_all(&mut backend);
    assert_eq!(backend.sessions_unindexed(), 0);
    assert_is_complete(&place.connect());
}

fn add(backend: &mut Sqlite, user: &str) -> i64 {
    let serial = backend.next_serial().unwrap();
    let new = Stored { user: Some(user.into()), ..stored(serial, &format!("{serial}")) };
    assert!(backend.insert(&row(&new)).unwrap());
    serial
}

/// Runs a transaction.
fn committed(backend: &mut Sqlite, run: impl FnOnce(&mut Sqlite)) {
    write(backend);
    run(backend);
    backend.commit().unwrap();
}

#[test]
fn under_load_it_is_never_far_behind() {
    let place = Place::new();
    let mut backend = open(&place.path());
    let batch = 1_024;
    let mut most = 0;
    for _ in 0..FOLD_FROM * 3 / batch {
        committed(&mut backend, |backend| {
            for n in 0..batch {
                add(backend, USERS[n % USERS.len()]);
            }
        });
        most = most.max(backend.sessions_unindexed());
        if backend.fold_is_due(false) {
            committed(&mut backend, |backend| backend.fold(false).unwrap());
        }
    }
    assert!((FOLD_FROM as u64..FOLD_FROM as u64 * 3 / 2 + 2_048).contains(&most), "{most}");
}

#[test]
fn a_pass_cut_short_begins_again() {
    let place = Place::new();
    let mut backend = open(&place.path());
    let rows = 3_000;
    committed(&mut backend, |backend| {
        for n in 0..rows {
            add(backend, USERS[n % USERS.len()]);
        }
    });
    drop(backend);
    let mut backend = open(&place.path());
    committed(&mut backend, |backend| backend.fold(true).unwrap());
    write(&mut backend);
    backend.fold(true).unwrap();
    backend.rollback().unwrap();
    let indexed = entries(&place.connect())[0].len();
    assert!((1..rows).contains(&indexed), "{indexed}");
    assert_eq!(backend.sessions_unindexed(), rows as u64);
    fold_all(&mut backend);
    assert_is_complete(&place.connect());
    // What was committed is not taken back with the next one.
    write(&mut backend);
    backend.rollback().unwrap();
    assert_eq!(backend.sessions_unindexed(), 0);
}

#[test]
fn a_step_that_fails_half_way_forgets_no_row() {
    let place = Place::new();
    let user = |n: i64| format!("user {n:05}");
    let rows = 4_000;
    let mut backend = open(&place.path());
    committed(&mut backend, |backend| {
        for n in 0..rows {
            add(backend, &user(n));
        }
    });
    fold_all(&mut backend);
    backend.checkpoint_and_truncate().unwrap();
    drop(backend);
    let breaker = Breaker::new();
    let _watch = vfs::watch(&place.directory(), breaker.clone());
    // Nothing is in its cache, so each page of the index is read when a row goes there.
    let mut backend = open(&place.path());
    let mut failed = 0;
    for nth in 0..8 {
        committed(&mut backend, |backend| {
            for n in 0..20 {
                add(backend, &user(n * rows / 20));
            }
        });
        breaker.order(CallKind::Read, FileKind::Database, nth, Times::Once, Verdict::Fail(codes::SQLITE_IOERR_READ));
        write(&mut backend);
        if backend.fold(true).is_err() {
            failed += 1;
            backend.rollback().unwrap();
        } else {
            backend.commit().unwrap();
        }
        breaker.lift();
        fold_all(&mut backend);
        assert_is_complete(&place.connect());
    }
    assert!(failed > 0, "no step failed");
}

#[test]
fn a_row_that_goes_before_it_is_indexed_leaves_nothing() {
    let place = Place::new();
    let mut backend = open(&place.path());
    let (mut gone, mut other) = (0, 0);
    committed(&mut backend, |backend| {
        gone = add(backend, "ada");
        other = add(backend, "ada");
    });
    committed(&mut backend, |backend| {
        backend.delete(gone).unwrap();
        let old = Stored { user: Some("ada".into()), ..stored(other, &format!("{other}")) };
        let new = Stored { user: Some("bob".into()), counter: 2, ..old.clone() };
        assert!(backend.update(&old, &new).unwrap());
    });
    fold_all(&mut backend);
    assert_is_complete(&place.connect());
    assert_eq!(entries(&place.connect())[0], [("bob".to_owned(), other)]);
}

#[test]
fn a_row_number_that_is_given_again_is_found() {
    let place = Place::new();
    let mut backend = open(&place.path());
    write(&mut backend);
    add(&mut backend, "ada");
    // With it goes what put its number on record; the index has heard of it.
    backend.rollback().unwrap();
    committed(&mut backend, |backend| {
        while backend.fold_is_due(true) {
            backend.fold(true).unwrap();
        }
    });
    drop(backend);
    let mut backend = open(&place.path());
    let mut serial = 0;
    committed(&mut backend, |backend| serial = add(backend, "ada"));
    backend.begin_read().unwrap();
    assert_eq!(backend.matching(&of("ada"), JUDGING, BEFORE_ALL_ROWS, i64::MAX, 9).unwrap(), [serial]);
    backend.commit().unwrap();
}

#[tokio::test]
async fn after_a_kill_all_are_found() {
    let rig = Rig::open().await;
    for n in 0..20 {
        rig.engine.create(NewSession::with_id(format!("{n}")).user(USERS[n % 4])).await.unwrap();
    }
    let copy = as_killed(&rig.place);
    assert!(entries(&copy.connect())[0].len() < 20, "they are not indexed yet");
    let engine = copy.builder().open().await.unwrap();
    for user in USERS {
        assert_eq!(engine.count(of(user)).await.unwrap(), 5);
    }
    engine.shutdown().await.unwrap();
    assert_is_complete(&copy.connect());
}

#[tokio::test]
async fn a_damaged_row_keeps_no_other_from_it() {
    let rig = Rig::open().await;
    for n in 0..20 {
        rig.engine.create(NewSession::with_id(format!("{n}")).user(USERS[n % 4])).await.unwrap();
    }
    let copy = as_killed(&rig.place);
    copy.connect()
        .execute_batch(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'session'; \
             PRAGMA writable_schema = RESET; UPDATE session SET user = x'ff' WHERE id = '5'",
        )
        .unwrap();
    let engine = copy.builder().open().await.unwrap();
    assert_eq!(engine.count(of(USERS[1])).await.unwrap(), 4);
    assert_eq!(engine.stats().sessions_unindexed, 0);
    engine.shutdown().await.unwrap();
    assert_is_complete(&copy.connect());
}

#[tokio::test]
async fn at_rest_it_is_complete() {
    let rig = Rig::open().await;
    for n in 0..20 {
        rig.engine.create(NewSession::with_id(format!("{n}")).user(USERS[n % 4])).await.unwrap();
    }
    rig.advance(Duration::from_secs(1));
    eventually("it is complete", async || rig.engine.stats().sessions_unindexed == 0).await;
    assert_is_complete(&rig.place.connect());
}

#[tokio::test]
async fn what_another_process_replaces_is_found_by_its_new_user_only() {
    let rig = Rig::open().await;
    rig.engine.create(NewSession::with_id("a").user("ada")).await.unwrap();
    rig.engine.count(of("ada")).await.unwrap();
    // SQLite runs no trigger for the row that makes way.
    let sql = "REPLACE INTO session SELECT serial, id, 'bob', counter + 1, metadata, data FROM session";
    assert_eq!(rig.place.connect().execute(sql, []).unwrap(), 1);
    assert_eq!(rig.engine.count(of("ada")).await.unwrap(), 0);
    assert_eq!(rig.engine.count(of("bob")).await.unwrap(), 1);
}

#[tokio::test]
async fn a_file_of_the_third_schema_gets_it() {
    let rig = Rig::open().await;
    for n in 0..20 {
        rig.engine.create(NewSession::with_id(format!("{n}")).user(USERS[n % 4])).await.unwrap();
    }
    rig.engine.shutdown().await.unwrap();
    downgrade(&rig.place, 3);
    let engine = rig.place.builder().open().await.unwrap();
    assert_is_complete(&rig.place.connect());
    engine.create(NewSession::with_id("new").user("ada")).await.unwrap();
    assert_eq!(engine.count(of("ada")).await.unwrap(), 6);
    engine.shutdown().await.unwrap();
}

#[test]
fn an_index_that_has_lost_its_place_is_made_anew() {
    let place = Place::new();
    let mut backend = open(&place.path());
    write(&mut backend);
    let new = Stored { user: Some("ada".into()), ..stored(backend.next_serial().unwrap(), "a") };
    assert!(backend.insert(&row(&new)).unwrap());
    backend.commit().unwrap();
    fold_all(&mut backend);
    drop(backend);
    for damage in
        ["DELETE FROM meta WHERE key = 'users_indexed'", "UPDATE meta SET value = -5 WHERE key = 'users_indexed'"]
    {
        place.connect().execute_batch(&format!("{damage}; DELETE FROM session_of_user")).unwrap();
        let mut backend = open(&place.path());
        fold_all(&mut backend);
        assert_is_complete(&place.connect());
    }
}
