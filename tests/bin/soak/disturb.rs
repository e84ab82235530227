//! What happens to a service over the months: readers that stay, clocks that step, storage that fails, sweeps.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use sessile::{Engine, Filter, Order, Query, testing::Faults};
use sessile_tests::Random;

use crate::clock::SteppedClock;

/// Between two disturbances, at most.
const PAUSE_MS_MAX: u64 = 1_000;
/// How long a reader stays, at most.
const READER_MS_MAX: u64 = 3_000;
/// How far the wall's time is off, at most: ten minutes either way.
const OFF_US_MAX: u64 = 600_000_000;

/// How often what happened.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Disturbances {
    pub(crate) readers: u64,
    pub(crate) clock_steps: u64,
    pub(crate) faults: u64,
    pub(crate) sweeps: u64,
    pub(crate) lists: u64,
}

/// Disturbs an engine until told to stop.
pub(crate) async fn disturb(
    engine: Engine,
    path: PathBuf,
    clock: Arc<SteppedClock>,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> Disturbances {
    let mut done = Disturbances::default();
    let mut reader = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MS_MAX))).await;
        // What a disturbance is answered is no matter: the load is what is judged.
        match random.below(10) {
            0..2 => {
                done.readers += 1;
                let (path, stay) = (path.clone(), Duration::from_millis(random.below(READER_MS_MAX)));
                let (stop, earlier) = (Arc::clone(&stop), reader.take());
                reader = Some(tokio::task::spawn_blocking(move || read(&path, stay, &stop)));
                if let Some(earlier) = earlier {
                    drop(earlier.await);
                }
            }
            2..4 => {
                done.clock_steps += 1;
                let off_us = random.below(2 * OFF_US_MAX);
                clock.step_to(i64::try_from(off_us).expect("it is short") - 600_000_000);
            }
            4 => {
                done.faults += 1;
                let (faults, happened) = (Faults::of(&engine), random.below(2) == 0);
                if random.below(2) == 0 { faults.interrupt(happened) } else { faults.fail_commit(happened) }
            }
            5..8 => {
                done.sweeps += 1;
                drop(engine.sweep().await);
            }
            _ => {
                done.lists += 1;
                drop(engine.list(Query::new(Filter::all()).order(Order::RecentlyActive)).await);
            }
        }
    }
    if let Some(reader) = reader {
        drop(reader.await);
    }
    done
}

/// Keeps a read transaction open, which pins the log.
fn read(path: &PathBuf, stay: Duration, stop: &AtomicBool) -> rusqlite::Result<()> {
    const LOOK: Duration = Duration::from_millis(50);
    let connection = Connection::open(path)?;
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM session", [], |_| Ok(()))?;
    let end = std::time::Instant::now() + stay;
    while std::time::Instant::now() < end && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
    }
    Ok(())
}
