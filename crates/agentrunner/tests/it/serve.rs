//! `up`: what it says, what it refuses, how it ends, and files that change under it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::Project;

#[tokio::test]
async fn sigterm_ends_with_zero_and_every_line_is_json() {
    let project = Project::new();
    let server = project
        .up_with(&[("LOG_LEVEL", "DEBUG"), ("OPENAI_API_KEY", "sk-canary")])
        .await;
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    server.signal("TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("canary"), "{log}");
    for line in log.lines() {
        let fields: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for name in ["timestamp", "level", "component", "message"] {
            assert!(fields[name].is_string(), "{line}");
        }
    }
    for choice in [
        "store: embedded SQLite",
        "bus: in this process",
        "model: scripted",
        "scripted: the answers",
    ] {
        assert!(log.contains(choice), "{choice:?} is not in\n{log}");
    }
}

#[tokio::test]
async fn what_is_under_way_does_not_keep_a_server_from_ending() {
    let project = Project::new();
    let server = project.up().await;
    let id = project.submit("thinker").await;
    project
        .until(&format!("/tasks/{id}"), |task| {
            task["steps"].as_u64() >= Some(3)
        })
        .await;
    server.signal("TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, 0, "{log}");
    let _server = project.up().await;
    project
        .until(&format!("/tasks/{id}"), |task| {
            task["status"] == "completed"
        })
        .await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_variable() {
    let project = Project::new();
    let _other = TcpListener::bind(("127.0.0.1", project.port())).unwrap();
    let ran = project.run(&["up"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(&project.port().to_string()), "{ran:?}");
    assert!(ran.stderr.contains("ORCHESTRATOR_PORT"), "{ran:?}");
}

#[tokio::test]
async fn a_change_of_a_file_is_live_within_a_second_and_a_broken_one_changes_nothing() {
    let project = Project::new();
    let mut server = project.up().await;
    let agent = project.get("/agents/greeter").await;
    assert_eq!(agent["description"], "Says hello.");
    let text = std::fs::read_to_string(project.path().join("config/agents/greeter.yml")).unwrap();

    let began = Instant::now();
    project.write(
        "config/agents/greeter.yml",
        &text.replace("Says hello.", "Says goodbye."),
    );
    project
        .until("/agents/greeter", |agent| {
            agent["description"] == "Says goodbye."
        })
        .await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    project.write(
        "config/agents/greeter.yml",
        &text.replace("system_prompt", "system_promt"),
    );
    server.wait_for_line("system_prompt").await;
    assert!(server.log.contains("greeter.yml:4"), "{}", server.log);
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "the last good version stays: {ran:?}");
}

#[tokio::test]
async fn a_broken_file_keeps_no_server_from_starting() {
    let project = Project::new();
    project.write(
        "config/agents/broken.yml",
        "name: broken\nexecution_mode: autonomos\n",
    );
    let server = project.up().await;
    assert!(server.log.contains("broken.yml:2"), "{}", server.log);
    assert!(server.log.contains("autonomous"), "{}", server.log);
    assert_eq!(project.run(&["run", "greeter", "hello"]).await.code, 0);
    drop(server);
    let ran = project.run(&["validate"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains('^'), "{ran:?}");
    assert!(ran.stderr.contains("5 files: 4 valid agents"), "{ran:?}");
}

#[tokio::test]
async fn log_lines_go_to_a_folder_too() {
    let project = Project::new();
    let server = project
        .up_with(&[("LOG_DIR", "logs"), ("LOG_FORMAT", "text")])
        .await;
    assert!(!server.log.contains("{\"timestamp"), "{}", server.log);
    let written = std::fs::read_to_string(project.path().join("logs/agentrunner.log")).unwrap();
    assert!(
        written
            .lines()
            .all(|line| line.starts_with("{\"timestamp\":\"")),
        "{written}"
    );
    assert!(written.contains("ready in"), "{written}");
}

#[tokio::test]
async fn a_folder_for_logs_that_cannot_be_written_keeps_nobody_from_working() {
    let project = Project::new();
    project.write("logs", "a file");
    let server = project.up_with(&[("LOG_DIR", "logs")]).await;
    assert!(
        server.log.contains("LOG_DIR: logs can't be written"),
        "{}",
        server.log
    );
}

#[tokio::test]
async fn a_missing_folder_of_agents_is_explained_and_taken_in_when_it_comes() {
    let project = Project::empty();
    let server = project.up().await;
    assert!(server.log.contains("agentrunner init"), "{}", server.log);
    assert_eq!(project.get("/agents").await, serde_json::json!([]));
    assert_eq!(project.run(&["init"]).await.code, 0);
    project
        .until("/agents", |agents| {
            agents.as_array().is_some_and(|agents| agents.len() == 5)
        })
        .await;
}

#[tokio::test]
async fn who_may_ask_and_how_much_follow_the_settings() {
    let project = Project::new();
    let _server = project
        .up_with(&[
            ("ALLOWED_HOSTS", "agents.example.com"),
            ("ALLOWED_ORIGINS", "https://ops.example.com"),
            ("MAX_BODY_BYTES", "2048"),
        ])
        .await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{}/tasks", project.port());
    let status = async |name: &'static str, value: &str| {
        let answer = client.get(&url).header(name, value).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(status("host", "agents.example.com").await, 200);
    assert_eq!(status("host", "evil.example.com").await, 403);
    assert_eq!(status("origin", "https://ops.example.com").await, 200);
    assert_eq!(status("origin", "https://evil.example.com").await, 403);

    let body = |length| {
        format!(
            "{{\"agent_name\": \"greeter\", \"x\": \"{}\"}}",
            "a".repeat(length)
        )
    };
    let sent = async |body: String| {
        let post = client.post(&url).header("content-type", "application/json");
        post.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(sent(body(3000)).await, 413);
    assert_eq!(sent(body(1000)).await, 400);
}
