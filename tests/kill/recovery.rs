//! How long an engine takes to be back after a kill with a full log, and to shut down under load.

use std::time::{Duration, Instant};

use sessile::Engine;
use sessile_tests::{
    PATIENCE, Place, Random, effort,
    load::{End, Entry, Found, Ledger, now_us, read_all},
};

use crate::child::{Child, Options, log_bytes, log_reaches};

const CLIENTS: u32 = 32;
const SESSIONS_PER_CLIENT: u32 = 8;
const BUCKET_US: u64 = 2_000;
/// The size of the log to be killed with.
const LOG_BYTES: u64 = 64 << 20;
/// How long the load may take to write that.
const FILL: Duration = Duration::from_secs(60);
/// The most that opening may take then: what a supervisor waits for a service to come up, not what it takes.
const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// The most that a shutdown may take: what systems give a service before they kill it.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

fn options(random: &mut Random, pad_max: u32) -> Options {
    Options {
        seed: random.next(),
        clients: CLIENTS,
        sessions_per_client: SESSIONS_PER_CLIENT,
        pad_max,
        flush_interval: Duration::from_millis(250),
        ..Options::default()
    }
}

/// Opens the database and reads it, and judges it. Returns how long it took to open and to answer.
fn reopen(place: &Place, ledger: &mut Ledger, end: End) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let engine = Engine::builder(place.path()).open().await.expect("it opens");
        engine.session("k0").unwrap().get().await.expect("it answers");
        let recovery = began.elapsed();
        let records = read_all(&engine).await.unwrap();
        engine.shutdown().await.unwrap();
        let found: Vec<_> = records.iter().map(|record| Found::read(record).unwrap()).collect();
        assert_eq!(ledger.judge(end, &found), Vec::<String>::new());
        recovery
    })
}

#[test]
fn after_a_kill_with_a_log_of_64_megabytes_the_engine_is_back_soon() {
    let (place, mut random) = (Place::new(), Random::seeded());
    let mut ledger = Ledger::new(CLIENTS, CLIENTS * SESSIONS_PER_CLIENT, BUCKET_US);
    let child = Child::spawn(&place.path(), &options(&mut random, 60_000));
    child.ready();
    // A reader that pins the log; a process of its own, for if it closed the file, the log would be moved then.
    let reader = Child::spawn(&place.path(), &Options { reader: true, ..Options::default() });
    reader.ready();
    assert!(log_reaches(&place.path(), LOG_BYTES, FILL), "{} bytes", log_bytes(&place.path()));
    let dead = child.kill();
    reader.kill();
    let log_bytes = log_bytes(&place.path());
    assert!(log_bytes >= LOG_BYTES, "{log_bytes}");
    dead.entries.into_iter().for_each(|entry| ledger.enter(entry));
    let end = End::Kill { at_us: dead.at_us, flush_interval_us: 250_000 };
    let recovery = reopen(&place, &mut ledger, end);
    println!(
        "figure: recovery_log_mib={} recovery_ms={} writes_acknowledged={}",
        log_bytes >> 20,
        recovery.as_millis(),
        ledger.totals().writes
    );
    assert!(recovery < RECOVERY_MAX, "{recovery:?}");
}

#[test]
fn a_shutdown_under_load_ends_soon_and_loses_nothing() {
    let mut random = Random::seeded();
    let mut longest = Duration::ZERO;
    let (mut writes, mut touches) = (0, 0);
    let shutdowns = effort(3, 50);
    for _ in 0..shutdowns {
        let place = Place::new();
        let mut ledger = Ledger::new(CLIENTS, CLIENTS * SESSIONS_PER_CLIENT, BUCKET_US);
        let mut child = Child::spawn(&place.path(), &options(&mut random, 4_000));
        child.ready();
        std::thread::sleep(Duration::from_millis(200 + random.below(400)));
        child.shut_down();
        child.milestone(PATIENCE).expect("it begins to shut down");
        let dead = child.end();
        let moment = |closed: bool| {
            dead.entries.iter().find_map(|entry| match entry {
                Entry::Closing { at_us } if !closed => Some(*at_us),
                Entry::Closed { at_us } if closed => Some(*at_us),
                _ => None,
            })
        };
        let (began_us, ended_us) = (moment(false).expect("it began"), moment(true).expect("it ended"));
        longest = longest.max(Duration::from_micros(ended_us - began_us));
        assert!(ended_us <= now_us());
        dead.entries.into_iter().for_each(|entry| ledger.enter(entry));
        // Touches too: a shutdown writes them all.
        reopen(&place, &mut ledger, End::Shutdown);
        let totals = ledger.totals();
        assert_eq!((totals.unanswered, totals.touches_lost, totals.refused), (0, 0, 0));
        (writes, touches) = (writes + totals.writes, touches + totals.touches);
    }
    println!(
        "figure: shutdowns={shutdowns} clients={CLIENTS} shutdown_max_ms={} writes_acknowledged={writes} touches_acknowledged={touches}",
        longest.as_millis()
    );
    assert!(longest < SHUTDOWN_MAX, "{longest:?}");
}
