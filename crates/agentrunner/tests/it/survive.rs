//! What survives a process that is killed.

use crate::project::Project;

#[tokio::test]
async fn an_execution_goes_on_after_a_kill_and_repeats_no_finished_step() {
    let project = Project::new();
    let server = project.up().await;
    let id = project.submit("thinker").await;
    // The tool's result is on disk, the second model call under way.
    project
        .until(&format!("/tasks/{id}"), |task| {
            task["steps"].as_u64() >= Some(3)
        })
        .await;
    server.kill().await;

    let _server = project.up().await;
    let task = project
        .until(&format!("/tasks/{id}"), |task| {
            task["status"] == "completed"
        })
        .await;
    assert_eq!(task["steps"], 5, "{task}");
    let steps = project.run(&["tasks", "steps", &id]).await.json();
    let kinds: Vec<_> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "model_call",
            "tool_intent",
            "tool_result",
            "model_call",
            "finished"
        ]
    );
}

#[tokio::test]
async fn many_accepted_tasks_all_end_after_a_kill() {
    let project = Project::new();
    let server = project.up().await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(project.submit("thinker").await);
    }
    server.kill().await;
    let _server = project.up().await;
    for id in ids {
        project
            .until(&format!("/tasks/{id}"), |task| {
                task["status"] == "completed"
            })
            .await;
    }
}

/// SQLite keeps the version that a program gave its schema at this place of the file's first page.
const USER_VERSION: usize = 60;

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let project = Project::new();
    project.run(&["run", "greeter", "hello"]).await;
    let path = project.path().join("data/agentrunner.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[USER_VERSION..USER_VERSION + 4].copy_from_slice(&9999u32.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();

    let ran = project.run(&["up"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("9999"), "{ran:?}");
    assert!(ran.stderr.contains("newer"), "{ran:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
