//! What a column may hold: any value of any of SQLite's types, and those that are most likely to be mistaken.

use arbitrary::Arbitrary;
use rusqlite::{
    ToSql,
    types::{ToSqlOutput, Value as SqlValue, ValueRef},
};

/// Integers at the ends of what the engine reckons with.
pub(super) const EDGES: [i64; 14] = [
    i64::MIN,
    i64::MIN + 1,
    i64::MAX,
    i64::MAX - 1,
    -1,
    0,
    1,
    1 << 60,
    (1 << 60) + 1,
    i64::MAX - 32_768,
    1_700_000_000_000_000,
    1_700_000_000_000_001,
    i64::MIN + 1_700_000_000_000_000,
    i64::MAX - 1_700_000_000_000_000,
];
/// Texts that mean something to one of the readers.
const TEXTS: [&str; 16] = [
    "",
    "{}",
    "null",
    "{\"k\":\"v\"}",
    "{\"k\":\"v\",\"k\":\"w\"}",
    "{\"k\":1}",
    "[1]",
    "{\"a\\u0000b\":\"\\ud83e\\udd80\"}",
    "9223372036854775808",
    "-1",
    "2025-01-01T00:00:00",
    "2025-03-30T02:30:00.000001",
    "2025-01-01T00:00:00+23:59",
    "-009999-01-01T00:00:00",
    "9999-12-31T23:59:59.999999999",
    "good",
];

/// A value to put in a column.
#[derive(Debug, Clone, Arbitrary)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Edge(u8),
    Real(f64),
    Text(String),
    Known(u8),
    /// Text that need not be UTF-8.
    TextBytes(Vec<u8>),
    Blob(Vec<u8>),
    Time(Stamp),
}

/// A time in one of many forms, most of them valid.
#[derive(Debug, Clone, Arbitrary)]
pub(super) struct Stamp {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    fraction: Option<u32>,
    form: u8,
}

impl Stamp {
    /// Writes it.
    pub(super) fn text(&self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        let date = format!("{:04}-{:02}-{:02}", year % 10_000, month % 13, day % 32);
        let time = format!("{:02}:{:02}:{:02}", hour % 25, minute % 61, second % 61);
        let between = if self.form & 1 == 0 { 'T' } else { ' ' };
        let fraction = self.fraction.map_or_else(String::new, |fraction| format!(".{}", fraction % 1_000_000_000));
        let zone = ["", "", "", "Z", "+08:00", "-00:00", "[UTC]", "z"][usize::from(self.form >> 1) % 8];
        format!("{date}{between}{time}{fraction}{zone}")
    }
}

impl Value {
    /// Returns the value as SQLite would.
    pub(super) fn to_value(&self) -> SqlValue {
        match self {
            Self::Null => SqlValue::Null,
            Self::Integer(number) => SqlValue::Integer(*number),
            Self::Edge(edge) => SqlValue::Integer(EDGES[usize::from(*edge) % EDGES.len()]),
            Self::Real(number) => SqlValue::Real(*number),
            Self::Text(text) => SqlValue::Text(text.clone()),
            Self::Known(known) => SqlValue::Text(TEXTS[usize::from(*known) % TEXTS.len()].to_owned()),
            Self::TextBytes(bytes) | Self::Blob(bytes) => SqlValue::Blob(bytes.clone()),
            Self::Time(stamp) => SqlValue::Text(stamp.text()),
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::TextBytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Text(bytes)),
            other => ToSqlOutput::Owned(other.to_value()),
        })
    }
}
