//! A process under load is killed at any moment: what it acknowledged is there, what it had not acknowledged is there or
//! not, nothing else is.

#[path = "kill/acknowledged.rs"]
mod acknowledged;
#[path = "kill/bites.rs"]
mod bites;
#[path = "kill/campaign.rs"]
mod campaign;
#[path = "kill/child.rs"]
mod child;
#[path = "kill/recovery.rs"]
mod recovery;
#[path = "kill/take_over.rs"]
mod take_over;
