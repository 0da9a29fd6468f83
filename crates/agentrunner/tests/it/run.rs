//! `run`, `tasks` and `agents`, with and without a server.

use serde_json::json;

use crate::project::{Project, Ran, signal};

#[tokio::test]
async fn an_answer_goes_to_standard_output_and_everything_else_does_not() {
    let project = Project::new();
    let _server = project.up().await;
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "Hello there.\n"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("completed"), "{ran:?}");
    assert!(
        ran.stderr.contains("scripted"),
        "a script must not be taken for a model: {ran:?}"
    );
    assert!(
        !ran.stderr.contains('\u{1b}'),
        "no colours where no terminal is: {ran:?}"
    );

    let tasks = project.run(&["tasks", "list"]).await.json();
    assert_eq!(tasks[0]["status"], "completed");
    let id = tasks[0]["execution_id"].as_str().unwrap();
    assert_eq!(
        project.run(&["tasks", "result", id]).await.json()["output"],
        "Hello there."
    );
    let steps = project.run(&["tasks", "steps", id]).await.json();
    let kinds: Vec<_> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["model_call", "finished"]);
    let agents = project.run(&["agents"]).await.json();
    assert_eq!(agents.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn json_is_the_result_object_alone() {
    let project = Project::new();
    let ran = project.run(&["run", "greeter", "hello", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let result = ran.json();
    assert_eq!(result["status"], "completed", "{result}");
    assert_eq!(result["output"], "Hello there.", "{result}");
}

#[tokio::test]
async fn without_a_server_the_same_happens_in_the_same_store() {
    let project = Project::new();
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "Hello there.\n"),
        "{ran:?}"
    );
    let tasks = project.run(&["tasks"]).await.json();
    assert_eq!(tasks[0]["status"], "completed");
    // A server that starts later knows it too.
    let _server = project.up().await;
    assert_eq!(
        project.get("/tasks").await[0]["execution_id"],
        tasks[0]["execution_id"]
    );
}

#[tokio::test]
async fn a_task_comes_from_a_file_or_from_standard_input() {
    let project = Project::new();
    project.write("task.txt", "hello from a file");
    let ran = project.run(&["run", "greeter", "--file", "task.txt"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut piped = project.command(&["run", "greeter", "-"]);
    piped.stdin(std::fs::File::open(project.path().join("task.txt")).unwrap());
    let ran = Ran::of(piped).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let _server = project.up().await;
    for task in project.get("/tasks").await.as_array().unwrap() {
        let id = task["execution_id"].as_str().unwrap();
        let shown = project.get(&format!("/tasks/{id}")).await;
        assert_eq!(shown["task_data"], json!({ "prompt": "hello from a file" }));
    }
}

#[tokio::test]
async fn an_unknown_agent_is_named_with_the_nearest() {
    let project = Project::new();
    let ran = project.run(&["run", "greter", "hello"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("greeter"), "{ran:?}");
}

#[tokio::test]
async fn control_c_cancels_the_execution() {
    let project = Project::new();
    let _server = project.up().await;
    let child = project.command(&["run", "dreamer", "go"]).spawn().unwrap();
    project
        .until("/tasks", |tasks| tasks[0]["steps"].as_u64() >= Some(3))
        .await;
    signal(&child, "INT");
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert_eq!(ran.code, 130, "{ran:?}");
    project
        .until("/tasks", |tasks| tasks[0]["status"] == "cancelled")
        .await;
}

#[tokio::test]
async fn a_question_that_nobody_is_there_to_answer_can_be_answered_later() {
    let project = Project::new();
    let ran = project.run(&["run", "asker", "go"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("Which colour?"), "{ran:?}");
    assert!(ran.stderr.contains("agentrunner tasks answer"), "{ran:?}");
    let _server = project.up().await;
    let tasks = project
        .run(&["tasks", "list", "--status", "waiting_for_input"])
        .await
        .json();
    let id = tasks[0]["execution_id"].as_str().unwrap();
    let refused = project.run(&["tasks", "answer", id, "--approve"]).await;
    assert_eq!(
        refused.code, 1,
        "an approval does not answer a question: {refused:?}"
    );
    let ran = project.run(&["tasks", "answer", id, "blue"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let task = project
        .until(&format!("/tasks/{id}"), |task| {
            task["status"] == "completed"
        })
        .await;
    assert_eq!(task["execution_id"], *id);
}

#[tokio::test]
async fn a_conversation_is_remembered() {
    let project = Project::new();
    project.write(
        "config/scripts/greeter.yml",
        "- when: { conversation_contains: my name is Ada }\n  reply: Hello Ada.\n- reply: Hello there.\n",
    );
    project
        .run(&["run", "greeter", "my name is Ada", "--conversation", "c"])
        .await;
    let mut chat = project.command(&["chat", "greeter", "--conversation", "c"]);
    project.write("lines", "who am I?\n");
    chat.stdin(std::fs::File::open(project.path().join("lines")).unwrap());
    let ran = Ran::of(chat).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "Hello Ada.\n"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("--conversation c"), "{ran:?}");
}
