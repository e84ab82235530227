//! What each public operation promises, sentence by sentence.

#[path = "api/create.rs"]
mod create;
#[path = "api/engine.rs"]
mod engine;
#[path = "api/list.rs"]
mod list;
#[path = "api/successor.rs"]
mod successor;
#[path = "api/touch.rs"]
mod touch;
#[path = "api/update.rs"]
mod update;
#[path = "api/write.rs"]
mod write;
