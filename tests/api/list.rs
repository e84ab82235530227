//! Listing, counting, deleting by a filter.

use std::{collections::BTreeSet, time::Duration};

use sessile::{Change, Cursor, Engine, Error, Filter, NewSession, Order, Query, Session, Timestamp};
use sessile_tests::{Rig, START, read};

const SECOND: Duration = Duration::from_secs(1);

async fn ids(engine: &Engine, filter: Filter) -> Vec<String> {
    let page = engine.list(Query::new(filter).order(Order::Oldest)).await.unwrap();
    page.items.iter().map(|item| item.id().unwrap().as_str().to_owned()).collect()
}

/// Reads all pages, of `limit` each, and checks that every page but the last is full.
async fn all_pages(engine: &Engine, order: Order, limit: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let mut query = Query::new(Filter::all()).order(order).limit(limit);
        if let Some(cursor) = after {
            // Cursors go through text, as in a web page's link.
            query = query.after(cursor.to_string().parse().unwrap());
        }
        let page = engine.list(query).await.unwrap();
        assert!(page.items.len() == limit || page.next.is_none());
        all.extend(page.items.iter().map(|item| item.id().unwrap().as_str().to_owned()));
        match page.next {
            Some(cursor) => after = Some(cursor),
            None => return all,
        }
    }
}

#[tokio::test]
async fn filters_match_what_they_say() {
    let rig = Rig::open().await;
    let new = |id: &str| NewSession::with_id(id);
    for new in [
        new("web-1").user("ada").metadata("device", "phone").metadata("lang", "de"),
        new("web-2").user("bob").metadata("device", "phone"),
        new("chat-1").user("ada").metadata("device", "laptop"),
        new("chat_1").metadata("phone", "device"),
        new("chat%").user("a'da"),
    ] {
        rig.engine.create(new).await.unwrap();
        rig.advance(SECOND);
    }
    let engine = &rig.engine;
    let all = Filter::all;
    let at = |seconds: u32| START.saturating_add(SECOND * seconds);
    let serial = rig.record("web-2").await.serial();
    let web_1 = rig.session("web-1");
    rig.session("web-2").touch().await.unwrap();
    for (filter, expected) in [
        (all(), &["web-1", "web-2", "chat-1", "chat_1", "chat%"][..]),
        (all().user("ada"), &["web-1", "chat-1"]),
        (all().user("a'da"), &["chat%"]),
        (all().user("ad"), &[]),
        (all().user("ada").except(web_1.id()), &["chat-1"]),
        (all().id_prefix("chat"), &["chat-1", "chat_1", "chat%"]),
        (all().id_prefix("chat_"), &["chat_1"]),
        (all().id_prefix("chat%"), &["chat%"]),
        (all().id_prefix(""), &["web-1", "web-2", "chat-1", "chat_1", "chat%"]),
        (all().serial(serial), &["web-2"]),
        (all().serial(serial).user("ada"), &[]),
        (all().metadata("device", "phone"), &["web-1", "web-2"]),
        (all().metadata("device", "phone").metadata("lang", "de"), &["web-1"]),
        (all().created(at(1)..at(3)), &["web-2", "chat-1"]),
        (all().created(at(1)..=at(3)), &["web-2", "chat-1", "chat_1"]),
        (all().created(..at(1)), &["web-1"]),
        (all().created(at(4)..), &["chat%"]),
        (all().active(at(4)..), &["web-2", "chat%"]),
        (all().active(..at(1)).user("ada"), &["web-1"]),
    ] {
        assert_eq!(ids(engine, filter.clone()).await, expected, "{filter:?}");
        assert_eq!(engine.count(filter.clone()).await.unwrap(), expected.len() as u64, "{filter:?}");
    }
}

#[tokio::test]
async fn summaries_have_all_but_the_data() {
    let rig = Rig::open().await;
    let new = NewSession::with_id("a").user("ada").data("12345678").metadata("k", "v").idle_timeout(SECOND * 9);
    let session = rig.engine.create(new).await.unwrap();
    session.touch().await.unwrap();
    let record = read(&session).await;
    let page = rig.engine.list(Query::new(Filter::all())).await.unwrap();
    let [summary] = &page.items[..] else { panic!("{page:?}") };
    assert_eq!((summary.id(), summary.serial()), (Some(record.id()), record.serial()));
    assert_eq!((summary.user(), summary.metadata()), (record.user(), record.metadata()));
    assert_eq!((summary.version(), summary.data_bytes()), (record.version(), 10));
    assert_eq!((summary.created_at(), summary.last_active_at()), (record.created_at(), record.last_active_at()));
    assert_eq!((summary.touch_count(), summary.expires_at()), (1, record.expires_at()));
    assert!(page.next.is_none());
}

#[tokio::test]
async fn pages_hold_every_session_once_in_each_order() {
    let rig = Rig::open().await;
    let mut oldest = Vec::new();
    for n in 0..47 {
        oldest.push(format!("s{n}"));
        rig.create(&format!("s{n}")).await;
        // Several of one moment: the order must be total all the same.
        if n % 5 == 0 {
            rig.advance(SECOND);
        }
    }
    let newest: Vec<_> = oldest.iter().rev().cloned().collect();
    for limit in [1, 2, 7, 46, 47, 48, 1_000] {
        assert_eq!(all_pages(&rig.engine, Order::Oldest, limit).await, oldest);
        assert_eq!(all_pages(&rig.engine, Order::Newest, limit).await, newest);
        assert_eq!(all_pages(&rig.engine, Order::RecentlyActive, limit).await, newest);
    }
    rig.advance(SECOND);
    rig.session("s20").touch().await.unwrap();
    let recent = all_pages(&rig.engine, Order::RecentlyActive, 10).await;
    assert_eq!(recent[0], "s20");
    assert_eq!(recent.iter().collect::<BTreeSet<_>>().len(), 47);
}

#[tokio::test]
async fn a_page_is_of_100_newest_unless_said_otherwise() {
    let rig = Rig::open().await;
    for n in 0..101 {
        rig.create(&format!("s{n}")).await;
        rig.advance(SECOND);
    }
    let page = rig.engine.list(Query::new(Filter::all())).await.unwrap();
    assert_eq!(page.items.len(), 100);
    assert_eq!(page.items[0].id().unwrap().as_str(), "s100");
    let rest = rig.engine.list(Query::new(Filter::all()).after(page.next.unwrap())).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

#[tokio::test]
async fn sessions_that_go_or_come_between_pages_disturb_no_others() {
    let rig = Rig::open().await;
    for n in 0..10 {
        rig.create(&format!("s{n}")).await;
        rig.advance(SECOND);
    }
    let query = || Query::new(Filter::all()).order(Order::Oldest).limit(4);
    let first = rig.engine.list(query()).await.unwrap();
    for id in ["s0", "s3", "s5"] {
        rig.session(id).delete().await.unwrap();
    }
    rig.create("s10").await;
    let second = rig.engine.list(query().after(first.next.unwrap())).await.unwrap();
    let listed: Vec<_> = second.items.iter().map(|item| item.id().unwrap().as_str()).collect();
    assert_eq!(listed, ["s4", "s6", "s7", "s8"]);
}

#[tokio::test]
async fn queries_out_of_bounds_are_refused() {
    let rig = Rig::open().await;
    for n in 0..2 {
        rig.create(&format!("s{n}")).await;
    }
    let page = rig.engine.list(Query::new(Filter::all()).order(Order::Oldest).limit(1)).await.unwrap();
    for query in [
        Query::new(Filter::all()).limit(0),
        Query::new(Filter::all()).limit(1_001),
        Query::new(Filter::all()).order(Order::RecentlyActive).after(page.next.unwrap()),
    ] {
        let error = rig.engine.list(query).await.unwrap_err();
        assert!(matches!(error, Error::InvalidQuery { .. }), "{error:?}");
    }
    for text in ["", "o", "o.1", "x.1.2", "o.1.2.3", "o.a.b", "o.99999999999999999999.1"] {
        assert!(matches!(text.parse::<Cursor>(), Err(Error::InvalidQuery { .. })), "{text}");
    }
}

#[tokio::test]
async fn delete_where_deletes_what_matches_in_many_steps() {
    let rig = Rig::open().await;
    let created: Vec<_> = (0..700)
        .map(|n| {
            let engine = rig.engine.clone();
            let user = if n % 7 == 0 { "keep" } else { "go" };
            tokio::spawn(async move { engine.create(NewSession::with_id(format!("s{n}")).user(user)).await.unwrap() })
        })
        .collect();
    let mut sessions: Vec<Session> = Vec::new();
    for created in created {
        sessions.push(created.await.unwrap());
    }
    // Some of them in memory.
    for session in sessions.iter().step_by(3) {
        session.touch().await.unwrap();
    }
    assert_eq!(rig.engine.delete_where(Filter::all().user("go")).await.unwrap(), 600);
    assert_eq!(rig.engine.delete_where(Filter::all().user("go")).await.unwrap(), 0);
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 100);
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(session.get().await.unwrap().is_some(), n % 7 == 0, "{n}");
        assert_eq!(session.touch().await.is_ok(), n % 7 == 0, "{n}");
    }
    assert_eq!(rig.restart().await.engine.count(Filter::all()).await.unwrap(), 100);
}

#[tokio::test]
async fn end_all_my_other_sessions() {
    let rig = Rig::open().await;
    for id in ["phone", "laptop", "tablet"] {
        rig.engine.create(NewSession::with_id(id).user("ada")).await.unwrap();
    }
    rig.engine.create(NewSession::with_id("other").user("bob")).await.unwrap();
    let mine = rig.session("laptop").rotate(Change::new()).await.unwrap();
    assert_eq!(rig.engine.delete_where(Filter::all().user("ada").except(mine.id())).await.unwrap(), 2);
    assert_eq!(ids(&rig.engine, Filter::all()).await, [mine.id().as_str(), "other"]);
}

#[tokio::test]
async fn delete_where_by_serial_ends_one_device() {
    let rig = Rig::open().await;
    let (one, other) = (rig.create("a").await, rig.create("b").await);
    let serial = read(&one).await.serial();
    assert_eq!(rig.engine.delete_where(Filter::all().serial(serial)).await.unwrap(), 1);
    assert!(one.get().await.unwrap().is_none());
    assert!(other.get().await.unwrap().is_some());
}

#[tokio::test]
async fn a_change_of_owner_or_metadata_shows_in_lists() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.apply(Change::new().user("ada").metadata("k", "1")).await.unwrap();
    assert_eq!(ids(&rig.engine, Filter::all().user("ada").metadata("k", "1")).await, ["a"]);
    session.apply(Change::new().user("bob").metadata("k", "2")).await.unwrap();
    assert_eq!(rig.engine.count(Filter::all().user("ada")).await.unwrap(), 0);
    assert_eq!(rig.engine.count(Filter::all().user("bob").metadata("k", "2")).await.unwrap(), 1);
}

#[tokio::test]
async fn bounds_of_time_may_be_anywhere() {
    let rig = Rig::open().await;
    rig.create("a").await;
    let (first, last) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    assert_eq!(rig.engine.count(Filter::all().created(first..=last).active(first..)).await.unwrap(), 1);
    assert_eq!(rig.engine.count(Filter::all().created(last..first)).await.unwrap(), 0);
}
