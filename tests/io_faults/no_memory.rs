//! Reads that find no memory, while rows are deleted: SQLite may fail for the same reason to undo what it had begun, and says
//! nothing of that. Nobody may go on with what it has then.

use rusqlite::Connection;
use sessile::{Change, Engine, Filter, NewSession};
use sessile_tests::{
    Place,
    vfs::{self, Breaker, CallKind, FileKind, Times, Verdict, codes},
};

const SESSIONS: u64 = 600;
/// The least there may be, so that pages are read again and again.
const CACHE_BYTES: u64 = 64 << 10;
/// How many reads find no memory: the one of a statement, and those that undo it.
const READS: u64 = 3;

async fn fill(engine: &Engine) {
    for n in 0..SESSIONS {
        let new = NewSession::with_id(format!("{:04}{n}", n * 7_919 % SESSIONS)).user("ada").data(&"x".repeat(300));
        engine.create(new).await.unwrap();
    }
}

#[tokio::test]
async fn a_deletion_that_finds_no_memory_leaves_nothing_half_undone() {
    let place = Place::new();
    let breaker = Breaker::new();
    let _watch = vfs::watch(&place.directory(), breaker.clone());
    let engine = place.builder().cache_bytes(CACHE_BYTES).open().await.unwrap();
    fill(&engine).await;
    engine.shutdown().await.unwrap();
    let mut refused = 0;
    for nth in 0..24 {
        let engine = place.builder().cache_bytes(CACHE_BYTES).open().await.unwrap();
        let before = engine.count(Filter::all()).await.unwrap();
        let no_memory = Verdict::Fail(codes::SQLITE_NOMEM);
        breaker.order(CallKind::Read, FileKind::Database, nth * 5, Times::Count(READS), no_memory);
        let deleted = engine.delete_where(Filter::all().user("ada")).await;
        breaker.lift();
        // What goes on with the connection commits whatever it is left with.
        engine.create(NewSession::with_id(format!("after {nth}"))).await.unwrap();
        engine.session(format!("after {nth}")).unwrap().apply(Change::new().user("bob")).await.unwrap();
        let left = engine.count(Filter::all().user("ada")).await.unwrap();
        match deleted {
            Ok(deleted) => assert_eq!((deleted, left), (before - nth, 0)),
            Err(error) => {
                assert!(left <= before, "{error:?}");
                refused += 1;
            }
        }
        engine.shutdown().await.unwrap();
        let connection = Connection::open(place.path()).unwrap();
        let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok", "no memory at read {}", nth * 5);
        let engine = place.builder().open().await.unwrap();
        if left == 0 {
            fill(&engine).await;
        }
        engine.shutdown().await.unwrap();
    }
    assert!(refused > 0, "nothing was refused");
}
