//! Conversations: one message at a time, each knowing what was said before.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrunner_engine::{Error, NewTask};
use domain::execution::FailureCode;
use domain::retry::ModelErrorClass;
use domain::{ExecutionId, Message, Outcome, Purpose, Status, StepBody};
use serde_json::{Value, json};

use crate::rig::{Rig, Say, outcome};

/// What the model was shown, each time that it was asked: the texts in order, the system prompt first.
type Heard = Arc<Mutex<Vec<Vec<String>>>>;

fn talkative(extra: Value) -> Value {
    let mut config = json!({ "max_conversation_history": 6 });
    config
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    json!({ "continuous_config": config })
}

fn message(text: &str) -> NewTask {
    NewTask {
        conversation: Some("c".parse().unwrap()),
        ..NewTask::new(
            "a",
            json!({ "prompt": text }),
            "1".repeat(32).parse().unwrap(),
        )
    }
}

fn shown(request: &llm::ChatRequest<'_>) -> Vec<String> {
    let text = |message: &Message| match message {
        Message::User { text } => text.clone(),
        Message::Assistant(reply) => reply.text.clone(),
        Message::Tool { content, .. } => content.clone(),
    };
    let messages = request.messages.iter().map(text);
    std::iter::once(request.system.to_owned())
        .chain(messages)
        .collect()
}

fn heard(heard: &Heard) -> Vec<Vec<String>> {
    heard.lock().unwrap().clone()
}

/// A rig whose model answers "re: " and the last words, and remembers what it was shown.
async fn echo(extra: Value, starts: bool) -> (Rig, Heard) {
    let all = Heard::default();
    let ears = all.clone();
    let play = move |_, request: &llm::ChatRequest<'_>| {
        ears.lock().unwrap().push(shown(request));
        if request.system.starts_with("You keep the memory") {
            return Say::Text("the gist");
        }
        Say::Text("yes")
    };
    let rig = Rig::new(extra, play, |store| store).await;
    if starts {
        rig.engine.start();
    }
    (rig, all)
}

async fn say(rig: &Rig, text: &str) -> ExecutionId {
    rig.engine.submit(message(text)).await.unwrap().id
}

async fn stored(rig: &Rig) -> Vec<String> {
    let (agent, conversation) = ("a".parse().unwrap(), "c".parse().unwrap());
    let messages = rig.store.conversation(&agent, &conversation, 1000).await;
    let text = |message: &Message| match message {
        Message::User { text } => text.clone(),
        Message::Assistant(reply) => reply.text.clone(),
        Message::Tool { content, .. } => content.clone(),
    };
    messages.unwrap().iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_two_engines_process_one_conversation_in_order_and_each_knows_what_came_before() {
    let (rig, all) = echo(json!({}), false).await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(say(&rig, &format!("m{n}")).await);
    }
    let other = rig.another("w2");
    rig.engine.start();
    other.start();
    for id in &ids {
        assert!(matches!(rig.outcome(*id).await, Outcome::Completed { .. }));
    }
    let mut expected: Vec<String> = vec!["You are a test.".to_owned()];
    for (n, shown) in heard(&all).iter().enumerate() {
        expected.push(format!("m{n}"));
        assert_eq!(*shown, expected, "message {n}");
        expected.push("yes".to_owned());
    }
    assert_eq!(heard(&all).len(), 12, "each was asked once");
    assert_eq!(stored(&rig).await, expected[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_taken_over_knows_the_same_as_before() {
    let all = Heard::default();
    let ears = all.clone();
    let rig = Rig::start(json!({}), move |_, request| {
        let shown = shown(request);
        let mut all = ears.lock().unwrap();
        let is_first = !all.contains(&shown);
        let is_second_message = shown.last().is_some_and(|text| text == "m1");
        all.push(shown);
        if is_first && is_second_message {
            return Say::Hang;
        }
        Say::Text("yes")
    })
    .await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(say(&rig, &format!("m{n}")).await);
    }
    hangs(&rig, 1).await;
    // As if the process were gone: whoever claims next goes on.
    let worker = "w1".parse().unwrap();
    rig.store
        .end_leases(&worker, chrono::Utc::now())
        .await
        .unwrap();
    let other = rig.another("w2");
    other.start();
    for id in ids {
        assert!(matches!(
            outcome(&other, id).await,
            Outcome::Completed { .. }
        ));
    }
    let all = heard(&all);
    let of_second: Vec<_> = all
        .iter()
        .filter(|shown| shown.last().unwrap() == "m1")
        .collect();
    assert_eq!(of_second.len(), 2, "asked again");
    assert_eq!(of_second[0], of_second[1]);
    let last = all.last().unwrap();
    assert_eq!(last[1..], ["m0", "yes", "m1", "yes", "m2"]);
}

/// Waits until so many of the model's answers have begun that never end.
async fn hangs(rig: &Rig, n: u32) {
    let wait = async {
        while rig.model.open.load(Ordering::SeqCst) < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_conversation_is_shown_through_a_window() {
    let (rig, all) = echo(talkative(json!({})), true).await;
    for n in 0..6 {
        let id = say(&rig, &format!("m{n}")).await;
        rig.outcome(id).await;
    }
    let last = heard(&all).pop().unwrap();
    assert_eq!(last[1..], ["m3", "yes", "m4", "yes", "m5"]);
    assert_eq!(stored(&rig).await.len(), 12, "all is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_conversation_is_summarised_once_and_stays_so() {
    let extra = talkative(json!({ "conversation_pruning_strategy": "summarize" }));
    let (rig, all) = echo(extra, true).await;
    let mut last = None;
    for n in 0..4 {
        let id = say(&rig, &format!("m{n}")).await;
        rig.outcome(id).await;
        last = Some(id);
    }
    let gist = "[Summary of the conversation so far]\nthe gist";
    let asked = heard(&all);
    assert_eq!(asked.len(), 5, "four answers and one summary");
    assert!(asked[3][1].contains("User: m0\nAssistant: yes\nUser: m1"));
    assert_eq!(asked[4][1..], [gist, "m2", "yes", "m3"]);
    let expected = [gist, "m2", "yes", "m3", "yes"];
    assert_eq!(
        stored(&rig).await,
        expected,
        "in the place of what it covers"
    );
    let steps = rig.store.steps(last.unwrap(), None, 10).await.unwrap();
    let purposes: Vec<bool> = steps
        .iter()
        .filter_map(|step| match &step.body {
            StepBody::ModelCall(call) => {
                Some(matches!(call.purpose, Purpose::Summary { covers: 4 }))
            }
            _ => None,
        })
        .collect();
    assert_eq!(purposes, [true, false]);
    let id = say(&rig, "m4").await;
    rig.outcome(id).await;
    assert_eq!(heard(&all).len(), 6, "it is not summarised again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_summary_that_fails_is_done_without() {
    let rig = Rig::start(
        talkative(json!({ "conversation_pruning_strategy": "summarize" })),
        |_, request| {
            if request.system.starts_with("You keep the memory") {
                return Say::Fail(failure(ModelErrorClass::Unavailable));
            }
            Say::Text("yes")
        },
    )
    .await;
    for n in 0..8 {
        let id = say(&rig, &format!("m{n}")).await;
        assert!(matches!(rig.outcome(id).await, Outcome::Completed { .. }));
    }
    // Each long one asked for a summary once, and went on without.
    let asked = rig.model.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 8 + 5);
}

fn failure(class: ModelErrorClass) -> llm::Error {
    llm::Error {
        class,
        message: "no".to_owned(),
        retry_after: None,
        source: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_model_can_not_read_is_pruned_and_asked_again() {
    let rig = Rig::start(json!({}), |_, request| {
        let bytes: usize = request.messages.iter().map(Message::bytes).sum();
        if bytes > 3000 {
            return Say::Fail(failure(ModelErrorClass::ContextTooLong));
        }
        Say::Text("yes")
    })
    .await;
    let long = "x".repeat(900);
    for _ in 0..6 {
        let id = say(&rig, &long).await;
        assert!(matches!(rig.outcome(id).await, Outcome::Completed { .. }));
    }
    // And what can't be pruned fails, in words, after few tries.
    let before = rig.model.asked.load(Ordering::SeqCst);
    let id = say(&rig, &"x".repeat(4000)).await;
    let Outcome::Failed(failure) = rig.outcome(id).await else {
        panic!("nothing can be left out")
    };
    assert_eq!(failure.code, FailureCode::ModelRejected);
    assert!(
        failure.message.contains("longer than it can read"),
        "{}",
        failure.message
    );
    let tries = rig.model.asked.load(Ordering::SeqCst) - before;
    assert!(tries <= 1 + domain::pruning::MAX_SQUEEZES, "{tries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_message_can_interrupt_what_came_before() {
    let rig = Rig::start(
        talkative(json!({ "on_concurrent_message": "interrupt" })),
        |_, request| match request.messages.last() {
            Some(Message::User { text }) if text.starts_with("slow") => Say::Hang,
            _ => Say::Text("yes"),
        },
    )
    .await;
    let first = say(&rig, "slow 1").await;
    hangs(&rig, 1).await;
    let second = say(&rig, "slow 2").await;
    let third = say(&rig, "quick").await;
    assert!(matches!(
        rig.outcome(third).await,
        Outcome::Completed { .. }
    ));
    for (earlier, later) in [(first, second), (second, third)] {
        let outcome = rig.outcome(earlier).await;
        assert_eq!(outcome.status(), Status::Cancelled);
        let reason = outcome.reason();
        assert!(reason.contains(&later.to_string()), "{reason}");
    }
    assert_eq!(stored(&rig).await, ["quick", "yes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_message_can_be_refused() {
    let rig = Rig::start(
        talkative(json!({ "on_concurrent_message": "reject" })),
        |_, _| Say::Hang,
    )
    .await;
    let first = say(&rig, "one").await;
    match rig.engine.submit(message("two")).await {
        Err(Error::Busy { running, .. }) => assert_eq!(running, first),
        other => panic!("{other:?}"),
    }
    rig.engine.cancel(first, "me", "").await.unwrap();
    rig.outcome(first).await;
    say(&rig, "three").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_input_can_name_the_conversation() {
    let (rig, all) = echo(talkative(json!({ "conversation_key": "user.id" })), true).await;
    let task = |text: &str, user: Value| {
        let input = json!({ "text": text, "user": { "id": user } });
        NewTask::new("a", input, "1".repeat(32).parse().unwrap())
    };
    for (text, user) in [("a1", json!("ann")), ("b1", json!(7)), ("a2", json!("ann"))] {
        let id = rig.engine.submit(task(text, user)).await.unwrap().id;
        rig.outcome(id).await;
    }
    let lengths: Vec<usize> = heard(&all).iter().map(Vec::len).collect();
    assert_eq!(lengths, [2, 2, 4]);
    for bad in [
        json!("x".repeat(1 << 19)),
        json!("a\nb"),
        json!({}),
        json!(""),
    ] {
        match rig.engine.submit(task("x", bad)).await {
            Err(Error::Invalid { field, message }) => {
                assert_eq!(field, "conversation_id");
                assert!(message.len() < 500, "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_ends_by_its_deadline_and_never_begins() {
    let rig = Rig::start(json!({}), |_, request| match request.messages.last() {
        Some(Message::User { text }) if text == "slow" => Say::Hang,
        _ => Say::Text("yes"),
    })
    .await;
    let first = say(&rig, "slow").await;
    let hasty = NewTask {
        timeout: Some(Duration::from_millis(300)),
        ..message("hasty")
    };
    let hasty = rig.engine.submit(hasty).await.unwrap().id;
    assert_eq!(rig.outcome(hasty).await.status(), Status::Timeout);
    assert_eq!(rig.kinds(hasty).await, ["finished"]);
    rig.engine.cancel(first, "me", "").await.unwrap();
    let last = say(&rig, "last").await;
    assert!(matches!(rig.outcome(last).await, Outcome::Completed { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_an_event_has_its_place_in_a_conversation_when_its_publisher_is_answered() {
    let config = json!({ "conversation_key": "room" });
    let extra = json!({ "event_subscriptions": ["said"], "continuous_config": config });
    // Nothing runs: no relay carries what is published, in whatever order.
    let rig = Rig::new(extra, |_, _| Say::Text("yes"), |store| store).await;
    let say = async |n: usize, data: Value| {
        let event = domain::Event {
            id: format!("e{n}").parse().unwrap(),
            topic: "said".parse().unwrap(),
            source: "test".to_owned(),
            time: rig.engine.now(),
            trace_id: "1".repeat(32).parse().unwrap(),
            hops: 0,
            data,
        };
        rig.engine.publish(event).await.unwrap();
    };
    let started = async || {
        let page = store::Page {
            limit: 9,
            after: None,
        };
        let listed = rig.store.executions(Default::default(), page).await;
        let (mut rows, _) = listed.unwrap();
        rows.reverse();
        let events = rows.into_iter().map(|row| row.execution.event_id.unwrap());
        events.map(String::from).collect::<Vec<_>>()
    };
    for n in 0..3 {
        say(n, json!({ "room": "c" })).await;
    }
    say(3, json!({})).await;
    assert_eq!(
        started().await,
        ["e0", "e1", "e2"],
        "the last is no message"
    );
    // The relay finds it done, and starts what is left.
    rig.engine.start();
    let settled = async {
        while !rig.store.outbox(9).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(10), settled).await;
    settled.expect("the outbox is carried");
    assert_eq!(started().await, ["e0", "e1", "e2", "e3"]);
}
