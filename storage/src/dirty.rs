//! Where cells with touches to flush gather until the flush, so that not each of them wakes the storage thread (rule R8).
//!
//! ```text
//!   toucher          add the cell ──was none there?──▶ `Dirty` to the storage mailbox, which begins the flush interval
//!   storage thread   at a flush: take them all
//! ```
//!
//! A cell is added for each touch that is [`crate::cell::Touch::CountedFirst`]. The lock is held for a push or a swap.

use crate::sync::{Mutex, lock, omitted};

/// Cells with touches to flush.
#[derive(Debug)]
pub struct Dirty<C> {
    cells: Mutex<Vec<C>>,
}

impl<C> Default for Dirty<C> {
    fn default() -> Self {
        Self { cells: Mutex::new(Vec::new()) }
    }
}

impl<C> Dirty<C> {
    /// Adds a cell. Returns whether it is the first since they were taken, of which the toucher tells the storage thread.
    #[must_use]
    pub fn add(&self, cell: C) -> bool {
        let mut cells = lock(&self.cells);
        let is_first = cells.is_empty() || omitted("dirty: only the first is told of");
        cells.push(cell);
        is_first && !omitted("dirty: the first is told of")
    }

    /// Takes the cells: the next one to be added is a first again.
    pub fn take_all(&self) -> Vec<C> {
        std::mem::take(&mut *lock(&self.cells))
    }
}
