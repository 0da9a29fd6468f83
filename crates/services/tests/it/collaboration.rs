//! Tasks for coordinators, from the request to who did what.

use agentrunner_services::http::Settings;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{System, Workers, agent, error};

/// What the coordinator says, by what it is asked for.
const LEAD: &str = r#"
- when: { prompt_contains: "Make a plan" }
  reply: |
    {"question": "", "steps": [
      {"id": "facts", "agent": "helper", "instruction": "collect facts", "inputs": [], "depends_on": []},
      {"id": "text", "agent": "writer", "instruction": "write it up", "inputs": [], "depends_on": ["facts"]}]}
- when: { prompt_contains: "Review these results", conversation_contains: 'step="facts"' }
  reply: '{"verdicts": [{"step": "facts", "verdict": "accept", "feedback": ""}]}'
- when: { prompt_contains: "Review these results" }
  reply: '{"verdicts": [{"step": "text", "verdict": "accept", "feedback": ""}]}'
- reply: "This is the report."
  usage: { input_tokens: 7, output_tokens: 3 }
"#;

fn lead(config: &str) -> String {
    agent("lead")
        .replace(
            "execution_mode: autonomous",
            "execution_mode: collaborative",
        )
        .replace("script.yml", "lead.yml")
        + "collaborative_config:\n  preferred_collaborators: [helper, writer]\n"
        + config
}

async fn system(config: &str) -> System {
    let files = [
        ("lead.yml", lead(config)),
        ("helper.yml", agent("helper")),
        ("writer.yml", agent("writer")),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let system = System::with(Workers::Running, Settings::default(), &files).await;
    std::fs::write(system.folder.path().join("lead.yml"), LEAD).unwrap();
    system
}

async fn submit(system: &System, more: Value) -> Value {
    let mut body = json!({ "coordinator_agent": "lead", "task_description": "Write a report." });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let (status, accepted) = system.post("/collaborative/tasks", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    accepted
}

#[tokio::test]
async fn a_task_is_planned_done_and_shown_with_who_did_what() {
    let system = system("").await;
    let accepted = submit(&system, json!({ "max_agents": 2, "timeout_seconds": 60 })).await;
    let id = accepted["task_id"].as_str().unwrap();
    assert_eq!(accepted["coordinator_agent"], "lead");
    system.until(id, "completed").await;
    let (status, shown) = system
        .tasks(accepted["links"]["self"].as_str().unwrap())
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["task_description"], "Write a report.");
    assert_eq!(shown["output"], "This is the report.");
    assert_eq!(shown["participating_agents"], json!(["helper", "writer"]));
    let plan = &shown["plan"];
    assert_eq!(
        (&plan["strategy"], &plan["is_approved"]),
        (&json!("hierarchical"), &json!(true))
    );
    let step = &plan["steps"][1];
    assert_eq!(
        (&step["id"], &step["status"]),
        (&json!("text"), &json!("completed"))
    );
    assert_eq!(step["depends_on"], json!(["facts"]));
    assert_eq!(step["result"], "Hello from the script.");
    let progress = &shown["progress"];
    assert_eq!(
        (&progress["total"], &progress["percent"]),
        (&json!(2), &json!(100))
    );
    let done = &shown["contributions"][0];
    assert_eq!(
        (&done["step"], &done["agent_name"]),
        (&json!("facts"), &json!("helper"))
    );
    assert!(done["usage"]["total_tokens"].as_u64() > Some(0), "{done}");
    let child = done["execution_id"].as_str().unwrap();
    let (_, child) = system.tasks(&format!("/tasks/{child}")).await;
    assert_eq!(child["parent_execution_id"], id);
    assert_eq!(child["usage"], done["usage"]);
}

#[tokio::test]
async fn a_plan_waits_in_the_inbox_and_an_impossible_edit_is_refused_with_reasons() {
    let system = system("").await;
    let accepted = submit(&system, json!({ "require_plan_approval": true })).await;
    let id = accepted["task_id"].as_str().unwrap();
    system.until(id, "waiting_for_input").await;
    let (_, inbox) = system.tasks("/inbox").await;
    assert_eq!(inbox[0]["question"], "plan");
    assert_eq!(inbox[0]["plan"]["steps"][0]["agent"], "helper");
    let place = format!("/tasks/{id}/input");
    let edit = |agent: &str| {
        json!({ "answer": "edit_plan", "by": "ada", "plan": { "steps": [
        { "id": "only", "agent": agent, "instruction": "do it all" },
    ] } })
    };
    let (status, refused) = system.post(&place, &edit("writter")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error(&refused).1.contains("did you mean \"writer\"?"),
        "{refused}"
    );
    let (status, _) = system.post(&place, &json!({ "answer": "edit_plan" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, taken) = system.post(&place, &edit("writer")).await;
    assert_eq!(status, StatusCode::OK, "{taken}");
    let (_, shown) = system.tasks(&format!("/collaborative/tasks/{id}")).await;
    if let Some(plan) = shown["plan"].as_object() {
        assert_eq!(
            plan["steps"].as_array().unwrap().len(),
            1 + usize::from(plan["written_by"].is_null())
        );
    }
}

#[tokio::test]
async fn what_can_not_be_a_collaborative_task_is_refused() {
    let system = system("").await;
    let task = |name: &str, value: Value| {
        let mut body = json!({ "coordinator_agent": "lead", "task_description": "Go." });
        body[name] = value;
        body
    };
    for (body, status, code, told) in [
        (
            task("coordinator_agent", json!("laed")),
            404,
            "AGENT_NOT_FOUND",
            "lead",
        ),
        (
            task("coordinator_agent", json!("helper")),
            400,
            "INVALID_TASK_DATA",
            "autonomous",
        ),
        (
            task("task_description", json!(" ")),
            400,
            "INVALID_TASK_DATA",
            "empty",
        ),
        (
            task("max_agents", json!(0)),
            400,
            "INVALID_TASK_DATA",
            "max_agents",
        ),
        (
            task("timeout_seconds", json!(0)),
            400,
            "INVALID_TASK_DATA",
            "no time",
        ),
        (
            task("callback_url", json!("ftp://x")),
            400,
            "INVALID_TASK_DATA",
            "http",
        ),
        (
            task("max_agnets", json!(1)),
            400,
            "INVALID_TASK_DATA",
            "max_agents",
        ),
    ] {
        let (got, answer) = system.post("/collaborative/tasks", &body).await;
        let (word, message) = error(&answer);
        assert_eq!((got.as_u16(), word), (status, code), "{body} {answer}");
        assert!(message.contains(told), "{message}");
    }
    let plain = system.submit("helper", "hello").await;
    let (status, answer) = system.tasks(&format!("/collaborative/tasks/{plain}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        error(&answer).1.contains("no collaborative task"),
        "{answer}"
    );
}
