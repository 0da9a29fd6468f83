//! Secrets that were handed in come out nowhere: not in a log, an answer, an error, a journal or the database.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::rig::{FACES, Rig};
use crate::product::Project;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_log_answer_journal_or_file() {
    let project = Project::new();
    project.agent(
        "guarded",
        "name: guarded
execution_mode: autonomous
llm_config: { provider: openai, model: m, api_key: '${MY_KEY}', api_base: '${MY_BASE}' }
system_prompt: Answer.
retry_config: { max_retries: 0 }
tools:
  - name: read
    type: api
    url: 'http://127.0.0.1:1/{name}'
    headers: { Authorization: 'Bearer ${MY_TOKEN}' }
    effect: read_only
  - { name: broken, type: mcp, command: sh, args: [-c, 'echo $MY_ENV >&2; exit 1'], env: { MY_ENV: '${MY_TOKEN}' } }
",
    );
    let rig = Rig::with(
        project,
        &[
            ("MY_KEY", "canary-of-the-agent"),
            ("MY_TOKEN", "canary-of-the-tool"),
            ("MY_BASE", "http://canary:canary-password@127.0.0.1:1/v1"),
            ("LOG_LEVEL", "TRACE"),
            ("LOG_DIR", "logs"),
        ],
    )
    .await;
    let mut answers = vec![rig.product.run("guarded", "hello").await];
    for face in FACES {
        for prompt in ["html", "cut", "reset", "unknown tool", "read reset"] {
            answers.push(rig.product.run(face, prompt).await);
        }
    }
    answers.push(rig.product.get("/agents/guarded").await);
    answers.push(rig.product.get("/agents").await);
    let text = Value::from(answers).to_string();
    assert!(!text.contains("canary"), "{text}");
    rig.is_well().await;

    let folder = rig.project.path().to_owned();
    let found = files_with(&folder, b"canary");
    assert!(found.is_empty(), "{found:?}: {}", shown(&found));
    assert!(
        files_with(&folder, b"hello to you").len() >= 1,
        "the search finds what is there"
    );
    for command in [&["doctor"][..], &["validate"], &["agents"], &["tasks"]] {
        let output = rig
            .project
            .command(&[
                ("OPENAI_API_KEY", "sk-canary"),
                ("MY_KEY", "canary"),
                ("MY_TOKEN", "canary"),
                ("MY_BASE", "http://canary:c@127.0.0.1:1"),
            ])
            .args(command)
            .output()
            .await
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!text.contains("canary"), "{command:?}: {text}");
    }
}

fn shown(files: &[PathBuf]) -> String {
    let lines = files.iter().flat_map(|file| {
        let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        text.lines()
            .filter(|line| line.contains("canary"))
            .map(|line| line.chars().take(600).collect::<String>())
            .take(5)
            .collect::<Vec<_>>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All files below that contain these bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if let Ok(text) = std::fs::read(&path)
            && text.windows(bytes.len()).any(|window| window == bytes)
        {
            found.push(path);
        }
    }
    found
}
