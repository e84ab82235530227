//! What a live session holds in memory: its touch cell and its record as last committed.
//!
//! The storage thread alone writes here, after COMMIT and before the replies of that batch (rule R4), so a reader that
//! finds a record finds a committed one. The record carries the generation of the storage thread in which it was read;
//! one of an earlier generation is not used any more, for the connection behind it was given up, or a foreign process
//! wrote to the file.

use crate::{
    cell::Cell,
    sync::{Arc, AtomicUsize, Mutex, Ordering, lock, omitted},
};

/// Weighs a record.
pub trait Weigh {
    /// Returns how many bytes of memory the record keeps.
    fn bytes(&self) -> usize;
}

/// The memory of one live session.
#[derive(Debug)]
pub struct Held<R: Weigh> {
    memory: Mutex<Memory<R>>,
    /// The bytes of all records held, of all sessions: a gauge that eviction goes by.
    bytes_held: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Memory<R> {
    cell: Option<Arc<Cell>>,
    record: Option<(u64, Arc<R>)>,
    /// The session was passivated: nothing is kept here any more.
    closed: bool,
}

impl<R: Weigh> Held<R> {
    /// Makes an empty one that counts its bytes in `bytes_held`.
    pub fn new(bytes_held: Arc<AtomicUsize>) -> Self {
        Self { memory: Mutex::new(Memory { cell: None, record: None, closed: false }), bytes_held }
    }

    /// Returns the session's touch cell, once the storage thread has bound one.
    pub fn cell(&self) -> Option<Arc<Cell>> {
        lock(&self.memory).cell.clone()
    }

    /// Reads the record and its cell, if the record is of this generation.
    pub fn read<T>(&self, generation: u64, read: impl FnOnce(&Arc<R>, &Cell) -> T) -> Option<T> {
        let memory = lock(&self.memory);
        match (&memory.record, &memory.cell) {
            (Some((of, record)), Some(cell))
                if *of == generation || omitted("held: a record of another generation is not read") =>
            {
                Some(read(record, cell))
            }
            _ => None,
        }
    }

    /// Returns how many bytes the record keeps, of whatever generation; `None` without one.
    pub fn bytes(&self) -> Option<usize> {
        lock(&self.memory).record.as_ref().map(|(_, record)| record.bytes())
    }

    // From here on: the storage thread only.

    /// Binds the cell of the session's row, and drops a record of another row. Returns false once closed.
    pub fn bind(&self, cell: &Arc<Cell>) -> bool {
        let mut memory = lock(&self.memory);
        if !memory.closed && memory.cell.as_ref().is_none_or(|bound| !Arc::ptr_eq(bound, cell)) {
            memory.cell = Some(Arc::clone(cell));
            if !omitted("held: the record of another row is dropped") {
                self.swap(&mut memory, None);
            }
        }
        !memory.closed
    }

    /// Publishes a committed record, if `cell` is still the one bound.
    pub fn publish(&self, generation: u64, cell: &Arc<Cell>, record: Arc<R>) {
        let mut memory = lock(&self.memory);
        if memory.cell.as_ref().is_some_and(|bound| Arc::ptr_eq(bound, cell)) {
            self.swap(&mut memory, Some((generation, record)));
        }
    }

    /// Drops cell and record for good: the session was passivated.
    pub fn close(&self) {
        lock(&self.memory).closed = true;
        self.clear();
    }

    /// Drops cell and record: the row is gone or has another id.
    pub fn clear(&self) {
        let mut memory = lock(&self.memory);
        memory.cell = None;
        self.swap(&mut memory, None);
    }

    fn swap(&self, memory: &mut Memory<R>, record: Option<(u64, Arc<R>)>) {
        let weight = |record: &Option<(u64, Arc<R>)>| record.as_ref().map_or(0, |(_, record)| record.bytes());
        let (old, new) = (weight(&memory.record), weight(&record));
        memory.record = record;
        if new > old {
            self.bytes_held.fetch_add(new - old, Ordering::Relaxed);
        } else {
            self.bytes_held.fetch_sub(old - new, Ordering::Relaxed);
        }
    }
}

impl<R: Weigh> Drop for Held<R> {
    fn drop(&mut self) {
        self.clear();
    }
}
