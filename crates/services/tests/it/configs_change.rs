//! Uploads of configurations, and the way back.

use std::fs;

use agentrunner_services::http::Service;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::harness::{System, Workers, agent, error, read};

fn post(system: &System, path: &str) -> RequestBuilder {
    system.request(Method::POST, Service::ConfigService, path)
}

async fn upload(system: &System, query: &str, text: impl Into<String>) -> (StatusCode, Value) {
    let request = post(system, &format!("/configs/upload{query}"));
    let request = request
        .header("content-type", "application/yaml")
        .body(text.into());
    read(request.send().await.unwrap()).await
}

async fn roll_back(system: &System, name: &str, body: Value) -> (StatusCode, Value) {
    let request = post(system, &format!("/configs/{name}/rollback")).json(&body);
    read(request.send().await.unwrap()).await
}

fn files(system: &System) -> Vec<String> {
    let entries = fs::read_dir(system.agents()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_upload_is_on_disk_and_in_use() {
    let system = System::start(Workers::Absent).await;
    let text = agent("new") + "description: it greets\n";
    let request = post(&system, "/configs/upload")
        .header("content-type", "application/yaml")
        .body(text.clone());
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["location"], "/configs/new");
    let (status, made) = read(response).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        (&made["path"], &made["previous_version"]),
        (&json!("new.yml"), &Value::Null)
    );
    assert_eq!(
        fs::read_to_string(system.agents().join("new.yml")).unwrap(),
        text
    );
    assert_eq!(files(&system), ["helper.yml", "new.yml"]);
    let (status, _) = system.tasks("/agents/new").await;
    assert_eq!(status, StatusCode::OK);

    // The name is taken; the same again under a key is the same answer.
    for query in ["", "?replace=false"] {
        let (status, refusal) = upload(&system, query, text.clone() + "tags: [x]\n").await;
        let (code, message) = error(&refusal);
        assert_eq!((status, code), (StatusCode::CONFLICT, "CONFIG_CONFLICT"));
        assert!(message.contains("?replace=true"), "{message}");
        assert_eq!(refusal["error"]["details"]["version"], made["version"]);
    }
    let again = post(&system, "/configs/upload")
        .header("content-type", "application/yaml")
        .header("idempotency-key", "k-1")
        .body(text);
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
}

#[tokio::test]
async fn what_is_replaced_is_the_version_that_was_seen() {
    let system = System::start(Workers::Absent).await;
    let (_, first) = system.get(Service::ConfigService, "/configs/helper").await;
    let change = |n: u32| format!("{}description: change {n}\n", agent("helper"));
    let conditional = |version: &str, n: u32| {
        post(&system, "/configs/upload")
            .header("content-type", "application/yaml")
            .header("if-match", version)
            .body(change(n))
            .send()
    };
    let version = format!("\"{}\"", first["version"].as_str().unwrap());
    let (status, second) = read(conditional(&version, 1).await.unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{second}");
    assert_eq!(second["previous_version"], first["version"]);
    // Who was not answered may ask again, and is told the same.
    let again = post(&system, "/configs/upload")
        .header("content-type", "application/yaml")
        .header("if-match", &version)
        .header("idempotency-key", "change-1")
        .body(change(1));
    let again = again.send().await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let (status, repeated) = read(again).await;
    assert_eq!(status, StatusCode::OK, "{repeated}");
    assert_eq!(repeated["previous_version"], first["version"]);
    let (status, refusal) = read(conditional(&version, 2).await.unwrap()).await;
    assert_eq!(
        (status, error(&refusal).0),
        (StatusCode::CONFLICT, "CONFIG_CONFLICT")
    );
    assert_eq!(refusal["error"]["details"]["version"], second["version"]);
    let (status, third) = upload(&system, "?replace=true", change(3)).await;
    assert_eq!(
        (status, &third["path"]),
        (StatusCode::OK, &json!("helper.yml"))
    );
    assert_eq!(
        fs::read_to_string(system.agents().join("helper.yml")).unwrap(),
        change(3)
    );

    // Back step by step, and to one by name; the running ones keep theirs, which stays in the store.
    let (status, back) = roll_back(&system, "helper", json!({})).await;
    assert_eq!(
        (status, &back["version"]),
        (StatusCode::OK, &second["version"]),
        "{back}"
    );
    assert_eq!(back["previous_version"], third["version"]);
    let (_, back) = roll_back(&system, "helper", json!({})).await;
    assert_eq!(back["version"], first["version"]);
    let (status, refusal) = roll_back(&system, "helper", json!({})).await;
    assert_eq!(
        (status, error(&refusal).0),
        (StatusCode::CONFLICT, "STATE_CONFLICT")
    );
    let (_, there) = roll_back(&system, "helper", json!({"version": third["version"]})).await;
    assert_eq!(there["version"], third["version"]);
    let current = system
        .engine
        .agents()
        .get(&"helper".parse().unwrap())
        .unwrap();
    assert_eq!(third["version"], current.version.to_string());
    for (name, version) in [("helper", "ffff"), ("helper", "../.."), ("nobody", "ffff")] {
        let (status, refusal) = roll_back(&system, name, json!({ "version": version })).await;
        assert_eq!(
            (status, error(&refusal).0),
            (StatusCode::NOT_FOUND, "CONFIG_NOT_FOUND")
        );
    }
}

#[tokio::test]
async fn what_can_not_be_used_is_not_written() {
    let system = System::start(Workers::Absent).await;
    let tool = |tool: &str| format!("{}tools:\n  - {tool}\n", agent("new"));
    let cases = [
        ("name: new\n".to_owned(), "llm_config"),
        (agent("../../x"), "name"),
        (agent("/etc/passwd"), "name"),
        (agent("new") + "api_bas: x\n", "api_bas"),
        (
            agent("new") + "description: !!python/object/apply:os.system [id]\n",
            "description",
        ),
        (
            tool("{name: t, type: mcp, command: sh, args: [-c, id]}"),
            "tools[0].command",
        ),
        (
            tool("{name: t, type: mcp, command: npx, args: [--yes, evil]}"),
            "tools[0].command",
        ),
        (
            tool("{name: t, type: mcp, command: /bin/true, env: {LD_PRELOAD: /tmp/x.so}}"),
            "tools[0].command",
        ),
    ];
    for (text, field) in cases {
        let (status, refusal) = upload(&system, "?replace=true", text.clone()).await;
        assert_eq!(
            (status, error(&refusal).0),
            (StatusCode::BAD_REQUEST, "INVALID_CONFIG"),
            "{text}"
        );
        let fields = refusal["error"]["details"]["fields"].as_array().unwrap();
        assert!(
            fields.iter().any(|f| f["field"] == field),
            "{text}: {refusal}"
        );
    }
    // A file that is broken has its name nevertheless.
    fs::write(
        system.agents().join("broken.yaml"),
        "name: taken\nexecution_mode: x\n",
    )
    .unwrap();
    system.config.reload().await.unwrap();
    let (status, refusal) = upload(&system, "?replace=true", agent("taken")).await;
    assert_eq!(
        (status, error(&refusal).0),
        (StatusCode::CONFLICT, "CONFIG_CONFLICT")
    );
    assert_eq!(refusal["error"]["details"]["file"], "broken.yaml");
    assert_eq!(files(&system), ["broken.yaml", "helper.yml"]);
}

#[tokio::test]
async fn a_program_that_the_file_starts_is_kept_and_none_comes_back() {
    let system = System::start(Workers::Absent).await;
    let with = |program: &str| {
        format!(
            "{}tools:\n  - {{name: t, type: mcp, command: {program}}}\n",
            agent("helper")
        )
    };
    fs::write(system.agents().join("helper.yml"), with("/usr/bin/own")).unwrap();
    system.config.reload().await.unwrap();
    let kept = with("/usr/bin/own") + "description: else\n";
    let (status, _) = upload(&system, "?replace=true", kept).await;
    assert_eq!(status, StatusCode::OK);
    let (_, present) = system.get(Service::ConfigService, "/configs/helper").await;
    let (status, _) = upload(&system, "?replace=true", agent("helper") + "tags: [x]\n").await;
    assert_eq!(status, StatusCode::OK);
    // The operator took it out; the way back does not bring it in again.
    let back = json!({ "version": present["version"] });
    let (status, refusal) = roll_back(&system, "helper", back).await;
    assert_eq!(
        (status, error(&refusal).0),
        (StatusCode::BAD_REQUEST, "INVALID_CONFIG")
    );
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_folders_of_others_are_left_alone() {
    let system = System::start(Workers::Absent).await;
    let outside = tempfile::tempdir().unwrap();
    let theirs = outside.path().join("victim");
    fs::write(&theirs, "theirs").unwrap();
    std::os::unix::fs::symlink(&theirs, system.agents().join("new.yml")).unwrap();
    for query in ["", "?replace=true"] {
        let (status, refusal) = upload(&system, query, agent("new")).await;
        assert_eq!(
            (status, error(&refusal).0),
            (StatusCode::CONFLICT, "STATE_CONFLICT")
        );
    }
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}
