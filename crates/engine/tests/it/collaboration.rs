//! A coordinator and its team, from the task to the answer, on a real store with a model that the test plays.

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
    let row = rig.store.execution(id).await.unwrap().unwrap();
    let steps = rig.store.steps(id, None, 1000).await.unwrap();
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
async fn nothing_runs_before_a_person_approves_the_plan() {
    let rig = team(json!({ "require_plan_approval": true }), simple).await;
    let id = submit(&rig, json!({})).await;
    let odd = answer(&rig, id, Answer::Repeat).await;
    assert!(matches!(odd, InputAnswer::DoesNotFit(_)), "{odd:?}");
    let row = rig.store.execution(id).await.unwrap().unwrap();
    assert_eq!(row.worker, None, "waiting holds no lease");
    assert!(row.status_reason.unwrap().contains("approval of the plan"));
    assert!(folded(&rig, id).await.contributions.is_empty());
    answer(&rig, id, Answer::Approve).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_ask_for_approval_and_a_person_may_edit() {
    let rig = team(json!({}), simple).await;
    let id = submit(&rig, json!({ "require_plan_approval": true })).await;
    let edit = |agent: &str| Answer::EditPlan {
        plan: json!({ "steps": [step("mine", agent, &[])] }),
    };
    let bad = answer(&rig, id, edit("nobody")).await;
    assert!(matches!(bad, InputAnswer::DoesNotFit(_)), "{bad:?}");
    let good = answer(&rig, id, edit("c")).await;
    assert!(matches!(good, InputAnswer::Accepted { .. }), "{good:?}");
    assert_eq!(output(&rig.outcome(id).await), "done");
    let team = folded(&rig, id).await;
    assert_eq!(team.plan.unwrap().by.as_deref(), Some("ada"));
    let done: Vec<&str> = team.contributions.iter().map(|c| c.step.as_str()).collect();
    assert_eq!(done, ["mine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_plan_is_made_again_with_the_reason_and_not_for_ever() {
    let config = json!({ "require_plan_approval": true, "max_replans": 1 });
    let rig = team(config, |role, request| match role {
        Role::Planner if words(request).contains("rejected this plan: too small") => {
            plan(&[step("x", "b", &[]), step("y", "c", &[])])
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    let no = || Answer::Reject {
        reason: "too small".to_owned(),
    };
    answer(&rig, id, no()).await;
    until(async || folded(&rig, id).await.parts.len() == 2).await;
    answer(&rig, id, no()).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::PlanRejected);
    assert!(
        message.contains("ada rejected the plan: too small"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planner_may_ask_a_person_and_plans_without_an_answer_too() {
    let config = json!({ "clarification_timeout_seconds": 1 });
    let rig = team(config, |role, request| match role {
        Role::Planner => match words(request) {
            text if text.contains("Nobody answered") => plan(&[step("x", "c", &[])]),
            text if text.contains("answers your question: 1066") => plan(&[step("x", "b", &[])]),
            _ => Say::Json(json!({ "question": "Which year?", "steps": [] })),
        },
        role => simple(role, request),
    })
    .await;
    let (told, silent) = (submit(&rig, json!({})).await, submit(&rig, json!({})).await);
    let year = "1066".to_owned();
    answer(&rig, told, Answer::Text { text: year }).await;
    for (id, agent) in [(told, "b"), (silent, "c")] {
        assert_eq!(output(&rig.outcome(id).await), "done");
        let team = folded(&rig, id).await;
        assert_eq!(team.contributions[0].agent.as_str(), agent);
    }
    // Where nobody may be asked, the planner is told so.
    let rig = team(json!({}), |role, request| match role {
        Role::Planner if words(request).contains("nobody can be asked") => {
            plan(&[step("x", "b", &[])])
        }
        Role::Planner => Say::Json(json!({ "question": "Which year?", "steps": [] })),
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({ "allow_human_clarification": false })).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
}

fn refusal() -> Say {
    Say::Fail(llm::Error {
        class: domain::retry::ModelErrorClass::Refused,
        message: "I will not".to_owned(),
        retry_after: None,
        source: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_done_again_with_the_reason_and_then_ends_the_task() {
    let rig = team(
        json!({ "max_step_retries": 1 }),
        |role, request| match role {
            Role::Agent(_) if words(request).contains("not enough: ") => Say::Text("now"),
            Role::Agent(_) => refusal(),
            role => simple(role, request),
        },
    )
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let team = folded(&rig, id).await;
    assert_eq!((team.parts[0].attempts, team.contributions.len()), (2, 2));
    assert_eq!(team.contributions[0].status, Status::Failed);

    let never = json!({ "max_step_retries": 1 });
    let rig = self::team(never, |role, request| match role {
        Role::Agent(_) => refusal(),
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::StepFailed);
    assert!(
        message.contains("step x of the plan (b) failed after 2 attempts"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_may_lead_to_another_plan_that_builds_on_what_is_done() {
    let config = json!({ "on_step_failure": "replan", "max_replans": 1 });
    let rig = team(config, |role, request| match role {
        Role::Planner if words(request).contains("The plan before was given up") => {
            let text = words(request);
            assert!(
                text.contains("step y (c) failed") && text.contains("b did it"),
                "{text}"
            );
            plan(&[step("z", "d", &["x"])])
        }
        Role::Planner => plan(&[step("x", "b", &[]), step("y", "c", &["x"])]),
        Role::Agent(name) if name == "c" => refusal(),
        Role::Agent(name) if name == "d" => Say::Text(if words(request).contains("b did it") {
            "built on it"
        } else {
            "?"
        }),
        Role::Agent(_) => Say::Text("b did it"),
        Role::Author => {
            assert!(words(request).contains("built on it"));
            Say::Text("done")
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let done = folded(&rig, id).await;
    assert_eq!((done.replans, done.parts.len()), (1, 2));

    let rig = team(
        json!({ "on_step_failure": "fail" }),
        |role, request| match role {
            Role::Agent(_) => refusal(),
            role => simple(role, request),
        },
    )
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(failure(&outcome).0, FailureCode::StepFailed);
    assert_eq!(folded(&rig, id).await.contributions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_has_work_done_again_and_plans_anew_within_its_limits() {
    let asked = Arc::new(AtomicU32::new(0));
    let reviews = asked.clone();
    let config = json!({ "max_step_retries": 1, "max_replans": 1 });
    let rig = team(config, move |role, request| match role {
        Role::Reviewer => match reviews.fetch_add(1, Ordering::SeqCst) {
            0 => verdicts(request, |_| ("retry", "say more")),
            1 => verdicts(request, |_| ("replan", "ask somebody else")),
            // The limit is reached: it is told so, and its insistence is in vain.
            _ => verdicts(request, |_| ("replan", "once more")),
        },
        Role::Planner if words(request).contains("ask somebody else") => {
            plan(&[step("other", "c", &[])])
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let team = folded(&rig, id).await;
    let done: Vec<&str> = team.contributions.iter().map(|c| c.step.as_str()).collect();
    assert_eq!(done, ["x", "x", "other"]);
    assert_eq!(
        asked.load(Ordering::SeqCst),
        5,
        "two, and three about the last"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_gone_fails_its_step() {
    let rig = team(json!({ "max_step_retries": 0 }), simple).await;
    let id = {
        let config = json!({ "require_plan_approval": true });
        submit(&rig, config).await
    };
    until(async || {
        rig.store.execution(id).await.unwrap().unwrap().status == Status::WaitingForInput
    })
    .await;
    let gone = json!({ "name": "b", "enabled": false });
    rig.define(definition(gone)).await;
    answer(&rig, id, Answer::Approve).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::StepFailed);
    assert!(message.contains("no agent b"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_and_deadline_reach_every_child() {
    for is_cancelled in [true, false] {
        let rig = team(json!({}), |role, request| match role {
            Role::Planner => plan(&[step("x", "b", &[]), step("y", "c", &[])]),
            Role::Agent(_) => Say::Hang,
            role => simple(role, request),
        })
        .await;
        let task = NewTask {
            timeout: (!is_cancelled).then(|| Duration::from_millis(800)),
            ..NewTask::new("a", json!("go"), "1".repeat(32).parse().unwrap())
        };
        let id = rig.engine.submit(task).await.unwrap().id;
        until(async || rig.model.open.load(Ordering::SeqCst) == 2).await;
        if is_cancelled {
            rig.engine.cancel(id, "me", "").await.unwrap();
        }
        let end = rig.outcome(id).await.status();
        let wanted = [Status::Timeout, Status::Cancelled][usize::from(is_cancelled)];
        assert_eq!(end, wanted);
        until(async || rig.model.open.load(Ordering::SeqCst) == 0).await;
        for (_, child) in folded(&rig, id).await.running() {
            until(async || {
                let row = rig.store.execution(child).await.unwrap().unwrap();
                row.status.is_terminal()
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_shared_out_and_holds_for_all_together() {
    let config = json!({ "max_parallel_steps": 4 });
    let extra = json!({ "budget": { "max_tokens": 60_000, "max_tool_calls": 9 } });
    let rig = team_on(
        config,
        extra,
        |role, request| match role {
            Role::Planner => plan(&["1", "2", "3", "4"].map(|id| step(id, "b", &[]))),
            role => simple(role, request),
        },
        |store| store,
    )
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let mut granted = 0;
    for done in folded(&rig, id).await.contributions {
        let row = rig
            .store
            .execution(done.execution_id)
            .await
            .unwrap()
            .unwrap();
        let budget = row.execution.budget;
        granted += budget.max_tokens.unwrap().0;
        assert_eq!(budget.max_tool_calls, Some(1));
    }
    assert!(granted > 30_000 && granted <= 60_000 * 4 / 5, "{granted}");

    // A fifth start would be a tenth call.
    let extra = json!({ "budget": { "max_tool_calls": 3 } });
    let rig = team_on(
        json!({}),
        extra,
        |role, request| match role {
            Role::Planner => plan(&["1", "2", "3", "4"].map(|id| step(id, "b", &[]))),
            role => simple(role, request),
        },
        |store| store,
    )
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(failure(&outcome).0, FailureCode::BudgetExceeded);
}

/// What a fault at one commit leads to: the same end, and nothing that was committed done again.
async fn faulty(fault: Fault, at: u32) -> bool {
    let config = json!({ "require_plan_approval": true });
    let rig = team_on(
        config,
        json!({}),
        |role, request| match role {
            Role::Planner => plan(&[
                step("x", "b", &[]),
                step("y", "c", &[]),
                step("z", "d", &["x", "y"]),
            ]),
            role => simple(role, request),
        },
        |inner| {
            let appends = AtomicU32::new(0);
            Arc::new(Intercepted::new(inner, Faulty { at, fault, appends }))
        },
    )
    .await;
    let id = submit(&rig, json!({})).await;
    let context = format!("{fault:?} at append {at}");
    let work = async {
        loop {
            let row = rig.store.execution(id).await.unwrap().unwrap();
            if let Some(outcome) = row.outcome {
                return outcome;
            }
            if row.status == Status::WaitingForInput {
                let input = NewInput {
                    id,
                    request: None,
                    answer: Answer::Approve,
                    by: "ada".to_owned(),
                    now: Utc::now(),
                };
                rig.engine.answer(input).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .unwrap_or_else(|_| panic!("{context}: it does not end"));
    assert_eq!(output(&outcome), "done", "{context}");
    let team = folded(&rig, id).await;
    assert_eq!(team.contributions.len(), 3, "{context}: each step once");
    let filter = store::ExecutionFilter {
        parent: Some(id),
        ..Default::default()
    };
    let page = store::Page {
        limit: 100,
        after: None,
    };
    let (children, _) = rig.store.executions(filter, page).await.unwrap();
    assert_eq!(children.len(), 3, "{context}: a child was started twice");
    let steps = rig.store.steps(id, None, 1000).await.unwrap();
    steps.iter().any(|step| step.epoch.get() > 1) || children.iter().any(|c| c.crashes > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_at_any_commit_each_step_is_done_once() {
    let runs = [Fault::Before, Fault::After, Fault::LoseLease]
        .into_iter()
        .flat_map(|fault| (0..12).map(move |at| tokio::spawn(faulty(fault, at))));
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_goes_on_with_a_plan_that_was_begun() {
    let rig = team(json!({}), |role, request| match role {
        Role::Planner => plan(&[step("x", "b", &[]), step("y", "c", &["x"])]),
        Role::Agent(name) if name == "b" => Say::Late(Duration::from_millis(300), "b did it"),
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    until(async || rig.model.asked.load(Ordering::SeqCst) >= 2).await;
    rig.engine.shutdown(Duration::from_millis(10)).await;
    let second = rig.another("w2");
    second.start();
    assert_eq!(output(&crate::rig::outcome(&second, id).await), "done");
    let team = folded(&rig, id).await;
    assert_eq!(team.contributions.len(), 2);
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
