//! The actors of Sessile: one for each live session, one that observes storage, and the engine's face for actors.
//!
//! Nobody but the `sessile` crate should depend on this one: it promises nothing between releases.
//!
//! | module | owns |
//! | --- | --- |
//! | [`slot`] | one live session: open or closing, what is in flight, its actor |
//! | [`registry`] | the map of them, and who is passivated |
//! | [`router`], `requests` | the way of each request |
//! | [`session`], [`edit`] | the session actor; changes by a function |
//! | `storage`, [`engine`] | the actor that observes the storage thread; the engine's face for actors |
//! | [`mod@start`], `early` | bringing it all up; what storage tells before its observer is there |
//!
//! [`slot`], [`registry`] and `early` are *pure*: the tests compile the same files against loom.

mod early;
pub mod edit;
pub mod engine;
pub mod registry;
mod requests;
pub mod router;
pub mod session;
pub mod slot;
pub mod start;
mod storage;
mod sync;
