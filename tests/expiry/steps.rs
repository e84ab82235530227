//! The clock steps by hours, either way, at the worst of moments: under live sessions, sweeps in work, flushes pending and
//! in doubt, restarts and kills (invariant I10, rule R21). And random walks of it, against a simple oracle.

use std::{
    collections::BTreeMap,
    fs,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sessile::{
    Clock, Durability, Engine, Error, Filter, NewSession, Outcome, Timestamp,
    testing::{Faults, ManualClock},
};
use sessile_tests::{Place, Random, Rig, START, effort, eventually, poll_once, read, soon};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn later(by: Duration) -> Timestamp {
    START.saturating_add(by)
}

/// A clock that stands `by` before the start.
fn behind(by: Duration) -> Arc<ManualClock> {
    let clock = ManualClock::new(START);
    clock.step_back(by);
    Arc::new(clock)
}

#[tokio::test]
async fn a_live_session_ended_by_a_step_ahead_stays_ended_when_the_clock_steps_back() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(HOUR)).await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    read(&session).await;
    rig.clock.step_forward(HOUR * 2);
    rig.advance(SECOND);
    assert!(session.get().await.unwrap().is_none());
    rig.clock.step_back(HOUR * 5);
    rig.advance(SECOND);
    assert!(session.get().await.unwrap().is_none());
    assert!(matches!(session.touch().await, Err(Error::NotFound)));
    assert!(matches!(session.save("b").await, Err(Error::NotFound)));
    let rig = rig.restart_at(behind(HOUR * 3)).await;
    assert!(rig.session("a").get().await.unwrap().is_none());
    assert_eq!(rig.engine.sweep().await.unwrap(), 1);
}

#[tokio::test]
async fn a_clock_that_steps_back_prolongs_no_absolute_end() {
    let rig = Rig::open_with(|builder| builder.lifetime(HOUR)).await;
    let session = rig.create("a").await;
    let own = rig.engine.create(NewSession::with_id("b").expires_at(later(MINUTE * 30))).await.unwrap();
    rig.clock.step_back(HOUR * 5);
    rig.advance(SECOND * 1_799);
    read(&own).await;
    rig.advance(SECOND);
    assert!(own.get().await.unwrap().is_none());
    let rig = rig.restart_at(behind(HOUR * 5)).await;
    let session = rig.session(session.id().as_str());
    rig.advance(SECOND * 1_799);
    read(&session).await;
    rig.advance(SECOND);
    assert!(session.get().await.unwrap().is_none());
}

#[tokio::test]
async fn touches_pending_over_a_step_are_flushed_with_the_time_they_had() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    for (n, step) in [HOUR, HOUR * 5].into_iter().enumerate() {
        session.touch().await.unwrap();
        let before = read(&session).await.last_active_at();
        rig.clock.step_back(step);
        rig.advance(SECOND);
        rig.engine.flush().await.unwrap();
        session.touch().await.unwrap();
        let after = read(&session).await;
        assert_eq!(after.last_active_at(), before.saturating_add(SECOND), "step {n}");
    }
    let rig = rig.restart_at(behind(HOUR * 6)).await;
    let record = rig.record("a").await;
    assert_eq!((record.touch_count(), record.last_active_at()), (4, later(SECOND * 2)));
}

#[tokio::test]
async fn a_flush_in_doubt_over_a_step_counts_each_touch_once_and_lowers_nothing() {
    for happened in [false, true] {
        for ahead in [false, true] {
            let rig = Rig::open_with(|builder| builder.idle_timeout(HOUR * 12)).await;
            let session = rig.create("a").await;
            session.touch().await.unwrap();
            Faults::of(&rig.engine).fail_commit(happened);
            if ahead {
                rig.clock.step_forward(HOUR * 3);
            } else {
                rig.clock.step_back(HOUR * 3);
            }
            rig.advance(SECOND);
            // Unless the flush that is due has gone by itself, and had the fault.
            if let Err(error) = soon("a flush", rig.engine.flush()).await {
                assert_eq!(error.outcome(), Outcome::MayHaveHappened);
            }
            eventually("somebody has met it", async || rig.engine.stats().restarts == 1).await;
            session.touch().await.unwrap();
            let expected = later(SECOND + if ahead { HOUR * 3 } else { Duration::ZERO });
            let record = read(&session).await;
            assert_eq!((record.touch_count(), record.last_active_at()), (2, expected));
            let record = rig.restart_at(behind(HOUR * 4)).await.record("a").await;
            assert_eq!((record.touch_count(), record.last_active_at()), (2, expected));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_amid_a_deletion_in_work_neither_spare_nor_take_a_session_wrongly() {
    /// Several steps of a deletion.
    const EACH: u64 = 1_500;
    let rig = Rig::open().await;
    let mut creating = Vec::new();
    for n in 0..EACH {
        let new = |kind: &str, idle| NewSession::with_id(format!("{kind}{n}")).idle_timeout(idle);
        for new in [new("short", SECOND * 10), new("doomed", HOUR * 10), new("long", HOUR * 10)] {
            let engine = rig.engine.clone();
            creating.push(tokio::spawn(async move { engine.create(new).await }));
        }
    }
    for creating in creating {
        creating.await.unwrap().unwrap();
    }
    rig.advance(SECOND * 20);
    let disk = rig.place.connect();
    let rows = || disk.query_row("SELECT count(*) FROM session", [], |row| row.get::<_, i64>(0)).unwrap();
    for by_sweep in [true, false] {
        let before = rows();
        // All are in the mailbox before the thread goes on: it takes one step of the deletion, and stands still.
        let first = Faults::of(&rig.engine).stall();
        let doomed = Filter::all().id_prefix("doomed");
        let mut deleting: Pin<Box<dyn Future<Output = _>>> =
            if by_sweep { Box::pin(rig.engine.sweep()) } else { Box::pin(rig.engine.delete_where(doomed)) };
        assert!(poll_once(Pin::new(&mut deleting)).is_pending());
        let amid = Faults::of(&rig.engine).stall();
        drop(first);
        eventually("the first step", async || rows() < before).await;
        // Steps of some hours, in sum less than the long sessions live.
        rig.clock.step_forward(HOUR * if by_sweep { 2 } else { 4 });
        rig.advance(Duration::from_millis(100));
        rig.clock.step_back(HOUR * 3);
        rig.advance(Duration::from_millis(100));
        let left = rows() - (before - EACH.cast_signed());
        assert!((1..EACH.cast_signed()).contains(&left), "{left} are left while the clock steps");
        drop(amid);
        for _ in 0..2 {
            rig.clock.step_forward(HOUR * 2);
            rig.session("long7").touch_with(Durability::Committed).await.unwrap();
            rig.clock.step_back(HOUR * 2);
            rig.advance(Duration::from_millis(100));
            rig.session("long8").get().await.unwrap().unwrap();
        }
        assert_eq!(soon("the deletion", deleting).await.unwrap(), EACH);
        assert_eq!(rows(), before - EACH.cast_signed());
    }
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), EACH);
    rig.clock.step_forward(HOUR * 20);
    rig.advance(SECOND);
    assert_eq!(rig.engine.sweep().await.unwrap(), EACH);
}

#[tokio::test]
async fn a_mark_is_believed_up_to_a_day_ahead_and_not_beyond() {
    for (by, believed) in [(DAY, true), (DAY + SECOND, false)] {
        let rig = Rig::open_with(|builder| builder.idle_timeout(MINUTE)).await;
        rig.create("a").await;
        let rig = rig.restart_at(behind(by)).await;
        let created = rig.engine.create(NewSession::with_id("b")).await.unwrap();
        let created_at = read(&created).await.created_at();
        assert_eq!(created_at, if believed { START } else { Timestamp::from_micros(START.as_micros() - micros(by)) });
        // A stamp from the future then: of age zero, and over when its time comes.
        assert!(rig.session("a").get().await.unwrap().is_some());
        rig.advance(if believed { MINUTE } else { by + MINUTE });
        assert!(rig.session("a").get().await.unwrap().is_none());
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap()
}

#[tokio::test]
async fn a_touch_does_not_lower_a_stamp_from_the_future_and_it_ends_by_engine_time() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(HOUR)).await;
    rig.create("a").await;
    rig.engine.shutdown().await.unwrap();
    let ahead = later(HOUR * 2);
    rig.place.connect().execute("UPDATE activity SET last_active_at = ?1", [ahead.as_micros()]).unwrap();
    let rig = rig.restart().await;
    let session = rig.session("a");
    session.touch().await.unwrap();
    session.touch_with(Durability::Committed).await.unwrap();
    session.save("b").await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), ahead);
    rig.advance(SECOND * 10_799);
    read(&session).await;
    rig.advance(SECOND);
    assert!(session.get().await.unwrap().is_none());
}

/// Opens what a kill would leave now, by a clock that stands where the first one began.
async fn after_a_kill(rig: &Rig) -> (Place, Engine) {
    let (place, clock) = (Place::new(), Arc::new(ManualClock::new(START)));
    for name in ["sessions.db", "sessions.db-wal"] {
        fs::copy(rig.place.directory().join(name), place.directory().join(name)).unwrap();
    }
    let engine = place.builder().clock(clock).open().await.unwrap();
    (place, engine)
}

#[tokio::test]
async fn a_kill_after_a_step_ahead_takes_engine_time_back_by_a_minute_at_most() {
    let rig = Rig::open().await;
    rig.create("a").await;
    for step in [HOUR * 2, SECOND * 59, HOUR * 20] {
        rig.clock.step_forward(step);
        rig.advance(SECOND);
        let created = rig.engine.create(NewSession::new()).await.unwrap();
        let reached = read(&created).await.created_at();
        let (_place, again) = after_a_kill(&rig).await;
        let created = again.create(NewSession::new()).await.unwrap();
        let goes_on_at = read(&created).await.created_at();
        assert!(goes_on_at.until(reached) <= MINUTE, "{step:?}: {reached} was reached, {goes_on_at} is now");
    }
}

/// A clock whose wall shows anything.
#[derive(Debug)]
struct WildClock {
    wall: AtomicI64,
    hand: ManualClock,
}

impl Clock for WildClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.wall.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        self.hand.elapsed()
    }
}

#[tokio::test]
async fn a_wall_clock_out_of_its_mind_breaks_nothing() {
    let place = Place::new();
    for wall in [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX] {
        let clock = Arc::new(WildClock { wall: AtomicI64::new(wall), hand: ManualClock::new(START) });
        // Opened by it, and met by it later.
        let engine = place.builder().clock(clock.clone()).open().await.unwrap();
        for wall in [START.as_micros(), wall, START.as_micros(), i64::MIN] {
            clock.wall.store(wall, Ordering::SeqCst);
            clock.hand.advance(SECOND);
            let session = engine.create(NewSession::new().data("a")).await.unwrap();
            session.touch().await.unwrap();
            engine.flush().await.unwrap();
            assert_eq!(read(&session).await.touch_count(), 1);
            assert_eq!(engine.sweep().await.unwrap(), 0);
        }
        engine.shutdown().await.unwrap();
        assert_eq!(engine.stats().restarts, 0, "{wall}");
    }
    // A mark of such a time is not believed by the next clock that is right.
    let clock = Arc::new(ManualClock::new(START));
    let engine = place.builder().clock(clock).open().await.unwrap();
    let session = engine.create(NewSession::new()).await.unwrap();
    assert_eq!(read(&session).await.created_at(), START);
    assert_eq!(engine.count(Filter::all()).await.unwrap(), 21);
}

/// What the oracle knows of a session.
#[derive(Debug, Clone, Copy)]
struct Known {
    created_at: i64,
    last_active: i64,
    touches: u64,
    idle: i64,
    expires_at: i64,
}

impl Known {
    fn is_over(&self, now: i64) -> bool {
        now >= self.expires_at || now >= self.last_active.saturating_add(self.idle)
    }
}

/// What time it must be: the arithmetic of rule R21 and nothing else.
#[derive(Debug)]
struct Oracle {
    wall: i64,
    elapsed: i64,
    offset: i64,
    sessions: BTreeMap<String, Known>,
    /// The seeded bug: it believes a wall clock that steps back.
    follows_back: bool,
}

impl Oracle {
    fn new(follows_back: bool) -> Self {
        let wall = START.as_micros();
        Self { wall, elapsed: 0, offset: wall, sessions: BTreeMap::new(), follows_back }
    }

    fn look(&mut self) {
        let ahead = self.wall - self.elapsed;
        self.offset = if self.follows_back { ahead } else { self.offset.max(ahead) };
    }

    fn now(&self) -> i64 {
        self.elapsed + self.offset
    }

    fn restart(&mut self, wall: i64) {
        let mark = self.now();
        (self.wall, self.elapsed, self.offset) = (wall, 0, wall);
        if mark <= wall + micros(DAY) {
            self.offset = self.offset.max(mark);
        }
    }
}

/// Walks; returns how many steps went as the oracle says, all of them unless it is wrong.
async fn walk(mut random: Random, steps: u64, follows_back: bool) -> u64 {
    let mut rig = Rig::open().await;
    let mut oracle = Oracle::new(follows_back);
    let mut latest = 0;
    for step in 0..steps {
        let id = format!("s{}", random.below(24));
        let span = |random: &mut Random| {
            let longest = if random.below(4) == 0 { 40_000 } else { 600 };
            Duration::from_secs(random.below(longest))
        };
        match random.below(14) {
            0..3 => {
                let by = span(&mut random);
                rig.advance(by);
                oracle.wall += micros(by);
                oracle.elapsed += micros(by);
            }
            kind @ 3..6 => {
                let by = span(&mut random);
                if kind == 3 {
                    rig.clock.step_forward(by);
                    oracle.wall += micros(by);
                } else {
                    rig.clock.step_back(by);
                    oracle.wall -= micros(by);
                }
                rig.advance(SECOND);
                oracle.wall += micros(SECOND);
                oracle.elapsed += micros(SECOND);
            }
            6 => {
                rig.engine.flush().await.unwrap();
            }
            7 => {
                rig.engine.sweep().await.unwrap();
                let rows: i64 =
                    rig.place.connect().query_row("SELECT count(*) FROM session", [], |row| row.get(0)).unwrap();
                let alive = oracle.sessions.values().filter(|known| !known.is_over(oracle.now())).count();
                if usize::try_from(rows) != Ok(alive) {
                    return step;
                }
            }
            8 if random.below(8) == 0 => {
                // What is over is gone, should time begin anew behind it.
                rig.engine.sweep().await.unwrap();
                let ended = oracle.now();
                oracle.sessions.retain(|_, known| !known.is_over(ended));
                let by = micros(span(&mut random));
                let wall = oracle.wall + if random.below(2) == 0 { by } else { -by };
                rig = rig.restart_at(Arc::new(ManualClock::new(Timestamp::from_micros(wall)))).await;
                if oracle.now() > wall + micros(DAY) {
                    latest = 0;
                }
                oracle.restart(wall);
            }
            _ => {}
        }
        oracle.look();
        let now = oracle.now();
        let known = oracle.sessions.get(&id).copied().filter(|known| !known.is_over(now));
        let session = rig.session(&id);
        let agrees = match (random.below(6), known) {
            (0, known) => {
                let (idle, life) = (Duration::from_secs(1 + random.below(9_000)), random.below(30_000));
                let expires_at = now + micros(Duration::from_secs(1 + life));
                let new = NewSession::with_id(id.as_str()).data("a").idle_timeout(idle);
                match (rig.engine.create(new.expires_at(Timestamp::from_micros(expires_at))).await, known) {
                    (Ok(_), None) => {
                        let idle = micros(idle);
                        let known = Known { created_at: now, last_active: now, touches: 0, idle, expires_at };
                        oracle.sessions.insert(id.clone(), known);
                        true
                    }
                    (Err(Error::AlreadyExists), Some(_)) => true,
                    _ => false,
                }
            }
            (kind @ 1..4, known) => {
                let answer = match kind {
                    1 => session.touch().await,
                    2 => session.touch_with(Durability::Committed).await,
                    _ => session.save(&step).await.map(drop),
                };
                match (answer, known) {
                    (Ok(()), Some(_)) => {
                        let known = oracle.sessions.get_mut(&id).unwrap();
                        known.last_active = known.last_active.max(now);
                        known.touches += u64::from(kind < 3);
                        true
                    }
                    (Err(Error::NotFound), None) => true,
                    _ => false,
                }
            }
            _ => true,
        };
        let known = oracle.sessions.get(&id).copied().filter(|known| !known.is_over(now));
        let record = session.get().await.unwrap();
        let seen =
            record.as_ref().map(|it| (it.created_at().as_micros(), it.last_active_at().as_micros(), it.touch_count()));
        if !agrees || seen != known.map(|it| (it.created_at, it.last_active, it.touches)) {
            return step;
        }
        assert!(now >= latest || follows_back, "engine time stepped back");
        latest = now;
    }
    steps
}

#[tokio::test]
async fn random_walks_of_the_clock_go_as_the_oracle_says() {
    let (walks, steps) = effort((6, 300), (120, 1_500));
    let mut random = Random::seeded();
    for n in 0..walks {
        let agreed = walk(random.split(), steps, false).await;
        assert_eq!(agreed, steps, "walk {n} parts from the oracle");
    }
    println!("figure: clock walks={walks} steps={} disagreements=0", walks * steps);
}

#[tokio::test]
async fn an_oracle_that_follows_the_clock_back_is_found_wrong() {
    let steps = 400;
    let agreed = walk(Random::seeded(), steps, true).await;
    assert!(agreed < steps, "the walk does not notice a clock that is followed back");
}
