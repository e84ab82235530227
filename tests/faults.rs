//! Faults on order: what is in flight is answered, what was acknowledged stays, and the engine goes on.

#[path = "faults/commit.rs"]
mod commit;
#[path = "faults/given_up.rs"]
mod given_up;
#[path = "faults/passivation.rs"]
mod passivation;
#[path = "faults/touches.rs"]
mod touches;
