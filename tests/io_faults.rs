//! Disks that fail: nothing acknowledged is lost, nothing hangs, every error is a typed one, the engine's health says
//! what is wrong, and it recovers where that is possible.

#[path = "io_faults/cell.rs"]
mod cell;
#[path = "io_faults/damage.rs"]
mod damage;
#[path = "io_faults/failed_sync.rs"]
mod failed_sync;
#[path = "io_faults/folds.rs"]
mod folds;
#[path = "io_faults/foreign_lock.rs"]
mod foreign_lock;
#[path = "io_faults/full_disk.rs"]
mod full_disk;
#[path = "io_faults/matrix.rs"]
mod matrix;
#[path = "io_faults/moved_files.rs"]
mod moved_files;
#[path = "io_faults/no_memory.rs"]
mod no_memory;
#[path = "io_faults/promises.rs"]
mod promises;
#[path = "io_faults/read_only.rs"]
mod read_only;
#[path = "io_faults/shared_batch.rs"]
mod shared_batch;
#[path = "io_faults/volume.rs"]
mod volume;
