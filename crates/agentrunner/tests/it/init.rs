//! `init`: from nothing to an answer.

use crate::project::{Project, Ran};

#[tokio::test]
async fn a_new_project_answers_at_once_and_says_that_it_is_scripted() {
    let project = Project::empty();
    let ran = project.run(&["init"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("provider: scripted"), "{ran:?}");
    assert!(ran.stderr.contains("AGENTRUNNER_PROVIDER"), "{ran:?}");
    let ran = project.run(&["validate"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = project.run(&["run", "helper", "what is 6 * 7?"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("42"), "{ran:?}");
    assert!(ran.stderr.contains("scripted"), "{ran:?}");
}

#[tokio::test]
async fn the_starter_team_works_without_a_model() {
    let project = Project::empty();
    assert_eq!(project.run(&["init"]).await.code, 0);
    let ran = project
        .run(&["run", "research-team", "Is it worth it?"])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("Three pieces of work"), "{ran:?}");
    for told in ["costs (team-researcher)", "objections (team-critic) after"] {
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
    let tasks = project.run(&["tasks", "list", "--json"]).await;
    assert_eq!(
        tasks.stdout.matches("team-researcher").count(),
        2,
        "{tasks:?}"
    );
}

#[tokio::test]
async fn what_is_there_is_kept_unless_it_is_forced() {
    let project = Project::empty();
    project.write(".env", "LOG_LEVEL=ERROR\n");
    project.write("config/agents/helper.yml", "mine");
    let read = |name: &str| std::fs::read_to_string(project.path().join(name)).unwrap();
    let ran = project.run(&["init"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr
            .contains("config/agents/helper.yml is there and kept"),
        "{ran:?}"
    );
    assert_eq!(
        (
            read("config/agents/helper.yml").as_str(),
            read(".env").as_str()
        ),
        ("mine", "LOG_LEVEL=ERROR\n")
    );
    let ran = project.run(&["init", "--force"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(read("config/agents/helper.yml").contains("name: helper"));
}

#[tokio::test]
async fn a_key_in_the_environment_is_chosen_and_not_written_down() {
    let project = Project::empty();
    let mut command = project.command(&["init", "sub"]);
    command.env("ANTHROPIC_API_KEY", "sk-canary");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("provider: anthropic"), "{ran:?}");
    let env = std::fs::read_to_string(project.path().join("sub/.env")).unwrap();
    assert!(env.contains("AGENTRUNNER_PROVIDER=anthropic"), "{env}");
    assert!(
        !env.contains("canary") && !ran.stderr.contains("canary"),
        "{env}"
    );
}
