//! Admission under a crowd: everybody gets in, in turn, though some lose patience (R16).

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use shuttle::{
    future::block_on,
    thread::{self, JoinHandle},
};

use crate::{
    admission::{Admission, Bounds},
    explore::explore,
    join,
    sync::{Arc, AtomicUsize, Ordering},
};

const ROOM: usize = 2;

struct Door {
    admission: Arc<Admission>,
    inside: AtomicUsize,
}

impl Door {
    fn pass(&self, bytes: usize) {
        let permit = block_on(self.admission.acquire(bytes)).expect("nobody closes it");
        assert!(self.inside.fetch_add(1, Ordering::AcqRel) < ROOM, "too many inside");
        self.inside.fetch_sub(1, Ordering::AcqRel);
        drop(permit);
    }

    /// Waits, and goes away again.
    fn give_up(&self) {
        let mut waiting = pin!(self.admission.acquire(1));
        let polled = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(permit) = polled {
            drop(permit);
        }
        thread::yield_now();
    }
}

#[test]
fn a_crowd_gets_in() {
    explore(|| {
        let bounds = Bounds { requests_max: ROOM, bytes_max: 4, waiters_max: 16 };
        let door = Arc::new(Door { admission: Arc::new(Admission::new(bounds)), inside: AtomicUsize::new(0) });
        let spawn = |body: fn(&Door)| -> JoinHandle<()> {
            let door = Arc::clone(&door);
            thread::spawn(move || (0..2).for_each(|_| body(&door)))
        };
        let patient = |door: &Door| door.pass(1);
        // Larger than all room: it gets in alone.
        let large = |door: &Door| door.pass(5);
        let impatient = Door::give_up;
        join([patient, patient, patient, large, impatient, impatient].map(spawn));
        assert_eq!(door.admission.load(), (0, 0, 0));
    });
}

mutant!(grant_nobody:
    "admission: a release grants the head of the queue"
    is killed by a_crowd_gets_in);
mutant!(keep_the_room_of_who_went_away:
    "admission: a granted waiter that is dropped gives its room back"
    is killed by a_crowd_gets_in);
