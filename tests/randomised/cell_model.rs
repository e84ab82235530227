//! The touch cell under many touchers: every touch is counted once, none after a freeze, and all are flushed (R7, R8, I4).

use shuttle::thread;

use crate::{
    cell::{Activity, Cell, Deadlines, NEVER, Touch},
    dirty::Dirty,
    explore::explore,
    join,
    mailbox::{Received, mailbox},
    sync::Arc,
};

const TOUCHERS: i64 = 5;
const TOUCHES: i64 = 3;

#[test]
fn touches_of_many_are_counted_once_and_flushed() {
    explore(|| {
        let deadlines = Deadlines { idle_timeout: NEVER, expires_at: NEVER };
        let cell = Arc::new(Cell::new(1, Activity { last_active: 0, count: 0 }, deadlines));
        let dirty = Arc::new(Dirty::default());
        let (mailbox, inbox) = mailbox();
        let touchers: Vec<_> = (0..TOUCHERS)
            .map(|number| {
                let (cell, dirty, mailbox) = (Arc::clone(&cell), Arc::clone(&dirty), mailbox.clone());
                thread::spawn(move || {
                    for again in 0..TOUCHES {
                        let now = 1 + number * TOUCHES + again;
                        loop {
                            match cell.touch(now) {
                                Touch::Counted => {}
                                Touch::CountedFirst => {
                                    if dirty.add(()) {
                                        mailbox.send(());
                                    }
                                }
                                // The real one goes by a message then; storage is done with the cell when it comes.
                                Touch::Frozen => {
                                    thread::yield_now();
                                    continue;
                                }
                                other => panic!("{other:?}"),
                            }
                            break;
                        }
                        assert!(cell.activity().last_active >= now, "its own time");
                    }
                })
            })
            .collect();
        drop(mailbox);
        let storage = {
            let (cell, dirty) = (Arc::clone(&cell), Arc::clone(&dirty));
            thread::spawn(move || {
                let mut flushed = cell.activity();
                while let Received::Command(()) = inbox.receive(None) {
                    assert!(!dirty.take_all().is_empty(), "told of nothing");
                    let taken = cell.take();
                    assert!(taken.count >= flushed.count && taken.last_active >= flushed.last_active);
                    flushed = taken;
                    let frozen = cell.freeze();
                    thread::yield_now();
                    assert_eq!(cell.activity().count, frozen.count, "counted after the freeze");
                    cell.thaw();
                }
                flushed
            })
        };
        join(touchers);
        let flushed = storage.join().expect("a panic ends the model");
        let all = Activity { last_active: TOUCHERS * TOUCHES, count: (TOUCHERS * TOUCHES).unsigned_abs() };
        assert_eq!(cell.activity(), all);
        assert_eq!(flushed, all, "touches that nobody was told of");
    });
}

mutant!(touch_a_frozen_cell:
    "cell: a touch rechecks the state"
    is killed by touches_of_many_are_counted_once_and_flushed);
mutant!(forget_the_hint:
    "cell: a flush asks for the next hint"
    is killed by touches_of_many_are_counted_once_and_flushed);
