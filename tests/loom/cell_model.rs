//! The touch cell: nothing counted is lost or counted twice, and its time goes with it (I4, R7–R9).

use loom::thread::{self, JoinHandle};

use crate::{
    cell::{Activity, Cell, Deadlines, NEVER, Touch},
    explore::{
        Preemptions::{AtMost, Unbounded},
        explore,
    },
    join,
    sync::Arc,
};

const SERIAL: i64 = 7;
const ENDLESS: Deadlines = Deadlines { idle_timeout: NEVER, expires_at: NEVER };

fn cell() -> Arc<Cell> {
    Arc::new(Cell::new(SERIAL, Activity { last_active: 0, count: 0 }, ENDLESS))
}

/// Touches once at each of `times`, on a thread of its own.
fn touches<const N: usize>(cell: &Arc<Cell>, times: [i64; N]) -> JoinHandle<[Touch; N]> {
    let cell = Arc::clone(cell);
    thread::spawn(move || times.map(|time| cell.touch(time)))
}

/// Reads the activity, on a thread of its own.
fn reads(cell: &Arc<Cell>) -> JoinHandle<Activity> {
    let cell = Arc::clone(cell);
    thread::spawn(move || cell.activity())
}

fn is_counted(touch: Touch) -> bool {
    matches!(touch, Touch::Counted | Touch::CountedFirst)
}

fn counted(touches: &[Touch]) -> u64 {
    touches.iter().filter(|touch| is_counted(**touch)).count() as u64
}

fn hints(touches: &[Touch]) -> usize {
    touches.iter().filter(|touch| **touch == Touch::CountedFirst).count()
}

/// Touches at 1 and then 2 on one thread, at 11 on another.
fn assert_covers_its_touches(seen: Activity) {
    assert_at_least(seen, &[0, 1, 2, 11]);
}

/// `least` is the lowest time that each count can come with, from 0 on.
fn assert_at_least(seen: Activity, least: &[i64]) {
    let count = usize::try_from(seen.count).unwrap();
    assert!(seen.last_active >= least[count], "{seen:?} counts a touch whose time it lacks");
}

#[test]
fn a_write_that_shortens_the_time_to_be_idle_leaves_no_moment_in_which_the_session_is_over() {
    explore(Unbounded, || {
        let cell = cell();
        let write = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                cell.absorb(100, 0);
                cell.set_deadlines(Deadlines { idle_timeout: 5, expires_at: 200 });
            })
        };
        // Idle since 0 until that write, which had no end.
        let touched = cell.touch(100);
        join([write]);
        assert!(is_counted(touched), "{touched:?}");
    });
}

mutant!(a_deadline_does_not_release_the_time:
    "cell: a deadline releases the time"
    is killed by a_write_that_shortens_the_time_to_be_idle_leaves_no_moment_in_which_the_session_is_over);
mutant!(who_reads_a_deadline_does_not_acquire_the_time:
    "cell: who reads a deadline acquires the time"
    is killed by a_write_that_shortens_the_time_to_be_idle_leaves_no_moment_in_which_the_session_is_over);

#[test]
fn a_reader_finds_the_time_of_every_touch_it_counts() {
    explore(AtMost(3), || {
        let cell = cell();
        let touchers = (touches(&cell, [1, 2]), touches(&cell, [11]));
        let reader = reads(&cell);
        assert_covers_its_touches(reader.join().unwrap());
        touchers.0.join().unwrap();
        touchers.1.join().unwrap();
        assert_eq!(cell.activity(), Activity { last_active: 11, count: 3 });
    });
}

mutant!(touch_without_release:
    "cell: a touch releases its time"
    is killed by a_reader_finds_the_time_of_every_touch_it_counts);
mutant!(read_without_acquire:
    "cell: a reader acquires the times"
    is killed by a_reader_finds_the_time_of_every_touch_it_counts);

#[test]
fn a_flush_writes_the_time_of_every_touch_it_counts() {
    explore(AtMost(3), || {
        let cell = cell();
        let others = (touches(&cell, [1, 2]), touches(&cell, [11]));
        let first = cell.take();
        assert_covers_its_touches(first);
        let second = cell.take();
        assert_covers_its_touches(second);
        assert!(second.count >= first.count && second.last_active >= first.last_active);
        others.0.join().unwrap();
        others.1.join().unwrap();
        assert_eq!(cell.take(), Activity { last_active: 11, count: 3 });
    });
}

mutant!(flush_without_acquire:
    "cell: a flush acquires the times"
    is killed by a_flush_writes_the_time_of_every_touch_it_counts);

#[test]
fn one_hint_is_sent_for_every_flush_that_finds_something() {
    explore(AtMost(3), || {
        let cell = cell();
        let others = (touches(&cell, [1, 2]), touches(&cell, [11]));
        let (first, second) = (cell.take().count, cell.take().count);
        let sent = hints(&others.0.join().unwrap()) + hints(&others.1.join().unwrap());
        let last = cell.take().count;
        assert_eq!(last, 3);
        // A hint too few is a touch that waits for the next scan; one too many, a queue that grows with the touches.
        let due = [first > 0, second > first, last > second];
        assert_eq!(sent, due.into_iter().filter(|due| *due).count(), "flushed {first}, {second}, {last}");
    });
}

mutant!(flush_without_a_next_hint:
    "cell: a flush asks for the next hint"
    is killed by one_hint_is_sent_for_every_flush_that_finds_something);

#[test]
fn what_a_batch_adds_meets_touches_and_both_count() {
    explore(Unbounded, || {
        let cell = cell();
        let toucher = touches(&cell, [1]);
        let reader = reads(&cell);
        cell.absorb(11, 2);
        let seen = reader.join().unwrap();
        assert_at_least(seen, &[0, 1, 11, 11]);
        toucher.join().unwrap();
        assert_eq!(cell.activity(), Activity { last_active: 11, count: 3 });
    });
}

mutant!(absorb_without_release:
    "cell: what a batch adds releases its time"
    is killed by what_a_batch_adds_meets_touches_and_both_count);

#[test]
fn what_the_row_holds_raises_the_cell_and_takes_no_touch_away() {
    explore(Unbounded, || {
        let cell = cell();
        let toucher = touches(&cell, [1]);
        let reader = reads(&cell);
        cell.raise(Activity { last_active: 11, count: 5 });
        let seen = reader.join().unwrap();
        assert_at_least(seen, &[0, 1, NEVER, NEVER, NEVER, 11, 11]);
        let answers = toucher.join().unwrap();
        let last = cell.take();
        assert_eq!(last.last_active, 11);
        assert!(last.count == 5 || last.count == 6, "{last:?}");
        // The hint of the touch is not lost with a count that was raised over it.
        assert_eq!(answers, [Touch::CountedFirst]);
        assert_eq!(cell.touch(12), Touch::CountedFirst);
    });
}

mutant!(raise_without_release:
    "cell: a raised count releases its time"
    is killed by what_the_row_holds_raises_the_cell_and_takes_no_touch_away);

#[test]
fn a_touch_is_in_the_snapshot_of_a_dying_cell_or_not_counted() {
    explore(AtMost(3), || {
        let cell = cell();
        let others = (touches(&cell, [1, 2]), touches(&cell, [11]));
        let snapshot = cell.freeze();
        assert_covers_its_touches(snapshot);
        cell.kill();
        let touched = [others.0.join().unwrap().as_slice(), &others.1.join().unwrap()].concat();
        assert_eq!(counted(&touched), snapshot.count, "{touched:?}");
        assert_eq!(cell.activity().count, snapshot.count);
        assert_eq!(cell.touch(12), Touch::Gone);
    });
}

mutant!(count_on_a_dead_cell:
    "cell: a touch rechecks the state"
    is killed by a_touch_is_in_the_snapshot_of_a_dying_cell_or_not_counted);
mutant!(freeze_without_acquire:
    "cell: a freeze acquires the times"
    is killed by a_touch_is_in_the_snapshot_of_a_dying_cell_or_not_counted);

#[test]
fn a_touch_is_in_the_snapshot_of_a_thawing_cell_or_after_it() {
    explore(AtMost(3), || {
        let cell = cell();
        let others = (touches(&cell, [1, 2]), touches(&cell, [11]));
        let snapshot = cell.freeze();
        // Between the two nothing is counted: a decision over the row goes by the snapshot.
        let still = cell.activity();
        assert_eq!(still.count, snapshot.count);
        cell.thaw();
        let touched = [others.0.join().unwrap().as_slice(), &others.1.join().unwrap()].concat();
        assert!(!touched.contains(&Touch::Gone), "{touched:?}");
        assert_eq!(counted(&touched), cell.activity().count, "{touched:?}");
        assert!(is_counted(cell.touch(12)));
    });
}

mutant!(count_on_a_frozen_cell:
    "cell: a touch rechecks the state"
    is killed by a_touch_is_in_the_snapshot_of_a_thawing_cell_or_after_it);

#[test]
fn a_cell_retires_only_with_all_of_it_flushed() {
    explore(AtMost(3), || {
        let cell = cell();
        let others = (touches(&cell, [1, 2]), touches(&cell, [11]));
        // As the table of cells does it, once nobody holds the cell.
        let flushed = cell.take();
        let retired = cell.freeze() == flushed;
        if retired {
            cell.retire();
        } else {
            cell.thaw();
        }
        let touched = [others.0.join().unwrap().as_slice(), &others.1.join().unwrap()].concat();
        assert_eq!(counted(&touched), cell.activity().count, "{touched:?}");
        if retired {
            assert_eq!(cell.activity().count, flushed.count);
            assert_eq!(cell.touch(12), Touch::Gone);
        }
    });
}

mutant!(count_on_a_retired_cell:
    "cell: a touch rechecks the state"
    is killed by a_cell_retires_only_with_all_of_it_flushed);
