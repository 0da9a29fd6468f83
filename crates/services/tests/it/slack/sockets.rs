//! Socket Mode.

use testkit::slack::{mention, press, slash_command};

use super::rig::{ANN, GENERAL, GREETING, Rig, reached};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_take_everything_once_whatever_becomes_of_them() {
    let helper = format!(
        "{}tools:\n  - {{ name: calculate, type: function, requires_approval: true }}\n",
        reached("helper", "{ commands: [ask] }")
    );
    let rig = Rig::with(&[("helper.yml", &helper)], true).await;
    rig.slack.wait_for_connections(2).await;
    let ts = rig.slack.write(GENERAL, ANN.id, "approve");
    let event = mention("Ev1", ANN, GENERAL, &ts, None, "approve");
    // Over both, and as Slack sends it again.
    let envelopes: Vec<String> = (0..4)
        .map(|_| rig.slack.send("events_api", &event))
        .collect();
    for envelope in &envelopes {
        rig.slack.wait_for_acknowledgement(envelope).await;
    }
    let asked = rig.said(GENERAL, &ts, "wants to call").await;
    // Slack wants new connections, and has them.
    rig.slack.ask_for_refresh();
    let pressed = press("p.1", ANN, GENERAL, &asked, "agentrunner:approve", None);
    let pressed = rig.slack.send("interactive", &pressed);
    rig.slack.wait_for_acknowledgement(&pressed).await;
    rig.said(GENERAL, &ts, GREETING).await;
    rig.slack.wait_for_connections(2).await;
    assert_eq!(rig.slack.connections_opened(), 4);
    // They break without a word.
    rig.slack.cut_connections();
    let command = slash_command("t.1", ANN, GENERAL, "/ask", "hello");
    let command = rig.slack.send("slash_commands", &command);
    rig.slack.wait_for_acknowledgement(&command).await;
    rig.slack.wait_for_connections(2).await;
    let two = |all: &[testkit::slack::SlackMessage]| {
        (all.iter()
            .filter(|message| message.text == GREETING)
            .count()
            == 2)
            .then_some(())
    };
    rig.slack.wait_for(GENERAL, two).await;
    assert_eq!(rig.executions().await.len(), 2);
    rig.end().await;
}
