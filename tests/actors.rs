//! The engine among actors: every operation as a message, and supervision both ways.

#[path = "actors/messages.rs"]
mod messages;
#[path = "actors/supervision.rs"]
mod supervision;
