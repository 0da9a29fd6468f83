//! Agents' files that can't be taken: `validate` says where and what to do, and the server goes on with the others.

use super::rig::{Rig, says};
use crate::product::Project;
use crate::project::Ran;

const GOOD: &str = "\
name: good
execution_mode: autonomous
llm_config: { provider: scripted, model: scripts/good.yml }
system_prompt: You greet.
";

/// What `validate` says of this file.
async fn validated(file: &[u8]) -> String {
    let project = Project::new();
    std::fs::write(project.path().join("config/agents/bad.yml"), file).unwrap();
    let mut command = project.command(&[]);
    command.arg("validate");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran.stderr
}

#[tokio::test]
async fn broken_yaml_is_shown_with_line_column_and_caret() {
    let said = validated(b"name: bad\nexecution_mode: [autonomous\nsystem_prompt: x\n").await;
    says(&said, &["bad.yml:", "^", "1 file"]);
    let at = said.split("bad.yml:").nth(1).unwrap();
    let mut place = at.splitn(3, ':');
    let line: u32 = place.next().unwrap().parse().expect("a line");
    assert!((2..=4).contains(&line), "{said}");
    let column = place.next().unwrap();
    column.trim().parse::<u32>().expect("a column");
}

#[tokio::test]
async fn an_unknown_field_is_shown_with_the_nearest_name() {
    let said = validated(GOOD.replace("system_prompt", "system_promt").as_bytes()).await;
    says(
        &said,
        &[
            "bad.yml:4:1",
            "system_promt",
            "did you mean system_prompt",
            "^",
        ],
    );
}

#[tokio::test]
async fn a_file_that_is_no_utf_8_is_said_to_be_none() {
    let said = validated(b"name: bad\nsystem_prompt: \xff\xfe\n").await;
    says(&said, &["bad.yml:2:16", "UTF-8"]);
}

#[tokio::test]
async fn a_file_that_nests_without_end_or_is_too_large_is_refused() {
    let deep = format!(
        "name: bad\nmetadata: {}{}\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    says(
        &validated(deep.as_bytes()).await,
        &["bad.yml:2", "nested too deep; flatten them", "^"],
    );
    // Each level is nine times the one before: half a gigabyte of one letter, were it written out.
    let level = |level: u32| {
        let before = format!("*a{}", level - 1);
        format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "))
    };
    let bomb = (1..10).map(level).collect::<String>();
    let bomb = format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{bomb}");
    says(&validated(bomb.as_bytes()).await, &["bad.yml:", "^"]);
    let large = format!("name: bad\nsystem_prompt: {}\n", "x".repeat(20_000_000));
    says(&validated(large.as_bytes()).await, &["bad.yml", "larger"]);
}

#[tokio::test]
async fn a_name_taken_twice_is_said_with_both_files() {
    let project = Project::new();
    project.agent("one", GOOD);
    project.agent("two", GOOD);
    let mut command = project.command(&[]);
    command.arg("validate");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    says(
        &ran.stderr,
        &["the name good is taken by", "one.yml", "two.yml", "^"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_all_of_them_in_its_folder_serves_the_others() {
    let project = Project::new();
    project.agent("broken", "name: [\n");
    project.agent("one", GOOD);
    project.agent("two", GOOD);
    std::fs::write(
        project.path().join("config/agents/bytes.yml"),
        b"\xff\xfe\xfd",
    )
    .unwrap();
    let rig = Rig::with(project, &[]).await;
    let log = crate::product::log(&rig.project);
    for part in ["broken.yml:", "the name good is taken by", "bytes.yml:1:1"] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
    rig.is_well().await;
}
