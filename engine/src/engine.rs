//! The engine: creating, finding, listing sessions; and its own end.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use ractor::ActorRef;
use sessile_actors::{engine::EngineMessage, router::Router};
use sessile_storage::{
    change::NewSession,
    clock::Timestamp,
    error::{Error, Result},
    id::SessionId,
    query::{Filter, Page, Query},
    record::Durability,
};

use crate::{
    builder::EngineBuilder,
    session::Session,
    stats::{self, Health, Stats},
};

/// A store of sessions. Cheap to clone; all clones are one engine.
///
/// Await [`Engine::shutdown`] before the process ends: dropping the last handle lets storage write and close in the
/// background, and promises nothing.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
}

/// What engine and session handles share. No actor holds it: its drop is the last handle's.
pub(crate) struct Core {
    pub(crate) router: Arc<Router>,
    actor: ActorRef<EngineMessage>,
    pub(crate) durability: Durability,
    pub(crate) request_timeout: Duration,
}

impl Drop for Core {
    fn drop(&mut self) {
        // Storage writes what is in memory and ends by itself; nothing is awaited here.
        self.router.close();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins to open the database at `path`, which is made where it is missing. One engine at a time may have it open.
    pub fn builder(path: impl Into<PathBuf>) -> EngineBuilder {
        EngineBuilder::new(Some(path.into()))
    }

    /// Begins to open an engine that keeps everything in memory, for tests.
    pub fn in_memory() -> EngineBuilder {
        EngineBuilder::new(None)
    }

    pub(crate) fn new(
        router: Arc<Router>,
        actor: ActorRef<EngineMessage>,
        durability: Durability,
        request_timeout: Duration,
    ) -> Self {
        Self { core: Arc::new(Core { router, actor, durability, request_timeout }) }
    }

    fn router(&self) -> &Arc<Router> {
        &self.core.router
    }

    /// Makes a handle to the session of this id, whether it is there or not. Does no IO.
    ///
    /// # Errors
    /// [`Error::InvalidId`].
    pub fn session<I: TryInto<SessionId, Error: Into<Error>>>(&self, id: I) -> Result<Session> {
        Ok(Session::new(Arc::clone(&self.core), id.try_into().map_err(Into::into)?))
    }

    /// Creates a session, with a generated id where `new` names none.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::InvalidId`], [`Error::Encode`], [`Error::TooLarge`], [`Error::LimitReached`];
    /// and those of every request.
    ///
    /// # Cancellation
    /// Dropped after admission, the session is created all the same; where its id was generated, nobody knows it, and it
    /// ends by its idle timeout.
    pub async fn create(&self, new: NewSession) -> Result<Session> {
        self.create_any(new, false).await.map(|(session, _)| session)
    }

    /// Creates a session, or finds the one that has the id; returns whether it was created.
    ///
    /// # Errors
    /// As for [`Engine::create`], but for [`Error::AlreadyExists`].
    ///
    /// # Cancellation
    /// As for [`Engine::create`].
    pub async fn get_or_create(&self, new: NewSession) -> Result<(Session, bool)> {
        self.create_any(new, true).await
    }

    async fn create_any(&self, new: NewSession, or_existing: bool) -> Result<(Session, bool)> {
        let router = self.router();
        let (id, change) = new.into_parts();
        router.check(&change)?;
        let id = id.unwrap_or_else(|| SessionId::generate_at(Timestamp::from_micros(router.now())));
        let (bytes, change) = (change.payload_bytes(), Arc::new(change));
        let created = router
            .ask(bytes, self.core.request_timeout, |asking| {
                router.create(id.clone(), Arc::clone(&change), or_existing, self.core.durability, asking);
            })
            .await?;
        Ok((Session::new(Arc::clone(&self.core), id), created))
    }

    /// Returns a page of the sessions that match, without their data. Sees every touch acknowledged before it.
    ///
    /// # Errors
    /// [`Error::InvalidQuery`]; and those of every request.
    ///
    /// # Cancellation
    /// Safe at any point.
    pub async fn list(&self, query: Query) -> Result<Page> {
        query.check()?;
        let router = self.router();
        router.ask(0, self.core.request_timeout, |asking| router.list(query, asking)).await
    }

    /// Counts the sessions that match. Sees every touch acknowledged before it.
    ///
    /// # Errors
    /// Those of every request.
    ///
    /// # Cancellation
    /// Safe at any point.
    pub async fn count(&self, filter: Filter) -> Result<u64> {
        filter.check()?;
        let router = self.router();
        router.ask(0, self.core.request_timeout, |asking| router.count(filter, asking)).await
    }

    /// Deletes the sessions that match, of those there at its start; returns how many. Works in steps of some hundred
    /// rows, each atomic, between which other requests are served.
    ///
    /// # Errors
    /// Those of every request; [`Error::Partial`] if some were deleted before it.
    ///
    /// # Cancellation
    /// Dropped after admission, the deletion proceeds.
    pub async fn delete_where(&self, filter: Filter) -> Result<u64> {
        filter.check()?;
        let router = self.router();
        let durability = self.core.durability;
        router.ask(0, self.core.request_timeout, |asking| router.delete_where(filter, durability, asking)).await
    }

    /// Deletes the expired sessions now; returns how many. The engine does this by itself every minute.
    ///
    /// # Errors
    /// As for [`Engine::delete_where`].
    ///
    /// # Cancellation
    /// As for [`Engine::delete_where`].
    pub async fn sweep(&self) -> Result<u64> {
        self.delete_where(Filter::over()).await
    }

    /// Makes every touch acknowledged before durable: committed, and synced to the disk.
    ///
    /// # Errors
    /// Those of every request.
    ///
    /// # Cancellation
    /// Dropped after admission, the flush proceeds.
    pub async fn flush(&self) -> Result<()> {
        let router = self.router();
        router.ask(0, self.core.request_timeout, |asking| router.flush(asking)).await
    }

    /// Shuts the engine down: refuses new requests, answers those in flight, writes all touches, syncs, empties the log,
    /// closes the file and ends the storage thread. May be called again, by any handle.
    ///
    /// # Errors
    /// [`Error::Storage`] if the last write failed; the engine is closed then too.
    ///
    /// # Cancellation
    /// Once polled, the shutdown proceeds without the future.
    pub async fn shutdown(&self) -> Result<()> {
        self.router().shutdown().await
    }

    /// Returns numbers of this engine.
    pub fn stats(&self) -> Stats {
        stats::stats(self.router())
    }

    /// Returns how the engine is.
    pub fn health(&self) -> Health {
        stats::health(self.router())
    }

    /// Returns the engine's face for actors. It turns away at once, with `Overloaded`, what admission has no room for, but its
    /// mailbox is ractor's and takes whatever is sent: await the answers, or keep to this handle where you could send faster
    /// than the engine takes.
    pub fn actor(&self) -> ActorRef<EngineMessage> {
        self.core.actor.clone()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn order_fault(&self, fault: sessile_storage::testing::Fault) {
        self.router().mailbox().send(sessile_storage::command::Command::Fault(fault));
    }

    #[cfg(feature = "testing")]
    pub(crate) fn router_for_faults(&self) -> &Arc<Router> {
        self.router()
    }
}
