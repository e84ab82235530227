//! What the coordination assumes of libraries that it trusts (rule R24), held by the versions that are built in: ractor's
//! actors and tokio's runtimes. What is assumed of crossbeam's channel is `loom/mailbox_suite.rs`.

#[path = "contracts/actors.rs"]
mod actors;
#[path = "contracts/runtimes.rs"]
mod runtimes;
#[path = "contracts/supervision.rs"]
mod supervision;
#[path = "contracts/witness.rs"]
mod witness;
