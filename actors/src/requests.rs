//! Each request as the router sends it, whoever asks: a handle or a message.

use std::sync::Arc;

use sessile_storage::{
    change::Change,
    command::Command,
    error::Result,
    id::{SessionId, Version},
    query::{Filter, Page, Query},
    record::{Durability, Record},
    reply::Reply,
};

use crate::{
    router::{Asking, Router, Slot},
    session::{Edit, SessionMessage},
};

impl Router {
    /// Checks the arguments of a change.
    pub fn check(&self, change: &Change) -> Result<()> {
        change.check(self.now(), self.limits().payload_bytes_max)
    }

    /// Creates a session: straight at storage, for its slot comes up with its first message. But behind what is queued for
    /// the id still, which must not reach the successor of the session that it was sent to.
    pub fn create(
        self: &Arc<Self>,
        id: SessionId,
        change: Arc<Change>,
        or_existing: bool,
        durability: Durability,
        Asking { port, occupied }: Asking<bool>,
    ) {
        let at = self.now();
        let make = |id, occupied| {
            let reply = Reply::new(port, occupied);
            Command::Create { id, change, or_existing, at, durability, reply }
        };
        if self.has_mailbox(&id) {
            self.dispatch(&id, occupied, |target, occupied| SessionMessage::Forward(make(target.id, occupied)));
        } else {
            self.mailbox().send(make(id, occupied));
        }
    }

    /// Reads a session.
    pub fn get(self: &Arc<Self>, id: &SessionId, Asking { port, occupied }: Asking<Option<Record>>) -> Arc<Slot> {
        self.dispatch(id, occupied, |target, occupied| {
            SessionMessage::Forward(Command::Get { target, reply: Reply::new(port, occupied) })
        })
    }

    /// Counts a touch that cannot be counted in memory, or is to be committed.
    pub fn touch(
        self: &Arc<Self>,
        id: &SessionId,
        durability: Option<Durability>,
        Asking { port, occupied }: Asking<()>,
    ) -> Arc<Slot> {
        let at = self.now();
        self.dispatch(id, occupied, |target, occupied| {
            let reply = Reply::new(port, occupied);
            SessionMessage::Forward(Command::Touch { target, at, durability, reply })
        })
    }

    /// Changes a session; with `rotate_to`, gives it that id too.
    pub fn write(
        self: &Arc<Self>,
        id: &SessionId,
        change: Arc<Change>,
        rotate_to: Option<SessionId>,
        durability: Durability,
        Asking { port, occupied }: Asking<Version>,
    ) -> Arc<Slot> {
        let at = self.now();
        self.dispatch(id, occupied, |target, occupied| {
            let reply = Reply::new(port, occupied);
            SessionMessage::Forward(Command::Write { target, change, rotate_to, at, durability, reply })
        })
    }

    /// Changes a session by a function, which `edit` wraps together with the reply.
    pub fn update<T>(
        self: &Arc<Self>,
        id: &SessionId,
        durability: Durability,
        Asking { port, occupied }: Asking<T>,
        edit: impl FnOnce(sessile_storage::command::ReplyTo<T>) -> Box<dyn Edit>,
    ) -> Arc<Slot> {
        let at = self.now();
        self.dispatch(id, occupied, |_, occupied| {
            let edit = edit(Reply::new(port, occupied));
            SessionMessage::Update { edit, at, durability }
        })
    }

    /// Deletes a session.
    pub fn delete(
        self: &Arc<Self>,
        id: &SessionId,
        durability: Durability,
        Asking { port, occupied }: Asking<bool>,
    ) -> Arc<Slot> {
        self.dispatch(id, occupied, |target, occupied| {
            let reply = Reply::new(port, occupied);
            SessionMessage::Forward(Command::Delete { target, durability, reply })
        })
    }

    /// Lists sessions.
    pub fn list(&self, query: Query, asking: Asking<Page>) {
        let reply = Reply::new(asking.port, asking.occupied);
        self.mailbox().send(Command::List { query: Box::new(query), reply });
    }

    /// Counts sessions.
    pub fn count(&self, filter: Filter, asking: Asking<u64>) {
        let reply = Reply::new(asking.port, asking.occupied);
        self.mailbox().send(Command::Count { filter: Box::new(filter), reply });
    }

    /// Deletes sessions.
    pub fn delete_where(&self, filter: Filter, durability: Durability, asking: Asking<u64>) {
        let reply = Reply::new(asking.port, asking.occupied);
        self.mailbox().send(Command::DeleteWhere { filter: Box::new(filter), durability, reply });
    }

    /// Writes all touches, and syncs.
    pub fn flush(&self, asking: Asking<()>) {
        self.mailbox().send(Command::Flush { reply: Reply::new(asking.port, asking.occupied) });
    }
}
