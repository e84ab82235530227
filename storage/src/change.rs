//! What writers ask for: a session to create, a change to one.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    clock::{Timestamp, micros},
    error::{Error, Result},
    id::{SessionId, Version},
    json::Decodes,
    record::{Data, Stored},
};

/// The longest idle timeout or lifetime: 100 years. More is a mistake in units.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The shortest idle timeout or lifetime: times are kept in microseconds, in which less would be zero.
pub const DURATION_MIN: Duration = Duration::from_micros(1);

/// Checks a timeout that a user named.
pub fn checked_duration(name: &'static str, duration: Duration) -> Result<i64> {
    if duration < DURATION_MIN {
        Err(Error::InvalidOption { name, reason: "it is under a microsecond" })
    } else if duration > DURATION_MAX {
        Err(Error::InvalidOption { name, reason: "it is over 100 years" })
    } else {
        Ok(micros(duration))
    }
}

/// A session to create. What is wrong with its parts is said by `create`.
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    /// Its id, or one is generated.
    pub(crate) id: Option<SessionId>,
    /// The rest, as a change to an empty session.
    pub(crate) change: Change,
}

impl NewSession {
    /// Begins a session with a generated id, JSON `null` for data, and the engine's expiry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a session with an id of the application's choice.
    pub fn with_id<I: TryInto<SessionId, Error: Into<Error>>>(id: I) -> Self {
        let mut this = Self::default();
        match id.try_into() {
            Ok(id) => this.id = Some(id),
            Err(error) => this.change.fail(error.into()),
        }
        this
    }

    /// Sets the owner.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.change = self.change.user(user);
        self
    }

    /// Sets the data, as JSON.
    #[must_use]
    pub fn data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        self.change = self.change.data(data);
        self
    }

    /// Sets the data, in a format of the application's own.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.change = self.change.bytes(bytes);
        self
    }

    /// Adds a metadata entry.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.change = self.change.metadata(key, value);
        self
    }

    /// Sets how long the session may be idle, in place of the engine's idle timeout: a microsecond to 100 years.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.change = self.change.idle_timeout(timeout);
        self
    }

    /// Sets when the session ends, in place of the engine's lifetime.
    #[must_use]
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.change = self.change.expires_at(at);
        self
    }

    /// Splits into the id, if one was chosen, and the rest.
    #[doc(hidden)]
    pub fn into_parts(self) -> (Option<SessionId>, Change) {
        (self.id, self.change)
    }
}

/// A change to a session; what is not set stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub(crate) data: Option<Data>,
    pub(crate) user: Option<Option<Arc<str>>>,
    pub(crate) metadata: Vec<(String, Option<String>)>,
    pub(crate) idle_timeout: Option<Option<i64>>,
    pub(crate) expires_at: Option<Option<i64>>,
    pub(crate) if_version: Option<Version>,
    pub(crate) keep_idle: bool,
    /// What was wrong with an argument; said when the change is sent.
    fault: Option<Error>,
}

impl Change {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the data with `data` as JSON.
    #[must_use]
    pub fn data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        match Data::encode(data) {
            Ok(data) => self.data = Some(data),
            Err(error) => self.fail(error),
        }
        self
    }

    /// Replaces the data with bytes of the application's own format.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.data = Some(Data::Raw(bytes.into()));
        self
    }

    /// Replaces the data with what is encoded already. What claims to be JSON must be JSON that `serde_json` can decode.
    #[must_use]
    pub fn encoded(mut self, data: Data) -> Self {
        if let Data::Json(text) = &data
            && let Err(error) = serde_json::from_slice::<Decodes>(text)
        {
            self.fail(Error::Encode { reason: error.to_string().into() });
        }
        self.data = Some(data);
        self
    }

    /// Replaces the data with what [`Data::encode`] has made.
    #[must_use]
    #[doc(hidden)]
    pub fn encoded_here(mut self, data: Data) -> Self {
        self.data = Some(data);
        self
    }

    /// Sets the owner.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(Some(user.into().into()));
        self
    }

    /// Removes the owner.
    #[must_use]
    pub fn clear_user(mut self) -> Self {
        self.user = Some(None);
        self
    }

    /// Sets a metadata entry.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), Some(value.into())));
        self
    }

    /// Removes a metadata entry.
    #[must_use]
    pub fn remove_metadata(mut self, key: impl Into<String>) -> Self {
        self.metadata.push((key.into(), None));
        self
    }

    /// Sets how long the session may be idle: a microsecond to 100 years.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        match checked_duration("idle_timeout", timeout) {
            Ok(micros) => self.idle_timeout = Some(Some(micros)),
            Err(error) => self.fail(error),
        }
        self
    }

    /// Goes back to the engine's idle timeout.
    #[must_use]
    pub fn clear_idle_timeout(mut self) -> Self {
        self.idle_timeout = Some(None);
        self
    }

    /// Sets when the session ends.
    #[must_use]
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(Some(at.as_micros()));
        self
    }

    /// Goes back to the engine's lifetime.
    #[must_use]
    pub fn clear_expires_at(mut self) -> Self {
        self.expires_at = Some(None);
        self
    }

    /// Makes the change only if the session's state is of this version.
    #[must_use]
    pub fn if_version(mut self, version: Version) -> Self {
        self.if_version = Some(version);
        self
    }

    /// Leaves the time of last activity as it is: for work in the background.
    #[must_use]
    pub fn keep_idle(mut self) -> Self {
        self.keep_idle = true;
        self
    }

    fn fail(&mut self, error: Error) {
        self.fault.get_or_insert(error);
    }

    /// Checks the arguments, at the time `now` in unix microseconds.
    #[doc(hidden)]
    pub fn check(&self, now: i64, payload_bytes_max: usize) -> Result<()> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if let Some(Some(at)) = self.expires_at
            && at <= now
        {
            return Err(Error::InvalidOption { name: "expires_at", reason: "it is not in the future" });
        }
        let bytes = self.payload_bytes();
        if bytes > payload_bytes_max {
            return Err(Error::TooLarge { bytes, bytes_max: payload_bytes_max });
        }
        Ok(())
    }

    /// Returns the bytes that the change carries.
    #[doc(hidden)]
    pub fn payload_bytes(&self) -> usize {
        let metadata: usize =
            self.metadata.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len)).sum();
        self.data.as_ref().map_or(0, |data| data.bytes().len())
            + metadata
            + self.user.iter().flatten().map(|user| user.len()).sum::<usize>()
    }

    /// Makes the change to a state. The version is the caller's business.
    #[doc(hidden)]
    pub fn apply_to(&self, stored: &mut Stored) {
        if let Some(data) = &self.data {
            stored.data = data.clone();
        }
        if let Some(user) = &self.user {
            stored.user.clone_from(user);
        }
        for (key, value) in &self.metadata {
            match value {
                Some(value) => stored.metadata.insert(key.clone(), value.clone()),
                None => stored.metadata.remove(key),
            };
        }
        if let Some(idle_timeout) = self.idle_timeout {
            stored.idle_timeout = idle_timeout;
        }
        if let Some(expires_at) = self.expires_at {
            stored.expires_at = expires_at;
        }
    }
}
