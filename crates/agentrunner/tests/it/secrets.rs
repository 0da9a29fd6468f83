//! Secrets that are kept elsewhere and change, with the binary: files, AWS Secrets Manager, Vault.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use testkit::provider::{AWS_KEY_ID, Answer, aws_secret};
use testkit::{ProviderStandIn, SecretsStandIn};

use crate::product::{Product, Project};
use crate::project::Ran;

const AGENT: &str = "\
name: helper
execution_mode: autonomous
llm_config: { provider: openai, model: m }
system_prompt: Answer.
retry_config: { max_retries: 0 }
";

/// Calls an API with a key that only agents use.
fn caller(api: &str) -> String {
    format!(
        "name: caller
execution_mode: autonomous
llm_config: {{ provider: scripted, model: scripts/caller.yml }}
system_prompt: Call.
tools:
  - name: ask
    type: api
    url: '{api}/'
    headers: {{ Authorization: 'Bearer ${{SHOP_TOKEN}}' }}
    effect: read_only
"
    )
}
const SCRIPT: &str =
    "- when: { turn: 1 }\n  tool_calls: [{ name: ask, arguments: {} }]\n- reply: Done.\n";

/// An API that answers with the key that it got, in a form that nobody masks by chance.
async fn mirror() -> String {
    let answer = async |request: axum::extract::Request| {
        let key = request.headers().get("authorization").unwrap();
        let text = key.to_str().unwrap();
        (
            StatusCode::OK,
            format!("reversed {}", text.chars().rev().collect::<String>()),
        )
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn project(api: &str) -> Project {
    let project = Project::new();
    project.agent("helper", AGENT);
    project.agent("caller", &caller(api));
    let scripts = project.path().join("config/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    std::fs::write(scripts.join("caller.yml"), SCRIPT).unwrap();
    project
}

/// The keys that the model was asked with, in order, each once.
fn keys(model: &ProviderStandIn) -> Vec<String> {
    let mut keys: Vec<String> = model
        .requests()
        .iter()
        .map(|asked| asked.request.headers["authorization"].clone())
        .collect();
    keys.dedup();
    keys
}

/// What the tool got, as it is journaled.
async fn told(server: &Product) -> String {
    let answer = server.run("caller", "go").await;
    let id = answer["execution_id"].as_str().unwrap();
    let steps = server.get_state(&format!("/executions/{id}/steps")).await;
    let text = steps.to_string();
    let from = text.find("reversed ").unwrap_or_else(|| panic!("{text}"));
    let rest = &text[from + "reversed ".len()..];
    let reversed = rest.split(['"', '\\']).next().unwrap();
    reversed.chars().rev().collect()
}

#[tokio::test]
async fn secrets_in_files_are_renewed_and_the_agents_see_it() {
    let (model, api) = (
        ProviderStandIn::start(|_| Answer::say("hi")),
        mirror().await,
    );
    let project = project(&api);
    let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).unwrap();
    write("openai", "sk-first-1\n");
    write("shop", "shop-first-1\n");
    let (url, shop) = (model.openai_url(), project.path().join("shop"));
    let shop = format!("file://{}", shop.display());
    let variables = [
        ("OPENAI_API_KEY_FILE", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("SHOP_TOKEN", &shop),
        ("EGRESS_ALLOW", "127.0.0.1"),
    ];
    let server = Product::up(&project, &variables).await;
    server.run("helper", "hi").await;
    assert_eq!(told(&server).await, "Bearer shop-first-1");
    write("openai", "sk-second-2");
    write("shop", "shop-second-2");
    until(&server, "SHOP_TOKEN was renewed").await;
    server.run("helper", "hi").await;
    assert_eq!(keys(&model), ["Bearer sk-first-1", "Bearer sk-second-2"]);
    assert_eq!(told(&server).await, "Bearer shop-second-2");
    // One that is gone leaves the last known.
    std::fs::remove_file(project.path().join("openai")).unwrap();
    until(&server, "OPENAI_API_KEY can't be read again").await;
    server.run("helper", "hi").await;
    assert_eq!(keys(&model).last().unwrap(), "Bearer sk-second-2");
    let log = server.log();
    assert!(
        !log.contains("sk-second") && !log.contains("shop-second"),
        "{log}"
    );
}

async fn until(server: &Product, part: &str) {
    for _ in 0..1500 {
        if server.log().contains(part) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never said {part:?}: {}", server.log());
}

#[tokio::test]
async fn secrets_in_managers_are_read_and_renewed_through_a_revoked_login_and_an_outage() {
    let (model, managers) = (
        ProviderStandIn::start(|_| Answer::say("hi")),
        SecretsStandIn::start(),
    );
    managers.allow_role("role", "secret-id-canary-1", Duration::from_secs(6));
    managers.put_vault("secret/app", json!({ "shop": "shop-canary-1" }));
    managers.put_aws("prod/app", r#"{"openai":"sk-canary-1"}"#);
    let api = mirror().await;
    let project = project(&api);
    let (url, managed, secret) = (model.openai_url(), managers.url(), aws_secret(AWS_KEY_ID));
    let variables = [
        ("OPENAI_API_KEY", "aws-sm://prod/app#openai"),
        ("SHOP_TOKEN", "vault://secret/app#shop"),
        ("OPENAI_BASE_URL", &url),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &managed),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", AWS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", &secret),
        ("VAULT_ADDR", &managed),
        ("VAULT_ROLE_ID", "role"),
        ("VAULT_SECRET_ID", "secret-id-canary-1"),
        ("SECRETS_REFRESH_SECONDS", "5"),
        ("EGRESS_ALLOW", "127.0.0.1"),
    ];
    let server = Product::up(&project, &variables).await;
    server.run("helper", "hi").await;
    assert_eq!(told(&server).await, "Bearer shop-canary-1");
    // Down, and all logins are worth nothing: what is known stays.
    managers.revoke_tokens();
    managers.set_down(true);
    until(&server, "OPENAI_API_KEY can't be read again").await;
    server.run("helper", "hi").await;
    managers.put_vault("secret/app", json!({ "shop": "shop-canary-2" }));
    managers.put_aws("prod/app", r#"{"openai":"sk-canary-2"}"#);
    managers.set_down(false);
    until(&server, "SHOP_TOKEN was renewed").await;
    until(&server, "OPENAI_API_KEY was renewed").await;
    server.run("helper", "hi").await;
    assert_eq!(keys(&model), ["Bearer sk-canary-1", "Bearer sk-canary-2"]);
    assert_eq!(told(&server).await, "Bearer shop-canary-2");
    let log = server.log();
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn a_start_names_the_reference_that_can_not_be_read() {
    let managers = SecretsStandIn::start();
    managers.allow_token("token-canary-1", None);
    managers.put_vault("secret/app", json!({ "openai": "sk-canary-1" }));
    managers.put_aws("prod/app", "no object, sk-canary-2");
    let project = Project::new();
    let (url, secret) = (managers.url(), aws_secret(AWS_KEY_ID));
    let start = |more: &[(&str, &str)]| {
        let common = [
            ("VAULT_ADDR", url.as_str()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &url),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", AWS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", &secret),
        ];
        let mut command = project.command(&[&common[..], more].concat());
        command.arg("up");
        Ran::of(command)
    };
    let vault = ("VAULT_TOKEN", "token-canary-1");
    for (variables, wanted) in [
        (
            &[("OPENAI_API_KEY", "vault://secret/app#openai")][..],
            "OPENAI_API_KEY=vault://secret/app#openai: nobody is logged in at Vault",
        ),
        (
            &[("OPENAI_API_KEY", "vault://secret/app#other"), vault],
            "it has no field \"other\"",
        ),
        (
            &[("OPENAI_API_KEY", "vault://secret/none#other"), vault],
            "there is no such secret",
        ),
        (
            &[
                ("OPENAI_API_KEY", "vault://secret/app#openai"),
                ("VAULT_TOKEN", "wrong-canary"),
            ],
            "check the token",
        ),
        (
            &[("SHOP_TOKEN", "aws-sm://prod/none")],
            "SHOP_TOKEN=aws-sm://prod/none: AWS Secrets Manager answered 400 ResourceNotFoundException",
        ),
        (
            &[("SHOP_TOKEN", "aws-sm://prod/app#x")],
            "the secret is no JSON object",
        ),
        (&[("SHOP_TOKEN", "aws-sm://")], "write it as aws-sm://NAME"),
    ] {
        let ran = start(variables).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(wanted), "{wanted}: {ran:?}");
        assert!(!ran.stderr.contains("canary"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_known_secret_that_comes_in_goes_nowhere() {
    let model = ProviderStandIn::start(|_| Answer::say("hi"));
    let project = Project::new();
    project.agent("helper", AGENT);
    let url = model.openai_url();
    let variables = [
        ("OPENAI_API_KEY", "sk-canary-1"),
        ("OPENAI_BASE_URL", &url),
        ("OTHER_TOKEN", "other-canary-1"),
        ("DATA_DIR", "data"),
        ("LOG_LEVEL", "TRACE"),
    ];
    let server = Product::up(&project, &variables).await;
    let task = json!({ "task_data": { "prompt": "is sk-canary-1 the key, or other-canary-1?" } });
    let path = "/agents/helper/invoke?wait=30s";
    let answer = server.post(path, &task).await;
    assert_eq!(answer["status"], "completed", "{answer}");
    let heard = serde_json::to_string(&model.requests()[0].request).unwrap();
    assert!(
        heard.contains("is [redacted] the key, or [redacted]?"),
        "{heard}"
    );
    // In an address, and in what is refused.
    let (_, refused) = server.ask("/agents/sk-canary-1").await;
    assert_eq!(refused["error"]["code"], "AGENT_NOT_FOUND", "{refused}");
    let (_, refused) = server
        .try_post(
            "/tasks",
            &json!({ "agent_name": "helper", "sk-canary-1": Value::Null }),
        )
        .await;
    let all = format!("{answer} {refused} {}", server.log());
    assert!(!all.contains("canary"), "{all}");
    let store = std::fs::read(project.path().join("data/agentrunner.db-wal")).unwrap();
    let text = String::from_utf8_lossy(&store);
    assert!(text.contains("[redacted]") && !text.contains("canary"));
}
