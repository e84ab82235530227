//! The checker and the model, on histories made by hand.

use std::sync::Arc;

use crate::{
    checker::{Verdict, judge, shrink},
    history::{Answer, Call, NEVER, OPEN_END, Op, Seen, Write, print},
};

fn op(asked: u64, ended: u64, call: Call, answer: Answer) -> Op {
    let client = asked as u8;
    let (from, until) = (asked as i64, if ended == OPEN_END { NEVER } else { ended as i64 });
    Op { client, id: 0, call, answer, asked, ended, from, until }
}

fn at(id: u16, op: Op) -> Op {
    Op { id, ..op }
}

fn create(asked: u64, ended: u64, data: u32) -> Op {
    let call = Call::Create { data: [data].into(), or_existing: false, idle: NEVER, end: NEVER };
    op(asked, ended, call, Answer::Created(true))
}

/// A session that is over once it was idle for `idle`.
fn create_for(asked: u64, ended: u64, idle: i64) -> Op {
    let call = Call::Create { data: [0].into(), or_existing: false, idle, end: NEVER };
    op(asked, ended, call, Answer::Created(true))
}

fn save(asked: u64, ended: u64, data: u32, version: u16) -> Op {
    let write = Write { data: Some([data].into()), ..Write::default() };
    op(asked, ended, Call::Write(write), Answer::Written(Some(version)))
}

fn save_if(asked: u64, ended: u64, data: u32, expected: u16, answer: Answer) -> Op {
    let write = Write { data: Some([data].into()), expected: Some(expected), ..Write::default() };
    op(asked, ended, Call::Write(write), answer)
}

fn touch(asked: u64, ended: u64) -> Op {
    op(asked, ended, Call::Touch { committed: false }, Answer::Done)
}

fn delete(asked: u64, ended: u64) -> Op {
    op(asked, ended, Call::Delete, Answer::Deleted(true))
}

fn rotate(asked: u64, ended: u64, to: u16) -> Op {
    op(asked, ended, Call::Rotate(Write::default()), Answer::Moved(to))
}

fn append(asked: u64, ended: u64, add: u32, before: &[u32]) -> Op {
    op(asked, ended, Call::Update { add: Some(add) }, Answer::Updated(Some(before.into())))
}

/// A get that sees this, of serial 0 and active as late as can be.
fn get(asked: u64, ended: u64, data: &[u32], version: u16, touches: u64) -> Op {
    let (data, last_active) = (Arc::from(data), ended as i64);
    let seen = Seen { serial: 0, version, data, note: None, touches, last_active };
    op(asked, ended, Call::Get, Answer::Seen(Some(seen)))
}

fn none(asked: u64, ended: u64) -> Op {
    op(asked, ended, Call::Get, Answer::Seen(None))
}

fn seeing(get: Op, change: impl FnOnce(&mut Seen)) -> Op {
    match get.answer {
        Answer::Seen(Some(mut seen)) => {
            change(&mut seen);
            Op { answer: Answer::Seen(Some(seen)), ..get }
        }
        _ => unreachable!("it is for a get that sees something"),
    }
}

/// The same, but nobody knows.
fn unknown(op: Op) -> Op {
    Op { answer: Answer::Unknown, ended: OPEN_END, ..op }
}

fn good(ops: &[Op]) {
    assert_eq!(judge(ops), Verdict::Linearizable, "\n{}", print(ops));
}

fn bad(ops: &[Op]) {
    assert_eq!(judge(ops), Verdict::Violation, "\n{}", print(ops));
    assert_eq!(judge(&shrink(ops)), Verdict::Violation);
}

#[test]
fn one_after_the_other_is_linearizable() {
    good(&[
        none(1, 2),
        create(3, 4, 7),
        get(5, 6, &[7], 0, 0),
        touch(7, 8),
        save(9, 10, 8, 1),
        append(11, 12, 9, &[8]),
        get(13, 14, &[8, 9], 2, 1),
        save_if(15, 16, 5, 1, Answer::Conflict(2)),
        save_if(17, 18, 5, 2, Answer::Written(Some(3))),
        rotate(19, 20, 1),
        none(21, 22),
        op(23, 24, Call::Touch { committed: true }, Answer::NotFound),
        at(1, get(25, 26, &[5], 3, 1)),
        at(1, delete(27, 28)),
        at(1, none(29, 30)),
        create(31, 32, 6),
        seeing(get(33, 34, &[6], 4, 0), |seen| seen.serial = 1),
    ]);
}

#[test]
fn what_overlaps_may_come_in_any_order() {
    let create = create(1, 2, 0);
    let (saving, before, after) = (save(3, 10, 1, 1), get(4, 5, &[0], 0, 0), get(6, 7, &[1], 1, 0));
    good(&[create.clone(), saving.clone(), before.clone(), after.clone()]);
    good(&[create.clone(), saving.clone(), after.clone(), get(8, 9, &[1], 1, 0)]);
    // Seen once, it stays.
    bad(&[create, saving, Op { asked: 6, ended: 7, ..before }, Op { asked: 4, ended: 5, ..after }]);
}

#[test]
fn a_stale_read_is_found() {
    bad(&[create(1, 2, 0), save(3, 4, 1, 1), get(5, 6, &[0], 0, 0)]);
    bad(&[create(1, 2, 0), save(3, 4, 1, 1), none(5, 6)]);
}

#[test]
fn a_lost_update_is_found() {
    bad(&[create(1, 2, 0), append(3, 5, 1, &[0]), append(4, 6, 2, &[0])]);
    bad(&[create(1, 2, 0), append(3, 5, 1, &[0]), append(4, 6, 2, &[0, 1]), get(7, 8, &[0, 2], 1, 0)]);
    good(&[create(1, 2, 0), append(3, 5, 1, &[0, 2]), append(4, 6, 2, &[0]), get(7, 8, &[0, 2, 1], 1, 0)]);
}

#[test]
fn a_session_that_comes_back_is_found() {
    bad(&[create(1, 2, 0), delete(3, 4), get(5, 6, &[0], 0, 0)]);
    bad(&[create(1, 2, 0), delete(3, 4), touch(5, 6)]);
    bad(&[create(1, 2, 0), delete(3, 4), save(5, 6, 1, 1)]);
    bad(&[create(1, 2, 0), rotate(3, 4, 1), get(5, 6, &[0], 0, 0)]);
    bad(&[
        create(1, 2, 0),
        delete(3, 4),
        create(5, 6, 0),
        get(7, 8, &[0], 0, 0),
        seeing(get(9, 10, &[0], 0, 0), |seen| {
            seen.serial = 1;
        }),
    ]);
}

#[test]
fn touches_are_counted_exactly() {
    let begin = [create(1, 2, 0), touch(3, 6), touch(4, 5)];
    let with = |last: Op| [&begin[..], &[last]].concat();
    good(&with(get(7, 8, &[0], 0, 2)));
    bad(&with(get(7, 8, &[0], 0, 1)));
    bad(&with(get(7, 8, &[0], 0, 3)));
    let unsure = |touches| [create(1, 2, 0), unknown(touch(3, 4)), get(5, 6, &[0], 0, touches)];
    good(&unsure(0));
    good(&unsure(1));
    bad(&unsure(2));
}

#[test]
fn what_did_not_happen_has_no_effect() {
    // It is not among the operations, so nothing explains what is seen.
    bad(&[create(1, 2, 0), get(5, 6, &[1], 1, 0)]);
}

#[test]
fn the_unknown_may_happen_late_or_never_but_once() {
    let begin = [create(1, 2, 0), unknown(save(3, 4, 1, 9)), get(5, 6, &[0], 0, 0), save(7, 8, 2, 1)];
    let with = |last: &[Op]| [&begin[..], last].concat();
    good(&with(&[get(9, 10, &[2], 1, 0)]));
    good(&with(&[get(9, 10, &[1], 2, 0)]));
    good(&with(&[get(9, 10, &[2], 1, 0), get(11, 12, &[1], 2, 0)]));
    bad(&with(&[get(9, 10, &[1], 2, 0), get(11, 12, &[2], 1, 0)]));
    bad(&with(&[get(9, 10, &[1], 2, 0), save(11, 12, 3, 3), get(13, 14, &[1], 4, 0)]));
    // Once all is quiet it happens no more.
    let quiet = Op { ended: 6, ..unknown(save(3, 4, 1, 9)) };
    bad(&[create(1, 2, 0), quiet.clone(), get(7, 8, &[0], 0, 0), get(9, 10, &[1], 1, 0)]);
    good(&[create(1, 2, 0), quiet, get(7, 8, &[1], 0, 0)]);
    // Where nobody knows the new id, nobody finds the session.
    good(&[create(1, 2, 0), unknown(rotate(3, 4, 0)), get(5, 6, &[0], 0, 0), none(7, 8)]);
    bad(&[create(1, 2, 0), unknown(rotate(3, 4, 0)), none(5, 6), get(7, 8, &[0], 0, 0)]);
}

#[test]
fn a_version_is_saved_over_once() {
    let begin = [create(1, 2, 0), get(3, 4, &[0], 0, 0)];
    let with = |last: &[Op]| [&begin[..], last].concat();
    let done = |version| Answer::Written(Some(version));
    good(&with(&[save_if(5, 8, 1, 0, done(1)), save_if(6, 7, 2, 0, Answer::Conflict(1))]));
    bad(&with(&[save_if(5, 8, 1, 0, done(1)), save_if(6, 7, 2, 0, done(2))]));
    bad(&with(&[save_if(5, 6, 1, 0, Answer::Conflict(1))]));
    bad(&with(&[save_if(5, 6, 1, 0, Answer::Conflict(0))]));
}

#[test]
fn versions_are_equal_if_and_only_if_states_are() {
    let begin = [create(1, 2, 0), get(3, 4, &[0], 0, 0)];
    let with = |last: &[Op]| [&begin[..], last].concat();
    good(&with(&[save(5, 6, 0, 0)]));
    bad(&with(&[save(5, 6, 0, 1)]));
    bad(&with(&[save(5, 6, 1, 0)]));
    good(&with(&[touch(5, 6), rotate(7, 8, 1), at(1, get(9, 10, &[0], 0, 1))]));
    bad(&with(&[touch(5, 6), get(7, 8, &[0], 1, 1)]));
    bad(&with(&[rotate(5, 6, 1), at(1, get(7, 8, &[0], 1, 0))]));
    bad(&with(&[rotate(5, 6, 1), at(1, seeing(get(7, 8, &[0], 0, 0), |seen| seen.serial = 1))]));
}

#[test]
fn the_time_of_activity_is_never_lowered() {
    let active = |get: Op, time| seeing(get, |seen| seen.last_active = time);
    let begin = [create(1, 2, 0), touch(5, 6)];
    let with = |last: &[Op]| [&begin[..], last].concat();
    good(&with(&[active(get(7, 8, &[0], 0, 1), 5)]));
    bad(&with(&[active(get(7, 8, &[0], 0, 1), 4)]));
    bad(&with(&[active(get(7, 8, &[0], 0, 1), 9)]));
    bad(&with(&[active(get(7, 8, &[0], 0, 1), 7), active(get(9, 10, &[0], 0, 1), 6)]));
}

#[test]
fn a_session_ends_at_its_time_and_for_good() {
    let active = |get: Op, time| seeing(get, |seen| seen.last_active = time);
    let begin = [create_for(1, 2, 10)];
    let with = |last: &[Op]| [&begin[..], last].concat();
    good(&with(&[active(get(10, 12, &[0], 0, 0), 1), none(13, 14)]));
    bad(&with(&[none(10, 12)]));
    bad(&with(&[active(get(13, 14, &[0], 0, 0), 1)]));
    good(&with(&[touch(9, 10), active(get(13, 14, &[0], 0, 1), 9), none(20, 21)]));
    bad(&with(&[none(11, 12), touch(13, 14)]));
    bad(&with(&[save(13, 14, 1, 1)]));
}

#[test]
fn a_violation_is_shown_by_few_operations() {
    let mut ops = vec![create(1, 2, 0)];
    for n in 0..30 {
        let asked = 3 + n * 8;
        ops.push(touch(asked, asked + 1));
        ops.push(save(asked + 2, asked + 3, n as u32 + 1, n as u16 + 1));
        let sees = if n == 20 { [n as u32] } else { [n as u32 + 1] };
        ops.push(get(asked + 4, asked + 5, &sees, n as u16 + 1, n + 1));
        ops.push(none(asked + 6, asked + 7));
        ops.pop();
    }
    bad(&ops);
    let few = shrink(&ops);
    assert!(few.iter().all(|op| op.asked <= 3 + 20 * 8 + 4), "what comes later is cut off");
    assert_eq!(few.iter().filter(|op| op.call == Call::Get).count(), 1, "\n{}", print(&few));
}
