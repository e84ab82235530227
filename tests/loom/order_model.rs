//! The order of one session: what its sender asked for first took effect first, whichever way the requests went (R4, I2); a
//! flush comes after every touch made before it (R8).

use crate::{
    explore::{Preemptions::AtMost, explore},
    join,
    order::Session,
};

#[test]
fn a_get_sees_the_save_that_its_task_sent_before() {
    explore(AtMost(3), || {
        let (session, storage) = Session::new();
        session.save_and_get();
        session.end(storage, 1);
    });
}

mutant!(read_past_what_is_in_flight:
    "slot: at rest nothing is in flight"
    is killed by a_get_sees_the_save_that_its_task_sent_before);

#[test]
fn nobody_reads_a_version_after_its_successor() {
    explore(AtMost(3), || {
        let (session, storage) = Session::new();
        let saver = session.spawn(1, Session::save_then_get);
        session.get_twice();
        session.end(storage, 1);
        join([saver]);
    });
}

mutant!(answer_before_it_is_visible:
    "worker: a batch is visible before its replies"
    is killed by nobody_reads_a_version_after_its_successor);

#[test]
fn a_flush_writes_every_touch_made_before_it() {
    explore(AtMost(2), || {
        let (session, storage) = Session::new();
        let other = session.spawn(1, Session::touch_and_flush);
        session.touch_and_flush();
        session.end(storage, 0);
        join([other]);
    });
}

mutant!(a_flush_goes_by_its_hints:
    "worker: a flush looks at every cell"
    is killed by a_flush_writes_every_touch_made_before_it);
