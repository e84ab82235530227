//! Passivation: with little room in memory and many sessions, nothing is lost and no two actors overlap (I2).

#![allow(clippy::cast_possible_truncation, reason = "small numbers of sessions index vectors")]

use std::time::Duration;

use sessile::{Change, Engine, EngineBuilder, Filter, NewSession, Order, Query, testing::Faults};
use sessile_tests::{Place, Random, read, soon};

const SESSIONS: u64 = 1_000;
const TASKS: u64 = 16;
const OPERATIONS: u64 = 1_500;

/// What the tasks did, by session.
struct Ledger {
    updates: Vec<u64>,
    touches: Vec<u64>,
}

async fn fill(engine: &Engine) {
    let creating: Vec<_> = (0..SESSIONS)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.create(NewSession::with_id(format!("s{n}")).data(&0_u64)).await })
        })
        .collect();
    for creating in creating {
        creating.await.unwrap().unwrap();
    }
}

async fn load(engine: &Engine, random: &mut Random) -> Ledger {
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (engine, mut random) = (engine.clone(), random.split());
            tokio::spawn(async move {
                let mut done = Vec::new();
                // A handle kept over passivations, beside those made for each request.
                let kept = random.below(SESSIONS);
                let kept = (kept, engine.session(format!("s{kept}")).unwrap());
                for _ in 0..OPERATIONS {
                    let (n, session) = if random.below(4) == 0 {
                        kept.clone()
                    } else {
                        let n = random.below(SESSIONS);
                        (n, engine.session(format!("s{n}")).unwrap())
                    };
                    match random.below(6) {
                        0 | 1 => {
                            session.update(|n: &mut u64| *n += 1).await.unwrap();
                            done.push((n, true));
                        }
                        2 | 3 => {
                            session.touch().await.unwrap();
                            done.push((n, false));
                        }
                        4 => drop(session.apply(Change::new().metadata("k", "v").keep_idle()).await.unwrap()),
                        _ => assert!(session.get().await.unwrap().is_some()),
                    }
                }
                done
            })
        })
        .collect();
    let mut ledger = Ledger { updates: vec![0; SESSIONS as usize], touches: vec![0; SESSIONS as usize] };
    for task in tasks {
        for (n, is_update) in soon("a task", task).await.unwrap() {
            let counts = if is_update { &mut ledger.updates } else { &mut ledger.touches };
            counts[n as usize] += 1;
        }
    }
    ledger
}

async fn agrees(engine: &Engine, ledger: &Ledger) {
    for n in 0..SESSIONS {
        let record = read(&engine.session(format!("s{n}")).unwrap()).await;
        let expected = (ledger.updates[n as usize], ledger.touches[n as usize]);
        assert_eq!((record.data::<u64>().unwrap(), record.touch_count()), expected, "s{n}");
    }
}

async fn nothing_is_lost(configure: impl Fn(EngineBuilder) -> EngineBuilder) -> sessile::Stats {
    let mut random = Random::seeded();
    let place = Place::new();
    let engine = configure(place.builder()).open().await.unwrap();
    fill(&engine).await;
    let ledger = load(&engine, &mut random).await;
    agrees(&engine, &ledger).await;
    let stats = engine.stats();
    engine.shutdown().await.unwrap();
    let engine = configure(place.builder()).open().await.unwrap();
    agrees(&engine, &ledger).await;
    stats
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_actors_lose_nothing() {
    let stats = nothing_is_lost(|builder| builder.live_sessions_max(4)).await;
    assert_eq!(stats.sessions_in_memory, SESSIONS as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_sessions_in_memory_lose_nothing() {
    let stats = nothing_is_lost(|builder| builder.sessions_in_memory_max(8).live_sessions_max(2)).await;
    // The map has 64 parts, each of which may keep one; what was in flight can exceed the limit.
    assert!(stats.sessions_in_memory <= 8 + 64 + TASKS as usize, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_bytes_of_records_lose_nothing() {
    nothing_is_lost(|builder| builder.record_bytes_max(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_go_idle_at_once_lose_nothing() {
    nothing_is_lost(|builder| {
        builder.passivate_after(Duration::from_millis(1)).flush_interval(Duration::from_millis(1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_is_passivated_and_its_touches_are_kept() {
    let place = Place::new();
    let engine = place
        .builder()
        .passivate_after(Duration::from_millis(20))
        .flush_interval(Duration::from_millis(20))
        .open()
        .await
        .unwrap();
    let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
    for round in 1..=3 {
        session.save(&round).await.unwrap();
        session.touch().await.unwrap();
        sessile_tests::eventually("nothing is in memory", async || {
            let stats = engine.stats();
            (stats.sessions_in_memory, stats.live_sessions, stats.record_bytes, stats.touch_cells) == (0, 0, 0, 0)
        })
        .await;
        assert_eq!(read(&session).await.touch_count(), round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_and_creates_among_passivations_leave_each_session_its_own() {
    let place = Place::new();
    let engine = place.builder().sessions_in_memory_max(8).live_sessions_max(2).open().await.unwrap();
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let id = format!("s{n}");
                for round in 0..25_u64 {
                    let session = engine.create(NewSession::with_id(id.as_str()).data(&round)).await.unwrap();
                    session.touch().await.unwrap();
                    session.touch().await.unwrap();
                    let record = read(&session).await;
                    assert_eq!((record.data::<u64>().unwrap(), record.touch_count()), (round, 2));
                    let session = if round % 2 == 0 { session.rotate(Change::new()).await.unwrap() } else { session };
                    assert_eq!(read(&session).await.touch_count(), 2);
                    assert!(session.delete().await.unwrap());
                }
            })
        })
        .collect();
    for task in tasks {
        soon("a task", task).await.unwrap();
    }
    assert_eq!(engine.count(Filter::all()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touches_of_passivated_sessions_survive_faults() {
    let place = Place::new();
    let engine = place.builder().sessions_in_memory_max(8).open().await.unwrap();
    fill(&engine).await;
    for round in 1..=3 {
        for n in 0..SESSIONS {
            engine.session(format!("s{n}")).unwrap().touch().await.unwrap();
        }
        Faults::of(&engine).interrupt(round == 2);
        drop(engine.flush().await);
    }
    let mut after = None;
    let mut seen = 0;
    loop {
        let mut query = Query::new(Filter::all()).order(Order::Oldest).limit(1_000);
        if let Some(cursor) = after {
            query = query.after(cursor);
        }
        let page = engine.list(query).await.unwrap();
        seen += page.items.len() as u64;
        assert!(page.items.iter().all(|item| item.touch_count() == 3));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, SESSIONS);
}
