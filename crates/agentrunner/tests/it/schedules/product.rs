//! Schedules through the binary: files, API, command line; policies; a kill.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::project::Project;

const TICKER: &str = "\
name: ticker
execution_mode: scheduled
system_prompt: You tick.
llm_config: { provider: scripted, model: scripts/ticker.yml }
schedule_config: { type: interval, interval_seconds: 1, task_data: { prompt: tick } }
";

fn project() -> Project {
    let project = Project::new();
    project.write("config/agents/ticker.yml", TICKER);
    project.write("config/scripts/ticker.yml", "- reply: Tick.\n");
    project
}

pub(super) async fn ask(
    project: &Project,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(method, project.scheduler_url(path));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default(),
    )
}

async fn get(project: &Project, path: &str) -> Value {
    let (status, body) = ask(project, Method::GET, path, None).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

async fn post(project: &Project, path: &str, body: Value) -> (StatusCode, Value) {
    ask(project, Method::POST, path, Some(body)).await
}

/// Asks until the answer is as wanted.
pub(super) async fn until(
    project: &Project,
    path: &str,
    is_wanted: impl Fn(&Value) -> bool,
) -> Value {
    let began = Instant::now();
    loop {
        let (_, answer) = ask(project, Method::GET, path, None).await;
        if is_wanted(&answer) {
            return answer;
        }
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "{path} stays {answer}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn count(runs: &Value, status: &str) -> usize {
    runs.as_array().map_or(0, |runs| {
        runs.iter().filter(|run| run["status"] == status).count()
    })
}

pub(super) fn code(body: &Value) -> &str {
    body["error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("{body}"))
}

#[tokio::test]
async fn a_schedule_of_a_file_runs_and_is_not_for_the_api_to_change() {
    let project = project();
    let server = project.up().await;
    let runs = until(&project, "/schedules/ticker/runs", |runs| {
        count(runs, "completed") >= 2
    })
    .await;
    let run = runs
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["status"] == "completed")
        .unwrap();
    assert_eq!(run["trigger"], "schedule");
    let task = project
        .get(&format!("/tasks/{}", run["execution_id"].as_str().unwrap()))
        .await;
    assert_eq!(task["metadata"]["schedule"], "ticker", "{task}");

    let shown = get(&project, "/schedules/ticker").await;
    assert_eq!(
        (&shown["managed_by"], &shown["file"]),
        (&json!("file"), &json!("ticker.yml"))
    );
    let (status, body) = ask(&project, Method::DELETE, "/schedules/ticker", None).await;
    assert_eq!(
        (status, code(&body)),
        (StatusCode::CONFLICT, "SCHEDULE_CONFLICT")
    );
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("ticker.yml"),
        "{body}"
    );
    let other = json!({ "agent_name": "greeter", "interval_seconds": 60 });
    let (status, _) = ask(&project, Method::PUT, "/schedules/ticker", Some(other)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    server.kill().await;
}

#[tokio::test]
async fn a_schedule_of_a_file_is_paused_and_follows_its_file() {
    let project = project();
    let server = project.up().await;
    until(&project, "/schedules/ticker/runs", |runs| {
        count(runs, "completed") >= 1
    })
    .await;
    let (status, paused) = ask(
        &project,
        Method::PATCH,
        "/schedules/ticker/enabled",
        Some(json!({ "enabled": false })),
    )
    .await;
    assert_eq!(
        (status, &paused["enabled"], &paused["paused"]),
        (StatusCode::OK, &json!(false), &json!(true))
    );
    let total = get(&project, "/schedules/ticker/runs?limit=1000")
        .await
        .as_array()
        .unwrap()
        .len();
    project.write(
        "config/agents/ticker.yml",
        &TICKER.replace("interval_seconds: 1,", "interval_seconds: 2,"),
    );
    let changed = until(&project, "/schedules/ticker", |shown| {
        shown["interval_seconds"] == 2
    })
    .await;
    assert_eq!(
        (&changed["paused"], &changed["next_run_at"]),
        (&json!(true), &Value::Null)
    );
    let (status, triggered) = post(&project, "/schedules/ticker/trigger", json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{triggered}");
    let runs = until(&project, "/schedules/ticker/runs?limit=1000", |runs| {
        runs[0]["status"] == "completed"
    })
    .await;
    assert_eq!(
        (&runs[0]["trigger"], runs.as_array().unwrap().len()),
        (&json!("manual"), total + 1)
    );

    let (_, resumed) = ask(
        &project,
        Method::PATCH,
        "/schedules/ticker/enabled",
        Some(json!({ "enabled": true })),
    )
    .await;
    assert_eq!(resumed["enabled"], true);
    until(&project, "/schedules/ticker/runs", |runs| {
        runs[0]["trigger"] == "schedule" && runs[0]["status"] == "completed"
    })
    .await;
    std::fs::remove_file(project.path().join("config/agents/ticker.yml")).unwrap();
    until(&project, "/schedules", |schedules| schedules == &json!([])).await;
    server.kill().await;
}

#[tokio::test]
async fn overlapping_runs_are_skipped_queued_or_cancelled_and_the_time_out_ends_them() {
    let project = project();
    let server = project.up().await;
    for (name, agent, extra) in [
        ("skips", "dreamer", json!({ "overlap_policy": "skip" })),
        ("cancels", "dreamer", json!({ "overlap_policy": "cancel" })),
        ("queues", "thinker", json!({ "overlap_policy": "queue" })),
        ("times-out", "dreamer", json!({ "timeout_seconds": 1 })),
    ] {
        let mut body = json!({ "name": name, "agent_name": agent, "interval_seconds": 1 });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let (status, made) = post(&project, "/schedules", body).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
    }
    let skips = until(&project, "/schedules/skips/runs", |runs| {
        count(runs, "skipped") >= 2
    })
    .await;
    assert_eq!(
        (count(&skips, "running"), &skips[0]["reason"]),
        (1, &json!("overlap"))
    );
    let cancels = until(&project, "/schedules/cancels/runs", |runs| {
        count(runs, "cancelled") >= 2
    })
    .await;
    assert!(
        count(&cancels, "skipped") == 0 && count(&cancels, "running") <= 2,
        "{cancels}"
    );
    let detail = cancels
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["status"] == "cancelled")
        .unwrap();
    assert!(
        detail["detail"]
            .as_str()
            .unwrap()
            .contains("schedule cancels"),
        "{detail}"
    );
    let queues = until(&project, "/schedules/queues/runs", |runs| {
        count(runs, "completed") >= 2
    })
    .await;
    assert!(count(&queues, "waiting") >= 1, "{queues}");
    assert!(
        count(&queues, "running") + count(&queues, "queued") <= 1,
        "{queues}"
    );
    until(&project, "/schedules/times-out/runs", |runs| {
        count(runs, "timeout") >= 1
    })
    .await;
    server.kill().await;
}

#[tokio::test]
async fn what_a_kill_made_it_miss_is_told_by_the_misfire_policy() {
    let project = project();
    let server = project.up().await;
    for policy in ["skip", "once", "all"] {
        let body = json!({ "name": policy, "agent_name": "greeter", "interval_seconds": 1, "misfire_policy": policy });
        assert_eq!(
            post(&project, "/schedules", body).await.0,
            StatusCode::CREATED
        );
    }
    for policy in ["skip", "once", "all"] {
        until(&project, &format!("/schedules/{policy}/runs"), |runs| {
            count(runs, "completed") >= 1
        })
        .await;
    }
    server.kill().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let server = project.up().await;
    for (policy, reason) in [("skip", "misfire"), ("once", "coalesced")] {
        let path = format!("/schedules/{policy}/runs?limit=1000");
        let wanted = |runs: &Value| {
            let all = runs.as_array().cloned().unwrap_or_default();
            all.iter().filter(|run| run["reason"] == reason).count() >= 2
                && all[0]["status"] == "completed"
        };
        no_gap(&until(&project, &path, wanted).await);
    }
    let all = until(&project, "/schedules/all/runs?limit=1000", |runs| {
        count(runs, "completed") >= 5
    })
    .await;
    assert!(
        all.as_array()
            .unwrap()
            .iter()
            .all(|run| run["reason"] != "misfire" && run["reason"] != "coalesced"),
        "{all}"
    );
    no_gap(&all);
    server.kill().await;
}

/// A row for every second, and one only.
fn no_gap(runs: &Value) {
    let times: Vec<i64> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            run["fire_time"]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap()
                .timestamp_millis()
        })
        .collect();
    assert!(
        times.windows(2).all(|pair| pair[0] - pair[1] == 1000),
        "{times:?}"
    );
}

/// What a caller may write, the code of the answer, and what it says.
fn refused(good: &Value) -> Vec<(Value, &'static str, &'static str)> {
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body["name"] = json!("bad");
        body[field] = value;
        body
    };
    vec![
        (
            with("cron", json!("0 0 30 2 *")),
            "INVALID_CRON",
            "never fires",
        ),
        (
            with("cron", json!("0 0 3 * * * 2030")),
            "INVALID_CRON",
            "7 fields",
        ),
        (
            with("timezone", json!("Europe/Berln")),
            "INVALID_CRON",
            "Europe/Berlin",
        ),
        (
            with("interval_seconds", json!(5)),
            "INVALID_CRON",
            "no meaning",
        ),
        (
            json!({ "name": "bad", "agent_name": "greeter", "interval_seconds": 0 }),
            "INVALID_CRON",
            "out of range",
        ),
        (
            json!({ "name": "bad", "agent_name": "greeter", "at": "2020-01-01T00:00:00Z" }),
            "INVALID_CRON",
            "any more",
        ),
        (
            json!({ "name": "bad", "agent_name": "greeter" }),
            "INVALID_CRON",
            "does not say when",
        ),
        (
            with("agent_name", json!("greter")),
            "AGENT_NOT_FOUND",
            "greeter",
        ),
        (with("name", json!("../x")), "INVALID_REQUEST", "name"),
        (with("crn", json!("x")), "INVALID_REQUEST", "cron"),
        (
            with("jitter_seconds", json!(1_000_000)),
            "INVALID_REQUEST",
            "jitter_seconds",
        ),
        (good.clone(), "SCHEDULE_CONFLICT", "PUT /schedules/good"),
        (
            json!({ "name": "ticker", "agent_name": "greeter", "cron": "@daily" }),
            "SCHEDULE_CONFLICT",
            "ticker.yml",
        ),
    ]
}

#[tokio::test]
async fn what_can_not_be_is_refused_with_what_to_do() {
    let project = project();
    let server = project.up().await;
    let good = json!({ "name": "good", "agent_name": "greeter", "cron": "0 3 * * *", "timezone": "Europe/Berlin" });
    let (status, made) = post(&project, "/schedules", good.clone()).await;
    assert_eq!(
        (status, &made["managed_by"]),
        (StatusCode::CREATED, &json!("api")),
        "{made}"
    );
    for (body, wanted, said) in refused(&good) {
        let (_, answer) = post(&project, "/schedules", body.clone()).await;
        assert_eq!(code(&answer), wanted, "{body}: {answer}");
        assert!(
            answer["error"]["message"].as_str().unwrap().contains(said),
            "{body}: {answer}"
        );
    }
    for (method, path) in [
        (Method::GET, "/schedules/goood"),
        (Method::POST, "/schedules/none/trigger"),
        (Method::GET, "/schedules/none/runs"),
        (Method::GET, "/schedules/none/next"),
        (Method::DELETE, "/schedules/..%2Fx"),
    ] {
        let (status, body) = ask(&project, method, path, None).await;
        assert_eq!(
            (status, code(&body)),
            (StatusCode::NOT_FOUND, "SCHEDULE_NOT_FOUND"),
            "{path}"
        );
    }
    let (_, body) = ask(&project, Method::GET, "/schedules/goood", None).await;
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("did you mean good?"),
        "{body}"
    );
    assert_eq!(
        get(&project, "/schedules/good/next?count=3")
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let changed = json!({ "agent_name": "greeter", "cron": "@hourly" });
    let (status, changed) = ask(&project, Method::PUT, "/schedules/good", Some(changed)).await;
    assert_eq!(
        (status, &changed["cron"], &changed["timezone"]),
        (StatusCode::OK, &json!("@hourly"), &json!("UTC"))
    );
    assert_eq!(
        ask(&project, Method::DELETE, "/schedules/good", None)
            .await
            .0,
        StatusCode::NO_CONTENT
    );
    server.kill().await;
}

#[tokio::test]
async fn the_command_line_makes_shows_and_triggers_schedules() {
    let project = project();
    let server = project.up().await;
    let made = project
        .run(&[
            "schedules",
            "create",
            "nightly",
            "--agent",
            "greeter",
            "--cron",
            "0 2 * * *",
            "--timezone",
            "Europe/Berlin",
            "--prompt",
            "hi",
        ])
        .await;
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(made.json()["task_data"], json!({ "prompt": "hi" }));
    let listed = project.run(&["schedules"]).await.json();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    assert_eq!(names, ["nightly", "ticker"]);
    assert_eq!(
        project
            .run(&["schedules", "next", "nightly", "-n", "2"])
            .await
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        project.run(&["schedules", "pause", "nightly"]).await.json()["enabled"],
        false
    );
    let triggered = project
        .run(&["schedules", "trigger", "nightly"])
        .await
        .json();
    project
        .until(
            &format!("/tasks/{}", triggered["execution_id"].as_str().unwrap()),
            |task| task["status"] == "completed",
        )
        .await;
    assert_eq!(
        project.run(&["schedules", "runs", "nightly"]).await.json()[0]["status"],
        "completed"
    );
    assert_eq!(
        project
            .run(&["schedules", "resume", "nightly"])
            .await
            .json()["enabled"],
        true
    );
    assert_eq!(
        project.run(&["schedules", "delete", "nightly"]).await.code,
        0
    );
    server.kill().await;
}

#[tokio::test]
async fn the_command_line_says_what_is_wrong_and_does_without_a_server() {
    let project = project();
    let server = project.up().await;
    let wrong = project
        .run(&[
            "schedules",
            "create",
            "x",
            "--agent",
            "greeter",
            "--cron",
            "61 * * * *",
        ])
        .await;
    assert!(
        wrong.code == 1 && wrong.stderr.contains("INVALID_CRON"),
        "{wrong:?}"
    );
    assert_eq!(
        project
            .run(&["schedules", "create", "x", "--agent", "greeter"])
            .await
            .code,
        2
    );
    assert_eq!(
        project.run(&["schedules", "delete", "nightly"]).await.code,
        1
    );
    server.kill().await;
    // Without a server: this process answers, and whoever runs next takes it over.
    let alone = project
        .run(&[
            "schedules",
            "create",
            "later",
            "--agent",
            "greeter",
            "--every",
            "1",
        ])
        .await;
    assert_eq!(alone.code, 0, "{alone:?}");
    let server = project.up().await;
    until(&project, "/schedules/later/runs", |runs| {
        count(runs, "completed") >= 1
    })
    .await;
    server.kill().await;
}
