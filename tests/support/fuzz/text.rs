//! Texts that a service may pass on from its users: a cursor, the filters of a list, a time zone's name.

use arbitrary::{Arbitrary, Unstructured};
use sessile::{Cursor, Engine, Error, Filter, NewSession, OpenError, Order, Query, Serial, Timestamp};

use super::harness::block_on;

/// Sessions that are there.
const SESSIONS: u64 = 5;

/// What is passed on.
#[derive(Debug, Arbitrary)]
struct Input {
    cursor: CursorText,
    order: u8,
    limit: u16,
    user: Option<String>,
    id_prefix: Option<String>,
    serial: Option<i64>,
    created: Option<(i64, i64)>,
    active: Option<(i64, i64)>,
    metadata: Vec<(String, String)>,
    zone: Option<String>,
}

#[derive(Debug, Arbitrary)]
enum CursorText {
    Whole(String),
    Parts(u8, i64, i64),
}

/// Takes the input for all of them.
pub(super) fn text(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else { return };
    if let Some(zone) = &input.zone {
        let opened = block_on(Engine::in_memory().take_over_time_zone(zone).open());
        let named = matches!(opened, Ok(_) | Err(OpenError::InvalidOption { name: "take_over_time_zone", .. }));
        assert!(named, "{zone:?}: {opened:?}");
    }
    let order = [Order::Oldest, Order::Newest, Order::RecentlyActive][usize::from(input.order) % 3];
    let text = match &input.cursor {
        CursorText::Whole(text) => text.clone(),
        CursorText::Parts(order, key, serial) => {
            format!("{}.{key}.{serial}", ['o', 'n', 'a'][usize::from(*order) % 3])
        }
    };
    let cursor = text.parse::<Cursor>();
    match &cursor {
        Ok(cursor) => assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(*cursor), "{text:?}"),
        Err(error) => assert!(matches!(error, Error::InvalidQuery { .. }), "{text:?}: {error:?}"),
    }
    let is_made_by_us = matches!(input.cursor, CursorText::Parts(..));
    assert!(cursor.is_ok() || !is_made_by_us, "{text:?} is a cursor");
    block_on(list(&input, order, cursor.ok()));
}

async fn list(input: &Input, order: Order, cursor: Option<Cursor>) {
    let engine = Engine::in_memory().open().await.expect("memory opens");
    for n in 0..SESSIONS {
        engine.create(NewSession::with_id(format!("s{n}"))).await.expect("it is free");
    }
    let mut filter = Filter::all();
    if let Some(user) = &input.user {
        filter = filter.user(user);
    }
    if let Some(prefix) = &input.id_prefix {
        filter = filter.id_prefix(prefix);
    }
    if let Some(serial) = input.serial {
        filter = filter.serial(Serial::from(serial));
    }
    let span = |(from, until)| Timestamp::from_micros(from)..Timestamp::from_micros(until);
    if let Some(created) = input.created {
        filter = filter.created(span(created));
    }
    if let Some(active) = input.active {
        filter = filter.active(span(active));
    }
    for (key, value) in &input.metadata {
        filter = filter.metadata(key, value);
    }
    let mut query = Query::new(filter.clone()).order(order).limit(input.limit.into());
    if let Some(cursor) = cursor {
        query = query.after(cursor);
    }
    match engine.list(query).await {
        Ok(page) => assert!(page.items.len() as u64 <= SESSIONS),
        Err(error) => assert!(matches!(error, Error::InvalidQuery { .. }), "{input:?}: {error:?}"),
    }
    match engine.count(filter.clone()).await {
        Ok(count) => {
            assert!(count <= SESSIONS);
            assert_eq!(engine.delete_where(filter).await.expect("what is counted is deleted"), count, "{input:?}");
        }
        Err(error) => assert!(matches!(error, Error::InvalidQuery { .. }), "{input:?}: {error:?}"),
    }
    assert_eq!(engine.stats().restarts, 0);
    engine.shutdown().await.expect("it shuts down");
}
