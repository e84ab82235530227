//! ractor's supervision: what a supervisor hears of its child's end, and that a child ends with its supervisor.
//!
//! What rests on it: a linked engine closes with its supervisor, the engine's actor ends as the storage actor ends, and a
//! supervisor hears of a storage thread that gave up as a failure (rules R17, R22).

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use sessile_tests::soon;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::witness::{End, Message, Subject, Witness, answers, gives_back};

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Terminated,
    Failed,
}

/// Hears of its children, and goes on whatever becomes of them.
struct Supervisor;

impl Actor for Supervisor {
    type Msg = Message;
    type State = UnboundedSender<Seen>;
    type Arguments = UnboundedSender<Seen>;

    async fn pre_start(
        &self,
        _: ActorRef<Message>,
        seen: UnboundedSender<Seen>,
    ) -> Result<UnboundedSender<Seen>, ActorProcessingErr> {
        Ok(seen)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        _: &mut UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::End(End::Error) => Err("an error is meant".into()),
            Message::End(End::Panic) => panic!("a panic is meant"),
            Message::Ping(reply) => Ok(reply.send(())?),
            Message::Note(_) | Message::End(_) => Ok(()),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Message>,
        event: SupervisionEvent,
        seen: &mut UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(..) => seen.send(Seen::Terminated)?,
            SupervisionEvent::ActorFailed(..) => seen.send(Seen::Failed)?,
            _ => {}
        }
        Ok(())
    }
}

async fn supervisor() -> (ActorRef<Message>, UnboundedReceiver<Seen>) {
    let (sender, seen) = unbounded_channel();
    let (supervisor, _) = ActorRuntime::spawn(None, Supervisor, sender).await.expect("it starts");
    (supervisor, seen)
}

fn child_of(supervisor: &ActorRef<Message>, witness: &Witness) -> ActorRef<Message> {
    let child = ActorRuntime::spawn_linked_instant(None, Subject, witness.arguments(), supervisor.get_cell());
    child.expect("it has no name to be taken").0
}

#[tokio::test]
async fn a_supervisor_hears_of_an_end_as_what_it_was_and_lives_on() {
    let (supervisor, mut seen) = supervisor().await;
    for end in End::ALL {
        let witness = Witness::default();
        let child = child_of(&supervisor, &witness);
        answers(&child).await;
        end.order(&child);
        let expected = match end {
            End::Drain | End::Stop | End::Kill => Seen::Terminated,
            End::Error | End::Panic => Seen::Failed,
        };
        assert_eq!(soon("the event", seen.recv()).await, Some(expected), "{end:?}");
        // The state of one that stops goes to the supervisor with the event.
        witness.all_ended(0).await;
        answers(&supervisor).await;
        assert!(seen.try_recv().is_err(), "one end is told once: {end:?}");
    }
}

#[tokio::test]
async fn a_child_ends_with_its_supervisor_however_that_ends() {
    for end in End::ALL {
        let (supervisor, _seen) = supervisor().await;
        let witness = Witness::default();
        let child = child_of(&supervisor, &witness);
        answers(&child).await;
        end.order(&supervisor);
        witness.all_ended(0).await;
        gives_back(&child, witness.note(0, 0));
    }
}

#[tokio::test]
async fn a_child_of_a_supervisor_that_is_gone_does_not_start_and_its_state_ends() {
    for end in End::ALL {
        let (supervisor, _seen) = supervisor().await;
        end.order(&supervisor);
        soon("the supervisor's end", supervisor.wait(None)).await.expect("it ends");
        let witness = Witness::default();
        let child = child_of(&supervisor, &witness);
        witness.send(&child, 1);
        witness.all_ended(1).await;
        assert_eq!(witness.handled(), []);
        gives_back(&child, witness.note(0, 1));
    }
}
