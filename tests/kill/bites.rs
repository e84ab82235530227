//! The rig finds what it is to find: children that break their promises, and findings that were tampered with.

use std::time::Duration;

use sessile::Engine;
use sessile_tests::{
    PATIENCE, Place, Random,
    load::{Answer, End, Entry, Found, Ledger, Step, read_all},
};

use crate::{
    campaign::{Aim, Campaign, Plan},
    child::{Child, Options},
};

/// Kills within which a broken promise must be found.
const KILLS_MAX: u64 = 15;

/// Changes what was found, as a fault of the engine would have.
type Tamper<'a> = &'a dyn Fn(&mut Vec<Found>);

fn is_found(plan: Plan) -> bool {
    let mut campaign = Campaign::new(Random::seeded(), plan);
    for kill in 1..=KILLS_MAX {
        let wrong = campaign.round();
        if let Some(first) = wrong.first() {
            println!("found by kill {kill}: {}", first.chars().take(200).collect::<String>());
            return true;
        }
    }
    false
}

#[test]
fn a_process_that_acknowledges_before_it_commits_is_found_out() {
    assert!(is_found(Plan { lies: true, aim: Some(Aim::Load), again: false, ..Plan::default() }));
}

#[test]
fn a_process_that_does_not_flush_is_found_out() {
    assert!(is_found(Plan {
        flush_interval: Some(Duration::from_secs(3_600)),
        flush_interval_claimed: Some(Duration::from_millis(50)),
        engine_wide: Some(false),
        aim: Some(Aim::Load),
        again: false,
        ..Plan::default()
    }));
}

/// Killed before its first flush, but so late that by the interval it claims one should have been: there touches are missing,
/// unless requests took about as long as the load. Of few sessions, most touches would be written with something else.
#[test]
fn a_process_that_flushes_at_twice_the_interval_is_found_out() {
    const CLAIMED: Duration = Duration::from_millis(600);
    assert!(is_found(Plan {
        flush_interval: Some(CLAIMED * 2),
        flush_interval_claimed: Some(CLAIMED),
        sessions_per_client: 300,
        load: Some(CLAIMED * 7 / 4),
        engine_wide: Some(false),
        aim: Some(Aim::Load),
        again: false,
        ..Plan::default()
    }));
}

#[test]
fn a_slow_request_excuses_lost_touches_while_it_lasts_and_no_longer() {
    const MS: u64 = 1_000;
    let id = || "k0".to_owned();
    let create = || Step::Create { id: Some(id()), pad: 0, user: false };
    let save = || Step::Save { id: id(), pad: 0, synced: false };
    let found = Found {
        key: 0,
        id: id(),
        serial: 1,
        seq: 2,
        updates: 0,
        pad: 0,
        is_sound: true,
        user: false,
        tag: None,
        touches: 0,
        last_active_us: 0,
    };
    // A touch while a slow save lasts. Killed so long after the save, is the touch missed?
    let is_missed = |killed_ms: u64| {
        let mut ledger = Ledger::new(1, 1, 1);
        let begins = |at_ms: u64, op, step| Entry::Invoked { at_us: at_ms * MS, op, key: Some(0), step };
        let ends = |at_ms: u64, op| Entry::Answered { at_us: at_ms * MS, op, answer: Answer::Done { id: Some(id()) } };
        for entry in [
            begins(0, 1, create()),
            ends(1, 1),
            begins(1, 2, save()),
            begins(450, 3, Step::Touch { id: id(), committed: false }),
            ends(450, 3),
            ends(501, 2),
        ] {
            ledger.enter(entry);
        }
        let end = End::Kill { at_us: (501 + killed_ms) * MS, flush_interval_us: 100 * MS };
        !ledger.judge(end, std::slice::from_ref(&found)).is_empty()
    };
    assert!(!is_missed(40), "the interval is not over");
    assert!(!is_missed(99), "the save may have kept the flush waiting");
    assert!(is_missed(101), "the flush was due long after the save");
}

#[test]
fn a_session_made_anew_in_doubt_that_looks_like_the_one_before_is_told_by_its_touches() {
    let id = || "k0".to_owned();
    let create = || Step::Create { id: Some(id()), pad: 0, user: false };
    let touch = || Step::Touch { id: id(), committed: false };
    // A session with a touch; then a deletion, a creation and a save, of which nobody knows what happened.
    let is_wrong = |touches: u64| {
        let mut ledger = Ledger::new(1, 1, 1);
        let begins = |op, step| Entry::Invoked { at_us: op, op, key: Some(0), step };
        let ends = |op, answer| Entry::Answered { at_us: op, op, answer };
        let done = || Answer::Done { id: Some(id()) };
        let save = Step::Save { id: id(), pad: 0, synced: false };
        let entries = [
            [begins(1, create()), ends(1, done())],
            [begins(2, touch()), ends(2, done())],
            [begins(3, Step::Delete { id: id() }), begins(4, create())],
            [begins(5, save), ends(3, Answer::Doubt)],
            [ends(4, Answer::Doubt), ends(5, Answer::Doubt)],
        ];
        entries.into_iter().flatten().for_each(|entry| ledger.enter(entry));
        let (seq, serial) = (5, 2);
        let found = Found {
            key: 0,
            id: id(),
            serial,
            seq,
            updates: 0,
            pad: 0,
            is_sound: true,
            user: false,
            tag: None,
            touches,
            last_active_us: 0,
        };
        ledger.enter(Entry::Resolved { key: 0, found: Some(found) });
        ledger.totals().violations > 0
    };
    assert!(!is_wrong(0), "the one made anew has none");
    assert!(!is_wrong(1), "the one before has one");
    assert!(is_wrong(2), "neither has two");
}

#[test]
fn findings_that_were_tampered_with_are_found_out() {
    const CLIENTS: u32 = 4;
    // So many that not all are there at any moment.
    const SESSIONS: u32 = 64;
    let place = Place::new();
    let options = Options {
        seed: Random::seeded().next(),
        clients: CLIENTS,
        sessions_per_client: SESSIONS,
        pad_max: 200,
        engine_wide: true,
        ..Options::default()
    };
    let mut child = Child::spawn(&place.path(), &options);
    child.ready();
    std::thread::sleep(Duration::from_millis(300));
    child.shut_down();
    child.milestone(PATIENCE).expect("it begins to shut down");
    let mut ledger = Ledger::new(CLIENTS, CLIENTS * SESSIONS, 1_000);
    child.end().entries.into_iter().for_each(|entry| ledger.enter(entry));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let found: Vec<Found> = runtime.block_on(async {
        let engine = Engine::builder(place.path()).open().await.unwrap();
        let records = read_all(&engine).await.unwrap();
        engine.shutdown().await.unwrap();
        records.iter().map(|record| Found::read(record).unwrap()).collect()
    });
    let judge = |found: &[Found]| ledger.clone().judge(End::Shutdown, found);
    assert_eq!(judge(&found), Vec::<String>::new());
    assert!(found.len() > 4 && found.len() < (CLIENTS * SESSIONS) as usize, "{} sessions", found.len());

    let tampered = |change: Tamper<'_>| {
        let mut found = found.clone();
        change(&mut found);
        found
    };
    let absent = (0..CLIENTS * SESSIONS).find(|key| found.iter().all(|found| found.key != *key)).unwrap();
    let touched = found.iter().position(|found| found.touches > 0).expect("one was touched");
    let changes: [(&str, Tamper<'_>); 12] = [
        ("a session is lost", &|found| drop(found.remove(0))),
        ("a deleted session is back", &|found| found.push(Found { key: absent, ..found[0].clone() })),
        ("a session is there twice", &|found| found.push(Found { id: "old".to_owned(), ..found[0].clone() })),
        ("nobody made a session", &|found| found.push(Found { key: CLIENTS * SESSIONS, ..found[0].clone() })),
        ("a session has another id", &|found| found[0].id = "other".to_owned()),
        ("an older state is back", &|found| found[0].seq -= 1),
        ("an update is lost", &|found| found[0].updates += 1),
        ("data is torn", &|found| found[0].is_sound = false),
        ("the owner is another", &|found| found[0].user = !found[0].user),
        ("a touch is lost", &|found| found[touched].touches -= 1),
        ("a touch counts twice", &|found| found[touched].touches += 1),
        ("a row number is used again", &|found| found[0].serial = 0),
    ];
    for (what, change) in changes {
        assert!(!judge(&tampered(change)).is_empty(), "not found: {what}");
    }
}
