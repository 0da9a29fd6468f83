//! Tasks from acceptance to result.

use agentrunner_services::http::{Service, Settings};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{SECRET, System, Workers, agent, error, read};

#[tokio::test]
async fn a_task_is_accepted_done_and_its_result_read() {
    let system = System::start(Workers::Running).await;
    let body = json!({
        "agent_name": "helper", "task_data": {"prompt": "hello"}, "priority": "high",
        "metadata": {"order": 17}, "budget": {"max_tokens": 5000}, "timeout_seconds": 60,
    });
    let response = system
        .ask(Method::POST, "/tasks")
        .json(&body)
        .send()
        .await
        .unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, accepted) = read(response).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(accepted["status"], "queued");
    assert_eq!(accepted["agent_name"], "helper");
    let id = accepted["execution_id"].as_str().unwrap();
    assert_eq!(location, format!("/tasks/{id}"));

    let (status, result) = system.tasks(&format!("/tasks/{id}/result?wait=20s")).await;
    assert_eq!(status, StatusCode::OK, "{result}");
    assert_eq!(result["status"], "completed");
    assert_eq!(result["output"], "Hello from the script.");
    assert_eq!(result["usage"]["total_tokens"], 15);
    assert_eq!(result["error"], Value::Null);

    let (_, task) = system.tasks(&location).await;
    assert_eq!(task["status_reason"], "completed");
    assert_eq!(task["priority"], "high");
    assert_eq!(task["metadata"], json!({"order": 17}));
    assert_eq!(task["task_data"], json!({"prompt": "hello"}));
    assert_eq!(task["open_questions"], json!([]));
    assert!(task["finished_at"].is_string());

    let (_, usage) = system.tasks("/usage?agent_name=helper").await;
    assert_eq!(usage[0]["input_tokens"], 10);
    assert_eq!(usage[0]["provider"], "scripted");
    let (_, agents) = system.tasks("/agents").await;
    assert_eq!(agents[0]["total_executions"], 1);
    assert_eq!(agents[0]["success_rate"], 1.0);
    assert_eq!(agents[0]["status"], "ready");
}

#[tokio::test]
async fn invoking_with_wait_answers_the_result() {
    let system = System::start(Workers::Running).await;
    let (status, result) = system
        .post(
            "/agents/helper/invoke?wait=20s",
            &json!({"task_data": "hello"}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{result}");
    assert_eq!(result["output"], "Hello from the script.");
    let (status, accepted) = system
        .post(
            "/agents/helper/invoke?wait=50ms",
            &json!({"task_data": "slow"}),
        )
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    let (status, body) = system
        .post("/agents/helper/invoke?wait=1h", &json!({"task_data": "x"}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&body).1.contains("at most 300s"));
}

#[tokio::test]
async fn a_failure_says_why() {
    let system = System::start(Workers::Running).await;
    let id = system.submit("helper", "fail").await;
    let (_, result) = system.tasks(&format!("/tasks/{id}/result?wait=20s")).await;
    assert_eq!(result["status"], "failed", "{result}");
    assert_eq!(result["error"]["code"], "MODEL_REJECTED");
    assert_eq!(result["error"]["message"], result["status_reason"]);
    assert_eq!(result["output"], Value::Null);
}

#[tokio::test]
async fn a_repeated_request_is_one_task() {
    let system = System::start(Workers::Absent).await;
    let send = async |path: &str, key: &str, body: Value| {
        let request = system
            .ask(Method::POST, path)
            .header("idempotency-key", key);
        let response = request.json(&body).send().await.unwrap();
        let replayed = response.headers().contains_key("idempotency-replayed");
        let (status, body) = read(response).await;
        (status, replayed, body)
    };
    let body = json!({"agent_name": "helper", "task_data": "hello"});
    let (_, replayed, first) = send("/tasks", "k1", body.clone()).await;
    assert!(!replayed);
    let (status, replayed, second) = send("/tasks", "\"k1\"", body.clone()).await;
    assert_eq!((status, replayed), (StatusCode::ACCEPTED, true));
    for field in ["execution_id", "status", "trace_id", "agent_name"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    for (path, other) in [
        (
            "/tasks",
            json!({"agent_name": "helper", "task_data": "other"}),
        ),
        ("/agents/helper/invoke", body.clone()),
    ] {
        let (status, _, refused) = send(path, "k1", other).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(error(&refused).0, "IDEMPOTENCY_MISMATCH");
    }
    let (status, _, refused) = send("/tasks", "a b", body.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");

    let many: Vec<_> = (0..50)
        .map(|_| {
            system
                .ask(Method::POST, "/tasks")
                .header("idempotency-key", "k2")
                .json(&body)
                .send()
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for response in futures::future::join_all(many).await {
        let (_, accepted) = read(response.unwrap()).await;
        ids.insert(accepted["execution_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    let (_, all) = system.tasks("/tasks").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn lists_are_arrays_with_pages_and_filters() {
    let files = [
        ("helper.yml", agent("helper")),
        ("other.yml", agent("other")),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let system = System::with(Workers::Absent, Settings::default(), &files).await;
    let mut submitted = Vec::new();
    for n in 0..5 {
        submitted.push(
            system
                .submit(if n == 2 { "other" } else { "helper" }, "hello")
                .await,
        );
    }
    submitted.reverse();
    let mut seen = Vec::new();
    let mut path = "/tasks?limit=2&status=queued,running".to_owned();
    loop {
        let response = system.ask(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.headers()["x-total-count"], "5");
        let link = response
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        let (_, page) = read(response).await;
        seen.extend(
            page.as_array()
                .unwrap()
                .iter()
                .map(|task| task["execution_id"].as_str().unwrap().to_owned()),
        );
        match link {
            Some(link) => {
                assert!(link.ends_with("; rel=\"next\""));
                path = link
                    .trim_start_matches('<')
                    .split('>')
                    .next()
                    .unwrap()
                    .to_owned();
            }
            None => break,
        }
    }
    assert_eq!(seen, submitted);
    let (_, others) = system.tasks("/tasks?agent_name=other").await;
    assert_eq!(others.as_array().unwrap().len(), 1);
    let (_, none) = system
        .tasks("/tasks?started_after=2100-01-01T00:00:00Z")
        .await;
    assert_eq!(none, json!([]));
    let (_, page) = system.tasks("/agents?limit=1").await;
    assert_eq!(page[0]["name"], "helper");
    let (_, page) = system.tasks("/agents?limit=1&cursor=helper").await;
    assert_eq!(page[0]["name"], "other");
}

#[tokio::test]
async fn a_task_is_cancelled_once() {
    let system = System::start(Workers::Running).await;
    let id = system.submit("helper", "slow").await;
    system.until(&id, "running").await;
    let request = system.ask(Method::DELETE, &format!("/tasks/{id}?reason=enough"));
    let (status, _) = read(request.send().await.unwrap()).await;
    assert!(
        status == StatusCode::ACCEPTED || status == StatusCode::OK,
        "{status}"
    );
    let task = system.until(&id, "cancelled").await;
    assert_eq!(task["status_reason"], "cancelled by api: enough");
    let request = system.ask(Method::DELETE, &format!("/tasks/{id}"));
    let (status, body) = read(request.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(error(&body).0, "STATE_CONFLICT");
    let absent = "/tasks/0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f";
    let (status, _) = read(system.ask(Method::DELETE, absent).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn agents_say_how_they_stand() {
    let files = [
        ("off.yml", agent("off") + "enabled: false\ntags: [a, b]\n"),
        (
            "secret.yml",
            agent("secret").replace("  model", "  api_key: ${CANARY}\n  model"),
        ),
        ("broken.yml", agent("broken")),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let system = System::with(Workers::Absent, Settings::default(), &files).await;
    std::fs::write(system.agents().join("broken.yml"), "name: broken\n").unwrap();
    system.config.reload().await.unwrap();
    let (_, off) = system.tasks("/agents/off").await;
    assert_eq!(off["status"], "disabled");
    let (_, broken) = system.tasks("/agents/broken/status").await;
    assert_eq!(broken["status"], "degraded");
    assert!(
        broken["status_reason"]
            .as_str()
            .unwrap()
            .contains("broken.yml:1:1")
    );
    let (_, tagged) = system.tasks("/agents?tags=a,b").await;
    assert_eq!(tagged.as_array().unwrap().len(), 1);
    let (status, body) = system
        .post("/tasks", &json!({"agent_name": "off", "task_data": 1}))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(error(&body).0, "STATE_CONFLICT");
    let (status, body) = system.tasks("/agents/brokn").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["error"]["details"]["nearest"], "broken");
    let (_, secret) = system.get(Service::ConfigService, "/configs/secret").await;
    assert_eq!(secret["definition"]["llm_config"]["api_key"], "${CANARY}");
    assert!(!secret.to_string().contains(SECRET));
}

#[tokio::test]
async fn events_are_taken_and_dead_ones_replayed() {
    let system = System::start(Workers::Absent).await;
    let (status, body) = system
        .post(
            "/events",
            &json!({"topic": "orders.created", "data": {"id": 1}, "event_id": "e1"}),
        )
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    assert_eq!(body["event_id"], "e1");
    for (topic, code) in [
        ("agent.execution.completed", "FORBIDDEN"),
        ("a..b", "INVALID_REQUEST"),
    ] {
        let (_, body) = system.post("/events", &json!({"topic": topic})).await;
        assert_eq!(error(&body).0, code);
    }
    let event = system
        .store
        .outbox(10)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.event)
        .find(|event| event.topic.as_str() == "orders.created")
        .unwrap();
    let letter = store::DeadLetter {
        id: "letter-1".to_owned(),
        queue: "agents".to_owned(),
        event,
        reason: "nobody could".to_owned(),
        attempts: 5,
        at: system.engine.now(),
    };
    system.store.add_dead_letter(letter.clone()).await.unwrap();
    let (_, letters) = system.tasks("/dead-letters").await;
    assert_eq!(letters[0]["reason"], "nobody could");
    let (status, _) = system
        .post("/dead-letters/letter-1/replay", &json!({}))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (_, letters) = system.tasks("/dead-letters").await;
    assert_eq!(letters, json!([]));
    let (status, _) = system
        .post("/dead-letters/letter-1/replay", &json!({}))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    system.store.add_dead_letter(letter).await.unwrap();
    let response = system
        .ask(Method::DELETE, "/dead-letters/letter-1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn pools_and_usage_answer() {
    let system = System::start(Workers::Absent).await;
    system.submit("helper", "hello").await;
    let (_, pools) = system.tasks("/metrics/pool-stats").await;
    assert_eq!(pools[0]["workers"][0]["id"], "test-1");
    assert_eq!(
        (pools[0]["capacity"].as_u64(), pools[0]["queued"].as_u64()),
        (Some(8), Some(1))
    );
    let (status, body) = system.tasks("/usage?from_day=yesterday").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&body).1.contains("from_day"));
}
