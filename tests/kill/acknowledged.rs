//! Kill after kill: what was acknowledged is there.

use std::time::Duration;

use sessile_tests::{Random, effort, load::Totals};

use crate::campaign::{Campaign, Plan};

/// How long a request may wait, by the engine's default. What a flush is granted beside its interval is what requests wait,
/// so never more than this.
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let kills = effort(50, 1_000);
    let mut campaign = Campaign::new(Random::seeded(), Plan::default());
    for kill in 1..=kills {
        let wrong = campaign.round();
        assert!(wrong.is_empty(), "after kill {kill}:\n{}", wrong.join("\n"));
    }
    let wrong = campaign.finish();
    assert!(wrong.is_empty(), "at the end:\n{}", wrong.join("\n"));
    let sum = |part: fn(&Totals) -> u64| campaign.totals.iter().map(part).sum::<u64>();
    let (writes, touches, due) = (sum(|all| all.writes), sum(|all| all.touches), sum(|all| all.touches_due));
    println!(
        "figure: kills={} writes_acknowledged={writes} violations={} unanswered={} unanswered_there={} sessions_judged={}",
        campaign.kills,
        sum(|all| all.violations),
        sum(|all| all.unanswered),
        sum(|all| all.unanswered_there),
        sum(|all| all.judged),
    );
    let slack_us_max = campaign.totals.iter().map(|all| all.slack_us_max).max().unwrap_or(0);
    println!(
        "figure: kills={} touches_acknowledged={touches} touches_due={due} touches_younger_and_lost={} slack_mean_ms={} \
         slack_max_ms={}",
        campaign.kills,
        sum(|all| all.touches_lost),
        sum(|all| all.slack_us_sum) / sum(|all| all.slacks).max(1) / 1_000,
        slack_us_max / 1_000,
    );
    println!("figure: kills_in_checkpoint={} kills_aimed={:?}", campaign.in_checkpoint, campaign.aimed);
    let recovery = campaign.recoveries.iter().max().copied().unwrap_or_default();
    println!(
        "figure: reopenings={} reopening_max_ms={} reopening_mean_ms={}",
        campaign.recoveries.len(),
        recovery.as_millis(),
        (campaign.recoveries.iter().sum::<Duration>() / u32::try_from(campaign.recoveries.len()).unwrap()).as_millis(),
    );
    // It was no idle campaign.
    assert_eq!(
        (sum(|all| all.refused), sum(|all| all.doubts)),
        (0, 0),
        "requests were refused, or reached their deadline"
    );
    assert!(slack_us_max <= DEADLINE.as_micros().try_into().unwrap(), "a request waits for no more than its deadline");
    assert!(writes > kills * 20 && due > kills * 10, "{writes} writes and {due} touches that were due");
    assert!(sum(|all| all.unanswered) > kills, "kills found nothing in flight");
}
