//! Power cuts: what a disk may hold afterwards is consistent, a prefix of what was committed, and has every `Synced` write.

#![allow(clippy::cast_possible_truncation, reason = "offsets and choices here fit a machine's word")]

#[path = "power/bites.rs"]
mod bites;
#[path = "power/clients.rs"]
mod clients;
#[path = "power/content.rs"]
mod content;
#[path = "power/cuts.rs"]
mod cuts;
#[path = "power/device.rs"]
mod device;
#[path = "power/disk.rs"]
mod disk;
#[path = "power/engine.rs"]
mod engine;
#[path = "power/layer.rs"]
mod layer;
#[path = "power/script.rs"]
mod script;
#[path = "power/take_over.rs"]
mod take_over;
