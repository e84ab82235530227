//! A kill while a database of another service is taken over: it is theirs or ours, never half of each.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sessile::Engine;
use sessile_tests::{Place, Random, effort, load::read_all};

use crate::child::{Child, Options};

const SESSIONS: i64 = 1_000;

/// Copies a file of the service.
fn seed(place: &Place, random: &mut Random) {
    let file = ["seed_sessions_wal.db", "seed_sessions_delete.db"][usize::try_from(random.below(2)).unwrap()];
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file), place.path()).unwrap();
}

/// Looks at a copy of the files, to leave them as the kill left them: returns whether they are ours already.
fn is_ours(place: &Place) -> bool {
    let copy = Place::new();
    for file in fs::read_dir(place.directory()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.directory().join(file.file_name())).unwrap();
    }
    let connection = copy.connect();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let tables = |name: &str| number(&format!("SELECT count(*) FROM sqlite_schema WHERE name = '{name}'"));
    let (theirs, ours) = (tables("sessions"), tables("session"));
    assert_eq!(theirs + ours, 1, "half of each");
    assert_eq!(number(&format!("SELECT count(*) FROM session{}", if ours == 1 { "" } else { "s" })), SESSIONS);
    ours == 1
}

/// What the sessions are, in all: how many, and sums over them.
fn sum(place: &Place) -> (usize, u64, i64, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let sum = runtime.block_on(async {
        let engine = Engine::builder(place.path()).take_over_time_zone("Asia/Shanghai").open().await.unwrap();
        let records = read_all(&engine).await.unwrap();
        engine.shutdown().await.unwrap();
        records.iter().fold((0, 0, 0_i64, 0), |(count, touches, active, bytes), record| {
            let active = active.wrapping_add(record.last_active_at().as_micros());
            (count + 1, touches + record.touch_count(), active, bytes + record.bytes().len())
        })
    });
    let check: String =
        Connection::open(place.path()).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    sum
}

#[test]
fn a_kill_during_a_take_over_leaves_theirs_or_ours() {
    let kills = effort(8, 200);
    let mut random = Random::seeded();
    let (mut before, mut after) = (0, 0);
    let place = Place::new();
    seed(&place, &mut random);
    let began = Instant::now();
    let child = Child::spawn(&place.path(), &Options::default());
    child.ready();
    let taking = began.elapsed();
    drop(child);
    let whole = sum(&place);
    assert_eq!(whole.0, usize::try_from(SESSIONS).unwrap());
    for _ in 0..kills {
        let place = Place::new();
        seed(&place, &mut random);
        let child = Child::spawn(&place.path(), &Options::default());
        let taking_us = u64::try_from(taking.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(random.below(taking_us * 5 / 4)));
        child.kill();
        *(if is_ours(&place) { &mut after } else { &mut before }) += 1;
        assert_eq!(sum(&place), whole);
    }
    println!("figure: take_over_kills={kills} still_theirs={before} already_ours={after}");
}
