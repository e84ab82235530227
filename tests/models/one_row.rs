//! A database of one session, which never fails: for models of the worker above it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    backend::{Backend, Checkpoint, CommitError, Judging, Meta, Read, ReadError, Row},
    cell::Activity,
    error::Cause,
    id::SessionId,
    query::{Filter, Query},
    record::{Data, Durability, Metadata, Stored, Summary},
};

/// The one session's row: the state committed, and the open transaction's.
#[derive(Debug)]
pub(crate) struct OneRow {
    committed: Row,
    row: Row,
    /// Touches committed. No part of the model, so std's.
    touches: Arc<AtomicU64>,
}

impl OneRow {
    /// Its first version, active at `now` and without an end.
    pub(crate) fn new(id: &SessionId, now: i64, touches: Arc<AtomicU64>) -> Self {
        let stored = Stored {
            serial: 1,
            id: id.clone(),
            counter: 1,
            user: None,
            metadata: Metadata::new(),
            data: Data::default(),
            created_at: now,
            idle_timeout: None,
            expires_at: None,
        };
        let row = Row { stored, activity: Activity { last_active: now, count: 0 } };
        Self { committed: row.clone(), row, touches }
    }
}

impl Backend for OneRow {
    fn begin_read(&mut self) -> Result<(), Cause> {
        Ok(())
    }

    fn begin_write(&mut self, _: Durability, _: Duration) -> Result<(), Cause> {
        Ok(())
    }

    fn write_ahead(&mut self) -> Result<(), Cause> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        self.committed = self.row.clone();
        self.touches.store(self.row.activity.count, Ordering::Relaxed);
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), Cause> {
        self.row = self.committed.clone();
        Ok(())
    }

    fn is_spoilt_by(&self, _: &Cause) -> bool {
        false
    }

    fn foreign_writes(&mut self) -> Result<bool, Cause> {
        Ok(false)
    }

    fn find(&mut self, _: &SessionId, _: Read) -> Result<Option<Row>, ReadError> {
        Ok(Some(self.row.clone()))
    }

    fn find_at(&mut self, _: i64, id: &SessionId, read: Read) -> Result<Option<Row>, ReadError> {
        self.find(id, read)
    }

    fn next_serial(&mut self) -> Result<i64, Cause> {
        unreachable!("nobody creates a session")
    }

    fn insert(&mut self, _: &Row) -> Result<bool, Cause> {
        unreachable!("nobody creates a session")
    }

    fn update(&mut self, old: &Stored, new: &Stored) -> Result<bool, Cause> {
        let is_it = self.row.stored.counter == old.counter;
        if is_it {
            self.row.stored = new.clone();
        }
        Ok(is_it)
    }

    fn delete(&mut self, _: i64) -> Result<(), Cause> {
        unreachable!("nobody deletes it")
    }

    fn raise_activity(&mut self, _: i64, activity: Activity) -> Result<(), Cause> {
        self.row.activity = activity;
        Ok(())
    }

    fn raise_activities(&mut self, rows: &[(i64, Activity)]) -> Result<(), Cause> {
        rows.iter().try_for_each(|(serial, activity)| self.raise_activity(*serial, *activity))
    }

    fn list(&mut self, _: &Query, _: Judging) -> Result<Vec<Summary>, ReadError> {
        unreachable!("nobody lists")
    }

    fn count(&mut self, _: &Filter, _: Judging) -> Result<u64, Cause> {
        unreachable!("nobody counts")
    }

    fn matching(&mut self, _: &Filter, _: Judging, _: i64, _: i64, _: usize) -> Result<Vec<i64>, Cause> {
        unreachable!("nobody looks for sessions")
    }

    fn next_end(&mut self, _: Judging) -> Result<Option<i64>, Cause> {
        Ok(None)
    }

    fn first_serial_after(&mut self, _: i64) -> Result<Option<i64>, Cause> {
        unreachable!("nobody looks for sessions")
    }

    fn last_serial(&mut self) -> Result<i64, Cause> {
        Ok(1)
    }

    fn meta(&mut self, _: Meta) -> Result<i64, Cause> {
        Ok(0)
    }

    fn set_meta(&mut self, _: Meta, _: i64) -> Result<(), Cause> {
        Ok(())
    }

    fn saves_in_log(&self) -> u64 {
        0
    }

    fn touches_in_log(&self) -> u64 {
        0
    }

    fn sessions_unindexed(&self) -> u64 {
        0
    }

    fn fold_is_due(&self, _: bool) -> bool {
        false
    }

    fn fold(&mut self, _: bool) -> Result<(), Cause> {
        Ok(())
    }

    fn has_room_to_spare(&self) -> bool {
        true
    }

    fn log_pages(&self) -> u64 {
        0
    }

    fn checkpoint(&mut self) -> Result<Checkpoint, Cause> {
        Ok(Checkpoint { busy: false, pages_left: 0 })
    }

    fn checkpoint_and_truncate(&mut self) -> Result<Checkpoint, Cause> {
        self.checkpoint()
    }

    fn reopen(&mut self) -> Result<(), Cause> {
        unreachable!("it never fails")
    }

    fn is_durable(&self) -> bool {
        true
    }
}
