//! Sessile: an embeddable, actor-based session engine.
//!
//! A service keeps its sessions in an [`Engine`] and changes them on every message: an agent's chats, logged-in visitors,
//! game tables. One thread owns one tuned SQLite connection and drains its mailbox in batches; an actor per live session
//! keeps its requests in order; a touch is two atomic steps in memory. Message ordering replaces locks.
//!
//! ```
//! use sessile::{Engine, NewSession};
//!
//! #[derive(serde::Serialize, serde::Deserialize, Default)]
//! struct Chat {
//!     messages: Vec<String>,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("sessions.db");
//! let engine = Engine::builder(path).open().await?;
//! let chat = engine.create(NewSession::new().user("ada").data(&Chat::default())).await?;
//!
//! chat.touch().await?; // on every message: no disk, no lock
//! let n = chat
//!     .update(|chat: &mut Chat| {
//!         chat.messages.push("hello".to_owned());
//!         chat.messages.len()
//!     })
//!     .await?; // committed when it returns
//! assert_eq!(n, 1);
//!
//! let record = chat.get().await?.expect("it is there");
//! assert_eq!((record.user(), record.touch_count()), (Some("ada"), 1));
//! engine.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What an acknowledgement means: a write that returned `Ok` is committed, and a crash of the process does not lose it;
//! with [`Durability::Synced`] neither does a power cut. A touch that returned `Ok` is counted and visible, and in the
//! database within 250 ms. `docs/semantics.md` in the repository has it all.

mod builder;
mod engine;
mod session;
mod stats;
#[cfg(feature = "testing")]
pub mod testing;

pub use builder::EngineBuilder;
pub use engine::Engine;
pub use sessile_storage::error::{
    Cause, CauseKind, DecodeCategory, Error, InterruptedBy, InvalidId, Limit, OpenError, Outcome, Result,
};
pub use sessile_storage::{
    change::{Change, NewSession},
    clock::{Clock, SystemClock, Timestamp},
    id::{Serial, SessionId, Version},
    query::{Cursor, Filter, Order, Page, Query},
    record::{Data, Durability, Metadata, Record, Summary},
};
pub use session::Session;
pub use stats::{Health, Stats};

/// The engine's face for actors, beside the `ractor` it speaks.
pub mod actor {
    pub use ractor;
    pub use sessile_actors::engine::{EngineMessage, UpdateJson};
}
