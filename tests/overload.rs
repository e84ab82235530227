//! Ten times what storage can take, for as long as it likes: what is in flight keeps its bounds, what is turned away is told
//! so and did not happen, the runtime stays prompt, throughput holds, and afterwards all is as before.

#[path = "overload/before.rs"]
mod before;
#[path = "overload/bounds.rs"]
mod bounds;
#[path = "overload/flood.rs"]
mod flood;
#[path = "overload/watch.rs"]
mod watch;
