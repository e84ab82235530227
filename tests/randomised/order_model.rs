//! Reads from memory among many writers: nobody misses a save of its own, nobody reads a version after its successor
//! (R4, I2).

use crate::{explore::explore, join, order::Session};

const SAVERS: usize = 3;
const GETTERS: usize = 3;
const TIMES: usize = 2;
const SAVES: u64 = (SAVERS * TIMES) as u64;

#[test]
fn a_crowd_reads_what_was_saved_before() {
    explore(|| {
        let (session, storage) = Session::new();
        let savers = [(); SAVERS].map(|()| session.spawn(TIMES, Session::save_and_get));
        let getters = [(); GETTERS].map(|()| session.spawn(TIMES, Session::get_twice));
        session.end(storage, SAVES);
        join(savers);
        join(getters);
    });
}

mutant!(read_past_what_is_in_flight:
    "slot: at rest nothing is in flight"
    is killed by a_crowd_reads_what_was_saved_before);
