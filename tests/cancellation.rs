//! Whoever goes away, at whatever moment: a future that is dropped, a handle, a runtime, a thread that panics. Everybody
//! else is answered within the deadline, nothing is done by half, and nothing is left behind.

#[path = "cancellation/calls.rs"]
mod calls;
#[path = "cancellation/deadlines.rs"]
mod deadlines;
#[path = "cancellation/ground.rs"]
mod ground;
#[path = "cancellation/handles.rs"]
mod handles;
#[path = "cancellation/lifecycle.rs"]
mod lifecycle;
#[path = "cancellation/panics.rs"]
mod panics;
#[path = "cancellation/polls.rs"]
mod polls;
#[path = "cancellation/runtimes.rs"]
mod runtimes;
