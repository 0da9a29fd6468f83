//! `validate`, `migrate`, `bench` and `completions`.

use crate::project::{Project, Ran};

#[tokio::test]
async fn a_valid_file_is_said_to_be_so_and_a_broken_one_is_shown() {
    let project = Project::new();
    let ran = project
        .run(&["validate", "config/agents/greeter.yml"])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr.contains("1 file: 1 valid agent, 0 errors"),
        "{ran:?}"
    );
    project.write(
        "broken.yml",
        "name: broken\nllm_config: { provider: opnai }\n",
    );
    let ran = project.run(&["validate", "broken.yml", "--json"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = ran.json();
    assert_eq!(report["valid"], false);
    let errors = report["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["line"] == 2 && error["message"].as_str().unwrap().contains("opnai")), "{report}");
}

#[tokio::test]
async fn a_name_that_two_files_give_is_an_error() {
    let project = Project::new();
    let text = std::fs::read_to_string(project.path().join("config/agents/greeter.yml")).unwrap();
    project.write("config/agents/twin.yml", &text);
    let ran = project.run(&["validate"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("the name greeter is taken by"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn migrations_go_down_and_up_again() {
    let project = Project::new();
    project.run(&["run", "greeter", "hello"]).await;
    let applied = |ran: &Ran| {
        let rows = ran.json();
        rows.as_array()
            .unwrap()
            .iter()
            .filter(|row| row["applied"] == true)
            .count()
    };
    let all = applied(&project.run(&["migrate", "status"]).await);
    assert!(all > 0);
    assert_eq!(
        applied(&project.run(&["migrate", "down", "1"]).await),
        all - 1
    );
    assert_eq!(applied(&project.run(&["migrate", "up"]).await), all);
    assert_eq!(project.run(&["run", "greeter", "hello"]).await.code, 0);
}

#[tokio::test]
async fn the_bench_performs_its_workload_and_leaves_nothing_behind() {
    let project = Project::new();
    let args = [
        "bench",
        "--executions",
        "20",
        "--warmup",
        "2",
        "--concurrency",
        "4",
        "--json",
    ];
    let ran = project.run(&args).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let figures = ran.json();
    let keys = [
        "executions_per_s",
        "steps_per_s",
        "step_ms_p50",
        "step_ms_p99",
        "peak_rss_mib",
        "fsync_ms_p50",
        "commit_ms_p50",
        "provider_requests_per_s",
    ];
    for key in keys {
        assert!(
            figures[key].as_f64().is_some_and(|figure| figure > 0.0),
            "{key}: {figures}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(project.path().join("data"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_other_benches_measure_too() {
    let project = Project::new();
    let waiting = project
        .run(&["bench", "waiting", "--count", "20", "--json"])
        .await;
    assert_eq!(waiting.json()["running"], 0, "{waiting:?}");
    let latency = project
        .run(&["bench", "latency", "--turns", "5", "--json"])
        .await;
    assert!(
        latency.json()["durable_turn_ms_p50"].as_f64() > Some(0.0),
        "{latency:?}"
    );
    let startup = project
        .run(&["bench", "startup", "--starts", "2", "--json"])
        .await;
    assert!(
        startup.json()["idle_rss_mib"].as_f64() > Some(0.0),
        "{startup:?}"
    );
}

#[tokio::test]
async fn shells_learn_the_command_line() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = project.run(&["completions", shell]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("validate"), "{shell}");
    }
}

#[tokio::test]
async fn the_manual_has_a_page_for_each_command() {
    let project = Project::new();
    let ran = project.run(&["man"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains(".TH agentrunner 1"), "{}", ran.stdout);
    let ran = project.run(&["man", "pages/man1"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for page in [
        "agentrunner.1",
        "agentrunner-health.1",
        "agentrunner-tasks-list.1",
    ] {
        let path = project.path().join("pages/man1").join(page);
        assert!(path.is_file(), "{page}");
    }
}
