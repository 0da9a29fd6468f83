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
