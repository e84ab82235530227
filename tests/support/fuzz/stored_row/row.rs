//! What an answer must be: rows and the two logs over them, as a plain connection reads them, and what makes sense of it.

use std::collections::BTreeMap;

use rusqlite::{
    Connection,
    types::{Value as SqlValue, ValueRef},
};

use super::edits::{EXPIRY, Input};

/// The highest count that a row may hold.
pub(super) const COUNT_MAX: i64 = 1 << 60;

/// A row as a plain connection reads it.
#[derive(Debug, Clone)]
pub struct Raw {
    pub(super) serial: i64,
    pub(super) id: SqlValue,
    user: SqlValue,
    counter: SqlValue,
    metadata: SqlValue,
    data: SqlValue,
    created_at: SqlValue,
    last_active_at: SqlValue,
    touch_count: SqlValue,
    idle_timeout: SqlValue,
    expires_at: SqlValue,
    /// The log of touches, whichever rows they are of.
    touches: Vec<Entry>,
}

/// An entry of the log of touches.
#[derive(Debug, Clone)]
struct Entry {
    since: SqlValue,
    touches: SqlValue,
}

/// A row that makes sense.
#[derive(Debug)]
pub struct Decoded {
    pub(super) user: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) is_json: bool,
    pub(super) data: Vec<u8>,
    pub(super) created_at: i64,
    pub(super) last_active_at: i64,
    pub(super) touch_count: i64,
    idle_timeout: Option<i64>,
    expires_at: Option<i64>,
}

/// What makes sense of rows: `None` for a damaged one.
pub type Decoder = fn(&Raw) -> Option<Decoded>;

/// Decoders that are wrong: what tells an engine's mistake from a right answer must find each of them out.
pub const WRONG_DECODERS: [(&str, Decoder); 8] = [
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
    ("touches in the log are none", |raw| decode(&Raw { touches: Vec::new(), ..raw.clone() })),
    ("the last entry of the log of touches counts", |raw| {
        let last = raw.touches.iter().rev().find(|entry| entry.of(raw.serial).next().is_some());
        decode(&Raw { touches: last.cloned().into_iter().collect(), ..raw.clone() })
    }),
    ("the log of touches stands for the row", |raw| {
        let mut row = decode(raw)?;
        if let Some(highest) = raw.logged().reduce(highest) {
            (row.last_active_at, row.touch_count) = highest;
        }
        Some(row)
    }),
    ("of a damaged entry counts what makes sense", |raw| {
        let mut raw = raw.clone();
        for Entry { touches, .. } in &mut raw.touches {
            if let SqlValue::Text(text) = touches
                && let Ok(mut parts) = serde_json::from_str::<Vec<serde_json::Value>>(text)
            {
                parts.retain(|part| touched(part).is_some());
                *text = serde_json::to_string(&parts).expect("numbers encode");
            }
        }
        decode(&raw)
    }),
];

/// Reads a row, if it is there.
pub(super) fn raw(connection: &Connection, serial: i64) -> Option<Raw> {
    // Of the saves in the log that of the highest counter counts, if it is above the row's.
    let sql = "SELECT s.serial, s.id, s.user, s.counter, s.metadata,
            CASE WHEN l.serial IS NULL THEN s.data ELSE l.data END,
            a.created_at, a.last_active_at, a.touch_count, a.idle_timeout, a.expires_at
        FROM session s LEFT JOIN activity a ON a.serial = s.serial
            LEFT JOIN (SELECT * FROM save_log WHERE serial = ?1 ORDER BY counter DESC, position LIMIT 1) l
                ON l.counter > s.counter
        WHERE s.serial = ?1";
    let touches = || -> rusqlite::Result<Vec<Entry>> {
        let mut statement = connection.prepare_cached("SELECT since, touches FROM touch_log ORDER BY position")?;
        let rows = statement.query_map([], |row| Ok(Entry { since: value(row, 0)?, touches: value(row, 1)? }))?;
        rows.collect()
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
            touches: touches()?,
        };
        // Data is bytes: here text that is not UTF-8 is as good, and passed on in a form of its own.
        if let ValueRef::Text(text) = row.get_ref(5)?
            && std::str::from_utf8(text).is_err()
        {
            raw.data = SqlValue::Text(text.iter().map(|byte| char::from(*byte)).collect::<String>() + "\u{ffff}");
        }
        Ok(raw)
    };
    connection.query_row(sql, [serial], read).ok()
}

/// Reads a value of any type.
pub(super) fn value(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<SqlValue> {
    // Text that is not UTF-8 is told from all others by a type of its own.
    Ok(match row.get_ref(column)? {
        ValueRef::Text(text) if std::str::from_utf8(text).is_err() => SqlValue::Real(f64::NAN),
        other => other.try_into()?,
    })
}

/// Makes sense of a row.
pub(super) fn decode(raw: &Raw) -> Option<Decoded> {
    let optional = |value: &SqlValue| if *value == SqlValue::Null { Some(None) } else { integer(value).map(Some) };
    match &raw.id {
        SqlValue::Text(id) if !id.is_empty() && id.len() <= 255 && !id.chars().any(char::is_control) => {}
        _ => return None,
    }
    integer(&raw.counter)?;
    let in_row = (integer(&raw.last_active_at)?, integer(&raw.touch_count)?);
    let (last_active_at, touch_count) = raw.logged().fold(in_row, highest);
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
        last_active_at,
        touch_count,
        idle_timeout: optional(&raw.idle_timeout)?,
        expires_at: optional(&raw.expires_at)?,
    })
}

fn integer(value: &SqlValue) -> Option<i64> {
    if let SqlValue::Integer(number) = value { Some(*number) } else { None }
}

/// The highest time and the highest count of two.
fn highest(one: (i64, i64), other: (i64, i64)) -> (i64, i64) {
    (one.0.max(other.0), one.1.max(other.1))
}

impl Raw {
    /// Returns what the log of touches holds for the row.
    fn logged(&self) -> impl Iterator<Item = (i64, i64)> {
        self.touches.iter().flat_map(|entry| entry.of(self.serial))
    }

    /// Whether it makes no sense only until a fold: the higher of a fraction and a number is a number.
    pub(super) fn is_to_be_raised(&self) -> bool {
        let is_fraction = |value: &SqlValue| matches!(value, SqlValue::Real(_));
        (is_fraction(&self.last_active_at) || is_fraction(&self.touch_count)) && self.logged().next().is_some()
    }
}

/// A row number, microseconds and a count of an entry.
fn touched(part: &serde_json::Value) -> Option<(i64, i64, i64)> {
    let numbers: Vec<i64> = part.as_array()?.iter().map(serde_json::Value::as_i64).collect::<Option<_>>()?;
    let [serial, after, count] = numbers[..] else { return None };
    (count >= 0).then_some((serial, after, count))
}

impl Entry {
    /// Returns times and counts of a row; none if anything of the entry makes no sense.
    fn of(&self, of: i64) -> impl Iterator<Item = (i64, i64)> {
        let read = || -> Option<Vec<(i64, i64, i64)>> {
            let since = integer(&self.since)?;
            let SqlValue::Text(text) = &self.touches else { return None };
            let parts: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
            let rows = parts.iter().map(|part| {
                let (serial, after, count) = touched(part)?;
                Some((serial, since.checked_add(after)?, count.min(COUNT_MAX)))
            });
            rows.collect()
        };
        let of_row = move |(serial, last_active, count)| (serial == of).then_some((last_active, count));
        read().unwrap_or_default().into_iter().filter_map(of_row)
    }
}

impl Decoded {
    /// Whether the session has ended.
    pub(super) fn is_over(&self, input: &Input, now: i64) -> bool {
        let expiry = EXPIRY.as_micros() as i64;
        let idle = self.idle_timeout.or(input.idle_timeout.then_some(expiry));
        let end = self.expires_at.or(input.lifetime.then(|| self.created_at.saturating_add(expiry)));
        let is_idle = |idle| now >= self.last_active_at.saturating_add(idle);
        // A timeout of the largest number is none.
        idle.filter(|idle| *idle != i64::MAX).is_some_and(is_idle) || end.is_some_and(|end| now >= end)
    }
}
