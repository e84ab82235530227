//! Properties: whatever is asked of the engine in whatever order, it answers as a simple model in memory does; and the
//! small parts keep theirs for any value.

#[path = "properties/asked.rs"]
mod asked;
#[path = "properties/data.rs"]
mod data;
#[path = "properties/engine.rs"]
mod engine;
#[path = "properties/model.rs"]
mod model;
#[path = "properties/operation.rs"]
mod operation;
#[path = "properties/parts.rs"]
mod parts;
#[path = "properties/runner.rs"]
mod runner;
#[path = "properties/told.rs"]
mod told;
#[path = "properties/world.rs"]
mod world;
