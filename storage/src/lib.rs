//! The storage thread of Sessile: one SQLite connection, commands in batches, touch cells.
//!
//! This crate knows neither tokio nor ractor, and nobody but the `sessile` crate should depend on it: it promises
//! nothing between releases. `docs/architecture.md` tells how a message goes through it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`cell`], [`dirty`] | a row's activity, shared by handles and the storage thread; which are to be flushed |
//! | [`held`] | the record of a live session in memory |
//! | [`admission`] | what is in flight, and who waits |
//! | [`reply`], [`oneshot`], [`wake`] | one request's way back |
//! | [`mailbox`], [`health`] | the way to the thread, and what it says of itself |
//! | `batch`, `worker`, [`thread`] | the commands that share a transaction; running them; the loop around |
//! | [`backend`], [`sqlite`] | what a database must do, and the one that does |
//!
//! The first five rows are *pure*: they import only `sync` and each other, and the tests compile the same files against
//! loom.

pub mod admission;
pub mod backend;
mod batch;
pub mod cell;
pub mod change;
pub mod clock;
pub mod command;
pub mod dirty;
pub mod error;
pub mod health;
pub mod held;
pub mod id;
mod json;
pub mod mailbox;
pub mod oneshot;
pub mod panic;
pub mod query;
pub mod record;
pub mod reply;
pub mod shared;
pub mod sqlite;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod thread;
pub mod wake;
mod worker;

pub use worker::Settings;
