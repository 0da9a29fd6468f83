//! Processes whose wall clocks are a minute apart, or jump by one: nobody steals what another has, and what a dead one
//! had is taken over as ever.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::effects::Route;
use testkit::provider::Answer;
use testkit::{Filter, Hold};

use super::skew::Skew;
use super::{Fleet, completed, journal, metric, submit, task, tool_of};
use crate::product::Product;

const LEASE: (&str, &str) = ("AGENT_LEASE_SECONDS", "2");
const MINUTE: i64 = 60;
/// How many executions each process has.
const EACH: usize = 3;
/// Longer than a lease and a poll.
const A_WHILE: Duration = Duration::from_secs(4);

async fn up(fleet: &Fleet, skew: &Skew, more: &[(&str, &str)]) -> Product {
    let variables = skew.variables();
    let mut settings = more.to_vec();
    settings.extend(
        variables
            .iter()
            .map(|(name, value)| (*name, value.as_str())),
    );
    fleet.up(&settings).await
}

/// Gives a process its share, in the middle of the second answer.
async fn share(fleet: &Fleet, product: &Product, hold: &Hold, shares: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..EACH {
        ids.push(submit(product, "unsafe", &format!("task {n} of share {shares}")).await);
    }
    let held = tokio::time::timeout(super::PATIENCE, hold.wait(shares * EACH)).await;
    assert!(
        held.is_ok(),
        "only {} are held: {}",
        hold.held(),
        fleet.log()
    );
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_a_minute_apart_steal_nothing_and_a_dead_one_is_taken_over() {
    let fleet = Fleet::new(|request| match request.turn {
        0 => Answer::call(tool_of(request), json!({})),
        _ => Answer::say("done, in so many words that it can be held in the middle"),
    })
    .await;
    let clocks = [Skew::of(0), Skew::of(MINUTE), Skew::of(-MINUTE)];
    let mut products = Vec::new();
    for clock in &clocks {
        // So many that all have to share.
        products.push(up(&fleet, clock, &[LEASE, ("AGENT_CAPACITY", "3")]).await);
    }
    for word in ["ahead of", "behind"] {
        let said = format!("s {word} PostgreSQL's");
        assert!(fleet.log().contains(&said), "{said}: {}", fleet.log());
    }
    let filter = Filter::any().with("point", "mid_stream").with("turn", 1);
    let hold = fleet.provider.hold(filter, None);
    let mut ids = Vec::new();
    for (n, product) in products.iter().enumerate() {
        ids.extend(share(&fleet, product, &hold, n + 1).await);
    }
    tokio::time::sleep(A_WHILE).await;
    // Now each clock jumps, under the lease.
    for (clock, seconds) in clocks.iter().zip([-MINUTE, -MINUTE, MINUTE]) {
        clock.set(seconds);
    }
    tokio::time::sleep(A_WHILE).await;
    let asked = fleet.asked();
    assert_eq!(asked.len(), 2 * 3 * EACH);
    assert!(
        asked.values().all(|times| *times == 1),
        "{asked:?}\n{}",
        fleet.log()
    );
    for id in &ids {
        let steps = journal(&products[0], id).await;
        assert!(steps.iter().all(|step| step["epoch"] == 1), "{steps:?}");
    }

    let dead = products.remove(1);
    dead.kill().await;
    let killed = Instant::now();
    hold.release();
    for id in &ids {
        completed(&products[0], id).await;
    }
    assert!(
        killed.elapsed() < Duration::from_secs(15),
        "{:?}",
        killed.elapsed()
    );
    // What comes in by a process that goes wrong is begun at once, and its deadline is its own.
    for product in &products {
        let accepted = Instant::now();
        let (status, body) = product
            .try_post("/tasks", &task("unsafe", "one more"))
            .await;
        assert_eq!(status, 202, "{body}");
        completed(product, body["execution_id"].as_str().unwrap()).await;
        assert!(
            accepted.elapsed() < Duration::from_secs(5),
            "{:?}",
            accepted.elapsed()
        );
        assert_eq!(
            metric(product, "agentrunner_late_writes_refused_total").await,
            0.0
        );
    }
    assert_eq!(fleet.effects.effects(Route::Charge).len(), 3 * EACH + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_on_the_embedded_store_repeats_nothing() {
    let mut fleet = Fleet::new(|request| match request.turn {
        0 => Answer::call(tool_of(request), json!({})),
        _ => Answer::say("done, in so many words that it can be held in the middle"),
    })
    .await;
    fleet.servers.clear();
    let clock = Skew::of(0);
    // It has room to take its own work from itself, and looks for work more often than it renews.
    let product = up(&fleet, &clock, &[]).await;
    let filter = Filter::any().with("point", "mid_stream").with("turn", 1);
    let hold = fleet.provider.hold(filter, None);
    let ids = share(&fleet, &product, &hold, 1).await;
    for seconds in [MINUTE, 0, -MINUTE] {
        clock.set(seconds);
        tokio::time::sleep(A_WHILE).await;
    }
    hold.release();
    for id in &ids {
        completed(&product, id).await;
    }
    assert!(
        fleet.asked().into_values().all(|times| times == 1),
        "{}",
        fleet.log()
    );
    assert_eq!(fleet.effects.effects(Route::Charge).len(), EACH);
}
