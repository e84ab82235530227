//! Runs histories on an engine, some at the same time, and judges them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sessile::{Engine, EngineBuilder, SessionId, testing::ManualClock};
use sessile_tests::{Place, Random, START, eventually, soon};

use crate::{
    checker::{Verdict, judge, shrink},
    client::{Asking, Client, History, Patience, Weather},
    family::Family,
    history::{Answer, Call, Id, MANY, print},
    subject::{Bug, Subject, Way},
};

/// Histories on one engine.
pub const HISTORIES: usize = 12;
/// Histories at the same time.
const TOGETHER: usize = 4;
/// The client that looks at what is left in the end.
const AUDITOR: u8 = 99;
/// Phases of a history. Between them all is quiet, so that what is unknown of one does not grow over the next; and where
/// the clock stands still within a phase, it moves then.
const PHASES: u64 = 6;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub weather: Weather,
    pub bug: Option<Bug>,
}

/// What was found.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub histories: u64,
    pub operations: u64,
    /// Operations of which nobody knows whether they happened.
    pub unknown: u64,
    pub restarts: u64,
    pub undecided: u64,
    pub violations: Vec<String>,
}

impl Report {
    pub fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.restarts += other.restarts;
        self.undecided += other.undecided;
        self.violations.extend(other.violations);
    }
}

/// Runs a plan on an engine of its own.
pub async fn run(plan: Plan) -> Report {
    let mut random = Random::new(plan.seed);
    let clock = Arc::new(ManualClock::new(START));
    let place = (random.below(3) > 0).then(Place::new);
    let settings = Settings::at_random(plan.weather, &mut random);
    let open = || settings.builder(place.as_ref()).clock(clock.clone()).open();
    let mut subject = Subject::new(open().await.expect("a new file opens"), plan.bug);
    let mut histories = Vec::new();
    for wave in 0..HISTORIES / TOGETHER {
        let together: Vec<_> = (0..TOGETHER)
            .map(|number| Arc::new(history(wave * TOGETHER + number, &clock, plan.weather, &mut random)))
            .collect();
        run_together(&together, &subject, &mut random).await;
        histories.extend(together);
    }
    let restarts = subject.engine.stats().restarts;
    if place.is_some() {
        subject.engine.shutdown().await.expect("it shuts down");
        subject = Subject::new(open().await.expect("it opens again"), None);
        for history in &histories {
            audit(history, &subject).await;
        }
    }
    subject.engine.shutdown().await.expect("it shuts down");
    // The serials of an engine are never used again, in whatever family.
    let mut serials = HashSet::new();
    for serial in histories.iter().flat_map(|history| &history.families).flat_map(|family| family.serials()) {
        assert!(serials.insert(serial), "a serial in two families: {plan:?}");
    }
    let judging = tokio::task::spawn_blocking(move || judge_all(plan, &histories));
    Report { restarts, ..judging.await.expect("the checker does not panic") }
}

fn judge_all(plan: Plan, histories: &[Arc<History>]) -> Report {
    let mut report = Report { histories: histories.len() as u64, ..Report::default() };
    for family in histories.iter().flat_map(|history| &history.families) {
        let ops = family.ops();
        report.operations += ops.len() as u64;
        report.unknown += ops.iter().filter(|op| !op.is_certain()).count() as u64;
        match judge(&ops) {
            Verdict::Linearizable => {}
            Verdict::Undecided => report.undecided += 1,
            Verdict::Violation => {
                let text = print(&shrink(&ops));
                let seed = plan.seed;
                report.violations.push(format!(
                    "{plan:?}: no order of these operations explains their answers (what is answered ? may have \
                     happened or not):\n{text}\nTo run the same operations again and again, in whatever order the \
                     machine makes of them: SESSILE_SEED={seed}"
                ));
                return report;
            }
        }
    }
    report
}

fn history(number: usize, clock: &Arc<ManualClock>, weather: Weather, random: &mut Random) -> History {
    let families = 1 + random.below(3);
    let families = (0..families).map(|family| {
        let id = SessionId::try_from(format!("{number}-{family}")).expect("a valid id");
        Arc::new(Family::new(id))
    });
    let clock = Arc::clone(clock);
    let clients = 2 + random.below(4) as u8;
    // Mostly few: what goes wrong shows in few as well, and more of it is tried.
    let operations_max = 1 + random.below(31);
    let operations = (10 + random.below(operations_max)).div_ceil(PHASES);
    History { families: families.collect(), clients, operations, clock, weather, events: 1.into() }
}

async fn run_together(histories: &[Arc<History>], subject: &Arc<Subject>, random: &mut Random) {
    let weather = histories[0].weather;
    for phase in 0..PHASES {
        let mut tasks = Vec::new();
        for history in histories {
            if phase == 0 {
                let client = Client::new(0, Arc::clone(history), Arc::clone(subject), random.split());
                tasks.push(tokio::spawn(begin(client)));
            }
            for number in 1..=history.clients {
                let client = Client::new(number, Arc::clone(history), Arc::clone(subject), random.split());
                tasks.push(tokio::spawn(client.run(history.operations)));
            }
        }
        for task in tasks {
            soon("a client", task).await.expect("no client panics");
        }
        quiet(subject).await;
        for history in histories {
            let now = history.event();
            history.families.iter().for_each(|family| family.all_is_quiet(now));
        }
        for history in histories {
            audit(history, subject).await;
        }
        if weather == Weather::Expiry {
            histories[0].clock.advance(Duration::from_millis(500 * (1 + random.below(16))));
        }
    }
}

/// Creates the first session of each family.
async fn begin(mut client: Client) {
    for family in client.history.families.clone() {
        let session = client.subject.engine.session(family.id(0)).expect("a valid id");
        let call = client.create(&family);
        let asking =
            Asking { subject: &client.subject, family: &family, session: &session, way: Way::Handle, id: 0, call };
        client.history.perform(0, asking, Patience::Endless, 1).await;
    }
}

/// Waits until nothing is on its way any more, and no fault is left that was ordered.
async fn quiet(subject: &Subject) {
    let engine = &subject.engine;
    eventually("a flush", async || engine.flush().await.is_ok()).await;
    // The engine's actor takes its messages in order: what was sent before is admitted or refused by now.
    let last =
        async || ractor::call!(engine.actor(), sessile::actor::EngineMessage::flush).is_ok_and(|done| done.is_ok());
    eventually("the engine's actor", last).await;
    let at_rest = async || engine.stats().requests_in_flight == 0 && engine.stats().requests_waiting == 0;
    eventually("all requests are answered", at_rest).await;
}

/// Looks at every session.
async fn audit(history: &History, subject: &Arc<Subject>) {
    for family in &history.families {
        for id in 0..family.ids() as Id {
            let session = subject.engine.session(family.id(id)).expect("a valid id");
            eventually("a get", async || {
                let (way, call) = (Way::Handle, Call::Get);
                let asking = Asking { subject, family, session: &session, way, id, call };
                let answer = history.perform(AUDITOR, asking, Patience::Endless, 1).await;
                matches!(answer, Some(Answer::Seen(_)))
            })
            .await;
        }
        assert!(family.ops().len() <= MANY);
    }
}

/// What bounds the engine: small, so that sessions come and go.
#[derive(Debug, Clone, Copy)]
struct Settings {
    live_sessions_max: usize,
    sessions_in_memory_max: usize,
    record_bytes_max: usize,
    requests_max: usize,
    passivate_after: Duration,
    flush_interval: Duration,
}

impl Settings {
    fn at_random(weather: Weather, random: &mut Random) -> Self {
        let mut below = |end: u64| random.below(end) as usize;
        Self {
            live_sessions_max: 1 + below(4),
            sessions_in_memory_max: if below(2) == 0 { 1 + below(4) } else { 100 },
            record_bytes_max: if below(4) == 0 { 1 + below(1_000) } else { 1 << 20 },
            // A touch that is turned away may have shown its time already: not where times are exact.
            requests_max: if weather == Weather::Storm && below(2) == 0 { 2 + below(6) } else { 1_000 },
            passivate_after: Duration::from_millis(2 + below(40) as u64),
            flush_interval: Duration::from_millis(1 + below(400) as u64),
        }
    }

    fn builder(self, place: Option<&Place>) -> EngineBuilder {
        let builder = place.map_or_else(Engine::in_memory, Place::builder);
        builder
            .live_sessions_max(self.live_sessions_max)
            .sessions_in_memory_max(self.sessions_in_memory_max)
            .record_bytes_max(self.record_bytes_max)
            .requests_max(self.requests_max)
            .passivate_after(self.passivate_after)
            .flush_interval(self.flush_interval)
    }
}
