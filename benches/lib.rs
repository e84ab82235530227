//! Benchmarks of Sessile. The side-by-side comparison is the command `cargo sessile bench`; the benches here watch single
//! paths.
