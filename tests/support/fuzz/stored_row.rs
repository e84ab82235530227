//! Rows that the engine never wrote: any value of any type in any column, rows too many and rows too few, other numbers
//! in `meta`.
//!
//! What an answer must be is worked out by a decoder of the harness's own, from what a plain connection reads. A row is
//! `Corrupt`, over, or served exactly as it stands; the row beside it is served; nothing of the engine breaks.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::{Connection, params, types::Value as SqlValue};
use sessile::{
    Change, Durability, Engine, EngineBuilder, Error, Filter, NewSession, Order, Query, Serial, Session,
    testing::ManualClock,
};

use super::{
    harness::{block_on, open, scratch},
    value::Value,
};
use crate::START;

/// Most edits of one input, and the longest text of one: more finds nothing new.
const EDITS_MAX: usize = 8;
/// The engine's own expiry, where it has one: above how far a file may move its clock ahead.
const EXPIRY: Duration = Duration::from_secs(2 * 24 * 3_600);
/// The highest count that a row may hold.
const COUNT_MAX: i64 = 1 << 60;

/// What is done to a file behind the engine's back.
#[derive(Debug, Arbitrary)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the input")]
struct Input {
    /// Whether the columns take only what they are declared for.
    is_strict: bool,
    idle_timeout: bool,
    lifetime: bool,
    max_sessions: bool,
    edits: Vec<Edit>,
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Session {
        column: u8,
        value: Value,
    },
    Activity {
        column: u8,
        value: Value,
    },
    Meta {
        key: u8,
        value: Value,
    },
    DropMeta {
        key: u8,
    },
    DropActivity,
    Add {
        serial: Value,
        id: Value,
        data: Value,
        count: Value,
    },
    AddActivity {
        serial: Value,
        last_active: Value,
    },
    /// A save in the log of saves.
    Log {
        position: Option<i64>,
        serial: Value,
        counter: Value,
        data: Value,
    },
}

impl Edit {
    /// Makes the edit, unless SQLite refuses it.
    fn make(&self, connection: &Connection) {
        let column = |columns: &[&'static str], column: u8| columns[usize::from(column) % columns.len()];
        let key = |n| column(&["serial_next", "epoch", "sync_seq", "clock"], n);
        drop(match self {
            Self::Session { column: n, value } => {
                let column = column(&["id", "user", "counter", "metadata", "data", "serial"], *n);
                connection.execute(&format!("UPDATE session SET {column} = ?1 WHERE serial = 2"), [value])
            }
            Self::Activity { column: n, value } => {
                let columns = ["created_at", "last_active_at", "touch_count", "idle_timeout", "expires_at", "serial"];
                let column = column(&columns, *n);
                connection.execute(&format!("UPDATE activity SET {column} = ?1 WHERE serial = 2"), [value])
            }
            Self::Meta { key: n, value } => {
                connection.execute("UPDATE meta SET value = ?2 WHERE key = ?1", params![key(*n), value])
            }
            Self::DropMeta { key: n } => connection.execute("DELETE FROM meta WHERE key = ?1", [key(*n)]),
            Self::DropActivity => connection.execute("DELETE FROM activity WHERE serial = 2", []),
            Self::Add { serial, id, data, count } => connection
                .execute("INSERT INTO session VALUES (?1, ?2, NULL, 1, NULL, ?3)", params![serial, id, data])
                .and_then(|_| {
                    let serial = connection.last_insert_rowid();
                    let sql = "INSERT INTO activity VALUES (?1, ?2, ?2, ?3, NULL, NULL)";
                    connection.execute(sql, params![serial, START.as_micros(), count])
                }),
            Self::AddActivity { serial, last_active } => {
                let sql = "INSERT INTO activity VALUES (?1, ?2, ?2, 0, NULL, NULL)";
                connection.execute(sql, params![serial, last_active])
            }
            Self::Log { position, serial, counter, data } => {
                // Mostly of the row that is looked at, and newer.
                let or =
                    |value: &Value, usual: i64| if let Value::Null = value { usual.into() } else { value.to_value() };
                let sql = "INSERT INTO save_log VALUES (?1, ?2, ?3, ?4)";
                connection.execute(sql, params![position, or(serial, 2), or(counter, 1 << 20), data])
            }
        });
    }

    fn is_of_meta(&self) -> bool {
        matches!(self, Self::Meta { .. } | Self::DropMeta { .. })
    }

    fn is_of_log(&self) -> bool {
        matches!(self, Self::Log { .. })
    }
}

/// A row as a plain connection reads it.
#[derive(Debug, Clone)]
pub struct Raw {
    serial: i64,
    id: SqlValue,
    user: SqlValue,
    counter: SqlValue,
    metadata: SqlValue,
    data: SqlValue,
    created_at: SqlValue,
    last_active_at: SqlValue,
    touch_count: SqlValue,
    idle_timeout: SqlValue,
    expires_at: SqlValue,
}

/// A row that makes sense.
#[derive(Debug)]
pub struct Decoded {
    user: Option<String>,
    metadata: BTreeMap<String, String>,
    is_json: bool,
    data: Vec<u8>,
    created_at: i64,
    last_active_at: i64,
    touch_count: i64,
    idle_timeout: Option<i64>,
    expires_at: Option<i64>,
}

/// What makes sense of rows: `None` for a damaged one.
pub type Decoder = fn(&Raw) -> Option<Decoded>;

/// Decoders that are wrong: what tells an engine's mistake from a right answer must find each of them out.
pub const WRONG_DECODERS: [(&str, Decoder); 4] = [
    ("data that is no text and no blob is null", |raw| {
        let mut raw = raw.clone();
        if matches!(raw.data, SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_)) {
            raw.data = SqlValue::Text("null".to_owned());
        }
        decode(&raw)
    }),
    ("a count of any number will do", |raw| {
        let mut raw = raw.clone();
        if let SqlValue::Integer(count) = &mut raw.touch_count {
            *count &= COUNT_MAX - 1;
        }
        decode(&raw)
    }),
    ("metadata that is no map is none", |raw| {
        decode(raw).or_else(|| decode(&Raw { metadata: SqlValue::Null, ..raw.clone() }))
    }),
    ("a row without its activity is new", |raw| {
        let mut raw = raw.clone();
        for column in [&mut raw.created_at, &mut raw.last_active_at, &mut raw.touch_count] {
            if *column == SqlValue::Null {
                *column = SqlValue::Integer(0);
            }
        }
        decode(&raw)
    }),
];

/// Takes the input for edits of a file.
pub(super) fn stored_row(input: &[u8]) {
    stored_row_by(input, decode);
}

/// Does so by another decoder, which must be found out if it is wrong.
pub fn stored_row_by(input: &[u8], decoder: Decoder) {
    let Ok(mut input) = Input::arbitrary_take_rest(Unstructured::new(input)) else { return };
    input.edits.truncate(EDITS_MAX);
    let directory = scratch();
    let path = directory.path().join("sessions.db");
    let clock = Arc::new(ManualClock::new(START));
    let builder = || {
        let mut builder = Engine::builder(&path).clock(clock.clone());
        if input.idle_timeout {
            builder = builder.idle_timeout(EXPIRY);
        }
        if input.lifetime {
            builder = builder.lifetime(EXPIRY);
        }
        if input.max_sessions {
            builder = builder.max_sessions(1_000);
        }
        builder
    };
    fs::write(&path, template(input.is_strict)).expect("a file");
    let connection = Connection::open(&path).expect("a plain connection");
    input.edits.iter().for_each(|edit| edit.make(&connection));
    let raw = raw(&connection);
    drop(connection);
    let has_meta = input.edits.iter().any(Edit::is_of_meta);
    block_on(serve(&builder, raw.as_ref(), decoder, has_meta, &input));
}

/// Returns a file with the sessions `good` and `bad`, rows 1 and 2.
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

fn raw(connection: &Connection) -> Option<Raw> {
    // Of the saves in the log that of the highest counter counts, if it is above the row's.
    let sql = "SELECT s.serial, s.id, s.user, s.counter, s.metadata,
            CASE WHEN l.serial IS NULL THEN s.data ELSE l.data END,
            a.created_at, a.last_active_at, a.touch_count, a.idle_timeout, a.expires_at
        FROM session s LEFT JOIN activity a ON a.serial = s.serial
            LEFT JOIN (SELECT * FROM save_log WHERE serial = 2 ORDER BY counter DESC, position LIMIT 1) l
                ON l.counter > s.counter
        WHERE s.serial = 2";
    let value = |row: &rusqlite::Row<'_>, column| -> rusqlite::Result<SqlValue> {
        use rusqlite::types::ValueRef;
        // Text that is not UTF-8 is told from all others by a type of its own.
        Ok(match row.get_ref(column)? {
            ValueRef::Text(text) if std::str::from_utf8(text).is_err() => SqlValue::Real(f64::NAN),
            other => other.try_into()?,
        })
    };
    let read = |row: &rusqlite::Row<'_>| {
        let mut columns = (1..=10).map(|column| value(row, column));
        let mut next = || columns.next().expect("ten columns");
        let mut raw = Raw {
            serial: row.get(0)?,
            id: next()?,
            user: next()?,
            counter: next()?,
            metadata: next()?,
            data: next()?,
            created_at: next()?,
            last_active_at: next()?,
            touch_count: next()?,
            idle_timeout: next()?,
            expires_at: next()?,
        };
        // Data is bytes: here text that is not UTF-8 is as good, and passed on in a form of its own.
        if let rusqlite::types::ValueRef::Text(text) = row.get_ref(5)?
            && std::str::from_utf8(text).is_err()
        {
            raw.data = SqlValue::Text(text.iter().map(|byte| char::from(*byte)).collect::<String>() + "\u{ffff}");
        }
        Ok(raw)
    };
    connection.query_row(sql, [], read).ok()
}

fn decode(raw: &Raw) -> Option<Decoded> {
    let integer = |value: &SqlValue| if let SqlValue::Integer(number) = value { Some(*number) } else { None };
    let optional = |value: &SqlValue| if *value == SqlValue::Null { Some(None) } else { integer(value).map(Some) };
    match &raw.id {
        SqlValue::Text(id) if !id.is_empty() && id.len() <= 255 && !id.chars().any(char::is_control) => {}
        _ => return None,
    }
    integer(&raw.counter)?;
    let touch_count = integer(&raw.touch_count)?;
    if !(0..=COUNT_MAX).contains(&touch_count) {
        return None;
    }
    Some(Decoded {
        user: match &raw.user {
            SqlValue::Null => None,
            SqlValue::Text(user) => Some(user.clone()),
            _ => return None,
        },
        metadata: match &raw.metadata {
            SqlValue::Null => BTreeMap::new(),
            SqlValue::Text(text) => serde_json::from_str(text).ok()?,
            SqlValue::Blob(bytes) => serde_json::from_slice(bytes).ok()?,
            _ => return None,
        },
        is_json: matches!(raw.data, SqlValue::Text(_)),
        data: match &raw.data {
            SqlValue::Text(text) => match text.strip_suffix('\u{ffff}') {
                Some(bytes) => bytes.chars().map(|byte| byte as u8).collect(),
                None => text.clone().into_bytes(),
            },
            SqlValue::Blob(bytes) => bytes.clone(),
            _ => return None,
        },
        created_at: integer(&raw.created_at)?,
        last_active_at: integer(&raw.last_active_at)?,
        touch_count,
        idle_timeout: optional(&raw.idle_timeout)?,
        expires_at: optional(&raw.expires_at)?,
    })
}

impl Decoded {
    fn is_over(&self, input: &Input, now: i64) -> bool {
        let expiry = EXPIRY.as_micros() as i64;
        let idle = self.idle_timeout.or(input.idle_timeout.then_some(expiry));
        let end = self.expires_at.or(input.lifetime.then(|| self.created_at.saturating_add(expiry)));
        let is_idle = |idle| now >= self.last_active_at.saturating_add(idle);
        // A timeout of the largest number is none.
        idle.filter(|idle| *idle != i64::MAX).is_some_and(is_idle) || end.is_some_and(|end| now >= end)
    }
}

async fn serve(
    builder: &impl Fn() -> EngineBuilder,
    raw: Option<&Raw>,
    decoder: Decoder,
    has_meta: bool,
    input: &Input,
) {
    let engine = match open(builder).await {
        Ok(engine) => engine,
        Err(error) => {
            // An entry of the log that names no row, or no counter, could be anybody's.
            let is_log_damaged = !input.is_strict && input.edits.iter().any(Edit::is_of_log);
            assert!(has_meta || is_log_damaged, "damaged rows keep no engine from opening: {error:?} {input:?}");
            return;
        }
    };
    // By a file's mark the clock may be a day ahead; what is over then is not worked out.
    if let Some(raw) = raw.filter(|_| !has_meta) {
        is_as_it_stands(&engine, raw, decoder, input).await;
    }
    beside(&engine, input).await;
    engine_wide(&engine, has_meta, input).await;
    if let Some(Raw { id: SqlValue::Text(id), .. }) = raw
        && let Ok(session) = engine.session(id.as_str())
    {
        every_operation(&session, has_meta, input).await;
    }
    let stats = engine.stats();
    assert_eq!(stats.restarts, 0, "nothing breaks: {input:?}");
    engine.delete_where(Filter::all().serial(Serial::from(2))).await.expect("a damaged row can be deleted");
    let good = engine.session("good").expect("a valid id");
    let before = good.get().await.expect("it is read").expect("it is there");
    engine.shutdown().await.expect("it shuts down");
    if has_meta {
        return;
    }
    let engine = open(builder).await.expect("it opens again");
    let after = engine.session("good").expect("a valid id").get().await.expect("it is read").expect("it is there");
    assert_eq!(after.bytes(), before.bytes());
    assert_eq!((after.version(), after.touch_count()), (before.version(), before.touch_count()));
    engine.shutdown().await.expect("it shuts down");
}

/// Checks that a get answers what the row holds, if that makes sense.
async fn is_as_it_stands(engine: &Engine, raw: &Raw, decoder: Decoder, input: &Input) {
    let SqlValue::Text(id) = &raw.id else { return };
    let Ok(session) = engine.session(id.as_str()) else { return };
    let answer = session.get().await;
    let Some(row) = decoder(raw) else {
        match answer {
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
    let only_good = Filter::all().serial(Serial::from(1));
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
        Ok(session) => assert!(session.get().await.expect("it is read").is_some() || has_meta, "{input:?}"),
        // The numbers on record may be used up, or be those of rows that are there.
        Err(Error::Storage { .. }) if has_meta || input.edits.iter().any(|e| !matches!(e, Edit::DropActivity)) => {}
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
