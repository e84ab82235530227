//! JSON data comes back bit for bit: any float, any integer, any text, any depth that our readers decode.

use proptest::{collection, prelude::*};
use serde_json::{Map, Number, Value};
use sessile::{Change, Data, Engine, NewSession};
use sessile_tests::{Place, effort, read};

use crate::runner::holds;

const REGRESSIONS: &str = "properties/regressions/data.txt";
/// How deep data is nested at most: `serde_json` reads 127 levels.
const DEPTH_MAX: usize = 120;

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("a finite number", |float| Number::from_f64(float).map(Value::Number)),
        prop::num::f64::SUBNORMAL.prop_map(Value::from),
        Just(Value::from(-0.0)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        any::<String>().prop_map(Value::String),
        collection::vec(any::<char>(), 0..20).prop_map(|text| Value::String(text.into_iter().collect())),
    ];
    let nested = leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    });
    (nested, 0..DEPTH_MAX - 10).prop_map(|(value, depth)| (0..depth).fold(value, |value, _| Value::Array(vec![value])))
}

/// JSON whose numbers no machine type holds, as text that must stay as it is.
fn text() -> impl Strategy<Value = String> {
    let number = prop_oneof!["-?[1-9][0-9]{0,60}", "-?[1-9][0-9]{0,30}\\.[0-9]{1,40}", "[1-9]e-?[0-9]{1,2}"];
    (collection::vec(number, 1..5), "[ \t\n]{0,3}")
        .prop_map(|(numbers, space)| format!("{space}[{}]{space}", numbers.join(&format!("{space},"))))
}

/// Equal in every bit: `==` takes 0.0 for -0.0.
fn is_bit_for_bit(a: &Value, b: &Value) -> bool {
    let text = |value: &Value| value.to_string();
    text(a) == text(b) && a == b
}

#[test]
fn json_comes_back_bit_for_bit() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let values = (collection::vec(value(), 1..20), collection::vec(text(), 1..5));
    holds(effort(40, 1_000), REGRESSIONS, &values, |(values, texts)| {
        runtime.block_on(async {
            let place = Place::new();
            let engine = place.builder().open().await.unwrap();
            for (n, value) in values.iter().enumerate() {
                let session = engine.create(NewSession::with_id(format!("v{n}")).data(value)).await.unwrap();
                let created = read(&session).await;
                prop_assert!(is_bit_for_bit(&created.data().unwrap(), value));
                // To read and write it back changes not one byte, and so not the version.
                session.update(|_: &mut Value| ()).await.unwrap();
                prop_assert_eq!(read(&session).await.version(), created.version());
            }
            for (n, text) in texts.iter().enumerate() {
                let session = engine.create(NewSession::with_id(format!("t{n}"))).await.unwrap();
                let data = Data::Json(text.clone().into());
                session.apply(Change::new().encoded(data)).await.unwrap();
            }
            engine.shutdown().await.unwrap();

            let engine: Engine = place.builder().open().await.unwrap();
            for (n, value) in values.iter().enumerate() {
                let record = read(&engine.session(format!("v{n}")).unwrap()).await;
                prop_assert_eq!(record.bytes().as_ref(), &serde_json::to_vec(value).unwrap()[..]);
                prop_assert!(is_bit_for_bit(&record.data().unwrap(), value));
            }
            for (n, text) in texts.iter().enumerate() {
                let record = read(&engine.session(format!("t{n}")).unwrap()).await;
                prop_assert_eq!(record.bytes().as_ref(), text.as_bytes());
            }
            // People read it with the sqlite3 shell.
            let connection = place.connect();
            let invalid = "SELECT count(*) FROM session WHERE typeof(data) <> 'text' OR NOT json_valid(data)";
            let invalid: i64 = connection.query_row(invalid, [], |row| row.get(0)).unwrap();
            prop_assert_eq!(invalid, 0);
            engine.shutdown().await.unwrap();
            Ok(())
        })
    });
}
