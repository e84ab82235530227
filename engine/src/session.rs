//! The handle of a session.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use sessile_actors::{
    edit::{Decision, TypedEdit},
    router::{Asking, Slot},
};
use sessile_storage::{
    cell::Cell,
    change::{Change, checked_duration},
    clock::Timestamp,
    error::Result,
    id::{SessionId, Version},
    record::{Durability, Record},
};

use crate::{Error, engine::Core};

/// A handle to a session. Cheap to clone and to keep; it neither loads nor holds the session.
///
/// What each acknowledgement promises and what may be lost when is written in `docs/semantics.md`. Every method answers
/// within the deadline, [`request_timeout`](crate::EngineBuilder::request_timeout) unless [`Session::with_deadline`] set
/// another; what an [`Error`] says of the outcome is in [`Error::outcome`].
///
/// # Cancellation
/// A future dropped before it was admitted did nothing; after that, the request proceeds.
pub struct Session {
    core: Arc<Core>,
    id: SessionId,
    durability: Durability,
    /// How long a request may take, or what is wrong with what was asked for.
    deadline: Result<Duration>,
    /// Where the session was last found in memory.
    cached: Mutex<Option<Cached>>,
}

/// A session's place in memory, and its touch cell where that is bound. Found again when it has gone.
#[derive(Clone)]
struct Cached {
    slot: Arc<Slot>,
    cell: Option<Arc<Cell>>,
}

impl Clone for Session {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            id: self.id.clone(),
            durability: self.durability,
            deadline: self.deadline.clone(),
            cached: Mutex::new(self.cache().clone()),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(core: Arc<Core>, id: SessionId) -> Self {
        let (durability, deadline) = (core.durability, Ok(core.request_timeout));
        Self { core, id, durability, deadline, cached: Mutex::new(None) }
    }

    /// Returns the id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Makes writes through this handle promise `durability`.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Makes requests through this handle answer within `deadline`. Zero, or over 100 years, is an
    /// [`Error::InvalidOption`] of each request that needs it.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = checked_duration("deadline", deadline).map(|_| deadline);
        self
    }

    /// Reads the session; `None` where there is none. What is read is committed.
    ///
    /// # Errors
    /// Never [`Error::NotFound`]; a database that fails is [`Error::Storage`] or [`Error::Unavailable`], never `None`.
    ///
    /// # Cancellation
    /// Safe at any point: a read changes nothing.
    pub async fn get(&self) -> Result<Option<Record>> {
        let router = &self.core.router;
        if let Some(record) = self.find(|cached| router.read_in_memory(&cached.slot)) {
            return Ok(Some(record));
        }
        let record = self.ask(0, |asking| self.remember(router.get(&self.id, asking))).await;
        if let Ok(None) = record {
            self.forget();
        }
        record
    }

    /// Counts a message: refreshes `last_active_at` and adds one to `touch_count`. `Ok` means counted and visible to
    /// every later `get`; it is in the database within the engine's flush interval.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a session that is unknown, deleted, expired or rotated away.
    ///
    /// # Cancellation
    /// A touch of a session in memory is done at the first poll. Otherwise as for every request.
    pub async fn touch(&self) -> Result<()> {
        let router = &self.core.router;
        let counted = self.find(|Cached { slot, cell }| {
            if cell.is_none() {
                *cell = slot.held().cell();
            }
            router.touch_in_memory(slot, cell.as_ref()?)
        });
        if let Some(counted) = counted {
            return counted;
        }
        self.ask(0, |asking| self.remember(router.touch(&self.id, None, asking))).await
    }

    /// Counts a message, and answers when that is as durable as asked.
    ///
    /// # Errors
    /// As for [`Session::touch`].
    ///
    /// # Cancellation
    /// Dropped after admission, the touch is counted all the same.
    pub async fn touch_with(&self, durability: Durability) -> Result<()> {
        let router = &self.core.router;
        self.ask(0, |asking| self.remember(router.touch(&self.id, Some(durability), asking))).await
    }

    /// Replaces the data with `data`, as JSON. The bytes that are there already are not written again, and the version
    /// stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Encode`], [`Error::TooLarge`]; and those of every request.
    ///
    /// # Cancellation
    /// Dropped after admission, the save proceeds.
    pub async fn save<T: Serialize + ?Sized>(&self, data: &T) -> Result<Version> {
        self.apply(Change::new().data(data)).await
    }

    /// Replaces the data with `data`, as JSON, if the session's state is still of version `expected`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; else as for [`Session::save`].
    ///
    /// # Cancellation
    /// Dropped after admission, the save proceeds.
    pub async fn save_if<T: Serialize + ?Sized>(&self, expected: Version, data: &T) -> Result<Version> {
        self.apply(Change::new().data(data).if_version(expected)).await
    }

    /// Changes data, owner, metadata and expiry in one write.
    ///
    /// # Errors
    /// As for [`Session::save`]; [`Error::LimitReached`] where a new owner has too many sessions.
    ///
    /// # Cancellation
    /// Dropped after admission, the change proceeds.
    pub async fn apply(&self, change: Change) -> Result<Version> {
        self.write(change, None).await
    }

    /// Gives the session a new id, as at login, and makes `change` with it, in one commit: from then on the old id is
    /// dead, the serial stays. Returns a handle with the new id.
    ///
    /// # Errors
    /// As for [`Session::apply`].
    ///
    /// # Cancellation
    /// Dropped after admission, the rotation proceeds, and the new id is lost with the future: the session then ends by
    /// its idle timeout, or is found by its owner or serial.
    pub async fn rotate(&self, change: Change) -> Result<Self> {
        let id = SessionId::generate_at(Timestamp::from_micros(self.core.router.now()));
        self.write(change, Some(id.clone())).await?;
        let (durability, deadline) = (self.durability, self.deadline.clone());
        Ok(Self { core: Arc::clone(&self.core), id, durability, deadline, cached: Mutex::new(None) })
    }

    async fn write(&self, change: Change, rotate_to: Option<SessionId>) -> Result<Version> {
        let router = &self.core.router;
        router.check(&change)?;
        let (bytes, change) = (change.payload_bytes(), Arc::new(change));
        self.ask(bytes, |asking| {
            self.remember(router.write(&self.id, Arc::clone(&change), rotate_to, self.durability, asking));
        })
        .await
    }

    /// Changes the data by a function, in the order in which requests reached the session: no update is lost, no lock is
    /// held. The function runs on a worker of the runtime, so it must not block; it may run more than once, each time on
    /// a fresh value. Returns what the function returned.
    ///
    /// # Errors
    /// [`Error::Decode`] or [`Error::NotJson`] where the data is no `T`, [`Error::Panicked`] where the function panicked:
    /// nothing is written then. Else as for [`Session::save`].
    ///
    /// # Cancellation
    /// Dropped after admission, the update proceeds.
    pub async fn update<T, R>(&self, mut change: impl FnMut(&mut T) -> R + Send + 'static) -> Result<R>
    where
        T: Serialize + DeserializeOwned + 'static,
        R: Send + 'static,
    {
        self.decide(move |data: &mut T| Decision::Write(change(data))).await
    }

    /// Changes the data by a function that may refuse: on its `Err` nothing is written.
    ///
    /// # Errors
    /// As for [`Session::update`]; the function's own refusal is the inner result.
    ///
    /// # Cancellation
    /// Dropped after admission, the update proceeds.
    pub async fn try_update<T, R, E>(
        &self,
        mut change: impl FnMut(&mut T) -> Result<R, E> + Send + 'static,
    ) -> Result<Result<R, E>>
    where
        T: Serialize + DeserializeOwned + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        self.decide(move |data: &mut T| match change(data) {
            Ok(answer) => Decision::Write(Ok(answer)),
            Err(refusal) => Decision::Refuse(Err(refusal)),
        })
        .await
    }

    async fn decide<T, A>(&self, change: impl FnMut(&mut T) -> Decision<A> + Send + 'static) -> Result<A>
    where
        T: Serialize + DeserializeOwned + 'static,
        A: Send + 'static,
    {
        let router = &self.core.router;
        let bytes_max = router.limits().payload_bytes_max;
        // What it will carry is known once the function has run; until then it is taken to be as large as it is.
        let bytes = self.find(|cached| cached.slot.held().bytes()).unwrap_or(0);
        self.ask(bytes, |asking| {
            let edit = |reply| TypedEdit::boxed(change, bytes_max, reply);
            self.remember(router.update(&self.id, self.durability, asking, edit));
        })
        .await
    }

    /// Deletes the session. Returns whether it was there; deleting again is no error.
    ///
    /// # Errors
    /// Those of every request.
    ///
    /// # Cancellation
    /// Dropped after admission, the deletion proceeds.
    pub async fn delete(&self) -> Result<bool> {
        let router = &self.core.router;
        self.ask(0, |asking| self.remember(router.delete(&self.id, self.durability, asking))).await
    }

    async fn ask<T: Send + 'static>(&self, bytes: usize, send: impl FnOnce(Asking<T>)) -> Result<T> {
        let answer = self.core.router.ask(bytes, self.deadline.clone()?, send).await;
        if let Err(Error::NotFound) = answer {
            self.forget();
        }
        answer
    }

    /// Lets go of what is in memory for an id that is no session's: those who try ids shall not drive out sessions.
    fn forget(&self) {
        if let Some(Cached { slot, .. }) = self.cache().take() {
            self.core.router.passivate(&self.id, &slot);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Option<Cached>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries something where the session was last found in memory, then where it is found now.
    fn find<T>(&self, mut attempt: impl FnMut(&mut Cached) -> Option<T>) -> Option<T> {
        let mut cache = self.cache();
        if let Some(cached) = &mut *cache
            && let Some(done) = attempt(cached)
        {
            return Some(done);
        }
        let slot = self.core.router.find(&self.id)?;
        attempt(cache.insert(Cached { slot, cell: None }))
    }

    fn remember(&self, slot: Arc<Slot>) {
        *self.cache() = Some(Cached { slot, cell: None });
    }
}

impl TryFrom<&Session> for SessionId {
    type Error = Error;

    fn try_from(session: &Session) -> Result<Self> {
        Ok(session.id.clone())
    }
}
