//! Who may speak as Slack (the attacks of A11), and what is acted on once.

use agentrunner_services::Service;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::slack::{SIGNING_SECRET, mention, sign};

use super::rig::{ANN, GENERAL, GREETING, OLD_SECRET, Rig, nothing, now, of_thread};
use crate::harness::{agent, error, read};

/// What is changed about a request that is right.
struct Attack {
    name: &'static str,
    secret: &'static str,
    shift: i64,
    tamper: bool,
    leave_out: Option<&'static str>,
}

const HONEST: Attack = Attack {
    name: "honest",
    secret: SIGNING_SECRET,
    shift: 0,
    tamper: false,
    leave_out: None,
};

const TABLE: [Attack; 8] = [
    Attack {
        name: "forged",
        secret: "a-guess",
        ..HONEST
    },
    Attack {
        name: "stale by 301 s",
        shift: -302,
        ..HONEST
    },
    Attack {
        name: "stale by a day",
        shift: -86_400,
        ..HONEST
    },
    Attack {
        name: "of the future",
        shift: 302,
        ..HONEST
    },
    Attack {
        name: "tampered",
        tamper: true,
        ..HONEST
    },
    Attack {
        name: "unsigned",
        leave_out: Some("x-slack-signature"),
        ..HONEST
    },
    Attack {
        name: "without a time",
        leave_out: Some("x-slack-request-timestamp"),
        ..HONEST
    },
    Attack {
        name: "signed with nothing",
        secret: "",
        ..HONEST
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_slack_speaks_as_slack_and_one_event_has_one_effect() {
    let rig = Rig::start().await;
    let ts = rig.slack.write(GENERAL, ANN.id, "hello");
    let body = mention("Ev1", ANN, GENERAL, &ts, None, "hello").to_string();
    for attack in TABLE {
        for path in ["/slack/events", "/slack/commands", "/slack/interactive"] {
            let at = now() + attack.shift;
            let sent = if attack.tamper {
                body.replace("hello", "pay")
            } else {
                body.clone()
            };
            let mut request = rig
                .system
                .request(Method::POST, Service::SlackGateway, path);
            for (name, value) in [
                ("x-slack-request-timestamp", at.to_string()),
                ("x-slack-signature", sign(attack.secret, at, &body)),
            ] {
                if attack.leave_out != Some(name) {
                    request = request.header(name, value);
                }
            }
            let (status, answer) = read(request.body(sent).send().await.unwrap()).await;
            assert_eq!(
                status,
                StatusCode::UNAUTHORIZED,
                "{}: {answer}",
                attack.name
            );
            assert_eq!(error(&answer).0, "SIGNATURE_INVALID", "{}", attack.name);
        }
    }
    assert!(rig.executions().await.is_empty());
    let denied = rig
        .audited()
        .iter()
        .filter(|line| line["code"] == "SIGNATURE_INVALID")
        .count();
    assert!(
        denied >= 20,
        "a second's first twenty strangers are written down: {denied}"
    );

    // The honest one, sent again by Slack and replayed by somebody who heard it, at both secrets.
    for (secret, retry) in [
        (SIGNING_SECRET, 0),
        (SIGNING_SECRET, 1),
        (OLD_SECRET, 2),
        (SIGNING_SECRET, 3),
    ] {
        let at = now();
        let request = rig
            .system
            .request(Method::POST, Service::SlackGateway, "/slack/events")
            .header("x-slack-request-timestamp", at.to_string())
            .header("x-slack-signature", sign(secret, at, &body))
            .header("x-slack-retry-num", retry.to_string());
        let (status, answer) = read(request.body(body.clone()).send().await.unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    rig.said(GENERAL, &ts, GREETING).await;
    // Another event of the same message.
    let again = mention("Ev2", ANN, GENERAL, &ts, None, "hello");
    assert_eq!(rig.event(&again).await.0, StatusCode::OK);
    let marker = rig.mention(ANN, GENERAL, "hello again").await;
    rig.said(GENERAL, &marker, GREETING).await;
    assert_eq!(rig.executions().await.len(), 2);
    assert_eq!(of_thread(&rig, GENERAL, &ts).len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn slack_sees_that_somebody_is_here_and_what_it_does_not_send_is_named() {
    let rig = Rig::start().await;
    let challenge = json!({ "type": "url_verification", "challenge": "c-1", "token": "x" });
    assert_eq!(
        rig.event(&challenge).await,
        (StatusCode::OK, json!({ "challenge": "c-1" }))
    );
    for (body, word) in [
        ("{", "JSON"),
        ("[]", "type"),
        (r#"{"type":"event_callback"}"#, "event_id"),
    ] {
        let (status, answer) = rig
            .send_signed("/slack/events", body, SIGNING_SECRET, now())
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(error(&answer).1.contains(word), "{answer}");
    }
    let big = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    let (status, _) = rig
        .send_signed("/slack/events", &big, SIGNING_SECRET, now())
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    rig.end().await;
}

#[tokio::test]
async fn without_slacks_secrets_it_is_said_which_variable_is_missing() {
    let stand_in = testkit::SlackStandIn::start();
    let settings = agentrunner_services::slack::Settings {
        api_url: stand_in.api_url(),
        bot_token: None,
        app_token: None,
        signing_secrets: Vec::new(),
        lease: std::time::Duration::from_secs(3),
    };
    let files = [("helper.yml", agent("helper"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let rig = Rig::dressed(&files, stand_in, Some(settings)).await;
    let (status, answer) = rig.event(&json!({})).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        error(&answer).1.contains("SLACK_SIGNING_SECRET"),
        "{answer}"
    );
    let message = json!({ "channel": GENERAL, "text": "hi" });
    let (status, answer) = rig.api(Method::POST, "/slack/send-message", &message).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error(&answer).1.contains("SLACK_BOT_TOKEN"), "{answer}");
    let (status, ready) = rig.api(Method::GET, "/health/ready", &nothing()).await;
    assert_eq!(
        (status, &ready["dependencies"]["slack"]),
        (StatusCode::OK, &json!("not_configured"))
    );
    rig.end().await;
}

#[tokio::test]
async fn a_token_that_slack_does_not_take_shows_in_the_health_and_fails_nothing() {
    let stand_in = testkit::SlackStandIn::start();
    let settings = agentrunner_services::slack::Settings {
        api_url: stand_in.api_url(),
        bot_token: Some("xoxb-wrong".into()),
        app_token: None,
        signing_secrets: vec![SIGNING_SECRET.into()],
        lease: std::time::Duration::from_secs(3),
    };
    let helper = super::rig::reached("helper", "{}");
    let rig = Rig::dressed(&[("helper.yml", &helper)], stand_in, Some(settings)).await;
    let ready: Value = loop {
        let (status, ready) = rig.api(Method::GET, "/health/ready", &nothing()).await;
        assert_eq!(status, StatusCode::OK);
        if ready["dependencies"]["slack"] == "degraded" {
            break ready;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(
        ready["degraded"][0]
            .as_str()
            .unwrap()
            .contains("invalid_auth"),
        "{ready}"
    );
    rig.end().await;
}
