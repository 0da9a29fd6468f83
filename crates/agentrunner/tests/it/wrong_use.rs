//! What is refused, with which exit code, and what is said.

use crate::project::{Project, Ran};

#[tokio::test]
async fn wrong_settings_end_with_two_and_are_told_all_at_once() {
    let project = Project::new();
    let mut command = project.command(&["up"]);
    command
        .env("LOG_LEVEL", "LOUD")
        .env("AGENT_SHUTDOWN_TIMOUT", "5")
        .env("POSTGRES_PORT", "port");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    for part in [
        "3 settings",
        "LOG_LEVEL=LOUD",
        "AGENT_SHUTDOWN_TIMEOUT",
        "POSTGRES_PORT=port",
    ] {
        assert!(ran.stderr.contains(part), "{part:?}: {ran:?}");
    }
    assert!(
        !project.path().join("data").exists(),
        "nothing is made before the settings are right"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_ends_with_three() {
    let project = Project::new();
    let ran = project
        .run(&["--server", "http://127.0.0.1:1", "run", "greeter", "hello"])
        .await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("agentrunner up"), "{ran:?}");
    let ran = project
        .run(&["--server", "http://127.0.0.1:1", "tasks", "--json"])
        .await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{ran:?}");
}

#[tokio::test]
async fn settings_come_from_the_env_file_of_the_folder() {
    let project = Project::new();
    project.write(".env", "DATA_DIR=elsewhere\nLOG_LEVEL=DEBUGG\n");
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    project.write(".env", "DATA_DIR=elsewhere\n");
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(project.path().join("elsewhere/agentrunner.db").exists());
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_and_says_what_to_type() {
    let project = Project::new();
    let ran = project.run(&["doctor"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    project.write("config/agents/broken.yml", "name: broken\n");
    let _other = std::net::TcpListener::bind(("127.0.0.1", project.port())).unwrap();
    let ran = project.run(&["doctor", "--json"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let findings = ran.json();
    let failed: Vec<_> = findings["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["state"] == "failed")
        .collect();
    assert!(failed.len() >= 2, "{findings}");
    assert!(
        failed.iter().all(|finding| finding["advice"] != ""),
        "{findings}"
    );
}

#[tokio::test]
async fn doctor_explains_settings_that_stop_everything_else() {
    let project = Project::new();
    let mut command = project.command(&["doctor"]);
    command.env("OPENAI_API_KYE", "sk-canary");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("OPENAI_API_KEY"), "{ran:?}");
    assert!(!ran.stdout.contains("canary"), "{ran:?}");
}

#[tokio::test]
async fn an_agent_whose_file_was_never_good_is_not_said_to_be_unknown() {
    let project = Project::new();
    let broken = "name: poet\nexecution_mode: autonomous\nsystem_prompt: You write.\nllm_config: { provider: scripted }\n";
    project.write("config/agents/poet.yml", broken);
    let why = "agent poet can't be used, because its file is broken: ./config/agents/poet.yml:4:";
    let ran = project.run(&["run", "poet", "write"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(why), "{ran:?}");
    let server = project.up().await;
    let task = serde_json::json!({ "agent_name": "poet", "task_data": {} });
    let refused = project.post("/tasks", &task).await;
    assert_eq!(refused["error"]["code"], "AGENT_NOT_FOUND", "{refused}");
    for told in [refused, project.get("/agents/poet").await] {
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains(why), "{told}");
    }
    // A slip of the pen is one, and a file that was mended is an agent.
    let slip = project.get("/agents/poett").await;
    assert_eq!(
        slip["error"]["message"], "there is no agent poett",
        "{slip}"
    );
    project.write(
        "config/agents/poet.yml",
        &broken.replace("scripted }", "scripted, model: scripts/greeter.yml }"),
    );
    project
        .until("/agents/poet", |agent| agent["name"] == "poet")
        .await;
    drop(server);
}

#[tokio::test]
async fn a_script_that_is_missing_is_asked_for_by_name() {
    let project = Project::empty();
    let agent = "name: poet\nexecution_mode: autonomous\nsystem_prompt: You write.\nllm_config: { provider: openai, model: m }\n";
    project.write("config/agents/poet.yml", agent);
    let mut command = project.command(&["run", "poet", "write"]);
    command.env("AGENTRUNNER_PROVIDER", "scripted");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in [
        "there is no script \"scripts/poet.yml\" in ./config: write it",
        "AGENTRUNNER_PROVIDER=scripted",
    ] {
        assert!(ran.stderr.contains(part), "{ran:?}");
    }
}

#[tokio::test]
async fn a_folder_without_agents_is_named_with_what_makes_some() {
    let project = Project::empty();
    let ran = project.run(&["agents"]).await;
    assert_eq!((ran.code, ran.stdout.trim()), (1, "[]"), "{ran:?}");
    assert!(
        ran.stderr
            .contains("the folder of agents ./config/agents can't be read"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("make it with `agentrunner init`"),
        "{ran:?}"
    );
    std::fs::create_dir_all(project.path().join("config/agents")).unwrap();
    let ran = project.run(&["agents"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr
            .contains("there are no agents in ./config/agents"),
        "{ran:?}"
    );
}
