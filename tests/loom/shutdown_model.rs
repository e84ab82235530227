//! Shutdown among senders: whoever was admitted is served, and then storage ends (R18, I8).

use crate::{
    explore::{Preemptions::AtMost, explore},
    shutdown::{Sender, shutdown},
};

#[test]
fn who_is_admitted_before_a_shutdown_is_served() {
    explore(AtMost(3), || shutdown(8, [Sender { through_actor: false, waits: &[false] }], 1));
}

mutant!(shut_down_over_requests:
    "admission: the end waits for what is in flight"
    is killed by who_is_admitted_before_a_shutdown_is_served);
mutant!(never_end:
    "admission: the last permit tells of the end"
    is killed by who_is_admitted_before_a_shutdown_is_served);

#[test]
fn a_shutdown_waits_for_what_is_on_its_way_through_an_actor() {
    explore(AtMost(2), || shutdown(8, [Sender { through_actor: true, waits: &[false] }], 1));
}

mutant!(shut_down_over_actors:
    "admission: the end waits for what is in flight"
    is killed by a_shutdown_waits_for_what_is_on_its_way_through_an_actor);
