//! Names of a session: its id, its serial, and the version of its state.

use std::{fmt, sync::Arc, sync::LazyLock};

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};

use crate::{
    clock::{Clock as _, SystemClock, Timestamp},
    error::{Error, InvalidId},
};

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// The characters of base64url in the order of their codes, so that generated ids sort by time.
static ORDERED_BASE64URL: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz");
    specification.encoding().expect("64 distinct symbols")
});

/// The id of a session: 1 to 255 bytes of UTF-8 without control characters.
///
/// It may be a secret (a cookie's value), so it has no `Display`, and `Debug` shows its beginning only. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Generates an id, as a session gets that is created without one; see [`SessionId::generate_at`].
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn generate() -> Self {
        Self::generate_at(SystemClock::default().now())
    }

    /// Generates an id made at `now`: 6 bytes of time in units of 16 µs and 18 random bytes from the operating system (144 bits; OWASP
    /// ASVS 5.0 asks for 128), as 32 characters of base64url. Ids sort by the time at which they were made, until 2112,
    /// so inserts go to the right edge of the index.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn generate_at(now: Timestamp) -> Self {
        let mut bytes = [0; 24];
        let time = (now.as_micros() >> 4).cast_unsigned().to_be_bytes();
        bytes[..6].copy_from_slice(&time[2..]);
        getrandom::fill(&mut bytes[6..]).expect("the operating system gives randomness");
        Self(ORDERED_BASE64URL.encode(&bytes).into())
    }

    /// Returns the id as text. Take care where it goes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(id: &str) -> Result<(), Error> {
        let invalid = |reason| Err(Error::InvalidId { reason });
        if id.is_empty() {
            invalid(InvalidId::Empty)
        } else if id.len() > ID_BYTES_MAX {
            invalid(InvalidId::TooLong { bytes: id.len(), bytes_max: ID_BYTES_MAX })
        } else if id.chars().any(char::is_control) {
            invalid(InvalidId::ControlCharacter)
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(6).collect();
        write!(formatter, "SessionId({shown}…)")
    }
}

impl TryFrom<&str> for SessionId {
    type Error = Error;

    fn try_from(id: &str) -> Result<Self, Error> {
        Self::check(id)?;
        Ok(Self(id.into()))
    }
}

impl TryFrom<String> for SessionId {
    type Error = Error;

    fn try_from(id: String) -> Result<Self, Error> {
        Self::check(&id)?;
        Ok(Self(id.into()))
    }
}

impl TryFrom<&String> for SessionId {
    type Error = Error;

    fn try_from(id: &String) -> Result<Self, Error> {
        Self::try_from(id.as_str())
    }
}

impl From<&SessionId> for SessionId {
    fn from(id: &SessionId) -> Self {
        id.clone()
    }
}

/// The public name of a session: its row number. Not a secret, stable through `rotate`, never reused. Logs and lists of
/// devices use it where ids are secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(pub(crate) i64);

impl Serial {
    /// Returns the number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for Serial {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The version of a session's state. Opaque; compare it, or hand it to `save_if`.
///
/// It names the row too, so one of a session that was deleted and created anew does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    pub(crate) serial: i64,
    pub(crate) counter: i64,
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_sort_by_time_and_differ() {
        let ids: Vec<_> = (0..2_000).map(|n| SessionId::generate_at(Timestamp::from_micros(n * 40_000_000))).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[0].as_str().len(), 32);
        let now = Timestamp::from_micros(1);
        assert_ne!(SessionId::generate_at(now), SessionId::generate_at(now));
        assert_ne!(SessionId::generate(), SessionId::generate());
    }

    #[test]
    fn bad_ids_are_refused_by_their_fault() {
        let fault = |id: &str| match SessionId::try_from(id) {
            Err(Error::InvalidId { reason }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(""), InvalidId::Empty);
        assert_eq!(fault("a\nb"), InvalidId::ControlCharacter);
        assert_eq!(fault(&"é".repeat(128)), InvalidId::TooLong { bytes: 256, bytes_max: 255 });
        assert!(SessionId::try_from("会话-0").is_ok());
        assert!(SessionId::try_from("x".repeat(255)).is_ok());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let id = SessionId::try_from("0123456789abcdef").unwrap();
        assert_eq!(format!("{id:?}"), "SessionId(012345…)");
    }
}
