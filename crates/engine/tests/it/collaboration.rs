//! A coordinator and its team, from the task to the answer, on a real store with a model that the test plays.

mod failures;
mod limits;
mod people;
mod starts;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use agentrunner_engine::NewTask;
use chrono::Utc;
use domain::execution::FailureCode;
use domain::step::Answer;
use domain::{ExecutionId, Message, Outcome, Planning, State, Status, StepBody, Team};
use llm::ChatRequest;
use serde_json::{Value, json};
use store::intercept::Intercepted;
use store::{InputAnswer, NewInput, Store};

use crate::faults::{Fault, Faulty};
use crate::rig::{Rig, Say, definition};

/// Whom the model plays.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Planner,
    Reviewer,
    Judge,
    Author,
    Agent(String),
}

fn role(request: &ChatRequest<'_>) -> Role {
    let is = |words: &str| request.system.contains(words);
    if is("You plan the work") {
        Role::Planner
    } else if is("You look at results") {
        Role::Reviewer
    } else if is("You decide whose answer") {
        Role::Judge
    } else if is("Your team has done its work") {
        Role::Author
    } else {
        let name = request.system.trim_start_matches("You are ");
        Role::Agent(name.trim_end_matches('.').to_owned())
    }
}

/// The last thing that was said to the model.
fn words(request: &ChatRequest<'_>) -> String {
    match request.messages.last() {
        Some(Message::User { text }) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn step(id: &str, agent: &str, waits: &[&str]) -> Value {
    json!({ "id": id, "agent": agent, "instruction": format!("do {id}"), "inputs": [], "depends_on": waits })
}

fn plan(steps: &[Value]) -> Say {
    Say::Json(json!({ "question": "", "steps": steps }))
}

/// Accepts everything that is to be reviewed.
fn accept(request: &ChatRequest<'_>) -> Say {
    verdicts(request, |_| ("accept", ""))
}

fn verdicts(request: &ChatRequest<'_>, of: impl Fn(&str) -> (&'static str, &'static str)) -> Say {
    let text = words(request);
    let ids = text
        .split("<result step=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let verdicts = ids.map(|id| {
        let (verdict, feedback) = of(id);
        json!({ "step": id, "verdict": verdict, "feedback": feedback })
    });
    Say::Json(json!({ "verdicts": verdicts.collect::<Vec<_>>() }))
}

/// A coordinator `a` with the agents `b`, `c` and `d`.
async fn team(
    config: Value,
    play: impl Fn(Role, &ChatRequest<'_>) -> Say + Send + Sync + 'static,
) -> Rig {
    team_on(config, json!({}), play, |store| store).await
}

async fn team_on(
    config: Value,
    extra: Value,
    play: impl Fn(Role, &ChatRequest<'_>) -> Say + Send + Sync + 'static,
    wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Rig {
    let mut own = json!({ "execution_mode": "collaborative", "collaborative_config": config });
    own.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let play = move |_: usize, request: &ChatRequest<'_>| play(role(request), request);
    let rig = Rig::new(own, play, wrap).await;
    for name in ["b", "c", "d"] {
        let colleague = json!({
            "name": name, "system_prompt": format!("You are {name}."), "description": format!("It does {name}."),
        });
        rig.define(definition(colleague)).await;
    }
    rig.engine.start();
    rig
}

async fn submit(rig: &Rig, terms: Value) -> ExecutionId {
    let mut input = json!({ "task_description": "find out" });
    input
        .as_object_mut()
        .unwrap()
        .extend(terms.as_object().unwrap().clone());
    let task = NewTask::new("a", input, "1".repeat(32).parse().unwrap());
    rig.engine.submit(task).await.unwrap().id
}

fn output(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Completed { output, .. } => output,
        other => panic!("{other:?}"),
    }
}

fn failure(outcome: &Outcome) -> (FailureCode, &str) {
    match outcome {
        Outcome::Failed(failure) => (failure.code, &failure.message),
        other => panic!("{other:?}"),
    }
}

async fn folded(rig: &Rig, id: ExecutionId) -> Team {
    let (row, steps) = loop {
        let row = rig.store.execution(id).await.unwrap().unwrap();
        let steps = rig.store.steps(id, None, 1000).await.unwrap();
        // It may have gone on between the two looks.
        if row.steps as usize == steps.len() {
            break (row, steps);
        }
    };
    let state = State::replay(&row.execution, &steps).unwrap();
    assert_eq!(state.totals, row.totals, "the journal is the row");
    *state.team.unwrap()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("it comes to that");
}

async fn answer(rig: &Rig, id: ExecutionId, answer: Answer) -> InputAnswer {
    until(async || {
        rig.store.execution(id).await.unwrap().unwrap().status == Status::WaitingForInput
    })
    .await;
    rig.engine
        .answer(NewInput {
            id,
            request: None,
            answer,
            by: "ada".to_owned(),
            now: Utc::now(),
        })
        .await
        .unwrap()
}

/// One step by `b`; whoever reviews accepts.
fn simple(role: Role, request: &ChatRequest<'_>) -> Say {
    match role {
        Role::Planner => plan(&[step("x", "b", &[])]),
        Role::Reviewer => accept(request),
        Role::Agent(name) => Say::Json(json!(name)),
        Role::Author => Say::Text("done"),
        Role::Judge => Say::Panic,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_carried_out_reviewed_and_put_together() {
    let rig = team(json!({}), |role, request| match role {
        Role::Planner => {
            let text = words(request);
            assert!(
                text.contains("find out") && text.contains("- b: It does b."),
                "{text}"
            );
            assert!(!text.contains("- a"), "{text}");
            plan(&[
                step("x", "b", &[]),
                step("y", "c", &[]),
                step("z", "d", &["x", "y"]),
            ])
        }
        Role::Reviewer => accept(request),
        Role::Agent(name) if name == "d" => {
            let text = words(request);
            assert!(text.starts_with("do z"), "{text}");
            let both = text.contains("b did it") && text.contains("c did it");
            Say::Text(if both { "d saw both" } else { "d saw nothing" })
        }
        Role::Agent(name) if name == "b" => Say::Text("b did it"),
        Role::Agent(_) => Say::Text("c did it"),
        Role::Author => {
            assert!(words(request).contains("d saw both"));
            Say::Text("all is known")
        }
        Role::Judge => Say::Panic,
    })
    .await;
    let subscription = bus::Subscription {
        queue: "watcher".to_owned(),
        patterns: vec!["collaboration.completed.*".parse().unwrap()],
        prefetch: 1,
    };
    let mut told = rig.engine.bus().subscribe(subscription).await.unwrap();
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "all is known");
    let team = folded(&rig, id).await;
    assert!(team.parts.iter().all(|part| part.is_accepted()));
    let who: Vec<&str> = team
        .participants()
        .iter()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(who, ["b", "c", "d"]);
    assert_eq!(team.contributions.len(), 3);
    for done in &team.contributions {
        let row = rig
            .store
            .execution(done.execution_id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.totals, done.totals, "what it cost is what its row says");
        assert_eq!(row.execution.parent.unwrap().id, id);
        assert_eq!(row.execution.metadata["step"], json!(done.step));
    }
    let event = tokio::time::timeout(Duration::from_secs(10), told.next()).await;
    let event = event.expect("whoever subscribes is told").unwrap().event;
    assert_eq!(
        event.topic.to_string(),
        format!("collaboration.completed.{id}")
    );
    assert_eq!(event.data["output"], "all is known");
    assert_eq!(event.data["contributions"].as_array().unwrap().len(), 3);
    assert_eq!(event.data["contributions"][0]["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_one_runs_at_a_time_and_sees_the_one_before() {
    let running = Arc::new(AtomicUsize::new(0));
    let log = Arc::new(Mutex::new(Vec::new()));
    let (counts, order) = (running.clone(), log.clone());
    let config = json!({ "planning_strategy": "sequential" });
    let rig = team(config, move |role, request| match role {
        Role::Planner => plan(&[
            step("1", "b", &[]),
            step("2", "c", &[]),
            step("3", "b", &[]),
        ]),
        Role::Author => Say::Text("done"),
        Role::Agent(name) => {
            assert_eq!(counts.fetch_add(1, Ordering::SeqCst), 0);
            let saw = words(request).matches("<result").count();
            order.lock().unwrap().push((name, saw));
            counts.fetch_sub(1, Ordering::SeqCst);
            Say::Late(Duration::from_millis(30), "done")
        }
        Role::Reviewer | Role::Judge => Say::Panic,
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let log: Vec<(String, usize)> = log.lock().unwrap().clone();
    let log: Vec<(&str, usize)> = log
        .iter()
        .map(|(name, saw)| (name.as_str(), *saw))
        .collect();
    // The caution names a block as well.
    assert_eq!(log, [("b", 0), ("c", 2), ("b", 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_several_answer_a_judge_decides_and_one_that_fails_is_left_out() {
    let config = json!({ "planning_strategy": "consensus", "max_step_retries": 0 });
    let rig = team(config, |role, request| match role {
        Role::Agent(name) if name == "b" => Say::Text("forty-two"),
        Role::Agent(name) if name == "c" => Say::Text("seven"),
        Role::Agent(_) => Say::Fail(llm::Error {
            class: domain::retry::ModelErrorClass::Auth,
            message: "no key".to_owned(),
            retry_after: None,
            source: None,
        }),
        Role::Judge => {
            let text = words(request);
            assert!(
                text.contains("forty-two") && text.contains("seven"),
                "{text}"
            );
            Say::Json(json!({ "chosen": ["b"], "reason": "it is right" }))
        }
        Role::Author => {
            let text = words(request);
            assert!(
                text.contains("forty-two") && !text.contains("seven"),
                "{text}"
            );
            assert!(
                text.contains("it is right") && text.contains("no key"),
                "{text}"
            );
            Say::Text("42")
        }
        Role::Planner | Role::Reviewer => Say::Panic,
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "42");
    let steps = rig.store.steps(id, None, 100).await.unwrap();
    let dropped = steps.iter().any(|step| {
        matches!(&step.body, StepBody::Plan(planning) if matches!(&**planning, Planning::Dropped { step, .. } if step.as_str() == "d"))
    });
    assert!(dropped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_can_not_be_carried_out_is_sent_back_with_reasons() {
    let rig = team(json!({}), |role, request| match role {
        Role::Planner if words(request).starts_with("Make a plan") => plan(&[
            step("x", "bb", &["z"]),
            step("y", "a", &[]),
            step("z", "c", &["ghost"]),
        ]),
        Role::Planner => {
            let text = words(request);
            if text.contains("there is no agent \"bb\"") && text.contains("is yourself") {
                return plan(&[step("x", "b", &["z"]), step("z", "c", &["x"])]);
            }
            assert!(text.contains("x → z → x"), "{text}");
            plan(&[step("x", "b", &[])])
        }
        Role::Reviewer => accept(request),
        Role::Agent(_) => Say::Text("did it"),
        Role::Author => Say::Text("done"),
        Role::Judge => Say::Panic,
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_can_not_plan_ends_the_task_with_the_reason() {
    let rig = team(json!({}), |role, _| match role {
        Role::Planner => Say::Text("I would rather write a poem."),
        _ => Say::Panic,
    })
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::PlanInvalid);
    assert!(message.contains("not JSON"), "{message}");
    assert_eq!(
        rig.model.asked.load(Ordering::SeqCst),
        3,
        "once, and two repairs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_given_what_it_named_of_the_shared_state() {
    let config = json!({ "planning_strategy": "sequential", "require_plan_approval": true });
    let rig = team(config, |role, request| match role {
        Role::Planner => {
            let mut reads = step("y", "c", &[]);
            reads["inputs"] = json!(["found", "nothing"]);
            plan(&[reads])
        }
        Role::Agent(_) => {
            let saw = words(request).contains("found = {\"n\":7}");
            Say::Text(if saw { "seven" } else { "blind" })
        }
        Role::Author => {
            let saw = words(request).contains("seven");
            Say::Text(if saw { "seven" } else { "blind" })
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    let write = store::SharedWrite {
        team: id,
        key: "found".to_owned(),
        value: json!({ "n": 7 }),
        expected: Some(0),
        by: id,
        idempotency_key: "once".to_owned(),
        now: Utc::now(),
    };
    rig.store.share(write).await.unwrap();
    answer(&rig, id, Answer::Approve).await;
    assert_eq!(output(&rig.outcome(id).await), "seven");
}
