//! Rows that the engine never wrote: any value of any type in any column, rows too many and rows too few, entries of any kind
//! in the logs of saves and touches, other numbers in `meta`.
//!
//! What an answer must be is worked out by a decoder of the harness's own, from what a plain connection reads. A row is
//! `Corrupt`, over, or served exactly as it stands; the row beside it is served; nothing of the engine breaks.

mod edits;
mod row;

use std::{
    fs,
    sync::{Arc, OnceLock},
};

use rusqlite::{Connection, types::Value as SqlValue};
use sessile::{
    Change, Durability, Engine, EngineBuilder, Error, Filter, NewSession, Order, Query, Serial, Session,
    testing::ManualClock,
};

pub use self::row::{Decoder, WRONG_DECODERS};
use self::{
    edits::{EXPIRY, Input},
    row::{COUNT_MAX, Raw, decode, raw, value},
};
use super::harness::{block_on, open, scratch};
use crate::START;

/// The rows of the sessions `good` and `bad`. What is edited is mostly the latter's.
const GOOD: i64 = 1;
const BAD: i64 = 2;

/// Takes the input for edits of a file.
pub(super) fn stored_row(input: &[u8]) {
    stored_row_by(input, decode);
}

/// Does so by another decoder, which must be found out if it is wrong.
pub fn stored_row_by(input: &[u8], decoder: Decoder) {
    let Some(input) = Input::new(input) else { return };
    let directory = scratch();
    let path = directory.path().join("sessions.db");
    let clock = Arc::new(ManualClock::new(START));
    let builder = || input.set(Engine::builder(&path).clock(clock.clone()));
    fs::write(&path, template(input.is_strict)).expect("a file");
    let connection = Connection::open(&path).expect("a plain connection");
    input.edit(&connection);
    let rows = [GOOD, BAD].map(|serial| raw(&connection, serial));
    for raw in rows.iter().flatten() {
        is_shown(&connection, raw, decoder, &input);
    }
    drop(connection);
    block_on(serve(&builder, &rows, decoder, &input));
}

/// Returns a file with the two sessions.
fn template(is_strict: bool) -> &'static [u8] {
    static TEMPLATES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let templates = TEMPLATES.get_or_init(|| {
        let directory = scratch();
        let path = directory.path().join("sessions.db");
        let builder = || Engine::builder(&path).clock(Arc::new(ManualClock::new(START)));
        block_on(async {
            let engine = open(builder).await.expect("a new file opens");
            for id in ["good", "bad"] {
                let new = NewSession::with_id(id).user("ada").data(id).metadata("k", "v");
                engine.create(new).await.expect("it is free");
            }
            engine.shutdown().await.expect("it shuts down");
        });
        let strict = fs::read(&path).expect("the file");
        loosen(&Connection::open(&path).expect("a plain connection"));
        [strict, fs::read(&path).expect("the file")]
    });
    &templates[usize::from(!is_strict)]
}

/// Makes the columns take anything, and nothing.
fn loosen(connection: &Connection) {
    let sql = "PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = replace(replace(replace(sql, ') STRICT', ')'), '), WITHOUT', ') WITHOUT'), ' NOT NULL', '')
            WHERE type = 'table';
        PRAGMA writable_schema = RESET";
    connection.execute_batch(sql).expect("the schema is writable");
}

async fn serve(builder: &impl Fn() -> EngineBuilder, rows: &[Option<Raw>; 2], decoder: Decoder, input: &Input) {
    let has_meta = input.has_meta();
    let engine = match open(builder).await {
        Ok(engine) => engine,
        Err(error) => {
            // A save in the log that names no row, or no counter, could be anybody's.
            let is_log_damaged = !input.is_strict && input.has_saves();
            assert!(has_meta || is_log_damaged, "damaged rows keep no engine from opening: {error:?} {input:?}");
            return;
        }
    };
    // By a file's mark the clock may be a day ahead; what is over then is not worked out.
    for raw in rows.iter().flatten().filter(|_| !has_meta) {
        is_as_it_stands(&engine, raw, decoder, input).await;
    }
    // A save in the log, too, may be of the one beside.
    if rows[0].as_ref().is_some_and(|raw| decode(raw).is_none()) {
        return engine.shutdown().await.expect("it shuts down");
    }
    beside(&engine, input).await;
    engine_wide(&engine, has_meta, input).await;
    if let Some(Raw { id: SqlValue::Text(id), .. }) = &rows[1]
        && let Ok(session) = engine.session(id.as_str())
    {
        every_operation(&session, has_meta, input).await;
    }
    let stats = engine.stats();
    assert_eq!(stats.restarts, 0, "nothing breaks: {input:?}");
    engine.delete_where(Filter::all().serial(Serial::from(BAD))).await.expect("a damaged row can be deleted");
    let good = engine.session("good").expect("a valid id");
    let before = good.get().await.expect("it is read").expect("it is there");
    engine.shutdown().await.expect("it shuts down");
    if has_meta {
        return;
    }
    let engine = open(builder).await.expect("it opens again");
    let after = engine.session("good").expect("a valid id").get().await.expect("it is read").expect("it is there");
    assert_eq!(after.bytes(), before.bytes());
    let count = before.touch_count().min(COUNT_MAX.cast_unsigned());
    assert_eq!((after.version(), after.touch_count()), (before.version(), count));
    engine.shutdown().await.expect("it shuts down");
}

/// Checks that others are shown the activity of a row as it is, if that makes sense.
fn is_shown(connection: &Connection, raw: &Raw, decoder: Decoder, input: &Input) {
    let sql = "SELECT last_active_at, touch_count FROM current_session WHERE serial = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((value(row, 0)?, value(row, 1)?));
    let shown = connection.query_row(sql, [raw.serial], read);
    let shown = shown.unwrap_or_else(|error| panic!("no entry spoils the view: {error:?} {input:?}"));
    // Numbers are numbers there only if the columns are.
    if let Some(row) = decoder(raw).filter(|_| input.is_strict) {
        assert_eq!(shown, (row.last_active_at.into(), row.touch_count.into()), "{raw:?} {input:?}");
    }
}

/// Checks that a get answers what the row holds, if that makes sense.
async fn is_as_it_stands(engine: &Engine, raw: &Raw, decoder: Decoder, input: &Input) {
    let SqlValue::Text(id) = &raw.id else { return };
    let Ok(session) = engine.session(id.as_str()) else { return };
    let answer = session.get().await;
    let Some(row) = decoder(raw) else {
        match answer {
            _ if raw.is_to_be_raised() => {}
            Err(Error::Corrupt { serial }) => assert_eq!(serial.get(), raw.serial),
            other => panic!("a damaged row is {other:?}: {raw:?} {input:?}"),
        }
        return;
    };
    let is_over = row.is_over(input, START.as_micros());
    let record = match answer {
        Ok(None) if is_over => return,
        Ok(Some(record)) if !is_over => record,
        other => panic!("a row that is {} is {other:?}: {raw:?} {input:?}", if is_over { "over" } else { "alive" }),
    };
    assert_eq!(record.serial().get(), raw.serial, "{raw:?}");
    assert_eq!(record.user(), row.user.as_deref(), "{raw:?}");
    assert_eq!(*record.metadata(), row.metadata, "{raw:?}");
    assert_eq!((record.is_json(), record.bytes().as_ref()), (row.is_json, &row.data[..]), "{raw:?}");
    assert_eq!(record.created_at().as_micros(), row.created_at, "{raw:?}");
    assert_eq!(record.last_active_at().as_micros(), row.last_active_at, "{raw:?}");
    assert_eq!(record.touch_count().cast_signed(), row.touch_count, "{raw:?}");
}

/// Checks that the session beside it is served.
async fn beside(engine: &Engine, input: &Input) {
    let good = engine.session("good").expect("a valid id");
    let before = good.get().await.expect("it is read").expect("it is there").touch_count();
    good.touch().await.expect("it is touched");
    good.touch_with(Durability::Committed).await.expect("it is touched");
    good.save("still good").await.expect("it is saved");
    let record = good.get().await.expect("it is read").expect("it is there");
    assert_eq!(record.data::<String>().expect("it decodes"), "still good", "{input:?}");
    assert_eq!(record.touch_count(), before + 2, "{input:?}");
}

async fn engine_wide(engine: &Engine, has_meta: bool, input: &Input) {
    let only_good = Filter::all().serial(Serial::from(GOOD));
    for order in [Order::Oldest, Order::Newest, Order::RecentlyActive] {
        let page = engine.list(Query::new(only_good.clone()).order(order)).await.expect("the good one is listed");
        assert_eq!(page.items.len(), 1, "{input:?}");
        match engine.list(Query::new(Filter::all()).order(order)).await {
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(error) => panic!("{error:?}: {input:?}"),
        }
    }
    let count = engine.count(Filter::all()).await.expect("all are counted");
    assert!(count >= 1, "{input:?}");
    for filter in [Filter::all().user("ada"), Filter::all().id_prefix("g"), Filter::all().metadata("k", "v")] {
        let count = engine.count(filter).await.expect("some are counted");
        assert!(count >= 1, "{input:?}");
    }
    engine.sweep().await.expect("the expired are swept away");
    let gone = engine.delete_where(Filter::all().id_prefix("nobody").active(..START)).await;
    gone.expect("nothing is deleted");
    match engine.create(NewSession::new().user("ada").data("new")).await {
        Ok(session) => {
            let record = session.get().await.expect("it is read");
            // Where the clock is ahead, it may be over.
            assert!(record.map_or(has_meta, |record| record.touch_count() == 0), "{input:?}");
        }
        // The numbers on record may be used up, or be those of rows that are there.
        Err(Error::Storage { .. }) if has_meta || input.takes_numbers() => {}
        Err(error) => panic!("{error:?}: {input:?}"),
    }
    let flushed = engine.flush().await;
    assert!(flushed.is_ok() || has_meta, "{flushed:?}: {input:?}");
}

/// Checks that each operation does its work or names what is wrong.
async fn every_operation(session: &Session, has_meta: bool, input: &Input) {
    let answers = [
        session.touch().await.err(),
        session.touch_with(Durability::Committed).await.err(),
        session.try_update(|_: &mut serde_json::Value| Err::<(), ()>(())).await.err(),
        session.apply(Change::new().user("bob").metadata("k", "w")).await.err(),
        session.save("whole").await.err(),
        session.update(|data: &mut String| data.push('!')).await.err(),
        session.apply(Change::new().idle_timeout(EXPIRY).clear_expires_at()).await.err(),
        session.rotate(Change::new()).await.err(),
        session.delete().await.err(),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            None | Some(Error::NotFound | Error::NotJson | Error::Decode { .. } | Error::Corrupt { .. }) => {}
            Some(Error::Storage { .. }) if has_meta => {}
            Some(error) => panic!("call {n}: {error:?}: {input:?}"),
        }
    }
}
