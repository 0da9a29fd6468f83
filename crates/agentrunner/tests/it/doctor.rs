//! `doctor`: what it finds out about everything around, and that it says what to type.

use std::process::Stdio;

use serde_json::Value;
use testkit::provider::Answer;
use testkit::slack::BOT_TOKEN;
use testkit::{ProviderStandIn, SlackStandIn};

use crate::project::{Project, Ran};

const CLERK: &str = "\
name: clerk
execution_mode: autonomous
system_prompt: You work.
llm_config: { provider: openai, model: gpt-5-mini }
slack: { commands: [ask] }
";

async fn doctor(project: &Project, more: &[(&str, &str)], args: &[&str]) -> (i32, Value) {
    let mut command = project.command(&[&["doctor", "--json"], args].concat());
    command.envs(more.iter().copied());
    let ran = Ran::of(command).await;
    (ran.code, ran.json())
}

/// What was found about something.
#[track_caller]
fn about<'a>(findings: &'a Value, what: &str) -> (&'a str, &'a str, &'a str) {
    let all = findings["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["what"] == what);
    let found = found.unwrap_or_else(|| panic!("nothing about {what}: {findings:#}"));
    let text = |name: &str| found[name].as_str().unwrap();
    (text("state"), text("found"), text("advice"))
}

fn clerk(provider: &ProviderStandIn) -> (Project, Vec<(&'static str, String)>) {
    let project = Project::empty();
    project.write("config/agents/clerk.yml", CLERK);
    let variables = vec![
        ("OPENAI_API_KEY", "sk-canary-5f2c81".to_owned()),
        ("OPENAI_BASE_URL", provider.openai_url()),
    ];
    (project, variables)
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let pairs = variables.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn providers_and_slack_are_asked_once_and_cheaply() {
    let provider = ProviderStandIn::start(|_| Answer::say("never"));
    let slack = SlackStandIn::start();
    let (project, mut variables) = clerk(&provider);
    variables.push(("SLACK_API_URL", slack.api_url()));
    variables.push(("SLACK_BOT_TOKEN", BOT_TOKEN.to_owned()));
    variables.push((
        "SLACK_SIGNING_SECRET",
        "8f742231b10e8888abcd99yyyzzz85a5".to_owned(),
    ));

    let (code, found) = doctor(&project, &borrowed(&variables), &[]).await;
    assert_eq!(code, 0, "{found:#}");
    let (state, sentence, _) = about(&found, "openai");
    assert_eq!(state, "good");
    assert!(sentence.contains("takes the key"), "{sentence}");
    assert_eq!(about(&found, "Slack").0, "good");
    let (state, sentence, _) = about(&found, "clock");
    assert_eq!(state, "good", "{sentence}");
    assert!(
        sentence.contains("openai") && sentence.contains("Slack"),
        "{sentence}"
    );
    assert_eq!(about(&found, "agents").1, "1 is valid");
    let calls: Vec<_> = slack.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(calls, ["auth.test"]);
    assert_eq!(provider.count(), 0, "no model was called");
    assert!(!found.to_string().contains("canary"), "{found:#}");

    // A scope that an agent needs, a clock that is wrong, and a key that nobody knows.
    slack.grant(
        "app_mentions:read,chat:write,im:history,channels:history,groups:history,mpim:history",
    );
    project.write("clock", "-90000");
    let clock = project.path().join("clock").display().to_string();
    variables.push(("TEST_CLOCK_FILE", clock));
    let (code, found) = doctor(&project, &borrowed(&variables), &[]).await;
    assert_eq!(code, 1, "{found:#}");
    let (state, sentence, advice) = about(&found, "Slack");
    assert_eq!(state, "failed");
    // No agent subscribes to reactions.
    assert!(sentence.ends_with("lacks commands"), "{sentence}");
    assert!(advice.contains("install the app again"), "{advice}");
    let (state, sentence, advice) = about(&found, "clock");
    assert_eq!(state, "failed", "{sentence}");
    assert!(sentence.contains("s behind openai's"), "{sentence}");
    assert!(advice.contains("timedatectl set-ntp true"), "{advice}");

    // Nobody is asked.
    let asked = slack.calls().len();
    let (_, found) = doctor(&project, &borrowed(&variables), &["--offline"]).await;
    assert_eq!(slack.calls().len(), asked);
    assert!(!found.to_string().contains("answers at"), "{found:#}");
}

#[tokio::test]
async fn a_token_that_slack_refuses_and_a_provider_that_is_away_are_told_apart() {
    let provider = ProviderStandIn::start(|_| Answer::say("never"));
    let (project, mut variables) = clerk(&provider);
    drop(provider);
    let slack = SlackStandIn::start();
    variables.push(("SLACK_API_URL", slack.api_url()));
    variables.push(("SLACK_BOT_TOKEN", "xoxb-canary-77aa10".to_owned()));
    let (code, found) = doctor(&project, &borrowed(&variables), &[]).await;
    assert_eq!(code, 1, "{found:#}");
    let (state, sentence, advice) = about(&found, "Slack");
    assert_eq!(
        (state, sentence),
        ("failed", "Slack says invalid_auth to the token")
    );
    assert!(advice.contains("SLACK_BOT_TOKEN"), "{advice}");
    let (state, _, advice) = about(&found, "openai");
    assert_eq!(state, "failed");
    assert!(advice.contains("check the network"), "{advice}");
    assert!(!found.to_string().contains("canary"), "{found:#}");
}

#[tokio::test]
async fn who_holds_a_port_is_named_with_what_ends_it() {
    let project = Project::new();
    let listens = "import socket,time; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); \
         s.bind(('127.0.0.1', PORT)); s.listen(); print('ready', flush=True); time.sleep(600)";
    let mut other = std::process::Command::new("python3")
        .args(["-c", &listens.replace("PORT", &project.port().to_string())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();

    let (code, found) = doctor(&project, &[], &[]).await;
    let up = project.run(&["up"]).await;
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(code, 1, "{found:#}");
    let what = format!("port {}", project.port());
    let (state, sentence, advice) = about(&found, &what);
    let pid = other.id();
    assert_eq!(state, "failed");
    assert!(
        sentence.contains(&format!("(pid {pid}) listens there")),
        "{sentence}"
    );
    assert!(
        advice.starts_with(&format!("`kill {pid}` ends it; or put ORCHESTRATOR_PORT=")),
        "{advice}"
    );
    assert_eq!(up.code, 1, "{up:?}");
    assert!(
        up.stderr
            .contains(&format!("(pid {pid}); end it (kill {pid})")),
        "{up:?}"
    );

    // AgentRunner itself is nothing wrong, and a second one says so.
    let server = project.up().await;
    let (code, found) = doctor(&project, &[], &[]).await;
    assert_eq!(code, 0, "{found:#}");
    assert!(
        about(&found, &what)
            .1
            .starts_with("AgentRunner answers there"),
        "{found:#}"
    );
    let second = project.run(&["up"]).await;
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second.stderr.contains("AgentRunner answers there already"),
        "{second:?}"
    );
    drop(server);
}

#[tokio::test]
async fn each_setting_has_its_origin_and_no_secret_its_value() {
    let project = Project::new();
    project.write("key", "sk-canary-0001\n");
    project.write(
        ".env",
        "LOG_LEVEL=DEBUG\nOPENAI_API_KEY_FILE=key\nREDIS_PASSWORD=redis-canary-0002\n",
    );
    let more = [
        ("OPENAI_BASE_URL", "http://127.0.0.1:1"),
        ("AGENT_CAPACITY", "7"),
    ];
    let (_, found) = doctor(
        &project,
        &more,
        &["--offline", "--settings", "--data-dir", "other"],
    )
    .await;
    let settings = found["settings"].as_array().unwrap();
    let of = |name: &str| {
        let set = settings.iter().find(|set| set["name"] == name).unwrap();
        (
            set["value"].as_str().unwrap(),
            set["origin"].as_str().unwrap(),
        )
    };
    assert_eq!(of("DATA_DIR"), ("other", "command line"));
    assert_eq!(of("AGENT_CAPACITY"), ("7", "environment"));
    assert_eq!(of("LOG_LEVEL"), ("DEBUG", ".env"));
    assert_eq!(of("OPENAI_API_KEY"), ("****", "key"));
    assert_eq!(of("POSTGRES_PORT"), ("5432", "default"));
    let (state, sentence, advice) = about(&found, "REDIS_PASSWORD");
    assert_eq!(state, "warning");
    assert!(
        sentence.contains("nothing without REDIS_HOST or REDIS_URL"),
        "{sentence}"
    );
    assert!(!advice.is_empty());
    assert!(!found.to_string().contains("canary"), "{found:#}");
}

/// Misspelt, missing, doubled, contradictory: each is named, with its line and what was probably meant.
#[tokio::test]
async fn what_is_wrong_in_the_env_file_is_named_with_its_line() {
    let project = Project::new();
    for (text, told) in [
        (
            "LOG_LEVEL=INFO\nOPENAI_API_KYE=sk-canary\n",
            "OPENAI_API_KYE=****: there is no such setting; did you mean OPENAI_API_KEY? (.env, line 2)",
        ),
        (
            "AGENTRUNNER_PROVIDER=openai\n",
            "AGENTRUNNER_MODEL: needed with AGENTRUNNER_PROVIDER=openai",
        ),
        (
            "\nENABLE_TLS=true\nTLS_ENABLED=false\n",
            "TLS_ENABLED: ENABLE_TLS says something else, and they are the same setting; give one of the two (.env, line 3)",
        ),
        (
            "LOG_LEVEL=LOUD\n",
            "LOG_LEVEL=LOUD: allowed: TRACE, DEBUG, INFO, WARNING, WARN, ERROR (.env, line 1)",
        ),
    ] {
        project.write(".env", text);
        let ran = project.run(&["agents"]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(told), "{ran:?}");
        let (code, found) = doctor(&project, &[], &[]).await;
        let (name, _) = told.split_once([':', '=']).unwrap();
        assert_eq!((code, about(&found, name).0), (1, "failed"), "{found:#}");
        assert!(!ran.stderr.contains("canary") && !found.to_string().contains("canary"));
    }
    // That one counts is no reason not to start: it is told.
    project.write(".env", "LOG_LEVEL=DEBUG\nLOG_FORMAT=text\nLOG_LEVEL=INFO\n");
    let (code, found) = doctor(&project, &[], &["--offline"]).await;
    assert_eq!(code, 0, "{found:#}");
    let (state, sentence, advice) = about(&found, "LOG_LEVEL");
    assert_eq!(state, "warning");
    assert_eq!(
        sentence,
        "it stands on the lines 1 and 3 of .env; the last one counts"
    );
    assert!(advice.ends_with("sed -i '1d' .env"), "{advice}");
    let server = project.up().await;
    assert!(
        server
            .log
            .contains("LOG_LEVEL: it stands on the lines 1 and 3"),
        "{}",
        server.log
    );
}
