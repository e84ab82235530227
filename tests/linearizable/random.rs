//! The engine's histories, and those of an engine with a bug in front of it.

use std::panic;

use sessile_tests::{Random, effort, not_run};

use crate::{
    client::Weather,
    run::{HISTORIES, Plan, Report, run},
    subject::Bug,
};

/// One history in so many may be too hard to decide; seldom is there any.
const UNDECIDED_ONE_IN: u64 = 1_000;
/// Histories that a bug has to show itself in.
const BUG_HISTORIES_MAX: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_amid_faults_are_linearizable() {
    let report = hold(Weather::Storm, effort(1_560, 12_000)).await;
    assert!(report.restarts > 0 && report.unknown > 0, "nothing befell the engine: {report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_of_sessions_that_end_are_linearizable() {
    hold(Weather::Expiry, effort(528, 4_000)).await;
}

/// Runs so many histories, all of which must be linearizable.
async fn hold(weather: Weather, histories: usize) -> Report {
    quieten_ordered_panics();
    let mut total = Report::default();
    let mut seeds = Seeds::new();
    for _ in 0..histories.div_ceil(2 * HISTORIES) {
        let mut next = || run(Plan { seed: seeds.next(), weather, bug: None });
        let (one, other) = tokio::join!(next(), next());
        total.add(one);
        total.add(other);
        if let Some(violation) = total.violations.first() {
            panic!("{violation}");
        }
    }
    let Report { histories, operations, unknown, restarts, undecided, .. } = &total;
    println!(
        "figure: linearizable weather={weather:?} histories={histories} operations={operations} unknown={unknown} \
         restarts={restarts} undecided={undecided} violations=0"
    );
    if *undecided > 0 {
        not_run(format_args!("the checker gave up on {undecided} families, too much in them is unknown"));
    }
    assert!(undecided * UNDECIDED_ONE_IN <= *histories, "the checker gives up too often");
    total
}

/// Seeds for plans. One that is named is used each time.
struct Seeds {
    random: Random,
    named: Option<u64>,
}

impl Seeds {
    fn new() -> Self {
        let named = std::env::var("SESSILE_SEED").ok().map(|seed| seed.parse().expect("SESSILE_SEED is a number"));
        Self { random: Random::seeded(), named }
    }

    fn next(&mut self) -> u64 {
        self.named.unwrap_or_else(|| self.random.below(u64::MAX))
    }
}

macro_rules! caught {
    ($($test:ident: $bug:ident in $weather:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            catch(Bug::$bug, Weather::$weather).await;
        }
    )*};
}

caught! {
    a_stale_read_is_caught: ServeStale in Storm;
    a_save_answered_before_it_happens_is_caught: AnswerEarly in Storm;
    a_lost_touch_is_caught: DropTouch in Storm;
    a_touch_counted_twice_is_caught: CountTwice in Storm;
    an_update_sent_again_is_caught: RetryUpdate in Storm;
    a_save_sent_again_is_caught: RetrySave in Storm;
    a_save_that_happened_and_is_denied_is_caught: DenySave in Storm;
    a_session_that_a_save_brings_back_is_caught: Revive in Storm;
    an_expired_session_that_a_save_brings_back_is_caught: Revive in Expiry;
    a_condition_forgotten_is_caught: ForgetCondition in Storm;
    an_old_id_left_alive_is_caught: KeepOldId in Storm;
    a_deletion_that_does_not_happen_is_caught: KeepDeleted in Storm;
    a_time_that_steps_back_is_caught: StepBack in Storm;
    a_version_that_moves_without_a_change_is_caught: MoveVersion in Storm;
}

/// Runs histories of an engine with a bug, until one is caught.
async fn catch(bug: Bug, weather: Weather) {
    quieten_ordered_panics();
    let mut seeds = Seeds::new();
    let mut histories = 0;
    while histories < BUG_HISTORIES_MAX {
        let report = run(Plan { seed: seeds.next(), weather, bug: Some(bug) }).await;
        histories += HISTORIES;
        if let Some(violation) = report.violations.first() {
            let shown = violation.lines().count();
            println!("figure: linearizable bug={bug:?} caught_within_histories={histories} lines={shown}\n{violation}");
            return;
        }
    }
    panic!("{bug:?} is not caught in {histories} histories");
}

/// Lets the panics that are ordered by thousands go unprinted.
fn quieten_ordered_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("a panic on order")) {
                print(info);
            }
        }));
    });
}
