//! Questions to people, and what is done about calls in doubt.

use std::time::Duration;

use agentrunner_services::http::Settings;
use domain::definition::{Effect, Provider};
use domain::step::{CallTarget, InputRequest, ModelCall, Question, ToolIntent};
use domain::{CallRef, Reply, Seq, Step, StepBody, StopReason, ToolCall, Usage};
use reqwest::StatusCode;
use serde_json::json;
use store::{Append, Claim, Then};

use crate::harness::{System, Workers, agent, error};

async fn system(tools: &str) -> System {
    let file = agent("helper") + tools;
    System::with(
        Workers::Running,
        Settings::default(),
        &[("helper.yml", &file)],
    )
    .await
}

#[tokio::test]
async fn a_question_waits_in_the_inbox_until_it_is_answered_once() {
    let system = system("tools:\n  - {name: ask_human, type: function}\n").await;
    let id = system.submit("helper", "ask").await;
    let task = system.until(&id, "waiting_for_input").await;
    let question = &task["open_questions"][0];
    assert_eq!(question["question"], "clarification");
    assert_eq!(question["text"], "Which one?");
    let (_, inbox) = system.tasks("/inbox").await;
    assert_eq!(inbox[0]["execution_id"], id.as_str());
    assert_eq!(inbox[0]["request"], question["request"]);
    let answer_to = inbox[0]["answer_to"].as_str().unwrap();

    for (body, words) in [
        (
            json!({"answer": "approve"}),
            "does not fit the question; answer with text",
        ),
        (json!({"answer": "text"}), "text: the field is missing"),
        (
            json!({"answer": "text", "text": "x", "result": "y"}),
            "result: it has no meaning",
        ),
        (json!({"anser": "text"}), "did you mean answer?"),
        (json!({}), "answer: say text, approve"),
    ] {
        let (status, refused) = system.post(answer_to, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        assert!(error(&refused).1.contains(words), "{refused}");
    }
    let (status, refused) = system
        .post(answer_to, &json!({"request": 99, "text": "x"}))
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(error(&refused).1.contains("no open question"), "{refused}");
    let answer = json!({"text": "The second.", "by": "ada"});
    let (status, taken) = system.post(answer_to, &answer).await;
    assert_eq!(
        (status, &taken["status"]),
        (StatusCode::OK, &json!("accepted"))
    );
    let (_, result) = system.tasks(&format!("/tasks/{id}/result?wait=20s")).await;
    assert_eq!(result["status"], "completed", "{result}");
    let (status, late) = system.post(answer_to, &answer).await;
    assert_eq!(status, StatusCode::CONFLICT, "{late}");
    let (_, inbox) = system.tasks("/inbox").await;
    assert_eq!(inbox, json!([]));
}

#[tokio::test]
async fn an_approval_shows_what_is_approved() {
    let system =
        system("tools:\n  - {name: calculate, type: function, requires_approval: true}\n").await;
    let id = system.submit("helper", "approve").await;
    let task = system.until(&id, "waiting_for_input").await;
    let question = &task["open_questions"][0];
    assert_eq!(question["tool"], "calculate");
    assert!(question["arguments"].as_str().unwrap().contains("6*7"));
    let body = json!({"request": question["request"], "answer": "approve"});
    let (status, _) = system.post(&format!("/tasks/{id}/input"), &body).await;
    assert_eq!(status, StatusCode::OK);
    system.tasks(&format!("/tasks/{id}/result?wait=20s")).await;
    let (_, effects) = system.tasks(&format!("/tasks/{id}/effects")).await;
    assert_eq!(effects[0]["tool"], "calculate");
    assert_eq!(effects[0]["outcome"], "succeeded");
    assert_eq!(effects[0]["result"], "42");
    assert_eq!(effects[0]["effect"], "read_only");
    assert!(effects[0]["key"].as_str().unwrap().starts_with(&id));
}

#[tokio::test]
async fn a_call_in_doubt_is_shown_and_settled() {
    let system = System::start(Workers::Absent).await;
    let id = system.submit("helper", "pay").await;
    leave_in_doubt(&system, &id).await;
    let (_, effects) = system.tasks(&format!("/tasks/{id}/effects")).await;
    assert_eq!(effects[0]["outcome"], "open");
    assert_eq!(effects[0]["arguments"], "{\"amount\":5}");
    assert_eq!(effects[0]["seq"], 2);
    assert_eq!(effects[0]["open_request"], 3);
    let settle = |seq: u32| format!("/tasks/{id}/effects/{seq}/settle");
    let happened = json!({"answer": "happened", "result": "paid"});
    let (status, body) = system.post(&settle(1), &happened).await;
    assert_eq!(
        (status, error(&body).0),
        (StatusCode::NOT_FOUND, "NOT_FOUND")
    );
    let (status, body) = system.post(&settle(2), &json!({"answer": "approve"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, body) = system.post(&settle(2), &happened).await;
    assert_eq!((status, &body["request"]), (StatusCode::OK, &json!(3)));
    let (status, body) = system.post(&settle(2), &json!({"answer": "repeat"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(error(&body).1.contains("has answered already"), "{body}");
}

/// Writes the journal of a worker that died during an unsafe call, up to the question to a person.
async fn leave_in_doubt(system: &System, id: &str) {
    let now = system.engine.now();
    let claim = Claim {
        worker: "w".parse().unwrap(),
        now,
        lease: Duration::from_secs(10),
        limit: 1,
        only: Some(id.parse().unwrap()),
        modes: vec![domain::ExecutionMode::Autonomous],
        without: Vec::new(),
    };
    let claimed = system.store.claim(claim).await.unwrap().pop().unwrap();
    let call = CallRef {
        turn: Seq::FIRST,
        index: 0,
    };
    let arguments = "{\"amount\":5}".to_owned();
    let bodies = [
        StepBody::ModelCall(Box::new(ModelCall {
            purpose: domain::Purpose::Turn,
            provider: Provider::Scripted,
            model: "m".to_owned(),
            reply: Reply {
                text: String::new(),
                tool_calls: vec![ToolCall {
                    id: "1".to_owned(),
                    name: "pay".to_owned(),
                    arguments: arguments.clone(),
                }],
                stop: StopReason::ToolUse,
                provider_data: None,
            },
            targets: vec![CallTarget::Tool {
                entry: "pay".to_owned(),
                effect: Effect::Unsafe,
                approval: false,
                pin: None,
            }],
            violations: Vec::new(),
            structured: None,
            usage: Usage::default(),
            cost_usd: None,
            took_ms: 1,
            first_token_ms: None,
        })),
        StepBody::ToolIntent(ToolIntent {
            call,
            tool: "pay".to_owned(),
            effect: Effect::Unsafe,
            key: format!("{id}-2"),
        }),
        StepBody::InputRequested(InputRequest {
            call,
            question: Question::UnknownOutcome {
                tool: "pay".to_owned(),
                arguments,
                key: format!("{id}-2"),
                known: "the worker was lost".to_owned(),
            },
            until: now + Duration::from_secs(3600),
            why: None,
            answered_by: None,
            otherwise: None,
        }),
    ];
    let steps = (1..).zip(bodies).map(|(seq, body)| Step {
        seq: Seq::new(seq),
        at: now,
        epoch: claimed.epoch,
        body,
    });
    let append = Append {
        id: id.parse().unwrap(),
        epoch: claimed.epoch,
        now,
        steps: steps.collect(),
        totals: domain::execution::Totals::default(),
        events: Vec::new(),
        children: Vec::new(),
        then: Then::Park {
            status: domain::Status::WaitingForInput,
            reason: "it is not known whether pay happened".to_owned(),
            until: now + Duration::from_secs(3600),
            wakes_seen: 0,
        },
    };
    let appended = system.store.append(append).await.unwrap();
    assert_eq!(appended, store::Appended::Applied);
}

#[tokio::test]
async fn a_person_may_change_what_is_called_and_a_second_answer_gets_the_first() {
    let rule = "requires_approval: [{argument: expression, matches: '[*]'}]";
    let tools =
        format!("tools:\n  - {{name: calculate, type: function, {rule}}}\nanswered_by: ada\n");
    let system = system(&tools).await;
    let id = system.submit("helper", "approve").await;
    system.until(&id, "waiting_for_input").await;
    let (_, inbox) = system
        .tasks("/inbox?answered_by=ada&question=approval")
        .await;
    let item = &inbox[0];
    assert_eq!(item["id"], format!("{id}:{}", item["request"]));
    assert_eq!(item["why"], "`expression` matches [*]");
    assert_eq!(item["answered_by"], "ada");
    assert_eq!(
        item["on_timeout"],
        "the call is not made, and the model is told"
    );
    for other in [
        "answered_by=bob",
        "question=clarification",
        "agent_name=other",
    ] {
        let (_, none) = system.tasks(&format!("/inbox?{other}")).await;
        assert_eq!(none, json!([]), "{other}");
    }
    let (status, _) = system.tasks("/inbox?question=what").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let input = format!("/tasks/{id}/input");
    for (arguments, words) in [
        (
            json!({"expresion": "1"}),
            "arguments: the arguments are not valid",
        ),
        (json!([1]), "arguments: the arguments must be a JSON object"),
    ] {
        let body = json!({"answer": "edit", "arguments": arguments});
        let (status, refused) = system.post(&input, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        assert!(error(&refused).1.contains(words), "{refused}");
    }
    let body = json!({"answer": "edit", "arguments": {"expression": "6*8"}, "by": "ada"});
    let (status, taken) = system.post(&input, &body).await;
    assert_eq!(status, StatusCode::OK, "{taken}");
    system.tasks(&format!("/tasks/{id}/result?wait=20s")).await;
    let (_, effects) = system.tasks(&format!("/tasks/{id}/effects")).await;
    assert_eq!(effects[0]["result"], "48");
    assert!(effects[0]["arguments"].as_str().unwrap().contains("6*8"));
    let (status, late) = system.post(&input, &json!({"answer": "approve"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{late}");
    let first = &late["error"]["details"]["first"];
    assert_eq!(
        (&first["by"], &first["answer"]),
        (&json!("ada"), &json!("edit"))
    );
}
