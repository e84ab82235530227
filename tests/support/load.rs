//! A mixed load, the journal of what it asked and was answered, and the ledger that judges by it what a database holds.

mod client;
mod journal;
mod ledger;
mod model;

pub use client::{Clients, Load, read_all, read_load};
pub use journal::{Answer, Entry, Found, Journal, KEY, Payload, Step, now_us};
pub use ledger::{End, Ledger, Totals};
