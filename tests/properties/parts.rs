//! The small parts that take what comes from outside or cross the border between forms: ids, times, cursors, changes, the
//! times of a database that is taken over.

use std::{sync::Arc, time::SystemTime};

use proptest::{collection, prelude::*};
use rusqlite::Connection;
use sessile::{
    Change, Cursor, Engine, Error, Filter, InvalidId, NewSession, Query, SessionId, Timestamp, testing::ManualClock,
};
use sessile_tests::{Place, START, effort, read};

use crate::runner::holds;

const REGRESSIONS: &str = "properties/regressions/parts.txt";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn any_text_is_an_id_or_refused_by_its_fault() {
    let texts = prop_oneof![any::<String>(), ".{0,300}", "[a-z\u{0}-\u{1f}\u{7f}-\u{9f}é🦀]{0,300}"];
    holds(effort(2_000, 200_000), REGRESSIONS, &texts, |text| {
        let bytes = text.len();
        match SessionId::try_from(text.as_str()) {
            Ok(id) => {
                prop_assert!((1..=255).contains(&bytes) && !text.chars().any(char::is_control));
                prop_assert_eq!(id.as_str(), &text);
                let shown: String = text.chars().take(6).collect();
                prop_assert_eq!(format!("{:?}", id), format!("SessionId({shown}…)"));
            }
            Err(Error::InvalidId { reason: InvalidId::Empty }) => prop_assert_eq!(bytes, 0),
            Err(Error::InvalidId { reason: InvalidId::TooLong { bytes: named, bytes_max: 255 } }) => {
                prop_assert!(bytes > 255 && named == bytes);
            }
            Err(Error::InvalidId { reason: InvalidId::ControlCharacter }) => {
                prop_assert!(text.chars().any(char::is_control));
            }
            Err(error) => prop_assert!(false, "{error:?}"),
        }
        Ok(())
    });
}

#[test]
fn any_time_is_written_so_that_it_reads_back() {
    // The years that RFC 3339 has, and all times there are.
    let micros = prop_oneof![-62_135_596_800_000_000..253_402_300_799_999_999_i64, any::<i64>()];
    holds(effort(2_000, 200_000), REGRESSIONS, &micros, |micros| {
        let stamp = Timestamp::from_micros(micros);
        let text = stamp.to_string();
        if (-62_135_596_800_000_000..253_402_207_200_000_000).contains(&micros) {
            prop_assert_eq!(text.len(), "2023-11-14T22:13:20.123456Z".len());
            let read: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(read.as_microsecond(), micros);
        } else if let Some(number) = text.strip_suffix("us") {
            prop_assert_eq!(number.parse(), Ok(micros));
        } else {
            let read: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(read.as_microsecond(), micros);
        }
        prop_assert_eq!(Timestamp::from(SystemTime::from(stamp)), stamp);
        Ok(())
    });
}

#[test]
fn any_text_is_a_cursor_that_is_written_so_or_refused() {
    let texts = prop_oneof![
        any::<String>(),
        "[ona]\\.-?[0-9]{1,20}\\.-?[0-9]{1,20}",
        "[onax]?[.]?[+-]?[0-9]{0,25}[.][0-9.+-]{0,25}"
    ];
    holds(effort(2_000, 200_000), REGRESSIONS, &texts, |text| {
        match text.parse::<Cursor>() {
            Ok(cursor) => prop_assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor)),
            Err(error) => {
                let is_named = matches!(error, Error::InvalidQuery { .. });
                prop_assert!(is_named, "{:?}", error);
            }
        }
        Ok(())
    });
}

#[test]
fn a_cursor_of_any_numbers_divides_the_list() {
    let runtime = runtime();
    let engine = runtime.block_on(async {
        let clock = Arc::new(ManualClock::new(START));
        let engine = Engine::in_memory().clock(clock.clone()).open().await.unwrap();
        for n in 0..10 {
            engine.create(NewSession::with_id(format!("s{n}"))).await.unwrap();
            clock.advance(std::time::Duration::from_micros(n % 3));
        }
        engine
    });
    let near = START.as_micros() - 5..START.as_micros() + 15;
    let numbers = (prop_oneof![near, any::<i64>()], prop_oneof![-2..14_i64, any::<i64>()]);
    holds(effort(300, 10_000), REGRESSIONS, &numbers, |(key, serial)| {
        runtime.block_on(async {
            let all = engine.list(Query::new(Filter::all())).await.unwrap().items;
            let cursor: Cursor = format!("n.{key}.{serial}").parse().unwrap();
            let after = engine.list(Query::new(Filter::all()).after(cursor)).await.unwrap().items;
            let place = |summary: &sessile::Summary| (summary.created_at().as_micros(), summary.serial().get());
            let expected: Vec<_> = all.iter().map(place).filter(|place| *place < (key, serial)).collect();
            prop_assert_eq!(after.iter().map(place).collect::<Vec<_>>(), expected);
            Ok(())
        })
    });
}

/// Setters of a change, each with what it sets.
#[derive(Debug, Clone)]
enum Setter {
    User(Option<String>),
    Data(String),
    Metadata(String, Option<String>),
}

#[test]
fn changes_one_by_one_and_all_at_once_come_to_the_same() {
    let runtime = runtime();
    let word = "[a-c]{0,2}";
    let setter = prop_oneof![
        proptest::option::of(word).prop_map(Setter::User),
        word.prop_map(Setter::Data),
        (word, proptest::option::of(word)).prop_map(|(key, value)| Setter::Metadata(key, value)),
    ];
    holds(effort(100, 5_000), REGRESSIONS, &collection::vec(setter, 0..12), |setters| {
        runtime.block_on(async {
            let engine = Engine::in_memory().open().await.unwrap();
            let one_by_one = engine.create(NewSession::new()).await.unwrap();
            let at_once = engine.create(NewSession::new()).await.unwrap();
            let add = |change: Change, setter: &Setter| match setter.clone() {
                Setter::User(Some(user)) => change.user(user),
                Setter::User(None) => change.clear_user(),
                Setter::Data(data) => change.data(&data),
                Setter::Metadata(key, Some(value)) => change.metadata(key, value),
                Setter::Metadata(key, None) => change.remove_metadata(key),
            };
            for setter in &setters {
                one_by_one.apply(add(Change::new(), setter)).await.unwrap();
            }
            at_once.apply(setters.iter().fold(Change::new(), add)).await.unwrap();
            let (a, b) = (read(&one_by_one).await, read(&at_once).await);
            prop_assert_eq!((a.user(), a.bytes(), a.metadata()), (b.user(), b.bytes(), b.metadata()));
            Ok(())
        })
    });
}

#[test]
fn times_of_a_database_taken_over_are_those_that_sqlite_works_out() {
    let runtime = runtime();
    // Whole hours ahead, as SQLite cannot know of a zone's rules.
    let time = (0..100_i64, 1..=12_u32, 1..=28_u32, 0..24_u32, 0..60_u32, 0..60_u32, 0..1_000_000_u32).prop_map(
        |(year, month, day, hour, minute, second, micros)| {
            format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}", year + 1_970)
        },
    );
    holds(effort(20, 500), REGRESSIONS, &(collection::vec(time, 1..20), 0..12_i64), |(times, hours)| {
        runtime.block_on(async {
            let place = Place::new();
            let connection = place.connect();
            let table = "CREATE TABLE sessions (session_id TEXT PRIMARY KEY, user_id, cwd, created_at, last_active_at,
                message_count)";
            connection.execute_batch(table).unwrap();
            let mut expected = Vec::new();
            for (n, time) in times.iter().enumerate() {
                let row = "INSERT INTO sessions VALUES ('s' || ?1, 'u', '/', ?2, ?2, 0)";
                connection.execute(row, (n as i64, time)).unwrap();
                expected.push(micros(&connection, time) - hours * 3_600_000_000);
            }
            drop(connection);
            // The sign of such a zone is inverted.
            let engine = place.builder().take_over_time_zone(format!("Etc/GMT-{hours}")).open().await.unwrap();
            for (n, expected) in expected.into_iter().enumerate() {
                let record = read(&engine.session(format!("s{n}")).unwrap()).await;
                prop_assert_eq!(record.created_at().as_micros(), expected, "{} in zone {}", &times[n], hours);
            }
            engine.shutdown().await.unwrap();
            Ok(())
        })
    });
}

fn micros(connection: &Connection, time: &str) -> i64 {
    let sql = "SELECT unixepoch(substr(?1, 1, 19)) * 1000000 + CAST(substr(?1, 21) AS INTEGER)";
    connection.query_row(sql, [time], |row| row.get(0)).unwrap()
}
