//! An actor that can be ended in every way, and what was seen of it and of its messages.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime, MessagingErr, RpcReplyPort, call};
use sessile_tests::{eventually, soon};

/// Counts its own end, as the reply in a message answers, and the guard in an actor's state tells that the actor is gone.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn by(count: &Arc<AtomicUsize>) -> Self {
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A message that is told apart from all others.
pub(crate) struct Note {
    pub(crate) sender: usize,
    pub(crate) number: usize,
    _ends: Counted,
}

pub(crate) enum Message {
    Note(Note),
    Ping(RpcReplyPort<()>),
    /// Ends the actor, from within.
    End(End),
}

/// How an actor can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Drain,
    Stop,
    Kill,
    Error,
    Panic,
}

impl End {
    pub(crate) const ALL: [Self; 5] = [Self::Drain, Self::Stop, Self::Kill, Self::Error, Self::Panic];

    /// Ends the actor, from outside where that can be done.
    pub(crate) fn order(self, actor: &ActorRef<Message>) {
        match self {
            // What has ended already cannot be ended.
            Self::Drain => drop(actor.drain()),
            Self::Stop => actor.stop(None),
            Self::Kill => actor.kill(),
            Self::Error | Self::Panic => drop(actor.cast(Message::End(self))),
        }
    }
}

/// What is seen, in numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Witness {
    /// The sender and the number of each note, as they were handled.
    handled: Arc<Mutex<Vec<(usize, usize)>>>,
    notes_ended: Arc<AtomicUsize>,
    states_ended: Arc<AtomicUsize>,
}

impl Witness {
    pub(crate) fn handled(&self) -> Vec<(usize, usize)> {
        self.handled.lock().expect("no panic").clone()
    }

    pub(crate) fn notes_ended(&self) -> usize {
        self.notes_ended.load(Ordering::SeqCst)
    }

    pub(crate) fn states_ended(&self) -> usize {
        self.states_ended.load(Ordering::SeqCst)
    }

    pub(crate) fn note(&self, sender: usize, number: usize) -> Message {
        Message::Note(Note { sender, number, _ends: Counted::by(&self.notes_ended) })
    }

    /// Sends notes of one sender, all of which must be taken.
    pub(crate) fn send(&self, actor: &ActorRef<Message>, notes: usize) {
        for number in 0..notes {
            assert!(actor.cast(self.note(0, number)).is_ok(), "it lives");
        }
    }

    /// What an actor is given, and has for its state.
    pub(crate) fn arguments(&self) -> State {
        State { witness: self.clone(), _ends: Counted::by(&self.states_ended) }
    }

    /// Brings an actor up, as session actors are: it has not started yet.
    pub(crate) fn spawn(&self) -> ActorRef<Message> {
        ActorRuntime::spawn_instant(None, Subject, self.arguments()).expect("it has no name to be taken").0
    }

    /// Brings an actor up and waits until it runs.
    pub(crate) async fn spawn_running(&self) -> ActorRef<Message> {
        let actor = self.spawn();
        answers(&actor).await;
        actor
    }

    /// Waits until the actor's state and so many notes are gone.
    pub(crate) async fn all_ended(&self, notes: usize) {
        eventually("the state ends", async || self.states_ended() == 1).await;
        eventually("each message ends", async || self.notes_ended() == notes).await;
    }
}

/// Waits until an actor answers.
pub(crate) async fn answers(actor: &ActorRef<Message>) {
    soon("an answer", async { call!(actor, Message::Ping) }).await.expect("it is answered");
}

/// Sends a note to an actor that takes none any more: the very same comes back.
pub(crate) fn gives_back(actor: &ActorRef<Message>, note: Message) {
    let Message::Note(Note { number: sent, .. }) = note else { panic!("a note is meant") };
    match actor.cast(note) {
        Err(MessagingErr::SendErr(Message::Note(Note { number, .. }))) => assert_eq!(number, sent),
        Err(error) => panic!("the message is not in {error}"),
        Ok(()) => panic!("it was taken"),
    }
}

/// The state of an actor, and what it is given to make it of.
pub(crate) struct State {
    witness: Witness,
    _ends: Counted,
}

pub(crate) struct Subject;

impl Actor for Subject {
    type Msg = Message;
    type State = State;
    type Arguments = State;

    async fn pre_start(&self, _: ActorRef<Message>, state: State) -> Result<State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Note(note) => state.witness.handled.lock().expect("no panic").push((note.sender, note.number)),
            Message::Ping(reply) => reply.send(())?,
            Message::End(End::Error) => return Err("an error is meant".into()),
            Message::End(End::Panic) => panic!("a panic is meant"),
            Message::End(end) => end.order(&myself),
        }
        Ok(())
    }
}
