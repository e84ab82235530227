//! The rig finds what it is there to find: each test gives it something that is wrong.

use sessile::Durability;
use sessile_tests::{Place, Random, vfs::watch};
use tokio::runtime::Runtime;

use crate::{
    clients::{Habits, Histories, Mark},
    content::{Datum, Kept, NAME},
    cuts::{Findings, Plan, Recording, Violation, cut, least},
    disk::{Event, Files, Recorder, files_in},
    script::{Life, plain_life},
};

const ONLY_COMMITTED: Habits = Habits { synced: 0, padding: 1_500, flushes: false, engine: Durability::Committed };
const SOME_SYNCED: Habits = Habits { synced: 30, padding: 1_500, flushes: true, engine: Durability::Committed };
const PLAN: Plan = Plan { writes: 1, sectors: 1, sample_every: 0 };

fn live(random: &mut Random, habits: Habits, lies: bool) -> Life {
    Runtime::new().unwrap().block_on(plain_life(random, habits, 10, lies))
}

fn judge(recording: &Recording<'_>, random: &mut Random) -> Findings {
    cut(recording, PLAN, random, &mut |_, _| {})
}

#[test]
fn committed_writes_are_lost_by_a_power_cut_but_only_from_the_end() {
    let mut random = Random::seeded();
    let life = live(&mut random, ONLY_COMMITTED, false);
    let findings = judge(&life.recording(), &mut random);
    println!("figure: power_committed_only disk=honest committed_acknowledged={} {findings}", life.committed);
    findings.demand_honest(least::ONLY_COMMITTED);
    // Three clients did ten operations each between one sync and the next.
    assert!(findings.behind_answers >= 25 && findings.behind_commits > 5, "{findings}");
}

#[test]
#[should_panic(expected = "hardly anything was cut")]
fn a_rig_that_cuts_nothing_is_found() {
    let mut random = Random::seeded();
    let nothing = Recording { start: Files::new(), log: &[], histories: &Histories::default() };
    judge(&nothing, &mut random).demand_honest(least::ONLY_COMMITTED);
}

#[test]
fn a_disk_that_lies_about_syncs_damages_the_file_and_loses_synced_writes() {
    let mut random = Random::seeded();
    let life = live(&mut random, SOME_SYNCED, true);
    let findings = judge(&life.recording(), &mut random);
    println!("figure: power_lying_disk disk=lying synced_acknowledged={} {findings}", life.synced);
    assert!(findings.count(Violation::Corrupt) > 0, "{findings}");
    assert!(findings.count(Violation::SyncedLost) > 0, "{findings}");
    // The power staying on, nobody notices.
    assert_eq!((findings.count(Violation::KillLost), findings.count(Violation::Wrong)), (0, 0), "{findings}");
}

#[test]
fn a_connection_without_syncs_damages_the_file_and_loses_what_it_acknowledged() {
    let mut random = Random::seeded();
    let place = Place::new();
    Runtime::new().unwrap().block_on(async {
        place.builder().open().await.unwrap().shutdown().await.unwrap();
    });
    let start = files_in(&place.directory());
    let recorder = Recorder::new();
    let _watch = watch(&place.directory(), recorder.clone());
    let connection = place.connect();
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0").unwrap();
    let mut history = vec![Kept::new()];
    for operation in 1..=40 {
        let data =
            Datum { client: 0, slot: Some(operation), operation: operation as usize, padding: "x".repeat(2_000) };
        let data = serde_json::to_string(&data).unwrap();
        let add = format!(
            "BEGIN; UPDATE meta SET value = {operation} + 1 WHERE key = 'serial_next'; \
             INSERT INTO session (serial, id, user, counter, data) VALUES ({operation}, 'id-{operation}', 'client', 0, '{data}'); \
             INSERT INTO activity VALUES ({operation}, 0, 0, 0, NULL, NULL); COMMIT"
        );
        connection.execute_batch(&add).unwrap();
        let mut kept = history.last().unwrap().clone();
        kept.insert(operation, (operation as usize, 0));
        history.push(kept);
        recorder.mark(Mark::Acknowledged { client: 0, operation: operation as usize, synced: true });
        if operation % 10 == 0 {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        }
    }
    let histories = Histories { kept: [(0, history)].into(), ..Histories::default() };
    let findings = judge(&Recording { start, log: &recorder.take(), histories: &histories }, &mut random);
    println!("figure: power_synchronous_off disk=honest synchronous=off {findings}");
    assert!(findings.count(Violation::Corrupt) > 0, "{findings}");
    assert!(findings.count(Violation::SyncedLost) > 0, "{findings}");
}

#[test]
fn a_synced_answer_given_too_early_is_found() {
    let mut random = Random::seeded();
    let mut life = live(&mut random, ONLY_COMMITTED, false);
    for entry in &mut life.log {
        if let Event::Mark(Mark::Acknowledged { synced, .. }) = &mut entry.event {
            *synced = true;
        }
    }
    let findings = judge(&life.recording(), &mut random);
    assert!(findings.count(Violation::SyncedLost) > 0, "{findings}");
    assert_eq!(findings.violations.len(), findings.count(Violation::SyncedLost), "{findings}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    let mut random = Random::seeded();
    let mut life = live(&mut random, ONLY_COMMITTED, false);
    let is_answer = |event: &Event<Mark>| matches!(event, Event::Mark(Mark::Acknowledged { .. }));
    let last = life.log.iter().rposition(|entry| is_answer(&entry.event)).unwrap();
    // Somewhere in the middle, before anything of it was written.
    let answer = life.log.remove(last);
    life.log.insert(last / 2, answer);
    let findings = judge(&life.recording(), &mut random);
    assert!(findings.count(Violation::KillLost) > 0, "{findings}");
}

#[test]
fn a_commit_that_nobody_asked_for_is_found() {
    let mut random = Random::seeded();
    let mut life = live(&mut random, ONLY_COMMITTED, false);
    let history = life.histories.kept.get_mut(&1).unwrap();
    let middle = history.len() / 2;
    for kept in &mut history[middle..] {
        kept.insert(u64::MAX, (middle, 0));
    }
    let findings = judge(&life.recording(), &mut random);
    assert!(findings.count(Violation::Wrong) > 0, "{findings}");
}

#[test]
fn pages_that_a_checkpoint_did_not_write_are_found() {
    let mut random = Random::seeded();
    let life = live(&mut random, ONLY_COMMITTED, false);
    let mut log = life.log.clone();
    let from = log.iter().position(|entry| matches!(entry.event, Event::Mark(_))).unwrap();
    let is_page = |event: &Event<Mark>| matches!(event, Event::Write { name, .. } if name == NAME);
    let mut index = 0;
    log.retain(|entry| {
        index += 1;
        index <= from || !is_page(&entry.event)
    });
    assert!(log.len() < life.log.len(), "the log was moved into the database");
    let findings = judge(&Recording { log: &log, ..life.recording() }, &mut random);
    let found = [Violation::Corrupt, Violation::NeverCommitted, Violation::Wrong, Violation::KillLost];
    assert!(found.iter().any(|violation| findings.count(*violation) > 0), "{findings}");
}
