//! Operations in the engine's words.

use std::{sync::Arc, time::Duration};

use sessile::{Change, Durability, Engine, Filter, Timestamp, Version, testing::ManualClock};
use tempfile::TempDir;

use crate::{
    model::SECOND,
    operation::{Conditions, Data, IDS, Options, Set, USERS, WORDS},
    world::World,
};

impl World {
    /// Leaves out the condition on a serial that was not seen.
    pub(crate) fn resolved(&self, conditions: &Conditions) -> Conditions {
        let mut resolved = conditions.clone();
        resolved.except = conditions.except.iter().map(|name| self.known(*name)).collect();
        resolved.serial_of = conditions
            .serial_of
            .map(|name| self.known(name))
            .filter(|name| self.model.find(*name).is_some_and(|session| self.serials.contains_key(&session.born)));
        resolved
    }

    pub(crate) fn filter(&self, conditions: &Conditions) -> Filter {
        let mut filter = Filter::all();
        if let Some(user) = conditions.user {
            filter = filter.user(USERS[user]);
        }
        if let Some(prefix) = conditions.prefix {
            filter = filter.id_prefix(IDS[prefix]);
        }
        if let Some(session) = conditions.serial_of.and_then(|name| self.model.find(name)) {
            filter = filter.serial(self.serials[&session.born]);
        }
        for name in &conditions.except {
            filter = filter.except(self.engine.session(self.names[*name].as_str()).unwrap().id());
        }
        let now = Timestamp::from_micros(self.model.now());
        let span = |(from, until): (i64, i64)| shifted(now, -from)..shifted(now, -until);
        if let Some(created) = conditions.created {
            filter = filter.created(span(created));
        }
        if let Some(active) = conditions.active {
            filter = filter.active(span(active));
        }
        for (key, value) in &conditions.metadata {
            filter = filter.metadata(WORDS[*key], WORDS[*value]);
        }
        filter
    }
}

pub(crate) async fn open(directory: &TempDir, clock: &Arc<ManualClock>, options: &Options) -> Engine {
    let mut builder =
        if options.in_memory { Engine::in_memory() } else { Engine::builder(directory.path().join("sessions.db")) };
    if let Some(seconds) = options.idle_seconds {
        builder = builder.idle_timeout(Duration::from_secs(seconds));
    }
    if let Some(seconds) = options.lifetime_seconds {
        builder = builder.lifetime(Duration::from_secs(seconds));
    }
    if let Some(max) = options.max_sessions {
        builder = builder.max_sessions(max);
    }
    if let Some(max) = options.max_per_user {
        builder = builder.max_sessions_per_user(max);
    }
    builder
        .clock(clock.clone())
        .durability(durability(options.synced))
        .payload_bytes_max(options.payload_bytes_max)
        .sessions_in_memory_max(options.sessions_in_memory_max)
        .live_sessions_max(options.live_sessions_max)
        .record_bytes_max(options.record_bytes_max)
        .passivate_after(Duration::from_secs(options.passivate_seconds))
        .open()
        .await
        .expect("it opens")
}

pub(crate) fn durability(synced: bool) -> Durability {
    if synced { Durability::Synced } else { Durability::Committed }
}

pub(crate) fn shifted(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(at.as_micros() + seconds * SECOND)
}

/// Returns data that is JSON as a value.
pub(crate) fn json(data: &Data) -> Option<serde_json::Value> {
    match data {
        Data::Number(number) => Some((*number).into()),
        Data::Text(text) => Some(text.clone().into()),
        Data::Long(length) => Some("x".repeat(*length).into()),
        Data::Raw(_) => None,
    }
}

pub(crate) fn change(sets: &[Set], now: Timestamp, version: impl Fn(usize) -> Option<Version>) -> Change {
    sets.iter().fold(Change::new(), |change, set| match set {
        Set::Data(Data::Raw(bytes)) => change.bytes(bytes.clone()),
        Set::Data(data) => change.data(&json(data)),
        Set::User(n) => change.user(USERS[*n]),
        Set::ClearUser => change.clear_user(),
        Set::Metadata(key, value) => change.metadata(WORDS[*key], WORDS[*value]),
        Set::RemoveMetadata(key) => change.remove_metadata(WORDS[*key]),
        Set::IdleSeconds(seconds) => change.idle_timeout(Duration::from_secs(*seconds)),
        Set::ClearIdle => change.clear_idle_timeout(),
        Set::EndsInSeconds(seconds) => change.expires_at(shifted(now, *seconds)),
        Set::ClearEnd => change.clear_expires_at(),
        Set::KeepIdle => change.keep_idle(),
        Set::IfVersion(ago) => match version(*ago) {
            Some(version) => change.if_version(version),
            None => change,
        },
    })
}
