//! What is done to a file behind the engine's back, as an input has it.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::{Connection, params};
use sessile::EngineBuilder;

use super::super::value::{EDGES, Value};
use crate::START;

/// Most edits of one input, and entries of the log of touches: more find nothing new.
const EDITS_MAX: usize = 8;
/// The engine's own expiry, where it has one: above how far a file may move its clock ahead.
pub(super) const EXPIRY: Duration = Duration::from_secs(2 * 24 * 3_600);
/// What a number in an entry of the log of touches may not be: some readers know each of these.
const TOKENS: [&str; 12] = [
    "-1",
    "1.5",
    "2.0",
    "1e3",
    "9223372036854775808",
    "18446744073709551616",
    "-9223372036854775809",
    "null",
    "true",
    "\"2\"",
    "[2]",
    "{}",
];

/// An input. What is new goes to its end, so that the bytes of the corpus keep their meaning.
#[derive(Debug, Arbitrary)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the input")]
pub(super) struct Input {
    /// Whether the columns take only what they are declared for.
    pub(super) is_strict: bool,
    pub(super) idle_timeout: bool,
    pub(super) lifetime: bool,
    max_sessions: bool,
    edits: Vec<Edit>,
    touches: Vec<Touches>,
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

/// An entry of the log of touches.
#[derive(Debug, Arbitrary)]
struct Touches {
    /// Whether the edits come after it, and their triggers fold it.
    is_early: bool,
    position: Option<i64>,
    since: Value,
    text: Text,
}

/// What an entry holds.
#[derive(Debug, Arbitrary)]
enum Text {
    /// Row numbers, times and counts: mostly as they should be.
    Touched(Vec<[Number; 3]>),
    /// Arrays in an array.
    Arrays(Vec<Vec<Item>>),
    Any(Value),
}

#[derive(Debug, Arbitrary)]
enum Number {
    Small(u8),
    Edge(u8),
    Any(i64),
}

#[derive(Debug, Arbitrary)]
enum Item {
    Number(Number),
    Token(u8),
}

impl Input {
    /// Reads an input from any bytes.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let mut input = Self::arbitrary_take_rest(Unstructured::new(bytes)).ok()?;
        input.edits.truncate(EDITS_MAX);
        input.touches.truncate(EDITS_MAX);
        Some(input)
    }

    /// Sets the engine's options.
    pub(super) fn set(&self, mut builder: EngineBuilder) -> EngineBuilder {
        if self.idle_timeout {
            builder = builder.idle_timeout(EXPIRY);
        }
        if self.lifetime {
            builder = builder.lifetime(EXPIRY);
        }
        if self.max_sessions {
            builder = builder.max_sessions(1_000);
        }
        builder
    }

    /// Makes all edits but those that SQLite refuses.
    pub(super) fn edit(&self, connection: &Connection) {
        let touches = |is_early| {
            let these = self.touches.iter().filter(move |touches| touches.is_early == is_early);
            these.for_each(|touches| touches.log(connection));
        };
        touches(true);
        self.edits.iter().for_each(|edit| edit.make(connection));
        touches(false);
    }

    /// Whether there are numbers of the engine's own among what is edited.
    pub(super) fn has_meta(&self) -> bool {
        self.edits.iter().any(|edit| matches!(edit, Edit::Meta { .. } | Edit::DropMeta { .. }))
    }

    /// Whether the numbers of new rows may be taken.
    pub(super) fn takes_numbers(&self) -> bool {
        self.edits.iter().any(|edit| !matches!(edit, Edit::DropActivity))
    }

    /// Whether saves were logged.
    pub(super) fn has_saves(&self) -> bool {
        self.edits.iter().any(|edit| matches!(edit, Edit::Log { .. }))
    }
}

/// Takes a value for another one, mostly the usual.
fn or(value: &Value, usual: i64) -> rusqlite::types::Value {
    if let Value::Null = value { usual.into() } else { value.to_value() }
}

impl Edit {
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
                let sql = "INSERT INTO save_log VALUES (?1, ?2, ?3, ?4)";
                connection.execute(sql, params![position, or(serial, 2), or(counter, 1 << 20), data])
            }
        });
    }
}

impl Touches {
    fn log(&self, connection: &Connection) {
        let sql = "INSERT INTO touch_log VALUES (?1, ?2, ?3)";
        let since = or(&self.since, START.as_micros());
        drop(match &self.text {
            Text::Touched(rows) => {
                let rows = rows.iter().map(|row| array(row.iter().map(Number::text)));
                connection.execute(sql, params![self.position, since, array(rows)])
            }
            Text::Arrays(arrays) => {
                let arrays = arrays.iter().map(|items| array(items.iter().map(Item::text)));
                connection.execute(sql, params![self.position, since, array(arrays)])
            }
            Text::Any(value) => connection.execute(sql, params![self.position, since, value]),
        });
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

impl Number {
    fn text(&self) -> String {
        match self {
            Self::Small(number) => number.to_string(),
            Self::Edge(edge) => EDGES[usize::from(*edge) % EDGES.len()].to_string(),
            Self::Any(number) => number.to_string(),
        }
    }
}

impl Item {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.text(),
            Self::Token(token) => TOKENS[usize::from(*token) % TOKENS.len()].to_owned(),
        }
    }
}
