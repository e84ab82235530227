//! Random histories of concurrent operations, judged by a checker: to its clients a session is one thing that does one
//! operation after the other, whatever befalls the engine meanwhile (invariants I2, I4, I5, I6).
//!
//! ```text
//!   client ─┐                                       ┌─ history ─▶ checker ◀─ model
//!   client ─┼─▶ subject ─▶ engine (faults, clock) ──┘
//!   client ─┘      └─ a bug, for the proof that the checker bites
//! ```
//!
//! Not here: writes of other processes (`tests/foreign.rs`), kills and power cuts.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "all numbers here are small, or times within a few years"
)]

#[path = "linearizable/by_hand.rs"]
mod by_hand;
#[path = "linearizable/checker.rs"]
mod checker;
#[path = "linearizable/client.rs"]
mod client;
#[path = "linearizable/family.rs"]
mod family;
#[path = "linearizable/history.rs"]
mod history;
#[path = "linearizable/model.rs"]
mod model;
#[path = "linearizable/random.rs"]
mod random;
#[path = "linearizable/run.rs"]
mod run;
#[path = "linearizable/subject.rs"]
mod subject;
