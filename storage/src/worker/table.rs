//! The table of touch cells, and what a batch has staged until its outcome is known.
//!
//! While a batch runs, nothing that it does shows in a cell or a held record. It is staged here; [`Table::commit`] makes
//! it visible after COMMIT and before the replies, [`Table::roll_back`] forgets it. Cells frozen by the batch stay
//! frozen until one of the two, or, where the outcome is unknown, until the rows are read again
//! ([`Table::doubt`], [`Table::settle_doubts`]).

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use crate::{
    backend::Row,
    cell::{Activity, COUNT_MAX, Cell, Deadlines},
    command::{HeldRecord, Target},
    id::SessionId,
    record::Stored,
};

/// A row with a cell.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: SessionId,
    pub(crate) cell: Arc<Cell>,
    /// The live sessions that share the cell; one, but for moments in which one is passivated and the next activated.
    holders: Vec<Arc<HeldRecord>>,
    /// What the row is known to hold.
    flushed: Activity,
    /// What a commit in doubt wrote to the row, or did not.
    in_doubt: Option<Activity>,
    /// In the list of cells to flush.
    is_dirty: bool,
    /// What the running batch adds.
    pending: Pending,
    /// The generation in which the row was last seen. In a later one, another process may have changed it.
    pub(crate) generation: u64,
    /// The running batch found the row gone: the cell dies with its commit, and nothing is written to the row.
    is_gone: bool,
}

#[derive(Debug, Clone)]
struct Pending {
    touches: u64,
    /// [`BEFORE_ALL_TIMES`] where the batch adds none.
    last_active: i64,
    /// The state that it has read or written last.
    record: Option<Arc<Stored>>,
}

/// What every time of activity is after: a row may be of before 1970.
const BEFORE_ALL_TIMES: i64 = i64::MIN;

impl Default for Pending {
    fn default() -> Self {
        Self { touches: 0, last_active: BEFORE_ALL_TIMES, record: None }
    }
}

impl Pending {
    fn has_no_activity(&self) -> bool {
        self.touches == 0 && self.last_active == BEFORE_ALL_TIMES
    }
}

impl Entry {
    /// Returns the activity, what the running batch adds included.
    pub(crate) fn activity(&self) -> Activity {
        self.with_pending(self.cell.activity())
    }

    fn with_pending(&self, Activity { last_active, count }: Activity) -> Activity {
        Activity { last_active: last_active.max(self.pending.last_active), count: count + self.pending.touches }
    }

    /// Ends the cell, which is frozen.
    fn die(self) {
        self.cell.kill();
        self.holders.iter().for_each(|held| held.clear());
    }

    fn is_flushed(&self) -> bool {
        self.cell.activity() == self.flushed
    }

    /// Counts on top of what the row holds, as read in another generation than the last time.
    ///
    /// What the row has above what we wrote is another process's, and is added to the cell; so each touch in memory
    /// counts once, on top. Both then stand for the row as it is, so to do this again, after a rollback, adds nothing.
    /// What it has below is ours to write again: activity is never lowered (rule R7).
    fn rebase(&mut self, row: Activity, deadlines: Deadlines, generation: u64) {
        let mut ours = self.flushed.count;
        if let Some(written) = self.in_doubt.take().filter(|written| row.count >= written.count) {
            // It took place, so that much of the row is ours.
            self.cell.raise(Activity { last_active: row.last_active, count: written.count });
            ours = ours.max(written.count);
        }
        // A row lowered and raised again and again adds up to no more than a cell has room for.
        let room = COUNT_MAX.saturating_sub(self.cell.activity().count);
        self.cell.absorb(row.last_active, row.count.saturating_sub(ours).min(room));
        self.flushed = row;
        self.cell.set_deadlines(deadlines);
        self.generation = generation;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<i64, Entry, RandomState>,
    /// Rows to flush, in no order.
    dirty: Vec<i64>,
    staged: Staged,
    /// Frozen by a batch whose outcome is unknown.
    doubtful: Vec<Entry>,
}

/// What the running batch will have done.
#[derive(Debug, Default)]
struct Staged {
    made: Vec<i64>,
    /// Frozen: DEAD after COMMIT, back in the table after a rollback.
    dying: Vec<Entry>,
    pending: Vec<i64>,
    flushed: Vec<(i64, Activity)>,
    bound: Vec<Bound>,
    deadlines: Vec<(i64, Deadlines)>,
    /// Cells whose rows turned out to be gone: deleted by another process.
    gone: Vec<Arc<Cell>>,
    /// Dirty rows taken off the list, to be read again before they are written.
    stale: Vec<i64>,
}

/// A live session to bind to a cell, and its record where that is known.
#[derive(Debug)]
struct Bound {
    held: Arc<HeldRecord>,
    cell: Arc<Cell>,
    record: Option<Arc<Stored>>,
}

impl Table {
    /// Returns the row that a live session is bound to, if its cell is in use.
    pub(crate) fn bound(&self, held: Option<&Arc<HeldRecord>>) -> Option<(i64, &Entry)> {
        let cell = held?.cell()?;
        let entry = self.entries.get(&cell.serial())?;
        Arc::ptr_eq(&entry.cell, &cell).then_some((cell.serial(), entry))
    }

    /// Returns the state of a session that is alive, where that is known without reading its row.
    pub(crate) fn known_record(&self, target: &Target, generation: u64, now: i64) -> Option<Arc<Stored>> {
        let held = target.held.as_ref()?;
        let (_, entry) = self.bound(Some(held))?;
        if entry.id != target.id || entry.cell.deadlines().passed(entry.activity().last_active, now) {
            return None;
        }
        entry.pending.record.clone().or_else(|| held.read(generation, |record, _| Arc::clone(record)))
    }

    pub(crate) fn get(&self, serial: i64) -> Option<&Entry> {
        self.entries.get(&serial)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Finds or makes the cell of a row just read, and raises it to what the row holds.
    pub(crate) fn enter(&mut self, row: &Row, deadlines: Deadlines, generation: u64) -> &mut Entry {
        let serial = row.stored.serial;
        if self.entries.get(&serial).is_some_and(|entry| entry.id != row.stored.id) {
            // Another process gave the row another id: touches under the old one must not reach it.
            self.take_out(serial);
        }
        let staged = &mut self.staged;
        let entry = self.entries.entry(serial).or_insert_with(|| {
            staged.made.push(serial);
            Entry {
                id: row.stored.id.clone(),
                cell: Arc::new(Cell::new(serial, row.activity, deadlines)),
                holders: Vec::new(),
                flushed: row.activity,
                in_doubt: None,
                is_dirty: false,
                pending: Pending::default(),
                generation,
                is_gone: false,
            }
        });
        if entry.generation != generation {
            // The first look at the row in this generation comes before all that this batch writes to it.
            entry.rebase(row.activity, deadlines, generation);
        } else if entry.pending.has_no_activity() {
            // Not once this batch has added something, which a flush in the same transaction may have written already.
            entry.cell.raise(row.activity);
            entry.flushed.count = entry.flushed.count.max(row.activity.count);
            entry.flushed.last_active = entry.flushed.last_active.max(row.activity.last_active);
        }
        if entry.cell.deadlines() != deadlines {
            staged.deadlines.push((serial, deadlines));
        }
        entry
    }

    /// Stages binding a live session to a row, and its record where it was read.
    pub(crate) fn bind(&mut self, held: &Arc<HeldRecord>, serial: i64, record: Option<Arc<Stored>>) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            if record.is_some() {
                entry.pending.record.clone_from(&record);
                self.staged.pending.push(serial);
            }
            let (held, cell) = (Arc::clone(held), Arc::clone(&entry.cell));
            self.staged.bound.push(Bound { held, cell, record });
        }
    }

    /// Stages touches and a time of activity.
    pub(crate) fn stage_activity(&mut self, serial: i64, last_active: i64, touches: u64) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.pending.touches += touches;
            entry.pending.last_active = entry.pending.last_active.max(last_active);
            self.staged.pending.push(serial);
        }
    }

    /// Stages other deadlines.
    pub(crate) fn set_deadlines(&mut self, serial: i64, deadlines: Deadlines) {
        if self.entries.get(&serial).is_some_and(|entry| entry.cell.deadlines() != deadlines) {
            self.staged.deadlines.push((serial, deadlines));
        }
    }

    /// Returns the id under which a row is to be read again before it is decided over or written to: it was not seen in
    /// this generation.
    pub(crate) fn stale(&self, serial: i64, generation: u64) -> Option<&SessionId> {
        let entry = self.entries.get(&serial)?;
        (entry.generation != generation && !entry.is_gone).then_some(&entry.id)
    }

    /// Takes a cell out of use before its row is deleted or gets another id; returns the exact activity.
    pub(crate) fn freeze(&mut self, serial: i64) -> Option<Activity> {
        if self.entries.get(&serial).is_some_and(|entry| entry.is_gone) {
            // What has this number is not the cell's.
            return None;
        }
        self.take_out(serial)
    }

    fn take_out(&mut self, serial: i64) -> Option<Activity> {
        let entry = self.entries.remove(&serial)?;
        let exact = entry.with_pending(entry.cell.freeze());
        self.staged.dying.push(entry);
        Some(exact)
    }

    /// Takes every cell out of use; returns what is to be written. `read` reads a row not seen in this generation.
    pub(crate) fn freeze_all<E>(
        &mut self,
        generation: u64,
        mut read: impl FnMut(i64, &SessionId) -> Result<Option<(Activity, Deadlines)>, E>,
    ) -> Result<Vec<(i64, Activity)>, E> {
        let mut unwritten = Vec::new();
        let mut read_so_far = Ok(());
        for (serial, mut entry) in self.entries.drain() {
            let mut exact = entry.cell.freeze();
            let mut is_there = true;
            if read_so_far.is_ok() && entry.generation != generation && exact != entry.flushed {
                match read(serial, &entry.id) {
                    Ok(Some((row, deadlines))) => {
                        entry.rebase(row, deadlines, generation);
                        exact = entry.cell.activity();
                    }
                    Ok(None) => is_there = false,
                    Err(error) => read_so_far = Err(error),
                }
            }
            if is_there && exact != entry.flushed {
                unwritten.push((serial, exact));
            }
            self.staged.dying.push(entry);
        }
        unwritten.sort_unstable_by_key(|(serial, _)| *serial);
        read_so_far.map(|()| unwritten)
    }

    /// Puts a frozen cell back into use in the running batch: its row stays.
    pub(crate) fn thaw(&mut self, serial: i64) {
        if let Some(at) = self.staged.dying.iter().rposition(|entry| entry.cell.serial() == serial) {
            let entry = self.staged.dying.swap_remove(at);
            entry.cell.thaw();
            self.entries.insert(serial, entry);
        }
    }

    /// Notes that the running batch has written this to a row whose cell stays.
    pub(crate) fn note_written(&mut self, serial: i64, activity: Activity) {
        self.staged.flushed.push((serial, activity));
    }

    /// Notes that a cell has touches to flush, if it is in use.
    pub(crate) fn note_dirty(&mut self, cell: &Arc<Cell>) {
        if self.entries.get(&cell.serial()).is_some_and(|entry| Arc::ptr_eq(&entry.cell, cell)) {
            self.mark_dirty(cell.serial());
        }
    }

    fn mark_dirty(&mut self, serial: i64) {
        if let Some(entry) = self.entries.get_mut(&serial)
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty.push(serial);
        }
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Puts every cell with something unflushed on the list, whether its hint has come or not.
    pub(crate) fn scan(&mut self) {
        for (serial, entry) in &mut self.entries {
            if !entry.is_dirty && !entry.is_flushed() {
                entry.is_dirty = true;
                self.dirty.push(*serial);
            }
        }
    }

    /// Takes up to `rows_max` rows off the list, in order, with what is to be written to each; and those to read again
    /// first, which are then taken one by one.
    pub(crate) fn take_dirty(&mut self, rows_max: usize, generation: u64) -> (Vec<(i64, Activity)>, Vec<i64>) {
        self.dirty.sort_unstable();
        let rows: Vec<i64> = self.dirty.drain(..rows_max.min(self.dirty.len())).collect();
        let taken = rows
            .into_iter()
            .filter_map(|serial| {
                let entry = self.entries.get_mut(&serial)?;
                entry.is_dirty = false;
                if entry.generation != generation {
                    self.staged.stale.push(serial);
                    return None;
                }
                self.take_one(serial)
            })
            .collect();
        (taken, self.staged.stale.clone())
    }

    /// Takes what is to be written to one row, what the batch adds included.
    pub(crate) fn take_one(&mut self, serial: i64) -> Option<(i64, Activity)> {
        let entry = self.entries.get(&serial).filter(|entry| !entry.is_gone)?;
        let activity = entry.with_pending(entry.cell.take());
        self.staged.flushed.push((serial, activity));
        (activity != entry.flushed).then_some((serial, activity))
    }

    fn remove(&mut self, cell: &Arc<Cell>) -> Option<Entry> {
        let is_its = self.entries.get(&cell.serial()).is_some_and(|entry| Arc::ptr_eq(&entry.cell, cell));
        if is_its { self.entries.remove(&cell.serial()) } else { None }
    }

    /// Stages that a row turned out to be gone.
    pub(crate) fn row_is_gone(&mut self, serial: i64) {
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.is_gone = true;
            self.staged.gone.push(Arc::clone(&entry.cell));
        }
    }

    /// Lets go of a passivated session.
    pub(crate) fn release(&mut self, held: &Arc<HeldRecord>) {
        let serial = self.bound(Some(held)).map(|(serial, _)| serial);
        held.close();
        let Some(serial) = serial else { return };
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.holders.retain(|holder| !Arc::ptr_eq(holder, held));
        }
        self.retire_if_idle(serial);
    }

    /// Drops a cell that nobody holds, once all of it is on disk; until then it waits for its flush.
    fn retire_if_idle(&mut self, serial: i64) {
        let Some(entry) = self.entries.get(&serial) else { return };
        if !entry.holders.is_empty() {
            return;
        }
        if entry.cell.freeze() == entry.flushed {
            entry.cell.retire();
            self.entries.remove(&serial);
        } else {
            entry.cell.thaw();
            self.mark_dirty(serial);
        }
    }

    /// Makes the batch's doings visible, after COMMIT.
    pub(crate) fn commit(&mut self, generation: u64) {
        let staged = std::mem::take(&mut self.staged);
        staged.dying.into_iter().for_each(Entry::die);
        // Before the bindings: a live session may be bound to the successor in the same batch.
        for cell in staged.gone {
            if let Some(entry) = self.remove(&cell) {
                entry.cell.freeze();
                entry.die();
            }
        }
        for (serial, activity) in &staged.flushed {
            if let Some(entry) = self.entries.get_mut(serial) {
                entry.flushed = *activity;
            }
        }
        for serial in staged.pending {
            if let Some(entry) = self.entries.get_mut(&serial) {
                let Pending { touches, last_active, .. } = std::mem::take(&mut entry.pending);
                entry.cell.absorb(last_active, touches);
                if !entry.is_flushed() {
                    self.mark_dirty(serial);
                }
            }
        }
        // After the times that come with them.
        for (serial, deadlines) in staged.deadlines {
            if let Some(entry) = self.entries.get(&serial) {
                entry.cell.set_deadlines(deadlines);
            }
        }
        for Bound { held, cell, record } in staged.bound {
            // The row may have been deleted, or its cell replaced by a rotation, later in the batch.
            let Some(entry) = self.entries.get_mut(&cell.serial()) else { continue };
            if !Arc::ptr_eq(&entry.cell, &cell) || !held.bind(&cell) {
                continue;
            }
            if let Some(record) = record {
                held.publish(generation, &cell, record);
            }
            if !entry.holders.iter().any(|holder| Arc::ptr_eq(holder, &held)) {
                entry.holders.push(held);
            }
        }
        let seen = staged.flushed.into_iter().map(|(serial, _)| serial).chain(staged.made);
        seen.for_each(|serial| self.retire_if_idle(serial));
    }

    /// Forgets the batch's doings.
    pub(crate) fn roll_back(&mut self) {
        for entry in self.unstage(false) {
            self.revive(entry);
        }
    }

    fn revive(&mut self, mut entry: Entry) {
        let serial = entry.cell.serial();
        entry.cell.thaw();
        // The list may have been taken while the cell was out of the table.
        entry.is_dirty = false;
        let is_flushed = entry.is_flushed();
        self.entries.insert(serial, entry);
        if !is_flushed {
            self.mark_dirty(serial);
        }
        self.retire_if_idle(serial);
    }

    /// Sets the batch's doings aside, of which nobody knows whether they happened: what it froze stays frozen.
    pub(crate) fn doubt(&mut self) {
        let dying = self.unstage(true);
        self.doubtful.extend(dying);
    }

    fn unstage(&mut self, is_in_doubt: bool) -> Vec<Entry> {
        let mut staged = std::mem::take(&mut self.staged);
        for serial in staged.pending {
            if let Some(entry) = self.entries.get_mut(&serial) {
                entry.pending = Pending::default();
            }
        }
        for serial in staged.made {
            self.entries.remove(&serial);
        }
        for cell in staged.gone {
            // Found out again where it is so: the entry's generation is an old one still.
            if let Some(entry) = self.entries.get_mut(&cell.serial()).filter(|entry| Arc::ptr_eq(&entry.cell, &cell)) {
                entry.is_gone = false;
                staged.stale.push(cell.serial());
            }
        }
        for (serial, written) in staged.flushed {
            if is_in_doubt {
                let dying = staged.dying.iter_mut().find(|entry| entry.cell.serial() == serial);
                if let Some(entry) = self.entries.get_mut(&serial).or(dying) {
                    entry.in_doubt = Some(written);
                }
            }
            self.mark_dirty(serial);
        }
        for serial in staged.stale {
            self.mark_dirty(serial);
        }
        // The one frozen first, where a row's cell was replaced in the batch, comes back last and so stays.
        let mut dying: Vec<Entry> = staged.dying.into_iter().rev().collect();
        for entry in &mut dying {
            entry.pending = Pending::default();
            entry.is_gone = false;
        }
        dying
    }

    /// Decides over what a batch in doubt froze, by what its rows hold now.
    pub(crate) fn settle_doubts<E>(
        &mut self,
        mut row: impl FnMut(i64, &SessionId) -> Result<bool, E>,
    ) -> Result<(), E> {
        while let Some(entry) = self.doubtful.last() {
            let stays = row(entry.cell.serial(), &entry.id)?;
            if let Some(entry) = self.doubtful.pop() {
                if stays {
                    self.revive(entry);
                } else {
                    entry.die();
                }
            }
        }
        Ok(())
    }
}
