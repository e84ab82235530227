//! What the engine tells of a session, compared with the model's.

use sessile::{Error, Limit, Record, Serial, Summary, Timestamp, Version};

use crate::{
    model::{Refusal, Session as Modelled},
    world::{Verdict, World, same},
};

impl World {
    pub(crate) fn is_named(&mut self, error: &Error, refusal: &Refusal) -> bool {
        match (error, refusal) {
            (Error::NotFound, Refusal::NotFound)
            | (Error::AlreadyExists, Refusal::AlreadyExists)
            | (Error::NotJson, Refusal::NotJson)
            | (Error::Decode { .. }, Refusal::Decode)
            | (Error::Panicked, Refusal::Panicked) => true,
            (Error::Conflict { current }, Refusal::Conflict(state)) => self.is_version(*state, *current),
            (Error::TooLarge { bytes, bytes_max }, Refusal::TooLarge(expected)) => {
                (*bytes, *bytes_max) == (*expected, self.model.options.payload_bytes_max)
            }
            (Error::LimitReached { limit: Limit::Sessions, max }, Refusal::SessionsLimit(expected))
            | (Error::LimitReached { limit: Limit::SessionsPerUser, max }, Refusal::UserLimit(expected)) => {
                max == expected
            }
            (Error::InvalidOption { name, .. }, Refusal::InvalidOption(expected)) => name == expected,
            _ => false,
        }
    }

    pub(crate) fn is_same(&mut self, record: &Record, session: &Modelled) -> Verdict {
        same!("the data", (record.is_json(), record.bytes().as_ref()), (session.is_json, &session.bytes[..]));
        same!("the id", record.id().as_str(), self.names[session.name]);
        let told = (record.user(), record.metadata(), record.created_at(), record.last_active_at());
        self.is_told(told, record.touch_count(), record.expires_at(), session)?;
        self.is_known(session, record.version(), record.serial())
    }

    pub(crate) fn is_listed(&mut self, summary: &Summary, session: &Modelled) -> Verdict {
        same!("the size of the data", summary.data_bytes(), session.bytes.len() as u64);
        same!("the id", summary.id().map(sessile::SessionId::as_str), Some(self.names[session.name].as_str()));
        let told = (summary.user(), summary.metadata(), summary.created_at(), summary.last_active_at());
        self.is_told(told, summary.touch_count(), summary.expires_at(), session)?;
        self.is_known(session, summary.version(), summary.serial())
    }

    pub(crate) fn is_told(
        &self,
        (user, metadata, created_at, last_active_at): (Option<&str>, &sessile::Metadata, Timestamp, Timestamp),
        touches: u64,
        expires_at: Option<Timestamp>,
        session: &Modelled,
    ) -> Verdict {
        same!("the owner", user, session.user.as_deref());
        same!("the metadata", *metadata, session.metadata);
        same!("the creation", created_at.as_micros(), session.created_at);
        same!("the activity", last_active_at.as_micros(), session.last_active_at);
        same!("the touches", touches, session.touches);
        same!("the end", expires_at.map(Timestamp::as_micros), self.model.end(session));
        Ok(())
    }

    /// Checks that version and serial are those seen before, or new ones.
    pub(crate) fn is_known(&mut self, session: &Modelled, version: Version, serial: Serial) -> Verdict {
        if !self.is_version(session.state, version) {
            return Err(format!("the version {version:?} of {session:?}, {:?}", self.versions));
        }
        if let Some(known) = self.serials.get(&session.born) {
            same!("the serial", serial, *known);
            return Ok(());
        }
        let (before, after) = (self.serials.range(..session.born), self.serials.range(session.born..));
        if before.into_iter().any(|(_, known)| *known >= serial) || after.into_iter().any(|(_, known)| *known <= serial)
        {
            return Err(format!("the serial {serial} is used or out of order: {:?}", self.serials));
        }
        self.serials.insert(session.born, serial);
        Ok(())
    }

    pub(crate) fn is_version(&mut self, state: u64, version: Version) -> bool {
        match self.versions.get(&state) {
            Some(known) => *known == version,
            None if self.versions.values().any(|known| *known == version) => false,
            None => self.versions.insert(state, version).is_none(),
        }
    }
}
