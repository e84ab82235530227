//! Cells on the way to their flush: one `Dirty` for each flush, and no touch that nobody flushes (R8).

use loom::thread::{self, JoinHandle};

use crate::{
    cell::{Activity, Cell, Deadlines, NEVER, Touch},
    dirty::Dirty,
    explore::{Preemptions::AtMost, explore},
    join,
    mailbox::{Mailbox, Received, mailbox},
    sync::Arc,
};

type Cells = Dirty<Arc<Cell>>;

fn cell(serial: i64) -> Arc<Cell> {
    let endless = Deadlines { idle_timeout: NEVER, expires_at: NEVER };
    Arc::new(Cell::new(serial, Activity { last_active: 0, count: 0 }, endless))
}

/// Touches each of `cells` once, on a thread of its own; tells the storage thread as the router does.
fn touches<const N: usize>(cells: [&Arc<Cell>; N], dirty: &Arc<Cells>, mailbox: &Mailbox<()>) -> JoinHandle<()> {
    let (cells, dirty, mailbox) = (cells.map(Arc::clone), Arc::clone(dirty), mailbox.clone());
    thread::spawn(move || {
        for cell in cells {
            if cell.touch(1) == Touch::CountedFirst && dirty.add(cell) {
                mailbox.send(());
            }
        }
    })
}

#[test]
fn every_touch_is_flushed_and_one_dirty_is_sent_for_each_flush() {
    explore(AtMost(3), || {
        let (cells, dirty) = ([cell(1), cell(2)], Arc::new(Cells::default()));
        let (mailbox, inbox) = mailbox();
        let touchers =
            [touches([&cells[0], &cells[0]], &dirty, &mailbox), touches([&cells[1], &cells[0]], &dirty, &mailbox)];
        drop(mailbox);
        let mut flushed = [0; 2];
        while let Received::Command(()) = inbox.receive(None) {
            let taken = dirty.take_all();
            assert!(!taken.is_empty(), "told of nothing");
            for cell in taken {
                flushed[cell.serial().unsigned_abs() as usize - 1] = cell.take().count;
            }
        }
        join(touchers);
        assert_eq!(flushed, [3, 1], "a touch that nobody flushes");
    });
}

mutant!(the_first_is_not_told_of:
    "dirty: the first is told of"
    is killed by every_touch_is_flushed_and_one_dirty_is_sent_for_each_flush);
mutant!(others_are_told_of_too:
    "dirty: only the first is told of"
    is killed by every_touch_is_flushed_and_one_dirty_is_sent_for_each_flush);
