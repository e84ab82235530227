//! Who waits for an answer: the two ends of one request's way back.

use crate::{
    reply::{Port, Stage},
    sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, lock},
    wake::Wake,
};

/// What a caller hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Lost(Stage),
}

struct Line {
    answers: Mutex<Vec<Answer>>,
    came: Condvar,
    is_abandoned: AtomicBool,
}

/// The caller's end.
pub(crate) struct Caller(Arc<Line>);

/// The end that a reply carries.
pub(crate) struct Way(Arc<Line>);

pub(crate) fn call() -> (Way, Caller) {
    let line = Line { answers: Mutex::new(Vec::new()), came: Condvar::new(), is_abandoned: AtomicBool::new(false) };
    let line = Arc::new(line);
    (Way(Arc::clone(&line)), Caller(line))
}

impl Caller {
    /// Waits for the answer.
    pub(crate) fn hear(self) -> Answer {
        let mut answers = lock(&self.0.answers);
        loop {
            match answers.as_slice() {
                [] => answers = self.0.came.wait(answers).expect("a panic ends the model"),
                [answer] => return *answer,
                more => panic!("answered more than once: {more:?}"),
            }
        }
    }

    /// Waits no more.
    pub(crate) fn go(&self) {
        self.0.is_abandoned.store(true, Ordering::Release);
    }
}

impl Port for Way {
    type Answer = Answer;

    fn send(self, answer: Answer) -> Wake {
        lock(&self.0.answers).push(answer);
        self.0.came.notify_one();
        Wake::nobody()
    }

    fn lost(&self, stage: Stage) -> Answer {
        Answer::Lost(stage)
    }

    fn is_closed(&self) -> bool {
        self.0.is_abandoned.load(Ordering::Acquire)
    }
}
