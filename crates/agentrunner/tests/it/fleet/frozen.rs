//! A worker that is frozen for three leases and thawed: it has lost everything, and must notice before it says or does
//! anything.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::effects::Route;
use testkit::provider::Answer;
use testkit::{Filter, Hold, Outcome};

use super::follower::{Book, End, events_of, read_once};
use super::{Fleet, completed, journal, metric, submit, task, tool_of};
use crate::product::Product;

const LEASE: (&str, &str) = ("AGENT_LEASE_SECONDS", "2");
const THREE_LEASES: Duration = Duration::from_secs(6);
/// So many answers are in the kernel's buffers when the worker thaws: it wants to write them.
const ANSWERED: usize = 4;
/// So many are still under way.
const UNANSWERED: usize = 2;
const ALL: usize = ANSWERED + UNANSWERED;
const SECRET: &str = "of the lost run";

/// Waits until a process has performed everything.
async fn all_completed(product: &Product, ids: &[String]) {
    for id in ids {
        completed(product, id).await;
    }
}

/// Waits until something is so that no signal tells of: it is another process's.
async fn wait_for(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "it never is");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_abandoned(fleet: &Fleet, count: usize) {
    let abandoned = fleet.provider.wait_until(|all| {
        let gone = all.iter().filter(|one| one.outcome == Outcome::Abandoned);
        gone.count() >= count
    });
    let abandoned = tokio::time::timeout(Duration::from_secs(10), abandoned).await;
    abandoned.expect("the lost streams are dropped");
}

/// Executions in the middle of their first answer, held there by the provider: `ANSWERED` in one hold, the others in
/// another.
async fn begun(fleet: &Fleet, product: &Product) -> (Vec<String>, Hold, Hold) {
    let at = |name: &str| Filter::any().with("point", "mid_stream").containing(name);
    let soon = fleet.provider.hold(at("soon"), Some(ANSWERED));
    let late = fleet.provider.hold(at("late"), Some(UNANSWERED));
    let mut ids = Vec::new();
    for n in 0..ALL {
        let name = if n < ANSWERED { "soon" } else { "late" };
        ids.push(submit(product, "unsafe", &format!("{name} {n}")).await);
    }
    soon.wait(ANSWERED).await;
    late.wait(UNANSWERED).await;
    (ids, soon, late)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_workers_late_writes_are_refused_and_one_result_is_seen() {
    let fleet = Fleet::new(|request| match (request.turn, request.attempt) {
        (0, 1) => {
            let words = format!("words that somebody hears in good time, and others {SECRET}");
            Answer::say(words).and_call(tool_of(request), json!({}))
        }
        (0, _) => Answer::call(tool_of(request), json!({})),
        _ => Answer::say("done"),
    })
    .await;
    let marks = tempfile::tempdir().unwrap();
    let holds = ("TEST_HOLD_DIR", marks.path().to_str().unwrap());
    let frozen = fleet.up(&[LEASE, holds]).await;
    let (mut ids, soon, late) = begun(&fleet, &frozen).await;
    // One has called the store already when it is frozen: nothing that it could look at comes in between.
    let mut writing = task("unsafe", "in the middle of a write");
    writing["metadata"] = json!({ "hold_at": "before-intent" });
    let writing = frozen.post("/tasks", &writing).await["execution_id"].clone();
    let mark = marks.path().join(writing.as_str().unwrap());
    wait_for(|| mark.exists()).await;
    ids.push(writing.as_str().unwrap().to_owned());
    let other = fleet.up(&[LEASE]).await;
    let book = Book::default();
    let url = events_of(&frozen, &ids[0]);
    let watching = tokio::spawn({
        let book = book.clone();
        async move { read_once(&url, &book).await }
    });
    book.until("delta").await;

    let froze = Instant::now();
    frozen.signal("STOP");
    // The other one takes over when the leases have run out, and ends everything.
    all_completed(&other, &ids).await;
    let left = THREE_LEASES.saturating_sub(froze.elapsed());
    tokio::time::sleep(left).await;
    soon.release();
    // The rest of the answers lies in the frozen process's sockets.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let thawed = Instant::now();
    frozen.signal("CONT");

    let end = tokio::time::timeout(Duration::from_secs(10), watching).await;
    let end = end.expect("the watcher's stream comes to its end").unwrap();
    assert_eq!(end, Some(End::Done), "{:?}", book.all());
    let after: Vec<_> = book.all().into_iter().filter(|s| s.at > thawed).collect();
    assert!(after.iter().all(|seen| seen.event != "delta"), "{after:?}");
    // What was heard of the answer that came to nothing is taken back.
    assert_eq!(
        after.first().map(|seen| &*seen.event),
        Some("supersede"),
        "{after:?}"
    );
    until_abandoned(&fleet, UNANSWERED).await;
    late.release();
    std::fs::remove_file(&mark).unwrap();
    wait_for(|| fleet.log().contains("a late write was refused")).await;
    let refused = metric(&frozen, "agentrunner_late_writes_refused_total").await;
    assert!(refused >= 1.0, "{}", fleet.log());
    println!(
        "{refused} late writes refused of {} executions lost",
        ids.len()
    );

    // Who watched saw the one result, and who reads anew sees the same.
    assert_eq!(book.steps(), [1, 2, 3, 4, 5]);
    let anew = Book::default();
    assert_eq!(
        read_once(&events_of(&frozen, &ids[0]), &anew).await,
        Some(End::Done)
    );
    assert_eq!(anew.steps(), [1, 2, 3, 4, 5]);
    for id in &ids {
        let steps = journal(&other, id).await;
        let ends = steps.iter().filter(|step| step["kind"] == "finished");
        assert_eq!((steps.len(), ends.count()), (5, 1), "{steps:?}");
        assert!(!steps[0].to_string().contains(SECRET), "{steps:?}");
        assert!(steps.iter().all(|step| step["epoch"] == 2), "{steps:?}");
    }
    assert_eq!(fleet.effects.effects(Route::Charge).len(), ids.len());
    // The thawed one works on.
    let id = submit(&frozen, "unsafe", "one more").await;
    completed(&frozen, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_of_a_fleet_of_one_goes_on_where_it_was() {
    let fleet = Fleet::new(|request| match request.turn {
        0 => Answer::call(tool_of(request), json!({})),
        _ => Answer::say("done"),
    })
    .await;
    let frozen = fleet.up(&[LEASE]).await;
    let (ids, soon, late) = begun(&fleet, &frozen).await;
    frozen.signal("STOP");
    tokio::time::sleep(THREE_LEASES).await;
    frozen.signal("CONT");
    // Several polls: it could have taken its own lapsed leases.
    tokio::time::sleep(Duration::from_secs(3)).await;
    soon.release();
    late.release();
    all_completed(&frozen, &ids).await;
    assert!(fleet.asked().into_values().all(|times| times == 1));
    assert_eq!(fleet.effects.effects(Route::Charge).len(), ALL);
    assert_eq!(
        metric(&frozen, "agentrunner_late_writes_refused_total").await,
        0.0
    );
}
