//! Configurations over HTTP.

use agentrunner_services::http::Service;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{System, Workers, agent, error, read};

async fn validate(system: &System, kind: &str, text: String) -> (StatusCode, Value) {
    let request = system
        .request(Method::POST, Service::ConfigService, "/configs/validate")
        .header("content-type", kind)
        .body(text);
    read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn texts_are_checked_without_being_kept() {
    let system = System::start(Workers::Absent).await;
    let (status, body) = validate(&system, "application/yaml", agent("new")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, json!({"valid": true, "errors": [], "warnings": []}));
    let json = r#"{"name": "new", "execution_mode": "autonomus"}"#;
    let (_, body) = validate(&system, "application/json", json.to_owned()).await;
    assert_eq!(body["valid"], false);
    let found: Vec<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["path"].as_str().unwrap())
        .collect();
    assert_eq!(found, ["llm_config", "system_prompt", "execution_mode"]);
    assert_eq!(
        (
            body["errors"][2]["line"].as_u64(),
            body["errors"][2]["column"].as_u64()
        ),
        (Some(1), Some(35))
    );
    let (status, _) = validate(&system, "application/x-www-form-urlencoded", agent("new")).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let bomb = (0..20).fold("a0: &a0 x\n".to_owned(), |text, n| {
        format!(
            "{text}a{}: &a{} [{}]\n",
            n + 1,
            n + 1,
            format!("*a{n},").repeat(9)
        )
    });
    let (status, body) = validate(&system, "text/yaml", bomb).await;
    assert_eq!((status, &body["valid"]), (StatusCode::OK, &json!(false)));
    assert_eq!(system.engine.agents().all().len(), 1);
}

#[tokio::test]
async fn configurations_versions_and_reloads_are_shown() {
    let system = System::start(Workers::Absent).await;
    let get = async |path: &str| system.get(Service::ConfigService, path).await;
    let (_, first) = get("/configs/helper").await;
    std::fs::write(
        system.agents().join("helper.yml"),
        agent("helper") + "tags: [x]\n",
    )
    .unwrap();
    std::fs::write(system.agents().join("bad.yml"), "name: bad\n").unwrap();
    let request = system.request(Method::POST, Service::ConfigService, "/reload");
    let (status, report) = read(request.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (report["updated"].as_u64(), report["rejected"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(report["errors"][0]["file"], "bad.yml");

    let (_, list) = get("/configs?tags=x&enabled=true&execution_mode=autonomous").await;
    assert_eq!(list[0]["name"], "helper");
    let (_, versions) = get("/configs/helper/versions").await;
    assert_eq!(versions.as_array().unwrap().len(), 2);
    assert_eq!(versions[0]["is_current"], true);
    let old = first["version"].as_str().unwrap();
    let (_, version) = get(&format!("/configs/helper/versions/{old}")).await;
    assert_eq!(version["source"], agent("helper"));
    assert_eq!(version["definition"]["name"], "helper");
    for (path, code) in [
        ("/configs/helpr", "CONFIG_NOT_FOUND"),
        ("/configs/helpr/versions", "CONFIG_NOT_FOUND"),
        ("/configs/helper/versions/ffff", "CONFIG_NOT_FOUND"),
        ("/configs/..%2Fhelper", "CONFIG_NOT_FOUND"),
    ] {
        let (status, body) = get(path).await;
        assert_eq!(
            (status, error(&body).0),
            (StatusCode::NOT_FOUND, code),
            "{path}"
        );
    }
    let (_, schema) = get("/schema/agent.json").await;
    assert_eq!(schema["title"], "AgentRunner agent");
    assert_eq!(schema["additionalProperties"], false);
}
