//! Benchmarks of Sessile. The benches here watch single paths: `memory_paths` in time, [`instructions`] in instructions,
//! against a baseline. `cargo sessile bench` measures the engine beside the recipes that it replaces, `cargo sessile load`
//! what a steady rate costs, and `benches/peers` both beside other projects' stores; `benches/harness` is what the three
//! share.

pub mod instructions;
