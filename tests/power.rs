//! Power cuts: what a disk may hold afterwards is consistent, a prefix of what was committed, and has every `Synced` write.

#[path = "power/layer.rs"]
mod layer;
