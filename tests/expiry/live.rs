//! The clock steps by hours, either way, under live load: clients at work, sweeps in work, touches pending (invariant I10,
//! rule R9).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use sessile::{Durability, Engine, Filter, NewSession, Session, Timestamp};
use sessile_tests::{Random, Rig, START, effort, eventually, read, soon};
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Far longer than all steps together.
const FAR: Duration = Duration::from_secs(50 * 365 * 24 * 3_600);
/// The longest step, in hours.
const STEP_HOURS_MAX: u64 = 6;
/// What passes with each step: more than the time between two of the engine's looks at the wall.
const PER_STEP: Duration = Duration::from_millis(60);
/// Touches are pending over some ten steps.
const FLUSH_INTERVAL: Duration = Duration::from_millis(600);
/// One step and no more: by what is on the disk, sessions are over that are kept alive in memory.
const KEPT_IDLE: Duration = Duration::from_secs((STEP_HOURS_MAX + 1) * 3_600);
/// Steps between a flush and a sweep.
const STEPS_BEFORE_SWEEP: u32 = 4;
/// Sessions that are kept alive by a touch before each step, and by nothing else.
const KEPT: usize = 32;
const CLIENTS: u64 = 4;
const SESSIONS_PER_CLIENT: u64 = 3;
/// Sessions to sweep away: several steps of a deletion.
const FODDER: u64 = 1_000;
/// Past the grace of a sweep after a jump, and past its interval.
const SWEEP_DUE: Duration = Duration::from_secs(361);

/// A session and what its client knows of it.
struct Own {
    session: Session,
    touches: u64,
    saved: u64,
}

impl Own {
    async fn is_as_known(&self) {
        let record = read(&self.session).await;
        let found = (record.touch_count(), record.data::<u64>().unwrap());
        assert_eq!(found, (self.touches, self.saved), "{:?}", self.session.id());
    }
}

/// Has sessions that outlive all steps, works at them until it is told to stop, and returns what it knows of them.
async fn client(engine: Engine, number: u64, stop: Arc<AtomicBool>) -> Vec<Own> {
    let mut own = Vec::new();
    for n in 0..SESSIONS_PER_CLIENT {
        let new = NewSession::with_id(format!("client{number}-{n}")).data(&0_u64);
        let new = match n {
            0 => new,
            1 => new.idle_timeout(FAR),
            _ => new.expires_at(START.saturating_add(FAR)),
        };
        own.push(Own { session: engine.create(new).await.unwrap(), touches: 0, saved: 0 });
    }
    let mut active = START;
    while !stop.load(Ordering::Relaxed) {
        for Own { session, touches, saved } in &mut own {
            session.touch().await.expect("it lives");
            session.touch_with(Durability::Committed).await.expect("it lives");
            session.touch().await.expect("it lives");
            *touches += 3;
            *saved += 1;
            session.save(saved).await.expect("it lives");
        }
        for own in &own {
            own.is_as_known().await;
        }
        let now = read(&own[0].session).await.last_active_at();
        assert!(now >= active, "its activity stepped back");
        active = now;
    }
    own
}

/// Who moves the clock, and keeps some sessions alive over it.
struct Stepper {
    rig: Rig,
    random: Random,
    disk: Connection,
    kept: Vec<Session>,
    /// Touches of each.
    touches: u64,
    /// Touched to wait for the storage thread.
    probe: Session,
    steps: u64,
    /// Steps before which touches were written that were pending at an earlier one.
    writes: u64,
    written: u64,
    /// Sweeps that began when the sessions that are kept were over by what was on the disk.
    kept_in_memory: u64,
}

impl Stepper {
    async fn new(random: Random) -> Self {
        let configure =
            |builder: sessile::EngineBuilder| builder.flush_interval(FLUSH_INTERVAL).request_timeout(DAY * 365);
        let rig = Rig::open_with(configure).await;
        let mut kept = Vec::new();
        for n in 0..KEPT {
            let new = NewSession::with_id(format!("kept{n}")).idle_timeout(KEPT_IDLE);
            kept.push(rig.engine.create(new).await.unwrap());
        }
        let (probe, disk) = (rig.create("probe").await, rig.place.connect());
        Self { rig, random, disk, kept, touches: 0, probe, steps: 0, writes: 0, written: 0, kept_in_memory: 0 }
    }

    /// Steps once, by some hours, more often ahead than back.
    async fn step(&mut self) {
        for kept in &self.kept {
            kept.touch().await.expect("it was touched within its timeout");
        }
        self.touches += 1;
        let hours = HOUR * (1 + self.random.below(STEP_HOURS_MAX)) as u32;
        if self.random.below(4) == 0 {
            self.rig.clock.step_back(hours);
        } else {
            self.rig.clock.step_forward(hours);
        }
        self.rig.advance(PER_STEP);
        self.steps += 1;
        // Between the two it looks at its timers, and at the wall.
        for _ in 0..2 {
            soon("a touch", self.probe.touch_with(Durability::Committed)).await.expect("it lives");
        }
        let written = self.on_disk(&self.kept[0]).0;
        self.writes += u64::from(written > self.written && self.written > 0);
        self.written = written;
    }

    /// Returns how many touches of a session are on the disk, and when it was last active by that.
    fn on_disk(&self, session: &Session) -> (u64, Timestamp) {
        let sql = "SELECT touch_count, last_active_at FROM current_session WHERE id = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (touches, last_active): (i64, i64) = self.disk.query_row(sql, [session.id().as_str()], row).unwrap();
        (touches.cast_unsigned(), Timestamp::from_micros(last_active))
    }

    /// Steps once. Returns whether a sweep was in work both before it and after.
    async fn step_in_sweep(&mut self) -> bool {
        let had_begun = self.fodder_left() < FODDER;
        self.step().await;
        had_begun && self.fodder_left() > 0
    }

    /// Makes sessions that are over.
    async fn make_fodder(&self, round: u64) {
        let creating = (0..FODDER).map(|n| {
            let new = NewSession::with_id(format!("fodder{round}-{n}")).idle_timeout(SECOND);
            let engine = self.rig.engine.clone();
            tokio::spawn(async move { engine.create(new).await })
        });
        let creating: Vec<JoinHandle<_>> = creating.collect();
        for created in creating {
            created.await.unwrap().unwrap();
        }
        self.rig.advance(SECOND * 2);
    }

    /// Checks that of each session that is kept all touches are counted and on the disk.
    async fn all_are_kept(&self) {
        self.rig.engine.flush().await.unwrap();
        for kept in &self.kept {
            let counted = (read(kept).await.touch_count(), self.on_disk(kept).0);
            assert_eq!(counted, (self.touches, self.touches));
        }
    }

    fn fodder_left(&self) -> u64 {
        let sql = "SELECT count(*) FROM session WHERE id >= 'fodder' AND id < 'foddes'";
        let rows: i64 = self.disk.query_row(sql, [], |row| row.get(0)).unwrap();
        rows.cast_unsigned()
    }

    /// Steps while a sweep is in work that somebody asked for. Returns how many steps came amid it.
    async fn sweep_on_demand(&mut self) -> u64 {
        self.rig.engine.flush().await.unwrap();
        for _ in 0..STEPS_BEFORE_SWEEP {
            self.step().await;
        }
        let behind = self.on_disk(&self.kept[0]).1.until(read(&self.kept[0]).await.last_active_at());
        self.kept_in_memory += u64::from(behind >= KEPT_IDLE);
        let engine = self.rig.engine.clone();
        let sweeping = tokio::spawn(async move { engine.sweep().await });
        let mut amid = 0;
        while !sweeping.is_finished() {
            amid += u64::from(self.step_in_sweep().await);
        }
        assert_eq!(sweeping.await.unwrap().unwrap(), FODDER, "what was over was swept away, and nothing else");
        amid
    }

    /// Steps while a sweep is in work that was due by itself; after a step ahead it waits, and is made again. Returns how many
    /// steps came amid it.
    async fn sweep_by_time(&mut self) -> u64 {
        let mut amid = 0;
        while self.fodder_left() > 0 {
            let left = self.fodder_left();
            self.rig.advance(SWEEP_DUE);
            eventually("the sweep that is due", async || self.fodder_left() < left).await;
            amid += u64::from(self.step_in_sweep().await);
        }
        amid
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_under_live_load_take_no_session_and_no_touch() {
    const ROUNDS_MAX: u64 = 1_000;
    let amid_min = effort(8, 200);
    let is_enough = |counts: [u64; 4]| counts.iter().all(|count| *count >= amid_min);
    let mut stepper = Stepper::new(Random::seeded()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(stepper.rig.engine.clone(), number, Arc::clone(&stop))))
        .collect();
    let (mut on_demand, mut by_time) = (0, 0);
    for round in 0..ROUNDS_MAX {
        stepper.make_fodder(round).await;
        if round % 2 == 0 {
            on_demand += stepper.sweep_on_demand().await;
        } else {
            by_time += stepper.sweep_by_time().await;
        }
        assert_eq!(stepper.fodder_left(), 0);
        // Also of a sweep that a step has put off half-way.
        assert_eq!(stepper.rig.engine.stats().expired, (round + 1) * FODDER);
        if is_enough([on_demand, by_time, stepper.writes, stepper.kept_in_memory]) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut own = Vec::new();
    for client in clients {
        own.extend(soon("a client", client).await.unwrap());
    }

    stepper.all_are_kept().await;
    let Stepper { rig, touches, steps, writes, kept_in_memory, .. } = stepper;
    println!(
        "figure: clock_steps_under_load steps={steps} in_sweeps_on_demand={on_demand} in_sweeps_by_time={by_time} \
         amid_pending_touches={writes} sweeps_of_sessions_kept_in_memory={kept_in_memory} touches={}",
        own.iter().map(|own| own.touches).sum::<u64>() + touches * KEPT as u64
    );
    assert!(is_enough([on_demand, by_time, writes, kept_in_memory]), "steps came amid nothing");
    let sessions = CLIENTS * SESSIONS_PER_CLIENT + KEPT as u64 + 1;
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), sessions);
    for own in &own {
        own.is_as_known().await;
    }
    let rig = rig.restart().await;
    for Own { session, touches, saved } in own {
        let record = rig.record(session.id().as_str()).await;
        assert_eq!((record.touch_count(), record.data::<u64>().unwrap()), (touches, saved));
    }
}
