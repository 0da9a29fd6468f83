//! Retries, forks and trees by their addresses.

use agentrunner_services::http::Settings;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{System, Workers, agent, error};

#[tokio::test]
async fn what_failed_is_retried_and_what_ended_is_forked() {
    let system = System::start(Workers::Running).await;
    let id = system.submit("helper", "fail").await;
    system.until(&id, "failed").await;
    // The body may be left out.
    let retry = format!("/tasks/{id}/retry");
    let answer = system
        .ask(reqwest::Method::POST, &retry)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(answer.headers().contains_key("location"));
    let accepted: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(accepted["forked_from"]["execution_id"], id.as_str());
    let again = accepted["execution_id"].as_str().unwrap();
    system.until(again, "failed").await;

    let fork = |id: &str| format!("/tasks/{id}/fork");
    let body = json!({"from_step": 0, "message": "hello", "timeout_seconds": 60});
    let (status, accepted) = system.post(&fork(&id), &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    let forked = accepted["execution_id"].as_str().unwrap().to_owned();
    let task = system.until(&forked, "completed").await;
    assert_eq!(task["task_data"], "hello");
    assert_eq!(task["forked_from"]["step"], 0);
    let body = json!({"from_step": 1, "message": "and now?"});
    let (_, accepted) = system.post(&fork(&forked), &body).await;
    let second = accepted["execution_id"].as_str().unwrap().to_owned();
    let task = system.until(&second, "completed").await;
    assert_eq!(task["forked_from"]["message"], "and now?");
    assert_eq!(
        (&task["steps"], &task["usage"]["total_tokens"]),
        (&json!(3), &json!(15))
    );
    let (_, tree) = system.tasks(&format!("/tasks/{second}/tree")).await;
    assert_eq!(
        (&tree["executions"], &tree["children"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(tree["total_tokens"], 15);

    for (path, body, status, words) in [
        (
            fork(&forked),
            json!({"from_step": 9}),
            StatusCode::BAD_REQUEST,
            "has 2 steps",
        ),
        (
            fork(&forked),
            json!({}),
            StatusCode::BAD_REQUEST,
            "from_step",
        ),
        (
            fork(&forked),
            json!({"from_step": 1, "message": " "}),
            StatusCode::BAD_REQUEST,
            "message: it is empty",
        ),
        (
            format!("/tasks/{forked}/retry"),
            json!({}),
            StatusCode::CONFLICT,
            "is completed",
        ),
        (
            format!("/tasks/{forked}/retry"),
            json!({"new": true}),
            StatusCode::BAD_REQUEST,
            "new",
        ),
        (
            "/tasks/0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f/retry".to_owned(),
            json!({}),
            StatusCode::NOT_FOUND,
            "there is no execution",
        ),
    ] {
        let (got, refused) = system.post(&path, &body).await;
        assert_eq!(got, status, "{refused}");
        assert!(error(&refused).1.contains(words), "{refused}");
    }
}

#[tokio::test]
async fn one_that_goes_on_is_not_retried() {
    let system = System::with(
        Workers::Running,
        Settings::default(),
        &[("helper.yml", &agent("helper"))],
    )
    .await;
    let id = system.submit("helper", "slow").await;
    system.until(&id, "running").await;
    let (status, refused) = system.post(&format!("/tasks/{id}/retry"), &json!({})).await;
    assert_eq!(
        (status, error(&refused).0),
        (StatusCode::CONFLICT, "STATE_CONFLICT")
    );
    assert!(error(&refused).1.contains("cancel it first"), "{refused}");
}
