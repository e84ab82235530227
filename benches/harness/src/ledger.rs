//! What a store has acknowledged, to be compared with what it holds after reopening.

use std::sync::Arc;

use crate::{
    payload::Payloads,
    world::{Owned, Share, World},
};

/// How many discrepancies are told in full.
const SHOWN_MAX: usize = 5;

/// A session as it must be.
#[derive(Debug)]
struct Kept {
    id: Box<str>,
    /// Its number, from which its data is made.
    session: usize,
    sequence: u64,
    touches: u64,
}

/// What was acknowledged.
#[derive(Debug)]
pub struct Ledger {
    /// Session `n` of those the store was filled with is at `n`; those created later follow.
    sessions: Vec<Kept>,
    filled: usize,
    payloads: Arc<Payloads>,
}

impl Ledger {
    /// Begins with the sessions that the store was filled with.
    pub fn new(world: &World) -> Self {
        let sessions =
            world.ids.iter().enumerate().map(|(session, id)| Kept { id: id.clone(), session, sequence: 0, touches: 0 });
        Self { sessions: sessions.collect(), filled: world.ids.len(), payloads: world.payloads.clone() }
    }

    /// Divides the sessions in use among clients.
    pub fn shares(&self, world: &World, clients: usize) -> Vec<Share> {
        let own = |session: usize| Owned { session, sequence: self.sessions[session].sequence, touches: 0 };
        (0..clients)
            .map(|client| Share::new(world.live_of(client, clients).into_iter().map(own).collect(), client as u64))
            .collect()
    }

    /// Enters what a client did to its share.
    pub fn enter(&mut self, share: &Share) {
        for owned in &share.owned {
            let kept = &mut self.sessions[owned.session];
            kept.sequence = kept.sequence.max(owned.sequence);
            kept.touches += owned.touches;
        }
    }

    /// Enters sessions that a client created.
    pub fn enter_created(&mut self, created: Vec<(Box<str>, usize)>) {
        let kept = created.into_iter().map(|(id, session)| Kept { id, session, sequence: 0, touches: 0 });
        self.sessions.extend(kept);
    }

    /// Returns how many sessions must be there.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the id of the session at `place`.
    pub fn id(&self, place: usize) -> &str {
        &self.sessions[place].id
    }

    /// Begins to compare.
    pub fn verified(&self) -> Verified {
        Verified {
            sessions: self.sessions.len(),
            created: self.sessions.len() - self.filled,
            saves: self.sessions.iter().map(|kept| kept.sequence).sum(),
            touches: self.sessions.iter().map(|kept| kept.touches).sum(),
            faults: 0,
            shown: Vec::new(),
        }
    }

    /// Compares the session at `place` with what was found: its data and how often it was touched, where the store counts
    /// that.
    pub fn check(&self, place: usize, found: Option<(&[u8], Option<u64>)>) -> Option<String> {
        let Kept { id, session, sequence, touches } = &self.sessions[place];
        let fault = match found {
            None => "it is not there".to_owned(),
            Some((data, _)) if data != self.payloads.json(*session, *sequence).as_bytes() => {
                format!("its data is not that of its last acknowledged save, number {sequence}")
            }
            Some((_, Some(found))) if found != *touches => {
                format!("{touches} touches were acknowledged, {found} are counted")
            }
            Some(_) => return None,
        };
        Some(format!("session {id}: {fault}"))
    }
}

/// The result of the comparison.
#[derive(Debug)]
pub struct Verified {
    /// How many sessions must be there.
    pub sessions: usize,
    /// How many of them were created while being measured.
    pub created: usize,
    /// How many saves were acknowledged.
    pub saves: u64,
    /// How many touches were acknowledged.
    pub touches: u64,
    /// How many discrepancies were found.
    pub faults: usize,
    /// The first faults, in words.
    pub shown: Vec<String>,
}

impl Verified {
    /// Adds a discrepancy.
    pub fn add(&mut self, fault: String) {
        self.faults += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(fault);
        }
    }

    /// Compares the number of sessions: nothing may be there that was not acknowledged either.
    pub fn add_count(&mut self, found: u64) {
        if found != self.sessions as u64 {
            self.add(format!("{} sessions were acknowledged, {found} are there", self.sessions));
        }
    }
}
