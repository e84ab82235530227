//! Whether the operations of a family can have happened one after the other, each between its question and its answer.
//!
//! The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory of what was tried
//! ("Testing for linearizability", 2017): next comes any operation that was asked before the first answer still open; a
//! set of operations that has led to a state once is not tried from there again. An operation whose answer is unknown may
//! come at any time after it was asked, or never.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::{
    history::{Answer, Bits, Call, MANY, Op},
    model::State,
};

/// States looked at before a family counts as undecided. Good histories take little more than one for each operation.
const STATES_MAX: usize = 1_000_000;
/// States looked at for one try to make a violation shorter: the less is known, the more orders there are.
const SHRINKING_STATES_MAX: usize = 1_000;

/// What the checker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all answers.
    Linearizable,
    /// There is none.
    Violation,
    /// The search was given up.
    Undecided,
}

/// Judges the operations of one family.
pub fn judge(ops: &[Op]) -> Verdict {
    judge_within(STATES_MAX, ops)
}

fn judge_within(states_max: usize, ops: &[Op]) -> Verdict {
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| op.asked);
    if steps_back(&ops) { Verdict::Violation } else { search(&ops, states_max) }
}

/// Whether a session's time of activity was read, and later an earlier one.
fn steps_back(ops: &[Op]) -> bool {
    let seen = |op: &Op| match &op.answer {
        Answer::Seen(Some(seen)) => Some((seen.serial, seen.last_active)),
        _ => None,
    };
    ops.iter().any(|late| {
        seen(late).is_some_and(|(serial, time)| {
            let before = ops.iter().filter(|early| early.ended < late.asked);
            before.filter_map(seen).any(|(other, earlier)| other == serial && earlier > time)
        })
    })
}

/// A point of the search: what has happened, and what to try next.
struct Point {
    happened: Bits,
    certain_left: usize,
    state: State,
    /// The latest question among what has happened.
    latest: u64,
    next: Vec<usize>,
}

fn search(ops: &[Op], states_max: usize) -> Verdict {
    assert!(ops.len() <= MANY, "a family has {} operations, {MANY} are allowed for", ops.len());
    let certain = ops.iter().filter(|op| op.is_certain()).count();
    let mut tried: HashSet<(Bits, State), RandomState> = HashSet::default();
    let first = Point {
        happened: Bits::default(),
        certain_left: certain,
        state: State::default(),
        latest: 0,
        next: Vec::new(),
    };
    let mut path = vec![arrive(first, ops)];
    while let Some(point) = path.last_mut() {
        if point.certain_left == 0 {
            return Verdict::Linearizable;
        }
        let Some(at) = point.next.pop() else {
            path.pop();
            continue;
        };
        let Some(next) = happen(point, at, ops) else { continue };
        if tried.insert((next.happened, next.state.clone())) {
            if tried.len() > states_max {
                return Verdict::Undecided;
            }
            path.push(arrive(next, ops));
        }
    }
    Verdict::Violation
}

fn happen(point: &Point, at: usize, ops: &[Op]) -> Option<Point> {
    let op = &ops[at];
    let state = point.state.step(op)?;
    let mut happened = point.happened;
    happened.insert(at);
    let certain_left = point.certain_left - usize::from(op.is_certain());
    Some(Point { happened, certain_left, state, latest: point.latest.max(op.asked), next: Vec::new() })
}

/// Works out what may come next; what changes nothing comes at once.
fn arrive(mut point: Point, ops: &[Op]) -> Point {
    loop {
        // What has not happened by its time never does: it is of no more account, so that states are seen to be the same.
        for (at, op) in ops.iter().enumerate() {
            if !op.is_certain() && op.ended <= point.latest {
                point.happened.insert(at);
            }
        }
        let left: Vec<usize> = (0..ops.len()).filter(|at| !point.happened.has(*at)).collect();
        let certain = || left.iter().map(|at| &ops[*at]).filter(|op| op.is_certain());
        let first_end = certain().map(|op| op.ended).min().unwrap_or(u64::MAX);
        let open: Vec<usize> = left.iter().copied().take_while(|at| ops[*at].asked < first_end).collect();
        // An answer that this state explains and that changes nothing can be placed here: whatever order explains the
        // rest, taking this out of it and putting it here explains all. But for what must come before it, if at all.
        let earliest_doubt = left.iter().filter(|at| !ops[**at].is_certain()).map(|at| ops[*at].ended).min();
        let free = open.iter().copied().find(|at| {
            let op = &ops[*at];
            op.is_certain()
                && earliest_doubt.is_none_or(|end| end > op.asked)
                && point.state.step(op).as_ref() == Some(&point.state)
        });
        if let Some(further) = free.and_then(|at| happen(&point, at, ops)) {
            point = further;
            continue;
        }
        let is_second = |late: usize| open.iter().any(|early| *early < late && stands_for(&ops[*early], &ops[late]));
        point.next = open.iter().copied().filter(|at| !is_second(*at)).collect();
        // What may never happen is tried last, and otherwise what was answered first comes first.
        point.next.sort_by_key(|at| std::cmp::Reverse((!ops[*at].is_certain(), ops[*at].ended, *at)));
        return point;
    }
}

/// Whether one of two operations that may happen does all that the other can do, and more: then it comes first.
fn stands_for(one: &Op, other: &Op) -> bool {
    let is_doubtful_touch = |op: &Op| !op.is_certain() && matches!(op.call, Call::Touch { .. });
    is_doubtful_touch(one)
        && is_doubtful_touch(other)
        && one.id == other.id
        && one.from <= other.from
        && one.ended >= other.ended
}

/// Makes a violation easier to read. What is left is one still, and so shows that the whole is: an answer is only ever
/// taken for unknown, and only what cannot have changed anything is left out.
pub fn shrink(ops: &[Op]) -> Vec<Op> {
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| op.asked);
    // The shortest beginning that is wrong already.
    let mut ends: Vec<u64> = ops.iter().filter(|op| op.is_certain()).map(|op| op.ended).collect();
    ends.sort_unstable();
    let cut = |end: u64| -> Vec<Op> {
        let begun = ops.iter().filter(|op| op.asked < end).cloned();
        begun.map(|op| if op.is_certain() && op.ended > end { forgotten(op) } else { op }).collect()
    };
    let shortest = ends.partition_point(|end| judge(&cut(*end)) != Verdict::Violation);
    if let Some(end) = ends.get(shortest) {
        ops = cut(*end);
    }
    let is_wrong = |ops: &[Op]| judge_within(SHRINKING_STATES_MAX, ops) == Verdict::Violation;
    // Backwards: what matters is near the end. First what makes the search no harder.
    for at in (0..ops.len()).rev().filter(|at| has_no_effect(&ops[*at])).collect::<Vec<_>>() {
        let mut fewer = ops.clone();
        fewer.remove(at);
        if is_wrong(&fewer) {
            ops = fewer;
        }
    }
    for at in (0..ops.len()).rev() {
        if ops[at].is_certain() && !is_rotation(&ops[at]) {
            let mut fewer = ops.clone();
            fewer[at] = forgotten(fewer[at].clone());
            if is_wrong(&fewer) {
                ops = fewer;
            }
        }
    }
    ops
}

/// The same operation, had nobody heard its answer.
fn forgotten(op: Op) -> Op {
    let ended = if op.is_certain() { u64::MAX } else { op.ended };
    Op { answer: Answer::Unknown, ended, ..op }
}

/// Whether the answer names an id, without which nothing of what comes after can be understood.
fn is_rotation(op: &Op) -> bool {
    matches!(op.answer, Answer::Moved(_))
}

fn has_no_effect(op: &Op) -> bool {
    matches!(op.call, Call::Get | Call::Update { add: None })
        || matches!(
            op.answer,
            Answer::NotFound
                | Answer::AlreadyExists
                | Answer::Conflict(_)
                | Answer::Created(false)
                | Answer::Deleted(false)
        )
}
