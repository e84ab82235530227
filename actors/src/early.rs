//! Events that come before whoever is to hear them is there: kept, and heard in their order.
//!
//! The storage thread runs before the actor that observes it, and may have given up by then.

use crate::sync::{Mutex, lock, omitted};

/// What hears an event.
type Hears<E> = Box<dyn Fn(E) + Send>;

/// The way of events to whoever hears them.
pub(crate) struct Early<E> {
    state: Mutex<State<E>>,
}

enum State<E> {
    /// Nobody hears yet.
    Kept(Vec<E>),
    Heard(Hears<E>),
}

impl<E> Default for Early<E> {
    fn default() -> Self {
        Self { state: Mutex::new(State::Kept(Vec::new())) }
    }
}

impl<E> Early<E> {
    /// Tells of an event. Whoever hears it is called under the lock.
    pub(crate) fn tell(&self, event: E) {
        match &mut *lock(&self.state) {
            State::Kept(events) => events.push(event),
            State::Heard(hears) => hears(event),
        }
    }

    /// Has events heard: first those that came before. `hears` is called under the lock, so that their order is kept: it must
    /// neither wait nor come back here. Called once.
    pub(crate) fn attach(&self, hears: Hears<E>) {
        let mut state = lock(&self.state);
        if let State::Kept(events) = &mut *state
            && !omitted("early: what came before is heard")
        {
            events.drain(..).for_each(&hears);
        }
        *state = State::Heard(hears);
    }
}
