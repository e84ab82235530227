//! Bringing an engine up: the storage thread, the router, the actors around them.

use std::{sync::Arc, time::Duration};

use ractor::{ActorCell, ActorRef, ActorRuntime};
use sessile_storage::{
    Settings,
    admission::{Admission, Bounds},
    backend::Backend,
    clock::EngineClock,
    error::{Cause, CauseKind, OpenError},
    record::Durability,
    shared::Shared,
    thread::{self, Event},
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{
    early::Early,
    engine::{EngineActor, EngineArguments, EngineMessage},
    router::{Limits, Parts, Router},
    storage::{StorageActor, StorageMessage},
};

/// What an engine is made of.
pub struct Blueprint<B> {
    /// Opens the database, on the storage thread.
    pub open: Box<dyn FnOnce() -> Result<B, OpenError> + Send>,
    /// What the worker goes by.
    pub settings: Settings,
    /// The bound on what is in flight.
    pub bounds: Bounds,
    /// How much is kept in memory.
    pub limits: Limits,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// Where actors run.
    pub runtime: Handle,
    /// What acknowledgements of messages promise.
    pub durability: Durability,
    /// How long a session's memory outlasts its last use.
    pub passivate_after: Duration,
    /// Whose child the engine actor is.
    pub supervisor: Option<ActorCell>,
}

/// Starts an engine.
pub async fn start<B: Backend + 'static>(
    blueprint: Blueprint<B>,
) -> Result<(Arc<Router>, ActorRef<EngineMessage>), OpenError> {
    let Blueprint { open, settings, bounds, limits, clock, runtime, durability, passivate_after, supervisor } =
        blueprint;
    let admission = Arc::new(Admission::new(bounds));
    let shared = Arc::new(Shared::default());
    let (opened_sender, opened) = oneshot::channel();
    let (ended_sender, ended) = watch::channel(false);
    let events: Arc<Early<Event>> = Arc::default();
    let told = Arc::clone(&events);
    let observer = move |event: Event| {
        let is_end = matches!(event, Event::Closed(_));
        told.tell(event);
        if is_end {
            ended_sender.send_replace(true);
        }
    };
    let parts = thread::Parts {
        open,
        settings,
        clock: Arc::clone(&clock),
        admission: Arc::clone(&admission),
        shared: Arc::clone(&shared),
        // The caller may have dropped its future: then the mailbox has no sender, and the thread ends.
        opened: Box::new(move |outcome| drop(opened_sender.send(outcome))),
        observer: Box::new(observer),
    };
    let (mailbox, thread) = thread::spawn(parts).map_err(|error| io(&error))?;
    opened.await.unwrap_or_else(|_| Err(io(&"the storage thread ended while it opened the database")))?;

    let router = Parts { admission, mailbox, shared, clock, runtime: runtime.clone(), limits, ended, thread };
    let router = Arc::new(Router::new(router));
    let arguments = EngineArguments { router: Arc::clone(&router), durability, closes: supervisor.is_some() };
    let engine = {
        let _context = runtime.enter();
        match supervisor {
            Some(supervisor) => ActorRuntime::spawn_linked_instant(None, EngineActor, arguments, supervisor),
            None => ActorRuntime::spawn_instant(None, EngineActor, arguments),
        }
    };
    let (engine, _) = engine.map_err(|error| io(&error))?;
    let storage = {
        let _context = runtime.enter();
        ActorRuntime::spawn_linked_instant(None, StorageActor, (), engine.get_cell())
    };
    let (storage, _) = storage.map_err(|error| io(&error))?;
    // The actor may be gone by then: nobody is observing any more.
    events.attach(Box::new(move |event| drop(storage.cast(StorageMessage::Event(event)))));
    runtime.spawn(passivate(Arc::downgrade(&router), passivate_after));
    Ok((router, engine))
}

/// Passivates idle sessions, as long as the engine is there.
async fn passivate(router: std::sync::Weak<Router>, after: Duration) {
    loop {
        tokio::time::sleep(after / 2).await;
        let Some(router) = router.upgrade() else { return };
        router.passivate_idle(after);
    }
}

fn io(error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Storage { cause: Cause::new(CauseKind::Other, error) }
}
