//! Typed closures as edits: decode, change, encode.

use serde::{Serialize, de::DeserializeOwned};
use sessile_storage::{
    command::{AnyReply, ReplyTo},
    error::{Error, Result},
    id::Version,
    record::Data,
};

use crate::session::Edit;

/// A closure over a session's data as a `T`, with the reply that its own answer goes to.
pub struct TypedEdit<T, A, F> {
    change: F,
    payload_bytes_max: usize,
    /// The closure's answer, of its last run.
    answer: Option<A>,
    reply: ReplyTo<A>,
    data: std::marker::PhantomData<fn(T)>,
}

/// What a closure decided.
#[derive(Debug)]
pub enum Decision<A> {
    /// Write the data, and answer.
    Write(A),
    /// Write nothing, and answer.
    Refuse(A),
}

impl<T, A, F> TypedEdit<T, A, F>
where
    T: Serialize + DeserializeOwned + 'static,
    A: Send + 'static,
    F: FnMut(&mut T) -> Decision<A> + Send + 'static,
{
    /// Wraps a closure.
    pub fn boxed(change: F, payload_bytes_max: usize, reply: ReplyTo<A>) -> Box<dyn Edit> {
        Box::new(Self { change, payload_bytes_max, answer: None, reply, data: std::marker::PhantomData })
    }
}

impl<T, A, F> Edit for TypedEdit<T, A, F>
where
    T: Serialize + DeserializeOwned + 'static,
    A: Send + 'static,
    F: FnMut(&mut T) -> Decision<A> + Send + 'static,
{
    fn apply(&mut self, data: &Data, bytes_beside: usize) -> Result<Option<Data>> {
        self.answer = None;
        let mut value: T = data.decode()?;
        match (self.change)(&mut value) {
            Decision::Refuse(answer) => {
                self.answer = Some(answer);
                Ok(None)
            }
            Decision::Write(answer) => {
                let data = Data::encode(&value)?;
                let (bytes, bytes_max) = (data.bytes().len() + bytes_beside, self.payload_bytes_max);
                if bytes > bytes_max {
                    return Err(Error::TooLarge { bytes, bytes_max });
                }
                self.answer = Some(answer);
                Ok(Some(data))
            }
        }
    }

    fn finish(self: Box<Self>, outcome: Result<Version>) {
        let answer = self.answer;
        drop(self.reply.answer(outcome.and_then(|_| answer.ok_or(Error::Panicked))));
    }

    fn reply_mut(&mut self) -> &mut dyn AnyReply {
        &mut self.reply
    }
}
