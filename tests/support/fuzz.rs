//! What reads bytes from outside, one function per kind: each takes any bytes at all, makes of them what an engine may
//! meet, and panics where the engine does not do what it must.
//!
//! `tests/fuzz` runs them under libFuzzer; `tests/fuzz_corpus.rs` runs the corpus and some mutations of it on every run of
//! the tests. A target is a pure function of its input, so whatever one finds is an input that can be kept.

mod database_file;
mod harness;
mod session_id;
mod stored_row;
mod take_over;
mod text;
mod value;

pub use harness::{Target, check, check_alone};
pub use stored_row::{Decoder, WRONG_DECODERS, stored_row_by};

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target { name: "session_id", run: session_id::session_id },
    Target { name: "text", run: text::text },
    Target { name: "stored_row", run: stored_row::stored_row },
    Target { name: "take_over", run: take_over::take_over },
    Target { name: "database_file", run: database_file::database_file },
];

/// Finds a target by its name.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}
