//! The provider without a model.

use std::fs;
use std::time::Duration;

use agentrunner_llm::{Answer, ChatModel, Chunk, Error, ProviderSettings, Providers};
use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use domain::{Message, StopReason, Tokens};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{ask, chunks, config, request, result, results, user};

struct Stage {
    folder: TempDir,
    providers: Providers,
}

impl Stage {
    fn with(name: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), script).unwrap();
        let providers = Providers::new(ProviderSettings {
            scripts_root: folder.path().to_owned(),
            ..ProviderSettings::default()
        });
        Self { folder, providers }
    }

    async fn ask(&self, script: &str, messages: &[Message]) -> Result<Answer, Error> {
        let config = config(Provider::Scripted, json!({"model": script}));
        ask(&self.providers, request(&config, messages, &[])).await
    }

    async fn says(&self, messages: &[Message]) -> String {
        self.ask("s.yaml", messages).await.unwrap().reply.text
    }

    async fn fails(&self, script: &str) -> String {
        let error = self.ask(script, &[user("hi")]).await.unwrap_err();
        assert_eq!(error.class, Class::InvalidRequest, "{error}");
        error.message
    }
}

const AGENT: &str = r#"
- when: {turn: 1, prompt_contains: weather}
  reply: "I look for {prompt}."
  tool_calls:
    - {name: forecast, arguments: {where: ["{prompt}", 1]}}
    - {name: clock}
- when: {tool: clock, tool_result_contains: NOON}
  reply: "It is noon; {last_tool} said {last_tool_result} in turn {turn}."
  usage: {input_tokens: 10, output_tokens: 5}
- when: {conversation_contains: secret}
  reply: You said a secret.
- when: {prompt_matches: "good*ing"}
  reply: Good night.
  stop: max_tokens
- reply: "What?"
"#;

#[tokio::test]
async fn the_first_rule_that_fits_answers() {
    let stage = Stage::with("s.yaml", AGENT);
    let mut messages = vec![user("The WEATHER")];
    let first = stage.ask("s.yaml", &messages).await.unwrap().reply;
    assert_eq!(first.text, "I look for The WEATHER.");
    assert_eq!(first.stop, StopReason::ToolUse);
    assert_eq!(
        first.tool_calls[0].arguments,
        r#"{"where":["The WEATHER",1]}"#
    );
    assert_eq!(first.tool_calls[1].arguments, "{}");
    assert_ne!(first.tool_calls[0].id, first.tool_calls[1].id);
    assert_eq!(first.provider_data, None);

    messages.push(Message::Assistant(first.clone()));
    messages.extend(results(&first).into_iter().take(1));
    messages.push(result(&first.tool_calls[1].id, "clock", "it is noon"));
    let second = stage.ask("s.yaml", &messages).await.unwrap();
    assert_eq!(
        second.reply.text,
        "It is noon; clock said it is noon in turn 2."
    );
    assert_eq!(second.usage.total(), Tokens(15));

    messages.push(Message::Assistant(second.reply));
    messages.push(user("a SECRET"));
    assert_eq!(stage.says(&messages).await, "You said a secret.");
    let evening = stage.ask("s.yaml", &[user("Good evening")]).await.unwrap();
    assert_eq!(evening.reply.stop, StopReason::MaxTokens);
    assert_eq!(stage.says(&[user("x")]).await, "What?");
    assert_eq!(
        stage.says(&[user("x")]).await,
        "What?",
        "the same question, the same answer"
    );
}

#[tokio::test]
async fn text_comes_word_by_word() {
    let stage = Stage::with("s.yaml", "- {reply: \"one two\\nthree\"}");
    let config = config(Provider::Scripted, json!({"model": "s.yaml"}));
    let stream = stage
        .providers
        .chat(request(&config, &[user("hi")], &[]))
        .await;
    let said = chunks(stream.unwrap()).await;
    let words = ["one ", "two\n", "three"].map(|word| Chunk::Text(word.to_owned()));
    assert_eq!(said[..3], words);
    assert!(matches!(
        said[3..],
        [Chunk::Usage(_), Chunk::Stop(StopReason::EndTurn)]
    ));
}

#[tokio::test]
async fn delays_are_kept() {
    let script = "- {reply: a b c, delay_ms: 20, chunk_delay_ms: 10}";
    let stage = Stage::with("s.yaml", script);
    let start = Instant::now();
    stage.says(&[user("hi")]).await;
    // Three words, the usage and the end.
    assert!(start.elapsed() >= Duration::from_millis(20 + 5 * 10));
}

#[tokio::test]
async fn errors_are_injected_as_often_as_they_should() {
    let script = r"
- when: {prompt_contains: limited}
  error: {class: rate_limited, retry_after_seconds: 1.5, times: 2, message: slow down}
  reply: Now it works.
- when: {prompt_contains: flaky}
  error: {class: garbled, times: 1}
- error: {class: context_too_long}
";
    let stage = Stage::with("s.yaml", script);
    let limited = [user("limited")];
    for _ in 0..2 {
        let error = stage.ask("s.yaml", &limited).await.unwrap_err();
        assert_eq!(error.class, Class::RateLimited);
        assert_eq!(error.retry_after, Some(Duration::from_millis(1500)));
        assert_eq!(error.message, "the script s.yaml says: slow down");
    }
    assert_eq!(stage.says(&limited).await, "Now it works.");
    assert_eq!(stage.says(&limited).await, "Now it works.");
    let config = config(Provider::Scripted, json!({"model": "s.yaml"}));
    let mut other = request(&config, &limited, &[]);
    other.trace_id = "another execution";
    assert_eq!(
        ask(&stage.providers, other).await.unwrap_err().class,
        Class::RateLimited
    );
    let flaky = [user("flaky")];
    assert_eq!(
        stage.ask("s.yaml", &flaky).await.unwrap_err().class,
        Class::Garbled
    );
    let after = stage.ask("s.yaml", &flaky).await.unwrap_err();
    assert_eq!(
        after.class,
        Class::ContextTooLong,
        "the next rule that fits"
    );
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let told = async |name: &str, script: &str| Stage::with(name, script).fails(name).await;
    let message = told("s.yaml", "- reply: a\n- replly: b\n").await;
    assert!(message.starts_with("s.yaml:2:3: "), "{message}");
    assert!(message.contains("replly"), "{message}");
    let message = told("s.yaml", "- reply: a\n\n- delay_ms: 1\n").await;
    assert!(message.starts_with("s.yaml:3:"), "{message}");
    assert!(
        message.contains("needs a reply, tool_calls or an error"),
        "{message}"
    );
    let message = told("s.yaml", "- {reply: a, when: {turn: 0}}\n").await;
    assert!(message.contains("turn counts from 1"), "{message}");
    let message = told("s.yaml", "- reply: [\n").await;
    assert!(message.starts_with("s.yaml:"), "{message}");
    let message = told("s.jsonl", "{\"reply\":\"a\"}\n\n{\"reply\":1}\n").await;
    assert!(
        message.starts_with("s.jsonl:3:10: invalid type"),
        "{message}"
    );
    let message = told("s.yaml", "[]").await;
    assert!(message.contains("has no rules"), "{message}");
    let message = told("s.yaml", "- {when: {prompt_contains: other}, reply: a}").await;
    assert!(
        message.contains("no rule of the script s.yaml fits turn 1"),
        "{message}"
    );
}

#[tokio::test]
async fn jsonl_is_a_script_too() {
    let script = "{\"when\":{\"turn\":2},\"reply\":\"second\"}\n{\"reply\":\"first\"}\n";
    let stage = Stage::with("s.jsonl", script);
    let answer = stage.ask("s.jsonl", &[user("hi")]).await.unwrap();
    assert_eq!(answer.reply.text, "first");
}

#[tokio::test]
async fn a_changed_script_is_read_again() {
    let stage = Stage::with("s.yaml", "- reply: old");
    assert_eq!(stage.says(&[user("hi")]).await, "old");
    fs::write(stage.folder.path().join("s.yaml"), "- reply: newer").unwrap();
    assert_eq!(stage.says(&[user("hi")]).await, "newer");
}

#[tokio::test]
async fn scripts_stay_in_their_folder() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.yaml");
    fs::write(&secret, "- reply: secret").unwrap();
    let stage = Stage::with("s.yaml", "- reply: a");
    std::os::unix::fs::symlink(&secret, stage.folder.path().join("link.yaml")).unwrap();
    std::os::unix::fs::symlink(outside.path(), stage.folder.path().join("linked")).unwrap();
    fs::create_dir(stage.folder.path().join("folder.yaml")).unwrap();
    for name in [
        "../secret.yaml",
        "a/../../secret.yaml",
        secret.to_str().unwrap(),
        "link.yaml",
        "linked/secret.yaml",
        "folder.yaml",
        "missing.yaml",
        "s.txt",
        "",
        "s\0.yaml",
    ] {
        let message = stage.fails(name).await;
        assert!(!message.contains("secret\n"), "{name}: {message}");
    }
    fs::create_dir(stage.folder.path().join("sub")).unwrap();
    fs::write(stage.folder.path().join("sub/x.yml"), "- reply: below").unwrap();
    let answer = stage.ask("./sub/x.yml", &[user("hi")]).await.unwrap();
    assert_eq!(answer.reply.text, "below");
}
