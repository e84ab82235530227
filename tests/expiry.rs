//! Expiry and limits, by a clock moved by hand.

#[path = "expiry/clock.rs"]
mod clock;
#[path = "expiry/limits.rs"]
mod limits;
#[path = "expiry/live.rs"]
mod live;
#[path = "expiry/steps.rs"]
mod steps;
#[path = "expiry/timeouts.rs"]
mod timeouts;
