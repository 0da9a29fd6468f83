//! What one sees who looks at everything.

use std::time::Duration;

use agentrunner_engine::{Engine, FeedEvent, FeedWatch, Happened, Settings};
use domain::{ExecutionId, Status};
use serde_json::json;

use crate::rig::{Rig, Say, settings};

fn desk(rig: &Rig, name: &str) -> Engine {
    let settings = Settings {
        modes: Vec::new(),
        ..settings(name)
    };
    let desk = Engine::new(rig.ports(), rig.agents.clone(), settings);
    desk.start();
    desk
}

async fn next(watch: &mut FeedWatch) -> FeedEvent {
    let next = tokio::time::timeout(Duration::from_secs(20), watch.next());
    next.await.expect("something happens")
}

/// Waits until a process has heard of as many as there are, itself included: a place names each of whom it knows.
async fn until_acquainted(engine: &Engine, with: usize) {
    let known = async {
        loop {
            let place = engine.look(None).unwrap().place();
            if place.split('-').count() >= with {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let known = tokio::time::timeout(Duration::from_secs(20), known);
    known.await.expect("processes know one another");
}

/// What is seen of an execution until its end.
async fn until_completed(watch: &mut FeedWatch, id: ExecutionId) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let FeedEvent::Note(note) = next(watch).await else {
            panic!("a gap after {seen:?}")
        };
        if note.execution_id != Some(id) {
            continue;
        }
        match &note.what {
            Happened::Execution { status } => seen.push(status.to_string()),
            Happened::Step { seq, kind, .. } => seen.push(format!("{seq} {kind}")),
            Happened::Event { .. } => continue,
        }
        if note.what
            == (Happened::Execution {
                status: Status::Completed,
            })
        {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_seen_in_every_process_and_one_goes_on_at_another() {
    let rig = Rig::start(json!({}), |_, _| Say::Text("done")).await;
    let (first, second) = (desk(&rig, "desk-1"), desk(&rig, "desk-2"));
    until_acquainted(&second, 3).await;
    let (mut here, mut there) = (rig.engine.look(None).unwrap(), first.look(None).unwrap());
    // Until the others know that somebody looks, nothing is told.
    let mut warm = Vec::new();
    while warm.is_empty() {
        let id = rig.submit().await;
        rig.outcome(id).await;
        let heard = tokio::time::timeout(Duration::from_millis(200), there.next()).await;
        warm.extend(heard.ok());
    }
    let id = rig.submit_to(&first).await;
    let whole = ["running", "1 model_call", "2 finished", "completed"];
    assert_eq!(until_completed(&mut here, id).await, whole);
    assert_eq!(until_completed(&mut there, id).await, whole);
    let place = there.place();
    drop(there);

    // Nobody looks at the second, and it knows what happened while nobody looked at the first.
    let missed = rig.submit_to(&second).await;
    rig.outcome(missed).await;
    let mut resumed = second.look(Some(&place)).unwrap();
    assert_eq!(until_completed(&mut resumed, missed).await, whole);
    let later = rig.submit_to(&second).await;
    assert_eq!(until_completed(&mut resumed, later).await, whole);
    // A place that nobody reached is a gap.
    let mut lost = second.look(Some("123456789abc.7")).unwrap();
    assert_eq!(next(&mut lost).await, FeedEvent::Gap);
    assert!(second.look(Some("no place")).is_err());
}
