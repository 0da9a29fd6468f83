//! Keys of the API, with the binary: turned on, made, used, revoked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::product::{Product, Project};
use crate::project::Ran;

const FIRST: &str = "first-key-canary-0123456789abcdef";
const ON: [(&str, &str); 2] = [("ENABLE_API_AUTH", "true"), ("API_SECRET_KEY", FIRST)];

fn project() -> Project {
    let project = Project::new();
    project.agent(
        "greeter",
        "name: greeter\nexecution_mode: autonomous\nsystem_prompt: You greet.\n\
         llm_config: { provider: scripted, model: scripts/greeter.yml }\n",
    );
    let scripts = project.path().join("config/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    std::fs::write(scripts.join("greeter.yml"), "- reply: Hello there.\n").unwrap();
    project
}

/// Runs a command with these variables.
async fn run(project: &Project, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = project.command(variables);
    command.args(args);
    Ran::of(command).await
}

async fn status(server: &Product, path: &str, key: &str) -> u16 {
    let client = reqwest::Client::new();
    let request = client.get(format!("{}{path}", server.orchestrator));
    request
        .header("x-api-key", key)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn a_start_with_keys_and_without_a_first_one_fails() {
    let project = project();
    let ran = run(&project, &[("ENABLE_API_AUTH", "true")], &["up"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("set API_SECRET_KEY"), "{ran:?}");
    let open = [("BIND_ADDRESS", "0.0.0.0")];
    let ran = run(&project, &open, &["up"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("ENABLE_API_AUTH=true"), "{ran:?}");
}

#[tokio::test]
async fn each_start_without_keys_on_an_open_address_says_so() {
    let project = project();
    let open = [
        ("BIND_ADDRESS", "0.0.0.0"),
        ("ALLOW_UNAUTHENTICATED", "true"),
    ];
    for starts in 1..=2 {
        let server = Product::up(&project, &open).await;
        let log = server.log();
        let said = log
            .matches("whoever reaches these ports may do everything")
            .count();
        assert_eq!(said, starts, "{log}");
        server.kill().await;
    }
}

#[tokio::test]
async fn the_command_line_makes_keys_shows_them_and_revokes_them_everywhere() {
    let project = project();
    let server = Product::up(&project, &ON).await;
    let wrong = [
        ("AGENTRUNNER_SERVER", server.orchestrator.as_str()),
        ("AGENTRUNNER_API_KEY", "ar_wrong"),
    ];
    let ran = run(&project, &wrong, &["agents"]).await;
    assert!(
        ran.stderr
            .contains("set AGENTRUNNER_API_KEY to a valid key"),
        "{ran:?}"
    );
    // Another process on the same database.
    let other = Product::up(&project, &ON).await;
    let url = server.orchestrator.clone();
    let at = ("AGENTRUNNER_SERVER", url.as_str());
    let admin = [at, ("AGENTRUNNER_API_KEY", FIRST)];

    let ran = run(&project, &[at, ON[1]], &["agents"]).await;
    assert_eq!(
        ran.code, 1,
        "the first key goes to no server that is named: {ran:?}"
    );
    assert!(ran.stderr.contains("AUTH_FAILED"), "{ran:?}");

    let create = [
        "keys",
        "create",
        "ci",
        "--scope",
        "read,submit",
        "--expires",
        "1d",
    ];
    let ran = run(&project, &admin, &create).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let made = ran.json();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    for process in [&server, &other] {
        assert_eq!(status(process, "/agents", key).await, 200);
        assert_eq!(status(process, "/keys", key).await, 403);
        assert_eq!(status(process, "/agents", "ar_nonsense").await, 401);
        assert_eq!(status(process, "/health/ready", "").await, 200);
    }
    let own = [at, ("AGENTRUNNER_API_KEY", key)];
    let ran = run(&project, &own, &["run", "greeter", "hi"]).await;
    assert_eq!(
        (ran.code, ran.stdout.trim()),
        (0, "Hello there."),
        "{ran:?}"
    );
    let by_flag = ["keys", "list", "--api-key", key];
    let ran = run(&project, &[at], &by_flag).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the scope admin"), "{ran:?}");
    let file = project.path().join("key");
    std::fs::write(&file, format!("{FIRST}\n")).unwrap();
    let by_file = [at, ("AGENTRUNNER_API_KEY_FILE", file.to_str().unwrap())];
    let ran = run(&project, &by_file, &["keys"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()[0]["id"], id);
    assert!(!ran.stdout.contains(key), "{ran:?}");

    let ran = run(&project, &admin, &["keys", "revoke", id]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let revoked = Instant::now();
    assert_eq!(status(&server, "/agents", key).await, 401, "here at once");
    while status(&other, "/agents", key).await != 401 {
        assert!(
            revoked.elapsed() < Duration::from_secs(5),
            "it is taken elsewhere"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for process in [server, other] {
        assert!(!process.log().contains("canary") && !process.log().contains(key));
        process.kill().await;
    }
}

#[tokio::test]
async fn a_command_without_a_server_lets_nobody_else_in_and_works() {
    let project = project();
    let ran = run(&project, &ON, &["run", "greeter", "hi"]).await;
    assert_eq!(
        (ran.code, ran.stdout.trim()),
        (0, "Hello there."),
        "{ran:?}"
    );
    let ran = run(
        &project,
        &ON,
        &["keys", "create", "early", "--scope", "admin"],
    )
    .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let key = ran.json()["key"].as_str().unwrap().to_owned();
    let server = Product::up(&project, &ON).await;
    assert_eq!(status(&server, "/keys", &key).await, 200);
    let client = reqwest::Client::new();
    let body: Value = json!({ "agent_name": "greeter", "task_data": "x" });
    let post = client
        .post(format!("{}/tasks", server.orchestrator))
        .json(&body);
    let answer = post.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    server.kill().await;
}
