//! The flood: first what storage can take is measured, then ten times as much is asked for, by messages that are sent at a
//! rate whatever becomes of them, and by handles that wait.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ractor::concurrency::{OneshotReceiver, oneshot};
use sessile::{Change, Durability, Engine, Error, NewSession, Outcome, Result, Session, actor::EngineMessage};
use sessile_tests::{
    Place, effort, not_run,
    process::{self, alone},
    read, soon,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    before::{Before, median_latency},
    watch::{Beats, Bounds, Most, STANDS, heartbeat, slow_disk, watch},
};

/// Room for requests. Together with a slow disk it makes storage, and not the processor, set the pace.
const REQUESTS_MAX: usize = 256;
/// How many times what storage takes is asked for.
const TIMES: usize = 10;
/// By how much the sender of messages aims higher, in percent: what a busy machine keeps it from.
const AIM_PERCENT: u64 = 110;
/// Of the callers so many must be seen in flight and waiting at once, in percent: some are between two requests.
const AT_ONCE_PERCENT: usize = 90;
const SESSIONS: usize = REQUESTS_MAX;
/// Messages that the sender leaves unanswered: the actor's mailbox is ractor's, and has no bound of its own.
const UNANSWERED_MAX: u64 = 4_096;
const PAYLOAD_BYTES: usize = 1 << 10;
const PAYLOAD_BYTES_MAX: usize = 16 << 10;
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;
const CACHE_BYTES: u64 = 4 << 20;
/// The engine's own: 64 MiB where payloads are small, and 64 waiters for each request.
const BYTES_MAX: usize = 64 << 20;
const WAITERS_MAX: usize = 64 * REQUESTS_MAX;
/// How long a handle waits.
const DEADLINE: Duration = Duration::from_millis(400);
/// For so much of it a request waits for room.
const WAIT: Duration = Duration::from_millis(200);
/// By how much an answer may come late on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(2);
/// Throughput under the flood, in percent of the peak.
const THROUGHPUT_PERCENT_MIN: u64 = 80;
/// The heart beats each 2 ms; by how much it may be late under the flood, or so many times as late as at the peak, where a
/// busy machine delays it as it is.
const LATE_BEAT_P99_MAX: Duration = Duration::from_millis(50);
const LATE_BEAT_MAX: Duration = Duration::from_secs(1);
const LATE_BEAT_TIMES: u32 = 4;
/// Of the processors this much must be left to the test, or it is the other processes that would be judged.
const PROCESSOR_PERCENT_MIN: u64 = 70;
/// One flood at a time.
static ONE: Mutex<()> = Mutex::new(());
/// What a caller that waits, or a message, costs at most: its body, its task, its future, its place in the queue.
const WAITER_BYTES: u64 = 8 << 10;
/// What the allocator and the log's index may keep beside what is counted.
const SLACK_BYTES: u64 = 24 << 20;

/// What resident memory may have grown by when all is over: the records and pages that may be held.
pub(crate) const KEPT_BYTES_MAX: u64 = RECORD_BYTES_MAX as u64 + CACHE_BYTES + SLACK_BYTES;

/// What resident memory may grow by meanwhile: the bodies of all requests in flight, four times over (message, batch, log,
/// record), and callers that wait, too.
fn growth_bytes_max(callers: usize) -> u64 {
    let in_flight = 4 * REQUESTS_MAX * PAYLOAD_BYTES_MAX;
    let waiting = u64::try_from(callers).expect("it is small") * WAITER_BYTES;
    u64::try_from(in_flight).expect("it is small") + waiting + KEPT_BYTES_MAX
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

async fn open(place: &Place) -> (Engine, Vec<Session>) {
    let engine = place
        .builder()
        .requests_max(REQUESTS_MAX)
        .payload_bytes_max(PAYLOAD_BYTES_MAX)
        .record_bytes_max(RECORD_BYTES_MAX)
        .cache_bytes(CACHE_BYTES)
        .open()
        .await
        .expect("it opens");
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let new = NewSession::with_id(format!("s{n}")).bytes(payload(0));
        sessions.push(engine.create(new).await.expect("it is created"));
    }
    (engine, sessions)
}

/// A payload that tells which it is.
fn payload(n: u64) -> Vec<u8> {
    let mut bytes = vec![b'x'; PAYLOAD_BYTES];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

async fn payload_of(session: &Session) -> u64 {
    let record = read(session).await;
    u64::from_be_bytes(record.bytes()[..8].try_into().expect("eight bytes"))
}

/// What became of the requests to one session.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    asked: u64,
    acknowledged: u64,
    overloaded: u64,
    interrupted: u64,
    touches: u64,
    touches_in_doubt: u64,
    last_saved: u64,
    /// Saves whose outcome is not known since the last acknowledged one.
    in_doubt: u64,
}

impl Tally {
    /// Notes an answer to the request `n`, which is a save if it is even.
    fn note(&mut self, n: u64, answer: Result<(), Error>, waited: std::ops::RangeInclusive<Duration>) {
        self.asked += 1;
        let saves = n.is_multiple_of(2);
        match answer {
            Ok(()) => {
                self.acknowledged += 1;
                if saves {
                    (self.last_saved, self.in_doubt) = (n, 0);
                } else {
                    self.touches += 1;
                }
            }
            Err(Error::Overloaded { waited: reported }) => {
                self.overloaded += 1;
                assert!(waited.contains(&reported), "{reported:?} is not in {waited:?}");
            }
            Err(error @ Error::Interrupted { .. }) => {
                assert_eq!(error.outcome(), Outcome::MayHaveHappened);
                self.interrupted += 1;
                self.in_doubt += u64::from(saves);
                self.touches_in_doubt += u64::from(!saves);
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.acknowledged += other.acknowledged;
        self.overloaded += other.overloaded;
        self.interrupted += other.interrupted;
    }

    /// Checks that what was acknowledged is there, and what was turned away is not.
    async fn holds_for(&self, session: &Session) {
        let (touched, saved) = (read(session).await.touch_count(), payload_of(session).await);
        assert!((self.touches..=self.touches + self.touches_in_doubt).contains(&touched), "{touched}: {self:?}");
        assert!(saved == self.last_saved || self.in_doubt > 0 && saved > self.last_saved, "{saved}: {self:?}");
    }
}

async fn ask(session: &Session, n: u64) -> Result<(), Error> {
    if n.is_multiple_of(2) {
        session.apply(Change::new().bytes(payload(n))).await.map(drop)
    } else {
        session.touch_with(Durability::Committed).await
    }
}

/// Asks by so many handles, each with a session of its own, for so long; each asks again when it is answered.
async fn by_handles(sessions: Vec<Session>, first: u64, lasting: Duration) -> Vec<Tally> {
    let until = Instant::now() + lasting;
    let tasks: Vec<JoinHandle<Tally>> = sessions
        .into_iter()
        .map(|session| {
            tokio::spawn(async move {
                let mut tally = Tally::default();
                let mut n = first;
                while Instant::now() < until {
                    n += 1;
                    tally.note(n, ask(&session, n).await, WAIT..=WAIT + LATE_MAX);
                }
                tally
            })
        })
        .collect();
    // Patience begins where the flood ends.
    tokio::time::sleep_until(until.into()).await;
    let mut tallies = Vec::new();
    for task in tasks {
        tallies.push(soon("a caller", task).await.expect("no panic"));
    }
    tallies
}

/// Sends messages at a rate for so long, and hears each of them out. Returns in what time they were sent, too.
async fn by_messages(engine: &Engine, first: u64, per_second: u64, lasting: Duration) -> (Vec<Tally>, Duration) {
    enum Heard {
        Saved(OneshotReceiver<Result<sessile::Version>>),
        Touched(OneshotReceiver<Result<()>>),
    }
    let (sender, mut receiver) = mpsc::unbounded_channel::<(u64, Heard)>();
    let answered = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&answered);
    let hearing = tokio::spawn(async move {
        let mut tallies = vec![Tally::default(); SESSIONS];
        while let Some((n, heard)) = receiver.recv().await {
            let answer = match heard {
                Heard::Saved(answer) => answer.await.expect("every message is answered").map(drop),
                Heard::Touched(answer) => answer.await.expect("every message is answered"),
            };
            tallies[session_of(n)].note(n, answer, Duration::ZERO..=Duration::ZERO);
            counting.fetch_add(1, Ordering::SeqCst);
        }
        tallies
    });
    let actor = engine.actor();
    let (began, mut sent) = (Instant::now(), 0);
    let ids: Vec<sessile::SessionId> = (0..SESSIONS).map(|n| format!("s{n}").try_into().expect("a valid id")).collect();
    while began.elapsed() < lasting {
        let due = u64::try_from(began.elapsed().as_micros()).expect("seconds") * per_second / 1_000_000;
        while sent < due && sent - answered.load(Ordering::SeqCst) < UNANSWERED_MAX {
            sent += 1;
            let n = first + sent;
            let id = ids[session_of(n)].clone();
            let (message, heard) = if n.is_multiple_of(2) {
                let (reply, answer) = oneshot();
                (EngineMessage::apply(id, Change::new().bytes(payload(n)), reply.into()), Heard::Saved(answer))
            } else {
                let (reply, answer) = oneshot();
                (EngineMessage::touch_with(id, Durability::Committed, reply.into()), Heard::Touched(answer))
            };
            actor.cast(message).expect("the actor lives");
            sender.send((n, heard)).expect("it is heard");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let sent_in = began.elapsed();
    drop(sender);
    (soon("all answers", hearing).await.expect("no panic"), sent_in)
}

/// Saves go to all sessions, and touches too.
fn session_of(n: u64) -> usize {
    usize::try_from(n / 2).expect("it is small") % SESSIONS
}

fn sum(tallies: &[Tally]) -> Tally {
    tallies.iter().fold(Tally::default(), |mut sum, tally| {
        sum.add(tally);
        sum
    })
}

/// What a flood is made of.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Messages, sent in this time whatever becomes of them.
    Messages { sent_in: Duration },
    /// So many callers, who wait for their answers and ask again.
    Handles { callers: usize },
}

/// A flood, as it was watched.
struct Flood {
    kind: Kind,
    lasting: Duration,
    /// Requests served per second before it.
    peak: u64,
    most: Most,
    beats: Beats,
    beats_at_peak: Beats,
    resident_before: u64,
    /// What the machine gave to this process before it.
    processor_percent: u64,
}

fn per_second(count: u64, time: Duration) -> u64 {
    count * 1_000 / u64::try_from(time.as_millis()).expect("seconds")
}

/// Checks what was watched, and says so.
fn judge(flood: &Flood, total: Tally) {
    let Flood { kind, lasting, peak, most, beats, beats_at_peak, resident_before, processor_percent } = flood;
    let before = *resident_before;
    let (name, callers, asked_in) = match *kind {
        Kind::Messages { sent_in } => ("messages", usize::try_from(UNANSWERED_MAX).expect("it is small"), sent_in),
        Kind::Handles { callers } => ("handles", callers, *lasting),
    };
    let asked = per_second(total.asked, asked_in);
    let growth_max = growth_bytes_max(callers);
    let bounds =
        Bounds { requests: REQUESTS_MAX, bytes: BYTES_MAX, waiting: WAITERS_MAX, resident_bytes: before + growth_max };
    // Only what was answered in time counts: the rest was work for nobody.
    let served = per_second(total.acknowledged, *lasting);
    let percent = served * 100 / peak;
    let (p99, latest) = (beats.percentile(99), beats.percentile(100));
    println!(
        "figure: overload kind={name} seconds={} asked={} asked_per_s={asked} at_once={} acknowledged={} overloaded={} \
         interrupted={} peak_per_s={peak} served_per_s={served} throughput_percent={percent} \
         requests_in_flight={}/{} request_bytes={}/{} waiting={}/{} resident_growth_kib={}/{} \
         heartbeat_late_p99_us={} heartbeat_late_max_us={} at_peak_p99_us={} at_peak_max_us={}",
        lasting.as_secs(),
        total.asked,
        most.at_once,
        total.acknowledged,
        total.overloaded,
        total.interrupted,
        most.requests,
        bounds.requests,
        most.bytes,
        bounds.bytes,
        most.waiting,
        bounds.waiting,
        most.resident_bytes.saturating_sub(before) >> 10,
        growth_max >> 10,
        p99.as_micros(),
        latest.as_micros(),
        beats_at_peak.percentile(99).as_micros(),
        beats_at_peak.percentile(100).as_micros(),
    );
    assert!(most.looks > 100, "it was hardly watched");
    assert!(most.is_within(bounds), "{most:?} is not within {bounds:?}");
    // The watch bites: half the room would not have done.
    assert!(!most.is_within(Bounds { requests: REQUESTS_MAX / 2, ..bounds }), "{most:?}: the room was never used");
    assert!(total.overloaded > total.acknowledged, "it was no flood: {total:?}");
    let processor = (*processor_percent).min(process::processor_percent());
    if processor < PROCESSOR_PERCENT_MIN {
        not_run(format_args!(
            "throughput and heartbeat under a flood, kind={name}: other processes leave {processor} % of a processor and \
             {PROCESSOR_PERCENT_MIN} % are needed"
        ));
        return;
    }
    match kind {
        Kind::Messages { .. } => {
            assert!(asked >= TIMES as u64 * peak, "{asked} per second are not {TIMES} times the peak of {peak}");
        }
        Kind::Handles { callers } => {
            assert_eq!(*callers, TIMES * REQUESTS_MAX);
            assert!(most.at_once * 100 >= callers * AT_ONCE_PERCENT, "{most:?}: not all of them asked at once");
        }
    }
    assert!(percent >= THROUGHPUT_PERCENT_MIN, "throughput fell to {percent} % of the peak");
    let prompt = |percent, max: Duration| {
        beats.percentile(percent) <= max.max(LATE_BEAT_TIMES * beats_at_peak.percentile(percent))
    };
    assert!(
        prompt(99, LATE_BEAT_P99_MAX) && prompt(100, LATE_BEAT_MAX),
        "the runtime is not prompt: {p99:?}, {latest:?}"
    );
}

/// Measures what storage takes at most: as many callers as there is room for.
async fn peak(sessions: &[Session], lasting: Duration) -> (u64, Beats) {
    let (is_over, beating) = heartbeat();
    let total = sum(&by_handles(sessions.to_vec(), 0, lasting).await);
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(total.acknowledged, total.asked, "there is room for all of these");
    // Each time that the disk works it takes what there is room for, which waits then. What a quiet time gets in behind that, in the
    // moment before the disk stands again, a flood does not: the scheduler's doing, and no measure of the engine.
    let most = per_second(REQUESTS_MAX as u64, STANDS);
    (per_second(total.acknowledged, lasting).min(most), beating.await.expect("it beats"))
}

#[test]
fn ten_times_what_storage_takes_by_messages_is_shed_at_once_and_throughput_holds() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    alone(|| {
        let processor_percent = process::processor_percent();
        runtime().block_on(async {
            let (measured, lasting) = (effort(2, 10), effort(5, 60));
            let (measured, lasting) = (Duration::from_secs(measured), Duration::from_secs(lasting));
            let place = Place::new();
            let (engine, sessions) = open(&place).await;
            let quick = median_latency(&sessions[0]).await;
            let disk = slow_disk(&engine);
            let (peak, beats_at_peak) = peak(&sessions, measured).await;
            disk.end();
            let mut touched = Vec::new();
            for session in &sessions {
                touched.push(read(session).await.touch_count());
            }
            let before = Before::now(&engine, quick);
            let disk = slow_disk(&engine);
            let (watching, (is_over, beating)) = (watch(&engine), heartbeat());
            let first = 1 << 40;
            let rate = peak * TIMES as u64 * AIM_PERCENT / 100;
            let (tallies, sent_in) = by_messages(&engine, first, rate, lasting).await;
            is_over.store(true, Ordering::SeqCst);
            let (most, beats) = (watching.end(), beating.await.expect("it beats"));
            disk.end();
            let total = sum(&tallies);
            let flood = Flood {
                kind: Kind::Messages { sent_in },
                lasting,
                peak,
                most,
                beats,
                beats_at_peak,
                resident_before: before.resident_bytes,
                processor_percent,
            };
            judge(&flood, total);
            assert_eq!(total.interrupted, 0);
            before.is_back(&engine, &sessions[0]).await;
            for ((session, mut tally), touched) in sessions.iter().zip(tallies).zip(touched) {
                tally.touches += touched;
                tally.holds_for(session).await;
            }
            engine.shutdown().await.expect("it shuts down");
        });
    });
}

#[test]
fn ten_times_as_many_callers_as_there_is_room_for_wait_for_half_of_their_deadlines_and_throughput_holds() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    alone(|| {
        let processor_percent = process::processor_percent();
        runtime().block_on(async {
            let (measured, lasting) = (effort(2, 10), effort(5, 60));
            let (measured, lasting) = (Duration::from_secs(measured), Duration::from_secs(lasting));
            let place = Place::new();
            let (engine, sessions) = open(&place).await;
            let quick = median_latency(&sessions[0]).await;
            let disk = slow_disk(&engine);
            let (peak, beats_at_peak) = peak(&sessions, measured).await;
            disk.end();
            let callers = TIMES * REQUESTS_MAX;
            let mut flood = Vec::new();
            for n in 0..callers {
                let new = NewSession::with_id(format!("caller{n}")).bytes(payload(0));
                let session = engine.create(new).await.expect("it is created");
                // In memory, as it will be afterwards.
                read(&session).await;
                flood.push(session);
            }
            let before = Before::now(&engine, quick);
            let disk = slow_disk(&engine);
            let (watching, (is_over, beating)) = (watch(&engine), heartbeat());
            let hasty = flood.iter().map(|session| session.clone().with_deadline(DEADLINE)).collect();
            let tallies = by_handles(hasty, 0, lasting).await;
            is_over.store(true, Ordering::SeqCst);
            let (most, beats) = (watching.end(), beating.await.expect("it beats"));
            disk.end();
            let watched = Flood {
                kind: Kind::Handles { callers },
                lasting,
                peak,
                most,
                beats,
                beats_at_peak,
                resident_before: before.resident_bytes,
                processor_percent,
            };
            assert!(tallies.iter().all(|tally| tally.asked > 1), "not all of them ask again and again");
            judge(&watched, sum(&tallies));
            before.is_back(&engine, &sessions[0]).await;
            for (session, tally) in flood.iter().zip(tallies) {
                tally.holds_for(session).await;
            }
            engine.shutdown().await.expect("it shuts down");
        });
    });
}
