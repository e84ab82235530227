//! Shutdown among many senders: whoever is admitted is served, whoever waits is refused, and then storage ends (R18, I8).

use crate::{
    explore::explore,
    shutdown::{Sender, shutdown},
};

#[test]
fn a_crowd_is_served_or_refused_at_a_shutdown() {
    explore(|| {
        let senders = [
            Sender { through_actor: false, waits: &[true, false] },
            Sender { through_actor: false, waits: &[false, true] },
            Sender { through_actor: true, waits: &[true, false] },
        ];
        shutdown(2, senders, 2);
    });
}

mutant!(shut_down_over_requests:
    "admission: the end waits for what is in flight"
    is killed by a_crowd_is_served_or_refused_at_a_shutdown);
mutant!(never_end:
    "admission: the last permit tells of the end"
    is killed by a_crowd_is_served_or_refused_at_a_shutdown);
mutant!(let_them_wait:
    "admission: closing wakes those who wait"
    is killed by a_crowd_is_served_or_refused_at_a_shutdown);
