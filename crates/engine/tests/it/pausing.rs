//! What a provider told one process about its limits, all keep to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agentrunner_engine::Engine;
use domain::retry::ModelErrorClass;
use domain::{Outcome, StepBody};
use serde_json::json;
use store::counters::{Counters, LocalCounters};

use crate::rig::{Rig, Say, outcome};

const ASKED_FOR: Duration = Duration::from_millis(1500);

fn slow_down() -> Say {
    Say::Fail(llm::Error {
        class: ModelErrorClass::RateLimited,
        message: "not so fast".to_owned(),
        retry_after: Some(ASKED_FOR),
        source: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn all_processes_leave_a_provider_alone_for_as_long_as_it_asked() {
    let was_refused = AtomicBool::new(false);
    let retries = json!({ "retry_config": { "max_retries": 1, "retry_delay_seconds": 0.01 } });
    let rig = Rig::new(
        retries,
        move |_, _| {
            if was_refused.swap(true, Ordering::SeqCst) {
                Say::Text("done")
            } else {
                slow_down()
            }
        },
        |store| store,
    )
    .await;
    // Two processes that share their counters, as Redis makes them do.
    let counters: Arc<dyn Counters> = Arc::new(LocalCounters::default());
    let engines: Vec<Engine> = ["w1", "w2"]
        .into_iter()
        .map(|name| rig.another_with(name, counters.clone()))
        .collect();
    let told = rig.submit().await;
    engines[0].start();
    // When it has journaled that it waits, it has told.
    while rig.kinds(told).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    engines[1].start();
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(rig.submit().await);
    }
    for id in &others {
        assert!(matches!(
            outcome(&rig.engine, *id).await,
            Outcome::Completed { .. }
        ));
        let waited = began.elapsed();
        assert!(
            waited > ASKED_FOR / 2 && waited < ASKED_FOR + Duration::from_secs(5),
            "asked after {waited:?}"
        );
        // Nobody was refused, so no retry is used up.
        assert_eq!(rig.kinds(*id).await, ["model_call", "finished"]);
    }
    assert!(matches!(
        outcome(&rig.engine, told).await,
        Outcome::Completed { .. }
    ));
    let steps = rig.store.steps(told, None, 10).await.unwrap();
    assert!(matches!(steps[0].body, StepBody::Timer { .. }), "{steps:?}");
    // One refusal, and one answer for each.
    assert_eq!(rig.model.asked.load(Ordering::SeqCst), 7);
    for engine in engines {
        engine.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_have_no_time_left_asks_all_the_same() {
    let rig = Rig::new(
        json!({ "timeout_seconds": 5 }),
        |_, _| Say::Text("done"),
        |store| store,
    )
    .await;
    let counters = Arc::new(Always);
    let engine = rig.another_with("w1", counters);
    engine.start();
    let id = rig.submit().await;
    assert!(matches!(
        outcome(&rig.engine, id).await,
        Outcome::Completed { .. }
    ));
    engine.shutdown(Duration::from_secs(5)).await;
}

/// Says that everything is to be left alone for an hour.
struct Always;

#[async_trait::async_trait]
impl Counters for Always {
    async fn take(&self, _: &str, _: store::counters::Limit) -> store::counters::Taken {
        store::counters::Taken::Allowed { left: 0 }
    }
    async fn pause(&self, _: &str, _: Duration) {}
    fn paused(&self, _: &str) -> Option<Duration> {
        Some(Duration::from_secs(3600))
    }
}
