//! The slot of a live session: whether its actor may take messages, and how many requests are in flight.
//!
//! Phase and count share one word, so "nothing is in flight" and "closed from now on" are one step (rule R13, I2).
//!
//! ```text
//!                      enter: n + 1 (a sender)
//!   absent ──▶ OPEN(n) ──────────────┐
//!              │  ▲  └── leave: n − 1 ┘ (the drop of a reply, on any thread)
//!              │  └──────────────────
//!              ├─close, from OPEN(0) only─▶ CLOSING   removed from the registry, then drained
//!              └─die─────────────────────▶ DEAD(n)   the actor is gone; late leaves only count down
//! ```
//!
//! The actor comes up with the first message that needs a mailbox: an update. Until then, and whenever nothing else is in
//! flight, nothing is queued for the session, so a request may go straight to storage without overtaking anything.

use crate::sync::{AtomicU64, Mutex, Ordering, lock, omitted, try_lock};

const PHASE: u64 = 0b11;
const OPEN: u64 = 0b00;
const CLOSING: u64 = 0b01;
const DEAD: u64 = 0b10;
/// An actor was brought up. In the word, so that a look needs no lock: a death must find that free, or taken by someone
/// who looks for it afterwards.
const HAS_ACTOR: u64 = 0b100;
const ONE: u64 = 0b1000;

/// Leads to an actor.
pub trait ActorPort {
    /// What it takes.
    type Message;

    /// Sends a message, or gives it back where the actor is gone.
    fn send(&self, message: Self::Message) -> Result<(), Self::Message>;

    /// Lets the actor end after what is queued.
    fn drain(&self);
}

/// A live session. `H` is what it holds in memory.
#[derive(Debug)]
pub struct Slot<A, H> {
    word: AtomicU64,
    /// The only reference to the actor.
    actor: Mutex<Option<A>>,
    /// When it was last used, in coarse ticks: eviction takes the least recent.
    used: AtomicU64,
    held: H,
}

impl<A: ActorPort, H> Slot<A, H> {
    /// Makes a slot that its maker has entered already.
    pub fn entered(held: H, now: u64) -> Self {
        Self { word: AtomicU64::new(OPEN + ONE), actor: Mutex::new(None), used: AtomicU64::new(now), held }
    }

    /// Returns what the session holds in memory.
    pub fn held(&self) -> &H {
        &self.held
    }

    /// Counts one request more, if the slot is open.
    pub fn enter(&self) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        while word & PHASE == OPEN {
            match self.word.compare_exchange_weak(word, word + ONE, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    /// Counts one request less.
    pub fn leave(&self) {
        self.word.fetch_sub(ONE, Ordering::AcqRel);
    }

    /// Returns whether the slot is open.
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Acquire) & PHASE == OPEN
    }

    /// Returns whether the slot is open with nothing in flight.
    pub fn is_at_rest(&self) -> bool {
        if omitted("slot: at rest nothing is in flight") {
            return self.is_open();
        }
        self.word.load(Ordering::Acquire) & !HAS_ACTOR == OPEN
    }

    /// Returns whether a request that has entered finds nothing in the actor's mailbox: there is none, or nothing else is
    /// in flight. What the actor would do with it is decided then, and it may go on without.
    pub fn overtakes_nothing(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & HAS_ACTOR == 0 || word & !HAS_ACTOR == OPEN + ONE || omitted("slot: what is in flight is not overtaken")
    }

    /// Closes the slot, if nothing is in flight.
    pub fn close(&self) -> bool {
        if omitted("slot: it closes at rest only") {
            return self.word.fetch_or(CLOSING, Ordering::AcqRel) & PHASE == OPEN;
        }
        [OPEN, OPEN | HAS_ACTOR]
            .into_iter()
            .any(|rest| self.word.compare_exchange(rest, rest | CLOSING, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    /// Marks the slot dead, because its actor is gone or is to go. Returns the reference to it, if there was one: were it
    /// kept, a message stranded in the actor's mailbox would keep the slot, and the slot the message.
    ///
    /// Never waits: an actor may die inside of [`Slot::deliver`], on the very thread that brings it up. Then the reference
    /// is taken out there.
    pub fn die(&self) -> Option<A> {
        self.word.fetch_or(DEAD, Ordering::AcqRel);
        try_lock(&self.actor)?.take()
    }

    /// Takes the reference to the actor out.
    pub fn take_actor(&self) -> Option<A> {
        lock(&self.actor).take()
    }

    /// Returns whether an actor was brought up for the session.
    pub fn has_actor(&self) -> bool {
        self.word.load(Ordering::Acquire) & HAS_ACTOR != 0
    }

    /// Sends a message to the actor, which `spawn` brings up if there is none. The sender has entered. A message that
    /// cannot be delivered comes back, and the slot is dead.
    pub fn deliver(&self, message: A::Message, spawn: impl FnOnce() -> Option<A>) -> Result<(), A::Message> {
        let mut actor = lock(&self.actor);
        let is_dead = self.word.load(Ordering::Acquire) & DEAD != 0;
        if actor.is_none() && !is_dead {
            *actor = spawn();
            if actor.is_some() {
                self.word.fetch_or(HAS_ACTOR, Ordering::AcqRel);
            }
        }
        let sent = match actor.as_ref() {
            Some(port) if !is_dead => port.send(message),
            _ => Err(message),
        };
        drop(actor);
        // A read-modify-write, not a load: either it sees a death that found the lock taken, or that death sees the lock
        // free.
        let word = if omitted("slot: the look for a death is a read-modify-write") && sent.is_ok() {
            self.word.load(Ordering::Acquire)
        } else {
            self.word.fetch_or(if sent.is_err() { DEAD } else { 0 }, Ordering::AcqRel)
        };
        if (sent.is_err() || word & DEAD != 0) && !omitted("slot: a death while delivering is noticed") {
            drop(self.take_actor());
        }
        sent
    }

    /// Notes a use at `now`.
    pub fn note_use(&self, now: u64) {
        // Mostly it is the same tick: no write, no contention.
        if self.used.load(Ordering::Relaxed) != now {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// Returns when it was last used.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
