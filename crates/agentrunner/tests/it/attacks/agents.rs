//! A14, A16, A17: models that do what they should not.

use serde_json::{Value, json};
use testkit::EffectsStandIn;
use testkit::provider::{Answer, Request};

use super::rig::{Rig, agent};
use crate::product::Project;

/// Obeys what a tool result tells it.
fn obedient(request: &Request) -> Answer {
    match (request.conversation.as_str(), request.turn) {
        ("not granted", 0) => Answer::call("delete_all", json!({ "name": "x" })),
        ("dangerous", 0) => Answer::call("set", json!({ "name": "x" })),
        _ => Answer::say(format!("it said: {}", request.last_tool_result())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_model_that_obeys_a_text_gets_no_tool_that_it_was_not_given() {
    let effects = EffectsStandIn::start();
    let project = Project::new();
    let url = effects.url();
    let tools = format!(
        "tools:\n  - {{ name: read, type: api, url: '{url}/read/{{name}}', effect: read_only }}\n\
         \x20 - {{ name: set, type: api, method: PUT, url: '{url}/set/{{name}}', requires_approval: true }}\n"
    );
    project.agent("reader", &agent("reader", &tools));
    let rig = Rig::with(project, obedient, &[]).await;

    let result = rig.product.run("reader", "not granted").await;
    assert_eq!(result["status"], "completed", "{result}");
    let output = result["output"].as_str().unwrap();
    assert!(output.contains("delete_all"), "{output}");
    let id = result["execution_id"].as_str().unwrap();
    let steps = rig
        .product
        .get_state(&format!("/executions/{id}/steps"))
        .await;
    assert!(
        steps.to_string().contains("delete_all"),
        "the attempt is in the journal: {steps}"
    );

    let task = json!({ "task_data": { "prompt": "dangerous" } });
    let accepted = rig.product.post("/agents/reader/invoke", &task).await;
    let id = accepted["execution_id"].as_str().unwrap();
    rig.product
        .until(id, |task| task["status"] == "waiting_for_input")
        .await;
    let inbox = rig.product.get("/inbox").await;
    assert_eq!(inbox[0]["execution_id"], id, "{inbox}");
    assert!(
        inbox.to_string().contains("set"),
        "the exact arguments are shown: {inbox}"
    );
    assert_eq!(effects.count(), 0, "nothing happened in the world");
    let answer = json!({ "answer": "reject", "reason": "no" });
    rig.product
        .post(&format!("/tasks/{id}/input"), &answer)
        .await;
    rig.product
        .until(id, |task| task["status"] == "completed")
        .await;
    assert_eq!(effects.count(), 0);
    rig.is_well().await;
}

/// Asks the other agent, whoever it is.
fn delegating(request: &Request) -> Answer {
    match request.turn {
        0 => Answer::call("other", json!({ "task": "do it for me" })),
        _ => Answer::say(format!("it said: {}", request.last_tool_result())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_agents_that_ask_one_another_are_stopped_at_the_depth() {
    let project = Project::new();
    for (name, other) in [("ping", "pong"), ("pong", "ping")] {
        let tools = format!("tools:\n  - {{ name: other, type: agent, agent: {other} }}\n");
        project.agent(name, &agent(name, &tools));
    }
    let rig = Rig::with(project, delegating, &[]).await;
    let result = rig.product.run("ping", "go").await;
    assert!(
        result["status"] == "completed" || result["status"] == "failed",
        "{result}"
    );
    let all = rig.product.get("/tasks?limit=100").await;
    let all = all.as_array().unwrap();
    assert!(
        (2..=20).contains(&all.len()),
        "{} executions: {result}",
        all.len()
    );
    let is_over = |task: &Value| task["finished_at"].is_string();
    assert!(all.iter().all(is_over), "none goes on");
    rig.is_well().await;
}

/// Wants more at once than anybody may.
fn greedy(request: &Request) -> Answer {
    match (request.conversation.as_str(), request.turn) {
        ("ten thousand", 0) => (0..10_000).fold(Answer::default(), |answer, n| {
            answer.and_call("calculate", json!({ "expression": format!("{n}+1") }))
        }),
        _ => Answer::say("hello to you"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a17_a_model_that_wants_too_much_ends_at_its_limits_and_harms_nobody() {
    let project = Project::new();
    let more = "tools:\n  - { name: calculate, type: function }\nbudget: { max_tool_calls: 20 }\nmax_steps: 10\n";
    project.agent("greedy", &agent("greedy", more));
    let rig = Rig::with(project, greedy, &[]).await;
    let (greedy, other) = tokio::join!(
        rig.product.run("greedy", "ten thousand"),
        rig.product.run("helper", "hi")
    );
    assert_eq!(other["output"], "hello to you", "{other}");
    let id = greedy["execution_id"].as_str().unwrap();
    let is_over = |task: &Value| task["finished_at"].is_string();
    let task = rig.product.until(id, is_over).await;
    assert!(
        task["status"] == "failed" || task["status"] == "completed",
        "{task}"
    );
    let effects = rig.product.get(&format!("/tasks/{id}/effects")).await;
    let called = effects.as_array().unwrap().iter();
    let called = called.filter(|call| call["outcome"] == "succeeded").count();
    assert!(called <= 20, "{called} calls");
    let live = rig.product.ask("/health/live").await;
    assert_eq!(live.0, 200);
}
