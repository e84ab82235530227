//! Activation against passivation: a session's messages are handled once each and in their sender's order, by one actor
//! at a time, though the session is passivated between them (R13, I2).

use loom::thread;

use crate::{
    caller::Answer,
    explore::{Preemptions::AtMost, explore},
    join,
    passivation::{Engine, Kind, let_go},
    sync::Arc,
};

#[test]
fn messages_around_a_passivation_are_handled_once_and_in_order() {
    explore(AtMost(2), || {
        let engine = Engine::new(9, 0);
        let other = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                let_go(engine.registry.evict_idle(2));
                assert_eq!(engine.send(Kind::Forward, 2, 0).hear(), Answer::Done);
            })
        };
        let callers = [engine.send(Kind::Update, 1, 0), engine.send(Kind::Forward, 1, 1)];
        for caller in callers {
            assert_eq!(caller.hear(), Answer::Done);
        }
        join([other]);
        let mut handled = engine.end();
        // Stable: what one sender sent stays as it was handled.
        handled.sort_by_key(|(sender, _)| *sender);
        assert_eq!(handled, [(1, 0), (1, 1), (2, 0)]);
    });
}

mutant!(overtake_what_is_queued:
    "slot: what is in flight is not overtaken"
    is killed by messages_around_a_passivation_are_handled_once_and_in_order);
mutant!(passivate_over_messages:
    "slot: it closes at rest only"
    is killed by messages_around_a_passivation_are_handled_once_and_in_order);
mutant!(passivate_without_closing:
    "registry: a slot is closed before it is taken out"
    is killed by messages_around_a_passivation_are_handled_once_and_in_order);
