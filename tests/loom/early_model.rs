//! Events of a thread that runs before its observer does: each is heard once, in their order.

use loom::thread;

use crate::{
    early::Early,
    explore::{Preemptions::Unbounded, explore},
    join,
    sync::{Arc, Mutex, lock},
};

#[test]
fn what_is_told_early_and_late_is_heard_in_its_order() {
    explore(Unbounded, || {
        let (early, heard) = (Arc::new(Early::default()), Arc::new(Mutex::new(Vec::new())));
        let teller = {
            let early = Arc::clone(&early);
            thread::spawn(move || (1..=3).for_each(|event| early.tell(event)))
        };
        let log = Arc::clone(&heard);
        early.attach(Box::new(move |event: i32| lock(&log).push(event)));
        join([teller]);
        assert_eq!(*lock(&heard), [1, 2, 3]);
    });
}

mutant!(what_came_before_is_not_heard:
    "early: what came before is heard"
    is killed by what_is_told_early_and_late_is_heard_in_its_order);
