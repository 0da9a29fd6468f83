//! The official `slack_sdk` proves that the stand-in for Slack is right.

use std::path::Path;

use agentrunner_testkit::slack::{SIGNING_SECRET, SlackUser, mention, sign};
use agentrunner_testkit::{SlackStandIn, python};
use tokio::process::Command;

const ANN: SlackUser = SlackUser {
    id: "U00000001",
    name: "ann",
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slack_sdk_talks_with_it_and_agrees_with_its_signer() {
    let slack = SlackStandIn::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/slack_client.py");
    let event = mention("Ev1", ANN, "C00000001", "1732440600.000001", None, "hello");
    let body = event.to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs()).unwrap();
    let running = Command::new(python())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .arg(script)
        .args([slack.api_url(), now.to_string(), body.clone()])
        .arg(sign(SIGNING_SECRET, now, &body))
        .kill_on_drop(true)
        .output();
    let beside = async {
        // The second deletion is one too many.
        slack
            .wait_for("D00000001", |messages| messages.first().map(drop))
            .await;
        slack.limit("chat.delete", 1, 7);
        slack.wait_for_connections(1).await;
        let envelope = slack.send("events_api", &event);
        slack.wait_for_acknowledgement(&envelope).await;
    };
    let (output, ()) = tokio::join!(running, beside);
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed, 0 failed"), "{said}");
    assert_eq!(
        slack.whispers(),
        [("U00000001".to_owned(), "psst".to_owned())]
    );
    // What was too long, each of them once, and nothing over the socket that Slack does not know.
    let rejections = slack.rejections();
    assert_eq!(rejections.len(), 3, "{rejections:?}");
}
