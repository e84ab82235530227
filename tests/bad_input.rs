//! What cannot be served gets an error of its own, which says whether anything happened; nothing is lost by it, nothing
//! panics, and no fault of the database looks like "no such session".

#[path = "bad_input/arguments.rs"]
mod arguments;
#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/flood.rs"]
mod flood;
#[path = "bad_input/lock.rs"]
mod lock;
#[path = "bad_input/overload.rs"]
mod overload;
#[path = "bad_input/refused.rs"]
mod refused;
#[path = "bad_input/rows.rs"]
mod rows;
