//! What each command does in its transaction. Answers are prepared here and sent after COMMIT.
//!
//! `Err` from here means that the database failed and the transaction is to be rolled back; what the caller is to be
//! told (no such session, a conflict, a damaged row) is an answer like any other.

use std::sync::Arc;

use crate::{
    backend::{BEFORE_ALL_ROWS, Backend, Judging, Read, ReadError, Row},
    cell::{Activity, Deadlines},
    change::Change,
    command::{Command, Target},
    error::{Cause, Error, Limit, Result as Answer},
    id::{Serial, SessionId, Version},
    query::{Cursor, Filter, Order, Page, Query},
    record::{Data, Metadata, Record, Stored, payload_bytes},
    sync::omitted,
};

use super::{Worker, deletion::EXPIRED_FIRST_MAX};

/// A step that either fails as a whole, or has an answer.
type Step<T> = Result<Answer<T>, Cause>;

/// Leaves the function with the answer where there is one already.
macro_rules! answer {
    ($step:expr) => {
        match $step? {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}

/// A session that is there and alive.
struct Found {
    row: Row,
    /// Its activity, in memory or on disk.
    activity: Activity,
    deadlines: Deadlines,
}

impl<B: Backend> Worker<B> {
    pub(super) fn execute(&mut self, command: &mut Command, now: i64) -> Result<(), Cause> {
        match command {
            Command::Get { target, reply } => {
                // The one kind of command that nobody misses when its caller is gone.
                if !reply.is_abandoned() {
                    reply.prepare(self.get(target, now)?);
                }
            }
            Command::Create { id, change, or_existing, at, reply, .. } => {
                reply.prepare(self.create(id, change, *or_existing, *at, now)?);
            }
            Command::Touch { target, at, durability, reply } => {
                reply.prepare(self.touch(target, *at, durability.is_some(), now)?);
            }
            Command::Write { target, change, rotate_to, at, reply, .. } => {
                reply.prepare(self.write(target, change, rotate_to.as_ref(), *at, now)?);
            }
            Command::Delete { target, reply, .. } => reply.prepare(self.delete(target, now)?),
            Command::List { query, reply } => reply.prepare(self.list(query, now)?),
            Command::Count { filter, reply } => {
                self.flush_everything()?;
                reply.prepare(Ok(self.backend.count(filter, self.judging(now))?));
            }
            Command::Flush { reply } => {
                self.flush_everything()?;
                reply.prepare(Ok(()));
            }
            // Taken apart before a batch is made.
            Command::DeleteWhere { .. }
            | Command::Dirty
            | Command::Retire(_)
            | Command::CheckForeign
            | Command::Shutdown => {}
            #[cfg(feature = "testing")]
            Command::Fault(_) => {}
        }
        Ok(())
    }

    pub(super) fn judging(&self, now: i64) -> Judging {
        Judging { now, defaults: self.settings.expiry }
    }

    fn flush_everything(&mut self) -> Result<(), Cause> {
        if !omitted("worker: a flush looks at every cell") {
            self.table.scan();
        }
        self.flush(usize::MAX)
    }

    fn get(&mut self, target: &Target, now: i64) -> Step<Option<Record>> {
        let found = match self.find(target, Read::All, now)? {
            Ok(found) => found,
            Err(Error::NotFound) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        let stored = Arc::new(found.row.stored);
        if let Some(held) = &target.held {
            self.table.bind(held, stored.serial, Some(Arc::clone(&stored)));
        }
        Ok(Ok(Some(Record::new(stored, found.activity, found.deadlines))))
    }

    /// Finds a session that is alive; where it is live too, its row gets a cell.
    fn find(&mut self, target: &Target, read: Read, now: i64) -> Step<Found> {
        Ok(self.find_any(target, read)?.and_then(|found| {
            let over = found.deadlines.passed(found.activity.last_active, now);
            if over { Err(Error::NotFound) } else { Ok(found) }
        }))
    }

    fn find_any(&mut self, target: &Target, read: Read) -> Step<Found> {
        let at = self.table.bound(target.held.as_ref()).map(|(serial, _)| serial);
        let mut row = Ok(None);
        if let Some(serial) = at {
            row = self.backend.find_at(serial, &target.id, read);
            if matches!(row, Ok(None)) {
                self.table.row_is_gone(serial);
            }
        }
        if matches!(row, Ok(None)) {
            row = self.backend.find(&target.id, read);
        }
        let row = match row {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Err(Error::NotFound)),
            Err(ReadError::Corrupt(serial)) => return Ok(Err(Error::Corrupt { serial: Serial(serial) })),
            Err(ReadError::Failed(cause)) => return Err(cause),
        };
        let serial = row.stored.serial;
        let deadlines = self.settings.expiry.deadlines(&row.stored);
        let activity = if let Some(held) = &target.held {
            let activity = self.table.enter(&row, deadlines, self.shared.vitals.generation()).activity();
            self.table.bind(held, serial, None);
            activity
        } else {
            // A cell under another id is of a row that is gone.
            self.table.get(serial).filter(|entry| entry.id == row.stored.id).map_or(row.activity, |entry| {
                let Activity { last_active, count } = entry.activity();
                Activity {
                    last_active: last_active.max(row.activity.last_active),
                    count: count.max(row.activity.count),
                }
            })
        };
        Ok(Ok(Found { row, activity, deadlines }))
    }

    fn touch(&mut self, target: &Target, at: i64, commits: bool, now: i64) -> Step<()> {
        let generation = self.shared.vitals.generation();
        // A row whose cell is in use, seen in this generation, is there: no need to read it.
        let known = self.table.bound(target.held.as_ref()).filter(|(_, entry)| {
            entry.generation == generation && !entry.cell.deadlines().passed(entry.activity().last_active, now)
        });
        let serial = match known {
            Some((serial, _)) => serial,
            None => answer!(self.find(target, Read::WithoutData, now)).row.stored.serial,
        };
        self.table.stage_activity(serial, at, 1);
        if commits {
            self.commit_now.push(serial);
        }
        Ok(Ok(()))
    }

    fn create(&mut self, id: &SessionId, change: &Change, or_existing: bool, at: i64, now: i64) -> Step<bool> {
        let limited = self.settings.sessions_max.is_some() || self.settings.sessions_per_user_max.is_some();
        if or_existing || limited {
            match self.clear_if_over(id, now)? {
                Ok(true) if or_existing => return Ok(Ok(false)),
                Ok(true) => return Ok(Err(Error::AlreadyExists)),
                Ok(false) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        if let Some(limit) = self.limit_reached(change.user.as_ref().and_then(|user| user.as_deref()), now)? {
            return Ok(Err(limit));
        }
        let mut stored = Stored {
            serial: self.backend.next_serial()?,
            id: id.clone(),
            counter: 1,
            user: None,
            metadata: Metadata::new(),
            data: Data::default(),
            created_at: at,
            idle_timeout: None,
            expires_at: None,
        };
        change.apply_to(&mut stored);
        let row = Row { stored, activity: Activity { last_active: at, count: 0 } };
        if !self.backend.insert(&row)? {
            // Taken, by a session that may be over.
            if answer!(self.clear_if_over(id, now)) || !self.backend.insert(&row)? {
                return Ok(Err(Error::AlreadyExists));
            }
        }
        self.rows_staged += 1;
        self.note_end(&row.stored, row.activity.last_active);
        Ok(Ok(true))
    }

    /// Deletes the session of this id if it is over; returns whether there is one that is not.
    fn clear_if_over(&mut self, id: &SessionId, now: i64) -> Step<bool> {
        let target = Target { id: id.clone(), held: None };
        match self.find_any(&target, Read::WithoutData)? {
            Ok(found) if self.delete_if_over(found.row.stored.serial, &found, now)? => Ok(Ok(false)),
            Ok(_) => Ok(Ok(true)),
            Err(Error::NotFound) => Ok(Ok(false)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Deletes a row if its session is over, by its exact activity.
    fn delete_if_over(&mut self, serial: i64, found: &Found, now: i64) -> Result<bool, Cause> {
        self.refresh(serial)?;
        let exact = self.table.freeze(serial).unwrap_or(found.activity);
        let over = found.deadlines.passed(exact.last_active.max(found.activity.last_active), now);
        if over {
            self.remove_row(serial)?;
        } else {
            self.table.thaw(serial);
        }
        Ok(over)
    }

    /// Deletes a row whose cell, if it had one, is frozen.
    pub(super) fn remove_row(&mut self, serial: i64) -> Result<(), Cause> {
        self.backend.delete(serial)?;
        self.rows_staged -= 1;
        Ok(())
    }

    fn limit_reached(&mut self, user: Option<&str>, now: i64) -> Result<Option<Error>, Cause> {
        if let Some(max) = self.settings.sessions_max {
            let rows = |worker: &Self| worker.rows.saturating_add_signed(worker.rows_staged);
            if rows(self) >= max {
                self.expire_some(EXPIRED_FIRST_MAX, now)?;
                if rows(self) >= max {
                    return Ok(Some(Error::LimitReached { limit: Limit::Sessions, max }));
                }
            }
        }
        self.user_limit_reached(user, now)
    }

    fn user_limit_reached(&mut self, user: Option<&str>, now: i64) -> Result<Option<Error>, Cause> {
        let (Some(max), Some(user)) = (self.settings.sessions_per_user_max, user) else { return Ok(None) };
        let judging = self.judging(now);
        let alive = self.backend.count(&Filter::all().user(user), judging)?;
        if alive >= max {
            return Ok(Some(Error::LimitReached { limit: Limit::SessionsPerUser, max }));
        }
        // Those that are over by the disk may be alive by their cells.
        let limit = usize::try_from(max).unwrap_or(usize::MAX);
        let over = self.backend.matching(&Filter::over().user(user), judging, BEFORE_ALL_ROWS, i64::MAX, limit)?;
        for serial in &over {
            self.refresh(*serial)?;
        }
        let in_memory = over.into_iter().filter_map(|serial| self.table.get(serial));
        let kept_alive =
            in_memory.filter(|entry| !entry.cell.deadlines().passed(entry.activity().last_active, now)).count() as u64;
        let limit = Error::LimitReached { limit: Limit::SessionsPerUser, max };
        Ok((alive + kept_alive >= max).then_some(limit))
    }

    fn write(
        &mut self,
        target: &Target,
        change: &Change,
        rotate_to: Option<&SessionId>,
        at: i64,
        now: i64,
    ) -> Step<Version> {
        let old = match self.table.known_record(target, self.shared.vitals.generation(), now) {
            Some(old) => old,
            None => Arc::new(answer!(self.find(target, Read::All, now)).row.stored),
        };
        match self.write_over(&old, target, change, rotate_to, at, now)? {
            // What was held in memory is not what is there: another process has changed it.
            Ok(None) => {
                let old = Arc::new(answer!(self.find(target, Read::All, now)).row.stored);
                let written = self.write_over(&old, target, change, rotate_to, at, now)?;
                Ok(written.and_then(|version| version.ok_or(Error::AlreadyExists)))
            }
            Ok(Some(version)) => Ok(Ok(version)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Writes the change over the state `old`. `None`: that is not what the row holds, or the new id is taken.
    fn write_over(
        &mut self,
        old: &Arc<Stored>,
        target: &Target,
        change: &Change,
        rotate_to: Option<&SessionId>,
        at: i64,
        now: i64,
    ) -> Step<Option<Version>> {
        if change.if_version.is_some_and(|expected| expected != old.version()) {
            return Ok(Err(Error::Conflict { current: old.version() }));
        }
        let serial = old.serial;
        let mut new = Stored::clone(old);
        change.apply_to(&mut new);
        let (bytes, bytes_max) =
            (payload_bytes(&new.data, &new.metadata, new.user.as_deref()), self.settings.payload_bytes_max);
        if bytes > bytes_max {
            return Ok(Err(Error::TooLarge { bytes, bytes_max }));
        }
        if new.user != old.user
            && let Some(limit) = self.user_limit_reached(new.user.as_deref(), now)?
        {
            return Ok(Err(limit));
        }
        let is_changed = new != **old;
        if is_changed {
            let Some(counter) = new.counter.checked_add(1) else {
                return Ok(Err(Error::Corrupt { serial: Serial(serial) }));
            };
            new.counter = counter;
        }
        if let Some(id) = rotate_to {
            new.id = id.clone();
        }
        if (is_changed || rotate_to.is_some()) && !self.backend.update(old, &new)? {
            return Ok(Ok(None));
        }
        let version = new.version();
        if !change.keep_idle {
            self.table.stage_activity(serial, at, 0);
        }
        if (old.idle_timeout, old.expires_at) != (new.idle_timeout, new.expires_at) {
            self.note_end(&new, i64::MIN);
        }
        if rotate_to.is_some() {
            if let Some(exact) = self.table.freeze(serial) {
                self.backend.raise_activity(serial, exact)?;
            }
        } else if let Some(held) = &target.held {
            let deadlines = self.settings.expiry.deadlines(&new);
            self.table.set_deadlines(serial, deadlines);
            self.table.bind(held, serial, Some(Arc::new(new)));
        }
        Ok(Ok(Some(version)))
    }

    /// Notes that a session may be over earlier than all others.
    fn note_end(&mut self, stored: &Stored, last_active: i64) {
        let end = self.settings.expiry.deadlines(stored).end(last_active);
        self.none_over_before = self.none_over_before.min(end);
    }

    fn delete(&mut self, target: &Target, now: i64) -> Step<bool> {
        let found = match self.find_any(target, Read::WithoutData)? {
            Ok(found) => found,
            Err(Error::NotFound) => return Ok(Ok(false)),
            Err(error) => return Ok(Err(error)),
        };
        let serial = found.row.stored.serial;
        let exact = self.table.freeze(serial).unwrap_or(found.activity);
        self.remove_row(serial)?;
        Ok(Ok(!found.deadlines.passed(exact.last_active, now)))
    }

    fn list(&mut self, query: &Query, now: i64) -> Step<Page> {
        self.flush_everything()?;
        let items = match self.backend.list(query, self.judging(now)) {
            Ok(items) => items,
            Err(ReadError::Failed(cause)) => return Err(cause),
            Err(ReadError::Corrupt(serial)) => return Ok(Err(Error::Corrupt { serial: Serial(serial) })),
        };
        let next = items.last().filter(|_| items.len() == query.limit).map(|last| Cursor {
            order: query.order,
            key: match query.order {
                Order::Oldest | Order::Newest => last.stored.created_at,
                Order::RecentlyActive => last.activity.last_active,
            },
            serial: last.stored.serial,
        });
        Ok(Ok(Page { items, next }))
    }
}
