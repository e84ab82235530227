//! The data of sessions: JSON of a fixed size that differs from session to session and from save to save.
//!
//! SQLite skips a write that changes nothing, and so does the engine, so equal data would measure nothing.

use serde::Serialize;

/// The text begins at so many different places, so that all of it changes from save to save.
const SHIFTS: usize = 64;
/// The bytes of `{"session":,"sequence":,"text":""}`.
const FRAME_BYTES: usize = 34;

/// A session's data.
#[derive(Debug, Serialize)]
pub struct Payload<'a> {
    /// Which session it is of.
    pub session: usize,
    /// How often the session was saved.
    pub sequence: u64,
    /// What fills it up.
    pub text: &'a str,
}

/// Makes data.
#[derive(Debug)]
pub struct Payloads {
    bytes: usize,
    text: String,
}

impl Payloads {
    /// Makes data of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(0);
        Self { bytes, text: (0..bytes + SHIFTS).map(|_| random.alphanumeric()).collect() }
    }

    /// Makes what a session holds after its save number `sequence`; 0 is what it was created with.
    pub fn of(&self, session: usize, sequence: u64) -> Payload<'_> {
        let begin = sequence as usize % SHIFTS;
        let length = self.bytes.saturating_sub(FRAME_BYTES + digits(session as u64) + digits(sequence));
        Payload { session, sequence, text: &self.text[begin..begin + length] }
    }

    /// The same as JSON text.
    pub fn json(&self, session: usize, sequence: u64) -> String {
        serde_json::to_string(&self.of(session, sequence)).expect("numbers and text always encode")
    }
}

/// Names the user of a session.
pub fn user(session: usize) -> String {
    /// As many as have some sessions each: the index on users is no formality.
    const USERS: usize = 1_000;
    format!("user-{}", session % USERS)
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |tens| tens as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_its_size_and_changes() {
        let payloads = Payloads::new(400);
        for (session, sequence) in [(0, 0), (9, 10), (49_999, 123_456_789)] {
            assert_eq!(payloads.json(session, sequence).len(), 400);
        }
        assert_ne!(payloads.json(1, 1), payloads.json(1, 2));
        assert_ne!(payloads.json(1, 1), payloads.json(2, 1));
    }
}
