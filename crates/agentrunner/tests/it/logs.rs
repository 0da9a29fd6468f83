//! `logs`: what belongs to one trace, from the folder, from files and from a pipe.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::project::{Project, Ran};

fn line(second: u32, trace: &str, message: &str) -> String {
    format!(
        "{{\"timestamp\":\"2026-11-30T12:00:{second:02}.000000Z\",\"level\":\"INFO\",\"component\":\"engine\",\"message\":\"{message}\",\"trace_id\":\"{trace}\"}}\n"
    )
}

const OURS: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ANOTHER: &str = "00000000000000000000000000000001";

#[tokio::test]
async fn a_trace_is_put_together_from_all_files_in_the_order_of_time() {
    let project = Project::empty();
    let old = line(1, OURS, "first") + &line(2, ANOTHER, "other") + "a foreign line\n";
    project.write("logs/agentrunner.log.1", &old);
    project.write(
        "logs/agentrunner.log",
        &(line(4, OURS, "third") + &line(3, OURS, "second")),
    );
    project.write("logs/agentrunner.log.2.gz", "not read");
    project.write("logs/audit.log", &line(0, OURS, "not of the log"));
    let mut command = project.command(&["logs", "--trace", "4BF92F35-77b3-4da6-a3ce-929d0e0e4736"]);
    command.env("LOG_DIR", "logs");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let wanted = line(1, OURS, "first") + &line(3, OURS, "second") + &line(4, OURS, "third");
    assert_eq!(ran.stdout, wanted);
    assert!(ran.stderr.contains("agentrunner.log.2.gz"), "{ran:?}");

    let nobody = "ffffffffffffffffffffffffffffffff";
    let ran = project
        .run(&["logs", "--trace", nobody, "logs/agentrunner.log"])
        .await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("no line of 2 belongs to"), "{ran:?}");
    let ran = project.run(&["logs", "--trace", OURS]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("LOG_DIR is not set"), "{ran:?}");
}

#[tokio::test]
async fn what_docker_compose_prints_can_be_piped_in() {
    let project = Project::empty();
    let mut command = project.command(&["logs", "--trace", OURS, "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let text = format!(
        "agentrunner-state-manager  | {}rabbitmq  | hello\n",
        line(1, OURS, "here")
    );
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .await
        .unwrap();
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert_eq!((ran.code, ran.stdout), (0, line(1, OURS, "here")));
}

#[tokio::test]
async fn the_lines_of_an_execution_are_found_where_the_server_wrote_them() {
    let project = Project::new();
    let server = project
        .up_with(&[("LOG_DIR", "logs"), ("LOG_LEVEL", "DEBUG")])
        .await;
    let id = project.submit("greeter").await;
    project
        .until(&format!("/tasks/{id}"), |task| {
            task["status"] == "completed"
        })
        .await;
    drop(server);
    let mut command = project.command(&["logs", "--execution", &id]);
    command.env("LOG_DIR", "logs");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.lines().all(|line| line.contains(&id)), "{ran:?}");
}
