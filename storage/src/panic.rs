//! Panics of code that is not ours: an application's closures and codecs, its clock, its subscriber, its wakers.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may panic; returns the panic's message if it does. Nothing of the panic goes on after that, not even the
/// drop of what it carries.
pub fn contain<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message").to_owned();
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // What panics whenever it is dropped is left where it is.
            std::mem::forget(again);
        }
        text
    })
}
