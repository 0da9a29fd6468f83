//! How long work stands still after `kill -9` of its worker, with the default lease, over at least fifty kills.
//!
//! Run it by hand or from the fault suite, best with nothing else on the machine:
//! `cargo nextest run -p agentrunner --run-ignored only takeover --no-capture`

use std::time::Duration;

use chrono::{DateTime, Utc};
use testkit::Filter;
use testkit::provider::Answer;

use super::{Fleet, Spread, completed, journal, submit, taken_at};
use crate::product::Product;

const KILLS: usize = 50;
/// How many processes are killed in one round, one after the other; two more live on and take over.
const VICTIMS: usize = 5;
/// How many executions each of them has.
const EACH: usize = 4;
/// What is promised: 15 s at p99.
const PROMISE: Duration = Duration::from_secs(15);
/// Between two kills of a round: together they are spread over the time between two renewals.
const BETWEEN: Duration = Duration::from_millis(667);

/// Starts as many processes as there are victims, gives each its share of executions in the middle of an answer, and
/// kills them. Answers for each execution when its worker died.
async fn round(fleet: &Fleet, number: usize) -> (Vec<Product>, Vec<(String, DateTime<Utc>)>) {
    let hold = fleet.provider.hold(
        Filter::any().with("point", "mid_stream"),
        Some(VICTIMS * EACH),
    );
    let (mut victims, mut ids) = (Vec::new(), Vec::new());
    // One process and its share after the other, so that it is known who has what.
    for victim in 0..VICTIMS {
        let product = fleet.up(&[("AGENT_CAPACITY", &EACH.to_string())]).await;
        let mut mine = Vec::new();
        for n in 0..EACH {
            let prompt = format!("task {n} of {victim} in round {number}");
            mine.push(submit(&product, "unsafe", &prompt).await);
        }
        hold.wait((victim + 1) * EACH).await;
        victims.push(product);
        ids.push(mine);
    }
    let survivors = vec![fleet.up(&[]).await, fleet.up(&[]).await];
    let mut killed = Vec::new();
    for (product, mine) in victims.into_iter().zip(ids) {
        tokio::time::sleep(BETWEEN).await;
        let at = Utc::now();
        product.kill().await;
        killed.extend(mine.into_iter().map(|id| (id, at)));
    }
    drop(hold);
    (survivors, killed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes minutes, and measures: the fault suite runs it"]
async fn takeover_after_kill_9_takes_15_seconds_at_most() {
    let fleet = Fleet::new(|_| Answer::say("an answer in so many words that it can be held")).await;
    let (mut took, mut kills) = (Vec::new(), 0);
    while kills < KILLS {
        let (survivors, killed) = round(&fleet, kills / VICTIMS).await;
        for (id, at) in &killed {
            completed(&survivors[0], id).await;
            let steps = journal(&survivors[0], id).await;
            // Nothing was committed before the kill, so the first step is the next one.
            assert_eq!(steps[0]["epoch"], 2, "{steps:?}");
            took.push((taken_at(&steps[0]) - at).to_std().expect("after the kill"));
        }
        kills += VICTIMS;
        for mut survivor in survivors {
            survivor.signal("TERM");
            assert_eq!(survivor.ended().await, Some(0));
        }
    }
    let took = Spread::of(took);
    println!("{kills} kills; from the kill to the next step: {took}");
    assert!(took.at(0.99) <= PROMISE, "{took}");
}
