//! What people do to agents: disable, enable, restart; and the workers that there are.

use agentrunner_services::http::{Service, Settings};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{System, Workers, agent, error, read};

#[tokio::test]
async fn a_disabled_agent_takes_no_work_until_it_is_enabled_also_after_a_restart() {
    let files = [
        (
            "helper.yml",
            format!("{}event_subscriptions: [orders.new]\n", agent("helper")),
        ),
        ("off.yml", format!("{}enabled: false\n", agent("off"))),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let system = System::with(Workers::Running, Settings::default(), &files).await;
    let act = async |system: &System, name: &str, act: &str| {
        system
            .post(&format!("/agents/{name}/{act}"), &json!({}))
            .await
    };
    let before = system.submit("helper", "ask").await;
    for _ in 0..2 {
        let (status, stands) = act(&system, "helper", "disable").await;
        assert_eq!(
            (status, &stands["status"]),
            (StatusCode::OK, &json!("disabled"))
        );
        let reason = stands["status_reason"].as_str().unwrap();
        assert!(reason.contains("agents enable helper"), "{reason}");
    }
    let folder = system.stop().await;
    let system = System::open(folder, Workers::Running, Settings::default()).await;
    system.engine.load_switches().await.unwrap();
    let task = json!({"agent_name": "helper", "task_data": "x"});
    let (status, refusal) = system.post("/tasks", &task).await;
    assert_eq!(
        (status, error(&refusal).0),
        (StatusCode::CONFLICT, "STATE_CONFLICT")
    );
    assert!(
        error(&refusal).1.contains("/agents/helper/enable"),
        "{refusal}"
    );
    let (_, models) = system.tasks("/v1/models").await;
    assert_eq!(models["data"], json!([]));
    let event = json!({"topic": "orders.new", "data": {}});
    assert_eq!(system.post("/events", &event).await.0, StatusCode::ACCEPTED);
    // What it was given before is still its own.
    system.until(&before, "completed").await;
    let (_, listed) = system.tasks("/agents?status=disabled").await;
    assert_eq!(listed.as_array().unwrap().len(), 2);

    let (status, stands) = act(&system, "helper", "enable").await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(stands["status"], "disabled");
    let after = system.submit("helper", "hi").await;
    system.until(&after, "completed").await;
    let (_, all) = system.tasks("/tasks?agent_name=helper").await;
    assert_eq!(
        all.as_array().unwrap().len(),
        2,
        "the event started nothing"
    );
    let (status, refusal) = act(&system, "off", "enable").await;
    assert_eq!(
        (status, error(&refusal).0),
        (StatusCode::CONFLICT, "STATE_CONFLICT")
    );
    assert!(error(&refusal).1.contains("enabled: true"), "{refusal}");
    for what in ["enable", "disable", "restart"] {
        let (status, refusal) = act(&system, "nobody", what).await;
        assert_eq!(
            (status, error(&refusal).0),
            (StatusCode::NOT_FOUND, "AGENT_NOT_FOUND")
        );
    }
}

#[tokio::test]
async fn a_restart_takes_up_anew_what_hangs() {
    let system = System::start(Workers::Running).await;
    let id = system.submit("helper", "slow").await;
    system.until(&id, "running").await;
    // The model has the request; it would answer in a minute.
    let (status, restarting) = system.post("/agents/helper/restart", &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        restarting,
        json!({"name": "helper", "status": "restarting", "running": 1})
    );
    let id = id.parse().unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let row = system.store.execution(id).await.unwrap().unwrap();
        if row.epoch.get() > 1 {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "it was never claimed anew"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let row = system.store.execution(id).await.unwrap().unwrap();
    assert_eq!(row.crashes, 0, "nobody crashed");
}

#[tokio::test]
async fn workers_are_listed_by_pool_and_state() {
    let system = System::start(Workers::Running).await;
    let (status, workers) = system.get(Service::SchedulerService, "/workers").await;
    assert_eq!(status, StatusCode::OK);
    let own = &workers[0];
    assert_eq!(
        (&own["id"], &own["pool"], &own["status"]),
        (&json!("test-1"), &json!("up"), &json!("alive"))
    );
    for (query, count) in [
        ("status=alive&pool=up", 1),
        ("status=lost", 0),
        ("pool=autonomous-agent-pool", 0),
    ] {
        let path = format!("/workers?{query}");
        let (_, workers) = system.get(Service::SchedulerService, &path).await;
        assert_eq!(workers.as_array().unwrap().len(), count, "{query}");
    }
    for query in ["status=dead", "pool=none", "limit=0", "polo=up"] {
        let path = format!("/workers?{query}");
        let (status, _) = system.get(Service::SchedulerService, &path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn what_was_over_long_ago_is_counted_and_then_forgotten() {
    let asking = format!(
        "{}tools:\n  - {{ name: ask_human, type: function }}\n",
        agent("asking")
    );
    let files = [("helper.yml", agent("helper")), ("asking.yml", asking)];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let settings = Settings {
        retention: std::time::Duration::ZERO,
        ..Settings::default()
    };
    let system = System::with(Workers::Running, settings, &files).await;
    let waits = system.submit("asking", "ask").await;
    let done = system.submit("helper", "hi").await;
    system.until(&waits, "waiting_for_input").await;
    system.until(&done, "completed").await;
    let clean = async |body: Option<serde_json::Value>| {
        let request = system.request(Method::POST, Service::StateManager, "/maintenance/cleanup");
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        read(request.send().await.unwrap()).await
    };
    let count = async |body| {
        let (status, cleaned) = clean(body).await;
        assert_eq!(
            (status, &cleaned["has_more"]),
            (StatusCode::OK, &json!(false))
        );
        cleaned["executions"].as_u64().unwrap()
    };
    assert_eq!(count(Some(json!({"older_than_days": 1}))).await, 0);
    for _ in 0..2 {
        assert_eq!(count(Some(json!({"dry_run": true}))).await, 1);
    }
    assert_eq!(count(None).await, 1);
    assert_eq!(count(Some(json!({}))).await, 0);
    let status = async |id: &str| system.tasks(&format!("/tasks/{id}")).await.0;
    assert_eq!(status(&done).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&waits).await, StatusCode::OK);
    for days in [json!(0), json!(-1), json!(36_501), json!("x")] {
        let (status, refusal) = clean(Some(json!({ "older_than_days": days }))).await;
        assert_eq!(
            (status, error(&refusal).0),
            (StatusCode::BAD_REQUEST, "INVALID_REQUEST")
        );
        assert!(error(&refusal).1.contains("older_than_days"), "{refusal}");
    }
}
