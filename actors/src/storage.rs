//! The storage actor: observes the storage thread.
//!
//! The thread heals itself; this actor's death changes nothing for it (rule R17). When the thread gives up, the actor
//! fails, and so its supervisor learns of it.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use sessile_storage::thread::Event;

/// What the storage actor takes.
#[derive(Debug)]
pub(crate) enum StorageMessage {
    /// Something became of the thread.
    Event(Event),
}

pub(crate) struct StorageActor;

impl Actor for StorageActor {
    type Msg = StorageMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        StorageMessage::Event(event): StorageMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            Event::Recovering(cause) => tracing::warn!(%cause, "storage is reopening"),
            Event::Recovered => tracing::info!("storage is open again"),
            Event::Failed(cause) => return Err(Box::new(cause)),
            Event::Closed(_) => myself.stop(Some("storage is closed".to_owned())),
        }
        Ok(())
    }
}
