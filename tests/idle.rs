//! An engine that nothing is asked of uses no measurable CPU: it polls nothing. Each of its threads is watched by how often it
//! was woken and how long it ran; a thread that looks around every few milliseconds is found by the first, however little it
//! does.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sessile::{
    Change, Durability, Engine, Filter, NewSession, Query, Session,
    actor::{EngineMessage, ractor::call},
};
use sessile_tests::{
    Place, effort, eventually,
    process::{ThreadUse, alone, thread_uses},
};
use tokio::runtime::Runtime;

/// Sessions with an actor and a touch cell, each with timers of its own if it had any.
const SESSIONS: usize = 200;
/// The runtime's workers.
const WORKER: &str = "service";
/// The storage thread and the one that syncs the log, as Linux cuts their names.
const STORAGE: [&str; 2] = ["sessile-storage", "sessile-log-syn"];
/// Longer than any timer that traffic sets: a second to the sync of the log, half a second to the checkpoint. Who is not
/// woken for so long waits for nothing of it.
const SETTLES: Duration = Duration::from_millis(1_200);
/// What may be left: expired sessions are looked for every minute, idle ones every 150 s.
const WAKES_MAX: u64 = 3;
const WAKES_PER_MINUTE_MAX: u64 = 3;
/// The part of a processor that a thread may use: a millisecond in five seconds.
const PROCESSOR_PART: u32 = 5_000;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(WORKER)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Asks all kinds of things, so that every timer, actor and thread has been there.
async fn traffic(engine: &Engine) {
    let mut sessions = Vec::new();
    for session in 0..SESSIONS {
        let new = NewSession::with_id(format!("session-{session}")).user("ada").data(&session);
        sessions.push(engine.create(new).await.expect("it is created"));
    }
    for session in &sessions {
        ask(session).await.expect("all is well");
    }
    let synced = sessions[0].clone().with_durability(Durability::Synced);
    synced.save(&"synced").await.expect("it is saved");
    sessions[1].rotate(Change::new().user("grace")).await.expect("it is rotated");
    assert!(sessions[2].delete().await.expect("it is deleted"));
    engine.list(Query::new(Filter::all().user("ada"))).await.expect("they are listed");
    let id = sessions[3].id().clone();
    call!(engine.actor(), EngineMessage::get, id).expect("the actor answers").expect("it is read");
    // Some whose callers go away, and the timers of their deadlines with them.
    for session in &sessions[4..] {
        let session = session.clone();
        tokio::spawn(async move { session.save(&"given up").await }).abort();
    }
    for session in &sessions[4..] {
        session.touch().await.expect("it is touched");
    }
}

async fn ask(session: &Session) -> sessile::Result<()> {
    session.get().await?;
    session.save(&1).await?;
    session.update(|data: &mut u64| *data += 1).await?;
    session.touch_with(Durability::Committed).await?;
    session.touch().await
}

/// Waits until all that was asked for is done, and what it left to be done later.
async fn quiet(engine: &Engine) {
    engine.flush().await.expect("touches are written");
    eventually("the log is moved and all is answered", async || {
        let stats = engine.stats();
        let behind = stats.saves_in_log + stats.touches_in_log + stats.sessions_unindexed;
        (stats.log_pages, behind, stats.requests_in_flight) == (0, 0, 0)
    })
    .await;
    // What follows traffic by itself comes at most a second after it: the sync of the log.
    let mut before = None;
    eventually("the threads have gone to sleep", async || {
        tokio::time::sleep(SETTLES).await;
        let sleeps = thread_uses().map(|uses| {
            let storage = uses.into_iter().filter(|thread| STORAGE.contains(&thread.name.as_str()));
            storage.map(|thread| (thread.id, thread.sleeps)).collect::<Vec<_>>()
        });
        let is_asleep = before.as_ref() == Some(&sleeps);
        before = Some(sleeps);
        is_asleep
    })
    .await;
}

/// What the threads of these names did while the calling thread slept.
#[derive(Debug)]
struct Watched {
    lasted: Duration,
    threads: Vec<ThreadUse>,
}

impl Watched {
    /// `None` where the system does not tell.
    fn watch(names: &[&str], time: Duration) -> Option<Self> {
        let (began, before) = (Instant::now(), thread_uses()?);
        thread::sleep(time);
        let after = thread_uses()?;
        let threads = after.into_iter().filter(|thread| names.contains(&thread.name.as_str())).map(|after| {
            let (sleeps, processor_ns) =
                before.iter().find(|before| before.id == after.id).map_or((0, 0), |b| (b.sleeps, b.processor_ns));
            ThreadUse { sleeps: after.sleeps - sleeps, processor_ns: after.processor_ns - processor_ns, ..after }
        });
        Some(Self { threads: threads.collect(), lasted: began.elapsed() })
    }

    /// Returns what is not idle.
    fn busy(&self) -> Vec<&ThreadUse> {
        let wakes_max = WAKES_MAX + self.lasted.as_secs() * WAKES_PER_MINUTE_MAX / 60;
        let processor_max = self.lasted / PROCESSOR_PART;
        let is_busy = |thread: &&ThreadUse| {
            thread.sleeps > wakes_max || Duration::from_nanos(thread.processor_ns) > processor_max
        };
        self.threads.iter().filter(is_busy).collect()
    }

    fn tell(&self, what: &str) {
        for ThreadUse { name, sleeps, processor_ns, .. } in &self.threads {
            let (seconds, micros) = (self.lasted.as_secs_f64(), processor_ns / 1_000);
            println!("figure: {what} seconds={seconds:.1} thread={name} wakes={sleeps} cpu_us={micros}");
        }
    }
}

fn not_run(what: &str) {
    sessile_tests::not_run(format_args!("{what}: this system does not tell what a thread uses"));
}

#[test]
fn an_engine_at_rest_is_woken_by_nothing() {
    alone(|| {
        let (runtime, place) = (runtime(), Place::new());
        let engine = runtime.block_on(async {
            let engine = place.builder().open().await.expect("it opens");
            traffic(&engine).await;
            quiet(&engine).await;
            engine
        });
        let stats = engine.stats();
        assert!(stats.live_sessions > SESSIONS / 2 && stats.touch_cells > 0, "{stats:?}");
        let time = effort(Duration::from_secs(4), Duration::from_secs(200));
        let Some(watched) = Watched::watch(&[WORKER, STORAGE[0], STORAGE[1]], time) else {
            return not_run("idle");
        };
        watched.tell("idle");
        for (name, count) in [(WORKER, 2), (STORAGE[0], 1), (STORAGE[1], 1)] {
            let found = watched.threads.iter().filter(|thread| thread.name == name).count();
            assert_eq!(found, count, "{name}: {watched:#?}");
        }
        assert!(watched.busy().is_empty(), "{:#?}", watched.busy());
        // It was asleep, not dead.
        runtime.block_on(async {
            let session = engine.session("session-3").expect("a valid id");
            assert!(session.get().await.expect("it is read").is_some());
            session.save(&"awake").await.expect("it is saved");
            engine.shutdown().await.expect("it shuts down");
        });
    });
}

#[test]
fn threads_that_poll_or_work_are_found() {
    alone(|| {
        let over = Arc::new(AtomicBool::new(false));
        // What a thread uses to begin is not what it uses at rest.
        let begun = Arc::new(Barrier::new(4));
        let spawn = |name: &str, body: fn()| {
            let (over, begun) = (Arc::clone(&over), Arc::clone(&begun));
            let body = move || {
                begun.wait();
                while !over.load(Ordering::Relaxed) {
                    body();
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread")
        };
        let threads = [
            spawn("polls", || thread::sleep(Duration::from_millis(50))),
            spawn("spins", std::hint::spin_loop),
            spawn("rests", || thread::park_timeout(Duration::from_secs(3_600))),
        ];
        begun.wait();
        let watched = Watched::watch(&["polls", "spins", "rests"], Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.thread().unpark();
            thread.join().expect("it ends");
        }
        let Some(watched) = watched else { return not_run("threads that poll") };
        let mut found: Vec<_> = watched.busy().iter().map(|thread| thread.name.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["polls", "spins"], "{watched:#?}");
    });
}

#[test]
fn an_engine_that_is_touched_now_and_then_is_not_idle() {
    alone(|| {
        let (runtime, place) = (runtime(), Place::new());
        let engine = runtime.block_on(async {
            let builder = place.builder().flush_interval(Duration::from_millis(20));
            let engine = builder.open().await.expect("it opens");
            let session = engine.create(NewSession::new().data(&1)).await.expect("it is created");
            tokio::spawn(async move {
                while session.touch().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            engine
        });
        let Some(watched) = Watched::watch(&[WORKER, STORAGE[0]], Duration::from_secs(1)) else {
            return not_run("touched now and then");
        };
        let busy = watched.busy();
        assert!(busy.iter().any(|thread| thread.name == STORAGE[0]), "{watched:#?}");
        assert!(busy.iter().any(|thread| thread.name == WORKER), "{watched:#?}");
        runtime.block_on(engine.shutdown()).expect("it shuts down");
    });
}
