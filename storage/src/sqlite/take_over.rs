//! Taking over the database of the source document's service (rule R20).
//!
//! What a record has a place for goes there: id, user, times, count. Every other column becomes a field of the
//! session's JSON data, under its own name. Nothing of a row is lost:
//!
//! 1. A column whose place in the record does not say all of it is kept in the data, too: an empty user, a missing
//!    count, a time that would be written back differently (with an offset, say, or finer than microseconds).
//! 2. JSON text is embedded byte for byte, so its numbers keep all their digits.
//! 3. What neither can hold is an error that names the row, and the caller rolls back.

use jiff::{civil::Time, fmt::temporal::Pieces, tz::TimeZone};
use rusqlite::{Connection, Row, Transaction, params, types::ValueRef};
use serde_json::{Number, Value};

use crate::{
    cell::COUNT_MAX,
    error::{Cause, CauseKind, OpenError},
    id::SessionId,
};

use super::schema::open_error;

/// Columns without which the table is another service's.
const REQUIRED: [&str; 6] = ["session_id", "user_id", "cwd", "created_at", "last_active_at", "message_count"];

/// Columns in which the service keeps lists and maps as JSON text.
const LISTS_AND_MAPS: [&str; 6] =
    ["mcp_servers", "plugins", "allowed_tools", "disallowed_tools", "add_dirs", "metadata"];

/// SQLite's names for the row number; a column may hide some (<https://sqlite.org/rowidtable.html>).
const ROW_NUMBERS: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// Returns whether the tables are those of the source document's service, with or without additional columns.
///
/// Triggers and views are not that service's: somebody has built on the table, and would lose it.
pub(super) fn is_source_service(connection: &Connection, tables: &[String]) -> rusqlite::Result<bool> {
    if tables != ["sessions"] {
        return Ok(false);
    }
    let is_plain: bool = connection.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type IN ('trigger', 'view')) AND EXISTS
            (SELECT 1 FROM pragma_table_list('sessions') WHERE schema = 'main' AND type = 'table' AND NOT wr)",
        [],
        |row| row.get(0),
    )?;
    if !is_plain {
        return Ok(false);
    }
    let key: Vec<String> = connection
        .prepare_cached("SELECT name FROM pragma_table_xinfo('sessions') WHERE pk > 0")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let columns = columns(connection)?;
    let has = |name: &&str| columns.iter().any(|column| column == name);
    Ok(key == ["session_id"] && REQUIRED.iter().all(has) && row_number(&columns).is_some())
}

/// Copies every row into our tables, counts them and drops the old table, all inside the caller's transaction. Returns
/// how many sessions there were.
///
/// Serials follow the order of creation. Rows are copied one by one; 16 bytes of memory for each put them in order.
pub(super) fn take_over(transaction: &Transaction<'_>, zone: &TimeZone) -> Result<u64, OpenError> {
    check(transaction)?;
    let columns = columns(transaction).map_err(open_error)?;
    let row_number = row_number(&columns).ok_or_else(|| damaged("the row number has no name"))?;
    let order = order_of_creation(transaction, row_number, zone)?;
    copy(transaction, &columns, row_number, &order, zone)?;
    verify_counts(transaction, order.len() as u64)?;
    transaction
        .execute_batch(
            "DROP TABLE sessions;
             INSERT OR IGNORE INTO session_of_user SELECT user, serial FROM session WHERE typeof(user) = 'text' ORDER BY user, serial",
        )
        .map_err(open_error)?;
    transaction
        .execute("UPDATE meta SET value = ?1 WHERE key IN ('serial_next', 'users_indexed')", [order.len() as i64 + 1])
        .map_err(open_error)?;
    Ok(order.len() as u64)
}

/// Looks for damage in the file: the old table will be gone, and with it what could not be read of it.
fn check(transaction: &Transaction<'_>) -> Result<(), OpenError> {
    let answer: String = transaction.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(open_error)?;
    if answer == "ok" { Ok(()) } else { Err(damaged(&answer)) }
}

fn damaged(what: &str) -> OpenError {
    OpenError::Storage { cause: Cause::new(CauseKind::Corrupt, what) }
}

/// Returns the names of the old table's columns, generated ones among them.
fn columns(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT name FROM pragma_table_xinfo('sessions') WHERE hidden <> 1 ORDER BY cid")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Returns a name of the row number that no column has taken.
fn row_number(columns: &[String]) -> Option<&'static str> {
    ROW_NUMBERS.into_iter().find(|name| !columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
}

/// Returns when each row was created and its number, in order.
///
/// Sorted here: as texts, times of different forms would be out of order, and SQLite would keep the texts in memory.
fn order_of_creation(
    transaction: &Transaction<'_>,
    row_number: &str,
    zone: &TimeZone,
) -> Result<Vec<(i64, i64)>, OpenError> {
    // The table itself, for an index may have lost a row.
    let select = format!("SELECT {row_number}, created_at FROM sessions NOT INDEXED");
    let mut statement = transaction.prepare_cached(&select).map_err(open_error)?;
    let mut rows = statement.query([]).map_err(open_error)?;
    let mut order = Vec::new();
    while let Some(found) = rows.next().map_err(open_error)? {
        let row = found.get(0).map_err(open_error)?;
        let (created_at, _) = instant(found.get_ref_unwrap(1), zone)
            .map_err(|fault| OpenError::TakeOver { row, reason: format!("created_at {fault}") })?;
        order.push((created_at, row));
    }
    order.sort_unstable();
    Ok(order)
}

fn copy(
    transaction: &Transaction<'_>,
    columns: &[String],
    row_number: &str,
    order: &[(i64, i64)],
    zone: &TimeZone,
) -> Result<(), OpenError> {
    let names: Vec<String> = columns.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let select = format!("SELECT {} FROM sessions WHERE {row_number} = ?1", names.join(", "));
    let prepare = |sql| transaction.prepare_cached(sql).map_err(open_error);
    let mut find = prepare(&select)?;
    let mut add_session = prepare("INSERT INTO session (serial, id, user, counter, data) VALUES (?1, ?2, ?3, 1, ?4)")?;
    let mut add_activity =
        prepare("INSERT INTO activity (serial, created_at, last_active_at, touch_count) VALUES (?1, ?2, ?3, ?4)")?;
    for (serial, &(_, row)) in (1_i64..).zip(order) {
        let mut rows = find.query([row]).map_err(open_error)?;
        let found = rows.next().and_then(|found| found.ok_or(rusqlite::Error::QueryReturnedNoRows));
        let session = Session::read(found.map_err(open_error)?, columns, zone)
            .map_err(|reason| OpenError::TakeOver { row, reason })?;
        add_session.execute(params![serial, session.id, session.user, session.data]).map_err(open_error)?;
        add_activity
            .execute(params![serial, session.created_at, session.last_active_at, session.touch_count])
            .map_err(open_error)?;
    }
    Ok(())
}

fn verify_counts(transaction: &Transaction<'_>, copied: u64) -> Result<(), OpenError> {
    let count = |table| {
        let select = format!("SELECT count(*) FROM {table}");
        transaction.query_row(&select, [], |row| row.get::<_, i64>(0)).map_err(open_error)
    };
    for table in ["sessions", "session", "activity"] {
        let rows = count(table)?;
        if rows.cast_unsigned() != copied {
            return Err(damaged(&format!("{copied} rows were copied, but {table} has {rows}")));
        }
    }
    Ok(())
}

/// A row of the old table as we keep it.
#[derive(Debug, Default)]
struct Session<'row> {
    id: &'row str,
    user: Option<&'row str>,
    created_at: i64,
    last_active_at: i64,
    touch_count: i64,
    data: String,
}

impl<'row> Session<'row> {
    /// Reads a row. The error names the column, and never shows its value.
    fn read(row: &'row Row<'_>, columns: &[String], zone: &TimeZone) -> Result<Self, String> {
        let mut this = Self::default();
        for (index, name) in columns.iter().enumerate() {
            let value = row.get_ref_unwrap(index);
            let is_all_said = this.place(name, value, zone).map_err(|fault| format!("{name} {fault}"))?;
            if !is_all_said {
                let is_list_or_map = LISTS_AND_MAPS.contains(&name.as_str());
                let value = json(value, is_list_or_map).map_err(|fault| format!("{name} {fault}"))?;
                this.data.push(if this.data.is_empty() { '{' } else { ',' });
                this.data.push_str(&Value::from(name.as_str()).to_string());
                this.data.push(':');
                this.data.push_str(&value);
            }
        }
        // The column `cwd` is always there.
        this.data.push('}');
        Ok(this)
    }

    /// Puts a value in its place; false where it has none, or one that does not say all of it.
    fn place(&mut self, name: &str, value: ValueRef<'row>, zone: &TimeZone) -> Result<bool, String> {
        match name {
            "session_id" => {
                self.id = text(value)?;
                SessionId::try_from(self.id).map_err(|error| format!("is refused: {error}"))?;
            }
            "user_id" if value == ValueRef::Null => {}
            "user_id" => {
                self.user = Some(text(value)?).filter(|user| !user.is_empty());
                return Ok(self.user.is_some());
            }
            "created_at" | "last_active_at" => {
                let (at, is_all_said) = instant(value, zone)?;
                *(if name == "created_at" { &mut self.created_at } else { &mut self.last_active_at }) = at;
                return Ok(is_all_said);
            }
            "message_count" => match value {
                ValueRef::Integer(..0) => return Err("is negative".to_owned()),
                ValueRef::Integer(count) if count.cast_unsigned() > COUNT_MAX => {
                    return Err(format!("is over {COUNT_MAX}"));
                }
                ValueRef::Integer(count) => self.touch_count = count,
                ValueRef::Null => return Ok(false),
                _ => return Err("is not an integer".to_owned()),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn text(value: ValueRef<'_>) -> Result<&str, &'static str> {
    match value {
        ValueRef::Text(bytes) => str::from_utf8(bytes).map_err(|_| "is not UTF-8"),
        ValueRef::Null => Err("is NULL"),
        _ => Err("is not text"),
    }
}

/// Reads a time as unix microseconds, and whether those say all of it: whether the service, in `zone`, would write it
/// the same again (Python's `datetime.isoformat`).
///
/// A time without an offset is local; where the clock went back it is the first of the two.
fn instant(value: ValueRef<'_>, zone: &TimeZone) -> Result<(i64, bool), &'static str> {
    let text = text(value)?;
    let parse = || {
        let pieces = Pieces::parse(text).ok()?;
        let local = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
        match (pieces.to_numeric_offset(), pieces.time_zone_annotation()) {
            (Some(offset), _) => offset.to_timestamp(local).ok(),
            (None, None) => zone.to_ambiguous_timestamp(local).compatible().ok(),
            (None, Some(_)) => None,
        }
    };
    let at = parse().ok_or("is not a time in ISO 8601")?;
    let local = zone.to_datetime(at);
    let same = if local.subsec_nanosecond() == 0 { format!("{local}") } else { format!("{local:.6}") };
    Ok((at.as_microsecond(), same == text))
}

/// Writes a value as JSON.
fn json(value: ValueRef<'_>, is_list_or_map: bool) -> Result<String, &'static str> {
    Ok(match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => Number::from_f64(number).ok_or("is infinite, which JSON cannot hold")?.to_string(),
        ValueRef::Text(_) => {
            let text = text(value)?;
            if is_list_or_map && can_embed(text) { text.to_owned() } else { Value::from(text).to_string() }
        }
        ValueRef::Blob(_) => return Err("is a BLOB, which JSON cannot hold"),
    })
}

/// Returns whether the text is a JSON list or map that our readers can decode as a field.
///
/// Others stay strings: embedded, the text `null` would look like NULL, and `"x"` like the text `x`.
fn can_embed(text: &str) -> bool {
    // One level down as it will be, for readers limit the depth; and as a value, which refuses numbers out of range.
    let is_one_value = || serde_json::from_str::<(Value,)>(&format!("[{text}]")).is_ok();
    text.trim_start().starts_with(['[', '{']) && is_one_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    const TABLE: &str = "CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY, user_id TEXT, cwd TEXT, metadata TEXT, max_budget_usd REAL, created_at TEXT,
        last_active_at TEXT, message_count INTEGER DEFAULT 0, extra
    )";

    fn database(statements: &[&str]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&statements.join(";")).unwrap();
        connection
    }

    fn is_ours_to_take(statements: &[&str]) -> bool {
        is_source_service(&database(statements), &["sessions".to_owned()]).unwrap()
    }

    fn shanghai() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(8))
    }

    /// Takes over a table with these rows.
    fn taken(rows: &[impl AsRef<str>]) -> Result<Connection, OpenError> {
        let mut connection = database(&[TABLE]);
        for row in rows {
            connection.execute(&format!("INSERT INTO sessions VALUES ({})", row.as_ref()), []).unwrap();
        }
        let transaction = connection.transaction().unwrap();
        schema::migrate(&transaction, 0).unwrap();
        assert_eq!(take_over(&transaction, &shanghai())?, rows.len() as u64);
        transaction.commit().unwrap();
        Ok(connection)
    }

    /// Takes over one row and returns its data.
    fn data(row: &str) -> String {
        taken(&[row]).unwrap().query_row("SELECT data FROM session", [], |row| row.get(0)).unwrap()
    }

    /// Takes over one good row and a bad one, and returns what was wrong with that.
    fn fault(bad: &str) -> String {
        let good = "'good', 'u', '/', '{}', 1.5, '2025-01-01T00:00:00', '2025-01-01T00:00:00', 1, NULL";
        match taken(&[good, bad]) {
            Err(OpenError::TakeOver { row: 2, reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_services_own_tables_are_taken() {
        assert!(is_ours_to_take(&[TABLE]));
        assert!(is_ours_to_take(&[TABLE, "CREATE INDEX i ON sessions (user_id)"]));
        assert!(is_ours_to_take(&[&TABLE.replace("extra", "rowid, OID")]));
        for others in [
            &["CREATE TABLE sessions (session_id TEXT PRIMARY KEY, created_at TEXT)"][..],
            &[&TABLE.replace("session_id TEXT PRIMARY KEY", "session_id TEXT")],
            &[&format!("{TABLE} WITHOUT ROWID")],
            &["CREATE VIRTUAL TABLE sessions USING fts5(session_id, user_id, cwd)"],
            &[TABLE, "CREATE VIEW v AS SELECT * FROM sessions"],
            &[TABLE, "CREATE TRIGGER t AFTER INSERT ON sessions BEGIN SELECT 1; END"],
            &[&TABLE.replace("extra", "rowid, oid, _ROWID_")],
        ] {
            assert!(!is_ours_to_take(others), "{others:?}");
        }
        let connection = database(&[TABLE, "CREATE TABLE other (x)"]);
        assert!(!is_source_service(&connection, &["other".to_owned(), "sessions".to_owned()]).unwrap());
    }

    #[test]
    fn rows_are_numbered_by_creation_whatever_the_form_of_the_time() {
        let row = |id, created_at| {
            format!("'{id}', 'u', '/', '{{}}', 1, '{created_at}', '2025-06-01T00:00:00.000001', 7, NULL")
        };
        let connection = taken(&[
            row("fourth", "2025-01-01 09:00:00"),
            row("third", "2025-01-01T09:00:00"),
            row("first", "2025-01-01T02:00:00+02:00"),
            row("second", "2025-01-01T00:00:00.25Z"),
        ])
        .unwrap();
        let mut statement = connection
            .prepare_cached(
                "SELECT id, created_at, last_active_at, touch_count FROM session JOIN activity USING (serial)
                    ORDER BY serial",
            )
            .unwrap();
        let found: Vec<(String, i64, i64, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let active = 1_748_707_200_000_001;
        assert_eq!(
            found,
            [
                ("first".to_owned(), 1_735_689_600_000_000, active, 7),
                ("second".to_owned(), 1_735_689_600_250_000, active, 7),
                ("fourth".to_owned(), 1_735_693_200_000_000, active, 7),
                ("third".to_owned(), 1_735_693_200_000_000, active, 7),
            ]
        );
        let next: i64 =
            connection.query_row("SELECT value FROM meta WHERE key = 'serial_next'", [], |row| row.get(0)).unwrap();
        assert_eq!(next, 5);
        assert!(!connection.table_exists(None, "sessions").unwrap());
    }

    #[test]
    fn what_the_record_says_in_full_is_not_repeated_in_the_data() {
        let data = data("'a', 'u', '/', '{}', 0.1, '2025-01-01T00:00:00.250000', '2025-01-01T00:00:00', 1, 'x'");
        assert_eq!(data, r#"{"cwd":"/","metadata":{},"max_budget_usd":0.1,"extra":"x"}"#);
    }

    #[test]
    fn what_the_record_cannot_say_in_full_is_kept_in_the_data() {
        let data = data("'a', '', '/', NULL, NULL, '2025-01-01 00:00:00Z', '2025-01-01T00:00:00.0000001', NULL, NULL");
        let expected = r#"{"user_id":"","cwd":"/","metadata":null,"max_budget_usd":null,"#.to_owned()
            + r#""created_at":"2025-01-01 00:00:00Z","last_active_at":"2025-01-01T00:00:00.0000001","#
            + r#""message_count":null,"extra":null}"#;
        assert_eq!(data, expected);
    }

    #[test]
    fn lists_and_maps_keep_every_byte_and_other_texts_stay_strings() {
        let embedded = |text: &str| {
            let time = "2025-01-01T00:00:00";
            let data = data(&format!("'a', 'u', '/', '{text}', NULL, '{time}', '{time}', 1, '[1]'"));
            assert!(serde_json::from_str::<Value>(&data).is_ok(), "{data}");
            let rest = data.strip_prefix(r#"{"cwd":"/","metadata":"#).unwrap();
            rest.strip_suffix(r#","max_budget_usd":null,"extra":"[1]"}"#).unwrap().to_owned()
        };
        let depths = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let numbers = r#" {"n": [123456789012345678901234567890, 0.10, 1E2, -0], "n": "\ud83e\udd80"}"#;
        for whole in [numbers, "[]", &depths(126)] {
            assert_eq!(embedded(whole), whole);
        }
        let strings =
            ["", "null", "\"x\"", "1", "[1", "[1],[2]", "{}{}", "[NaN]", "[1e999]", r#"["\ud800"]"#, &depths(127)];
        for string in strings {
            assert_eq!(embedded(string), Value::from(string).to_string());
        }
    }

    #[test]
    fn numbers_and_texts_survive() {
        let extra = |sql: &str| {
            let time = "2025-01-01T00:00:00";
            let data = data(&format!("'a', 'u', '/', '', NULL, '{time}', '{time}', 1, {sql}"));
            data.rsplit_once("\"extra\":").unwrap().1.strip_suffix('}').unwrap().to_owned()
        };
        assert_eq!(extra("9223372036854775807"), "9223372036854775807");
        assert_eq!(extra("-9223372036854775808"), "-9223372036854775808");
        assert_eq!(extra("12.0"), "12.0");
        assert_eq!(extra("0.1 + 0.2"), "0.30000000000000004");
        assert_eq!(extra("5e-324").parse(), Ok(5e-324));
        assert_eq!(extra("'a' || char(0, 10, 34, 0x1f980)"), r#""a\u0000\n\"🦀""#);
    }

    #[test]
    fn local_times_follow_the_rules_of_their_zone() {
        // Clocks went forward on 2025-03-09 at 2:00 and back on 2025-11-02 at 2:00.
        let zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        let read = |text: &str| instant(ValueRef::Text(text.as_bytes()), &zone).unwrap();
        assert_eq!(read("2025-03-09T01:59:59"), (1_741_503_599_000_000, true));
        assert_eq!(read("2025-03-09T02:30:00"), (1_741_505_400_000_000, false), "there was none: the gap later");
        assert_eq!(read("2025-11-02T01:30:00"), (1_762_061_400_000_000, true), "there were two: the first");
        assert_eq!(read("2025-11-02T01:30:00-05:00"), (1_762_065_000_000_000, false));
        assert_eq!(read("1969-12-31T18:59:59.999999"), (-1, true));
        assert_eq!(read("2025-01-01"), (1_735_707_600_000_000, false));
    }

    #[test]
    fn a_row_that_cannot_be_kept_is_named_with_its_fault() {
        let time = "2025-01-01T00:00:00";
        let row = |values: [&str; 5]| {
            let [id, user, created_at, count, extra] = values;
            format!("{id}, {user}, '/', '{{}}', 1, {created_at}, '{time}', {count}, {extra}")
        };
        let time = format!("'{time}'");
        for (values, expected) in [
            (["NULL", "'u'", &time, "1", "1"], "session_id is NULL"),
            (["X'61'", "'u'", &time, "1", "1"], "session_id is not text"),
            (["''", "'u'", &time, "1", "1"], "session_id is refused: invalid session id: it is empty"),
            (["'a'", "CAST(X'ff' AS TEXT)", &time, "1", "1"], "user_id is not UTF-8"),
            (["'a'", "'u'", "'yesterday'", "1", "1"], "created_at is not a time in ISO 8601"),
            (["'a'", "'u'", "'2025-01-01T00:00:00[Asia/Tokyo]'", "1", "1"], "created_at is not a time in ISO 8601"),
            (["'a'", "'u'", "NULL", "1", "1"], "created_at is NULL"),
            (["'a'", "'u'", &time, "-1", "1"], "message_count is negative"),
            (["'a'", "'u'", &time, &i64::MAX.to_string(), "1"], &format!("message_count is over {COUNT_MAX}")),
            (["'a'", "'u'", &time, "1.5", "1"], "message_count is not an integer"),
            (["'a'", "'u'", &time, "1", "X'00'"], "extra is a BLOB, which JSON cannot hold"),
            (["'a'", "'u'", &time, "1", "-9e999"], "extra is infinite, which JSON cannot hold"),
        ] {
            assert_eq!(fault(&row(values)), expected);
        }
    }
}
