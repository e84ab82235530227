//! Workloads and measures for stores of sessions: what `sessile bench` and `sessile load` run on this engine, and
//! `benches/peers` on other projects' stores. It knows no store and no SQLite, so that programs with rival SQLite
//! bindings can share it.
//!
//! A file each:
//! - `store`: what a store must do; `plan`: what is measured; `world`: the sessions that all clients know; `payload`: their
//!   data, which changes with every save; `ledger`: what was acknowledged;
//! - `driver`: runs a store as fast as it goes; `load`: at a steady rate; `source_document`: its workloads;
//! - `measure`: time, CPU and bytes; `syncs`: how often files are synced; `directory`: what files are kept on;
//! - `options`: the command lines; `peer`: the command of another project's store; `json`: the files of figures;
//!   `format`: numbers for people.

pub mod directory;
pub mod driver;
pub mod format;
pub mod json;
pub mod ledger;
pub mod load;
pub mod measure;
pub mod options;
pub mod payload;
pub mod peer;
pub mod plan;
pub mod source_document;
pub mod store;
pub mod syncs;
pub mod world;

/// The workers of the runtime. Fixed, so that figures of one machine and the next differ by the machine alone.
const WORKERS: usize = 2;

/// Prepares the runtime that every store is measured on.
pub fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_time();
    builder
}
