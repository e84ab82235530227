//! Clocks that step: engine time never goes back, and neither expires nor prolongs anything wrongly (invariant I10).

use std::{sync::Arc, time::Duration};

use sessile::{
    NewSession, Timestamp,
    testing::{Faults, ManualClock},
};
use sessile_tests::{Rig, START, read};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(seconds: u32) -> Timestamp {
    START.saturating_add(SECOND * seconds)
}

async fn idle_after_ten() -> Rig {
    Rig::open_with(|builder| builder.idle_timeout(SECOND * 10)).await
}

#[tokio::test]
async fn a_clock_that_steps_back_prolongs_nothing() {
    let rig = idle_after_ten().await;
    let session = rig.create("a").await;
    rig.clock.step_back(HOUR);
    rig.advance(SECOND * 9);
    assert!(session.get().await.unwrap().is_some());
    rig.advance(SECOND);
    assert!(session.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_lower_the_activity() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.advance(SECOND);
    session.touch().await.unwrap();
    rig.clock.step_back(HOUR);
    session.touch().await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at(1));
    rig.advance(SECOND);
    session.save("b").await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at(2));
}

#[tokio::test]
async fn a_clock_that_steps_ahead_is_followed() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    rig.clock.step_forward(HOUR);
    rig.advance(SECOND);
    session.touch().await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at(3_601));
    // And back again: time stands at what it was, and goes on.
    rig.clock.step_back(HOUR);
    rig.advance(SECOND);
    session.touch().await.unwrap();
    assert_eq!(read(&session).await.last_active_at(), at(3_602));
}

#[tokio::test]
async fn after_a_jump_ahead_the_periodic_sweep_is_put_off_and_then_made() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(HOUR)).await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    // The thread wakes by itself, as after the machine slept: nobody has asked for the time since.
    let stall = Faults::of(&rig.engine).stall();
    rig.clock.step_forward(HOUR * 2);
    rig.advance(SECOND * 61);
    drop(stall);
    // The sweep would be due, but for the jump.
    for _ in 0..4 {
        rig.engine.flush().await.unwrap();
        rig.advance(SECOND * 50);
        rig.engine.flush().await.unwrap();
    }
    assert_eq!(rig.engine.stats().expired, 0);
    assert!(session.get().await.unwrap().is_none());
    rig.advance(SECOND * 300);
    sessile_tests::eventually("the sweep", async || {
        rig.engine.flush().await.unwrap();
        rig.engine.stats().expired == 1
    })
    .await;
}

#[tokio::test]
async fn after_a_restart_time_goes_on_from_its_high_water_mark() {
    let rig = idle_after_ten().await;
    rig.create("a").await;
    rig.advance(SECOND * 5);
    rig.session("a").touch().await.unwrap();
    // The machine comes up with a clock that is an hour behind.
    let behind = Arc::new(ManualClock::new(START));
    behind.step_back(HOUR);
    let rig = rig.restart_at(behind).await;
    let session = rig.engine.create(NewSession::with_id("b")).await.unwrap();
    assert!(read(&session).await.created_at() >= at(5));
    assert!(rig.session("a").get().await.unwrap().is_some());
    rig.advance(SECOND * 10);
    assert!(rig.session("a").get().await.unwrap().is_none());
    assert!(session.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_mark_over_a_day_ahead_is_not_believed() {
    let rig = Rig::open().await;
    rig.create("a").await;
    let far_behind = Arc::new(ManualClock::new(Timestamp::from_micros(START.as_micros() - 25 * 3_600_000_000)));
    let rig = rig.restart_at(far_behind).await;
    let session = rig.engine.create(NewSession::with_id("b")).await.unwrap();
    assert!(read(&session).await.created_at() < START);
}

#[tokio::test]
async fn stamps_from_the_future_have_age_zero() {
    let rig = idle_after_ten().await;
    rig.create("a").await;
    rig.engine.shutdown().await.unwrap();
    let ahead = START.saturating_add(HOUR * 48).as_micros();
    rig.place.connect().execute("UPDATE activity SET last_active_at = ?1, created_at = ?1", [ahead]).unwrap();
    let rig = rig.restart().await;
    assert!(rig.session("a").get().await.unwrap().is_some());
    assert_eq!(rig.engine.sweep().await.unwrap(), 0);
    assert_eq!(rig.engine.count(sessile::Filter::all()).await.unwrap(), 1);
}
