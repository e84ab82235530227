//! The way of a request: admission, the session's slot, its actor or storage; and back.
//!
//! ```text
//!   handle ──▶ Router::ask ──admission──▶ Router::dispatch ──▶ slot ──▶ session actor ──▶ storage mailbox
//!     ▲                                        └── nothing to overtake: ────────────────────▲
//!     └───────────── the reply, from the storage thread after COMMIT ◀───────────────────────┘
//! ```
//!
//! Two shortcuts need no message, because what they ask is decided already: a touch counts in the session's cell
//! ([`Router::touch_in_memory`]), and a get of a session at rest reads the record that the storage thread has published
//! ([`Router::read_in_memory`]).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread::JoinHandle,
    time::Duration,
};

use foldhash::fast::RandomState;
use sessile_storage::{
    admission::{Admission, Refused},
    cell::{Cell, Touch},
    clock::{EngineClock, micros},
    command::{AnyPort, Command, HeldRecord, InFlight, Occupied, Sink, Target},
    error::{Cause, CauseKind, Error, InterruptedBy, Result},
    health::Phase,
    held::Held,
    id::SessionId,
    mailbox::Mailbox,
    oneshot::oneshot,
    panic::contain,
    record::Record,
    reply::Port,
    shared::Shared,
};
use tokio::{runtime::Handle, sync::watch};

use crate::{
    registry::{Bounds, Registry},
    session::{SessionActor, SessionMessage, SessionRef},
    slot,
};

/// Shards of the registry: enough that two workers seldom meet.
const REGISTRY_SHARDS: usize = 64;
/// How often a get or a touch looks whether another process has written, in microseconds: the staleness that a foreign write can
/// have for sessions held in memory.
const FOREIGN_CHECK_INTERVAL_US: i64 = 1_000_000;
/// The part of a request's deadline for which it waits for room at most. Were it all of it, then under lasting overload those
/// who come in would have no time left to be answered in, and all work would be for nobody.
const ROOM_PART: u32 = 2;
/// Deliveries tried on fresh slots before a session's actor counts as unable to start.
const DELIVERIES_MAX: usize = 3;

/// A live session.
pub type Slot = slot::Slot<SessionRef, Arc<HeldRecord>>;

impl InFlight for Slot {
    fn leave(&self) {
        slot::Slot::leave(self);
    }
}

/// How much is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions with an actor.
    pub live_sessions_max: usize,
    /// Sessions in memory, with an actor or without.
    pub slots_max: usize,
    /// Bytes of their records.
    pub held_bytes_max: usize,
    /// Bytes of one session's data, metadata and user name.
    pub payload_bytes_max: usize,
    /// How long a message may wait for storage while that is being reopened.
    pub message_timeout: Duration,
}

/// What the router is made of.
#[derive(Debug)]
pub struct Parts {
    /// The bound on what is in flight.
    pub admission: Arc<Admission>,
    /// The way to storage.
    pub mailbox: Mailbox<Command>,
    /// What storage shows.
    pub shared: Arc<Shared>,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// Where actors run.
    pub runtime: Handle,
    /// How much is kept in memory.
    pub limits: Limits,
    /// True once the storage thread has ended.
    pub ended: watch::Receiver<bool>,
    /// The storage thread.
    pub thread: JoinHandle<()>,
}

/// The way of every request.
#[derive(Debug)]
pub struct Router {
    admission: Arc<Admission>,
    mailbox: Mailbox<Command>,
    shared: Arc<Shared>,
    clock: Arc<EngineClock>,
    runtime: Handle,
    limits: Limits,
    ended: watch::Receiver<bool>,
    /// Taken by the first shutdown to get here.
    thread: Mutex<Option<JoinHandle<()>>>,
    registry: Registry<SessionId, SessionRef, Arc<HeldRecord>, RandomState>,
    /// Slots with an actor.
    actors: AtomicUsize,
}

/// Where an answer is awaited, and what the request occupies.
#[derive(Debug)]
pub struct Asking<T> {
    /// The way back.
    pub port: AnyPort<T>,
    /// Room in admission.
    pub occupied: Occupied,
}

impl Router {
    /// Makes the router.
    pub fn new(parts: Parts) -> Self {
        let Parts { admission, mailbox, shared, clock, runtime, limits, ended, thread } = parts;
        let bounds = Bounds { slots_max: limits.slots_max, actors_max: limits.live_sessions_max };
        let registry = Registry::new(REGISTRY_SHARDS, bounds, RandomState::default());
        let (actors, thread) = (AtomicUsize::new(0), Mutex::new(Some(thread)));
        Self { admission, mailbox, shared, clock, runtime, limits, ended, thread, registry, actors }
    }

    /// Returns engine time in unix microseconds.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Returns what storage shows.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns how much is kept in memory.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the bound on what is in flight.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Returns the way to storage.
    pub fn mailbox(&self) -> &Mailbox<Command> {
        &self.mailbox
    }

    /// Returns where actors run.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Returns how many sessions are in memory, and how many of them have an actor.
    pub fn sessions(&self) -> (usize, usize) {
        (self.registry.len(), self.actors.load(Ordering::Relaxed))
    }

    /// Asks something and awaits the answer, for `timeout` at most.
    ///
    /// # Cancellation
    /// Dropped before admission, nothing happened; after it, the request proceeds.
    pub async fn ask<T: Send + 'static>(
        &self,
        bytes: usize,
        timeout: Duration,
        send: impl FnOnce(Asking<T>),
    ) -> Result<T> {
        let began = self.clock.monotonic();
        let permit = match self.admission.try_acquire(bytes) {
            Err(Refused::Full) => {
                self.within(timeout / ROOM_PART, self.admission.acquire(bytes)).await.unwrap_or(Err(Refused::Full))
            }
            decided => decided,
        };
        let waited = || Duration::from_micros((self.clock.monotonic() - began).unsigned_abs());
        let permit = match permit {
            Ok(permit) => permit,
            Err(Refused::Closed) => return Err(Error::Closed),
            Err(Refused::Full) => return Err(Error::Overloaded { waited: waited() }),
        };
        let (sender, receiver) = oneshot();
        let deadline = began.saturating_add(micros(timeout));
        send(Asking { port: AnyPort::Caller(sender), occupied: Occupied::by_permit(permit, deadline) });
        let answered = self.within(timeout.saturating_sub(waited()), receiver).await;
        self.shared.wakes.help();
        match answered {
            Some(Some(answer)) => answer,
            // Every reply is answered, also when it is dropped; this one was lost with its thread.
            Some(None) => Err(Error::Interrupted { by: InterruptedBy::StorageDied }),
            None => Err(Error::Interrupted { by: InterruptedBy::Deadline }),
        }
    }

    /// Asks something for a message: takes room at once or not at all.
    pub(crate) fn ask_at_once<T: 'static>(
        &self,
        bytes: usize,
        sink: impl Sink<T> + 'static,
        send: impl FnOnce(Asking<T>),
    ) {
        let port = AnyPort::new(sink);
        match self.admission.try_acquire(bytes) {
            Ok(permit) => {
                let deadline = self.clock.monotonic().saturating_add(micros(self.limits.message_timeout));
                send(Asking { port, occupied: Occupied::by_permit(permit, deadline) });
            }
            Err(Refused::Full) => drop(port.send(Err(Error::Overloaded { waited: Duration::ZERO }))),
            Err(Refused::Closed) => drop(port.send(Err(Error::Closed))),
        }
    }

    /// Awaits a future for `timeout` at most, by the engine's own timer: the caller's runtime may have none. Where the
    /// engine's runtime is gone, nobody tells the time any more, and the wait is over.
    async fn within<F: Future>(&self, timeout: Duration, future: F) -> Option<F::Output> {
        let timer = {
            let _context = self.runtime.enter();
            tokio::time::sleep(timeout)
        };
        let (mut future, mut timer) = (pin!(future), pin!(timer));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            // A panic is how a timer tells that its runtime is gone; there is no other way to ask.
            match contain(|| timer.as_mut().poll(context)) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) | Err(_) => Poll::Ready(None),
            }
        })
        .await
    }

    /// Returns the session's slot, if it is in memory.
    pub fn find(&self, id: &SessionId) -> Option<Arc<Slot>> {
        self.registry.find(id)
    }

    /// Returns whether something may be queued for the session in a mailbox of its own.
    pub(crate) fn has_mailbox(&self, id: &SessionId) -> bool {
        self.find(id).is_some_and(|slot| slot.has_actor())
    }

    /// Counts a touch in the session's cell. `None` where only storage can decide.
    pub fn touch_in_memory(&self, slot: &Slot, cell: &Arc<Cell>) -> Option<Result<()>> {
        if self.shared.vitals.phase() >= Phase::Failed {
            // Nobody would write it down.
            return None;
        }
        let (monotonic, now) = self.clock.read();
        match cell.touch(now) {
            Touch::Counted => {}
            Touch::CountedFirst => {
                if self.shared.dirty.add(Arc::clone(cell)) {
                    self.mailbox.send(Command::Dirty);
                }
            }
            Touch::Expired => return Some(Err(Error::NotFound)),
            Touch::Frozen | Touch::Gone => return None,
        }
        self.look_for_foreign_writes(monotonic);
        slot.note_use(coarse(now));
        Some(Ok(()))
    }

    /// Reads the record of a session with nothing in flight. `None` where only storage can decide.
    pub fn read_in_memory(&self, slot: &Slot) -> Option<Record> {
        if slot.is_at_rest() { self.record_in_memory(slot) } else { None }
    }

    /// Reads the record that storage has published last, whatever is in flight.
    pub(crate) fn record_in_memory(&self, slot: &Slot) -> Option<Record> {
        let vitals = &self.shared.vitals;
        if vitals.phase() >= Phase::Failed {
            return None;
        }
        let (monotonic, now) = self.clock.read();
        let record = slot.held().read(vitals.generation(), |stored, cell| {
            let usable = cell.is_live() && !cell.expired(now);
            usable.then(|| Record::new(Arc::clone(stored), cell.activity(), cell.deadlines()))
        });
        let record = record??;
        self.look_for_foreign_writes(monotonic);
        slot.note_use(coarse(now));
        Some(record)
    }

    /// Asks storage to look, without waiting for it, where what is in memory may be too far behind (rule R5).
    fn look_for_foreign_writes(&self, monotonic: i64) {
        if self.shared.vitals.claim_check(monotonic, FOREIGN_CHECK_INTERVAL_US) {
            self.mailbox.send(Command::CheckForeign);
        }
    }

    /// Sends a request to a session. `make` builds it around what it is for; it goes by the session's mailbox, or, where
    /// it is only to be handed on and nothing can be queued there, straight to storage.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        id: &SessionId,
        occupied: Occupied,
        make: impl FnOnce(Target, Occupied) -> SessionMessage,
    ) -> Arc<Slot> {
        let mut slot = self.enter(id);
        let target = Target { id: id.clone(), held: Some(Arc::clone(slot.held())) };
        let mut message = make(target, occupied.in_slot(Arc::clone(&slot) as Arc<dyn InFlight>));
        if slot.overtakes_nothing() {
            match message {
                SessionMessage::Forward(command) => {
                    self.mailbox.send(command);
                    return slot;
                }
                other => message = other,
            }
        }
        for _ in 0..DELIVERIES_MAX {
            let mut is_new = false;
            let delivered = slot.deliver(message, || {
                let actor = self.spawn(id, &slot);
                is_new = actor.is_some();
                actor
            });
            if is_new {
                for removed in self.registry.note_actor(id, &slot) {
                    self.let_go(&removed);
                }
            }
            match delivered {
                Ok(()) => return slot,
                Err(back) => message = back,
            }
            self.retire(id, &slot);
            slot = self.enter(id);
            message.move_to(&slot);
        }
        message.refuse(Error::Unavailable {
            cause: Cause::new(CauseKind::Other, "the session's actor does not start; is its runtime gone?"),
        });
        slot
    }

    fn enter(&self, id: &SessionId) -> Arc<Slot> {
        let make = || Arc::new(Held::new(Arc::clone(&self.shared.bytes_held)));
        let entered = self.registry.enter(id, coarse(self.now()), make);
        entered.removed.into_iter().for_each(|slot| self.let_go(&slot));
        if self.shared.bytes_held.load(Ordering::Relaxed) > self.limits.held_bytes_max
            && let Some(slot) = self.registry.evict(id)
        {
            self.let_go(&slot);
        }
        entered.slot
    }

    fn spawn(self: &Arc<Self>, id: &SessionId, slot: &Arc<Slot>) -> Option<SessionRef> {
        let actor = SessionActor::spawn(id.clone(), Arc::clone(slot), self)?;
        self.actors.fetch_add(1, Ordering::Relaxed);
        Some(actor)
    }

    /// Counts one actor less.
    pub(crate) fn actor_ended(&self) {
        self.actors.fetch_sub(1, Ordering::Relaxed);
    }

    fn retire(&self, id: &SessionId, slot: &Arc<Slot>) {
        if self.registry.remove(id, slot) {
            self.let_go(slot);
        }
    }

    /// Ends a slot that was taken out of the registry.
    fn let_go(&self, slot: &Arc<Slot>) {
        if let Some(actor) = slot.take_actor() {
            slot::ActorPort::drain(&actor);
        }
        self.mailbox.send(Command::Retire(Arc::clone(slot.held())));
    }

    /// Passivates a session, if nothing is in flight.
    pub fn passivate(&self, id: &SessionId, slot: &Arc<Slot>) {
        if self.registry.close(id, slot) {
            self.let_go(slot);
        }
    }

    /// Passivates the sessions that were not used for `idle`.
    pub fn passivate_idle(&self, idle: Duration) {
        let before = coarse(self.now().saturating_sub(micros(idle)));
        self.registry.evict_idle(before).iter().for_each(|slot| self.let_go(slot));
    }

    /// Refuses everything from now on, and asks storage to end when all that is in flight is answered. Neither blocks
    /// nor needs a runtime; idempotent.
    pub fn close(&self) {
        let mailbox = self.mailbox.clone();
        self.admission.close(move || mailbox.send(Command::Shutdown));
    }

    /// Closes, and awaits the end of the storage thread. The thread itself waits for what is in flight, so this neither
    /// depends on any task nor on this future being polled.
    pub async fn shutdown(&self) -> Result<()> {
        self.close();
        let mut ended = self.ended.clone();
        // An error means that the thread is gone together with its end of the channel.
        drop(ended.wait_for(|ended| *ended).await);
        self.end_actors();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has said its last word; this waits for its stack to go.
            drop(thread.join());
        }
        match self.shared.closing_trouble() {
            None => Ok(()),
            Some(cause) => Err(Error::Storage { cause }),
        }
    }

    /// Lets all session actors end.
    pub fn end_actors(&self) {
        for slot in self.registry.clear() {
            if let Some(actor) = slot.die() {
                slot::ActorPort::drain(&actor);
            }
        }
    }
}

/// Engine time in ticks of a second or so, for "last used".
fn coarse(now: i64) -> u64 {
    (now >> 20).cast_unsigned()
}
