//! From a mention, a direct message or a command to the answer in its thread.

use reqwest::StatusCode;
use serde_json::json;
use testkit::slack::{direct_message, mention};

use super::rig::{ANN, BOB, GENERAL, GREETING, Rig, ask, of_thread, reached};
use crate::harness::agent;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mention_is_answered_in_its_thread_by_updates_of_one_message() {
    let rig = Rig::start().await;
    let thread = rig
        .mention(ANN, GENERAL, "hello &amp; <https://a.example|welcome>")
        .await;
    let said = rig.said(GENERAL, &thread, GREETING).await;
    assert_eq!(said.text, GREETING);
    assert!(said.history.len() > 1, "it grew: {:?}", said.history);
    let execution = rig.executions().await.remove(0).execution;
    assert_eq!(
        execution.input,
        json!({ "prompt": "hello & welcome (https://a.example)" })
    );
    assert_eq!(execution.metadata["slack"]["user"], ANN.id);
    assert_eq!(execution.conversation, None);
    assert_eq!(of_thread(&rig, GENERAL, &thread).len(), 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_holds_conversations_holds_one_in_each_thread() {
    let talker = reached("talker", "{}").replace("autonomous", "continuous");
    let other = reached("another", "{ respond_to: [mention] }");
    let rig = Rig::with(&[("talker.yml", &talker), ("another.yml", &other)], false).await;
    let thread = rig.mention(ANN, GENERAL, "talker: one").await;
    rig.said(GENERAL, &thread, GREETING).await;
    let second = rig.slack.write(GENERAL, BOB.id, "two");
    // In the thread nobody needs to name the agent again.
    rig.mention_at(BOB, GENERAL, &second, Some(&thread), "two")
        .await;
    let two = |all: &[testkit::slack::SlackMessage]| {
        let of_app = all
            .iter()
            .filter(|m| m.thread.as_deref() == Some(&*thread) && m.text == GREETING);
        (of_app.count() == 2).then_some(())
    };
    rig.slack.wait_for(GENERAL, two).await;
    let event = direct_message("EvD", ANN, "D00000001", "1732440999.000001", "three");
    assert_eq!(rig.event(&event).await.0, StatusCode::OK);
    rig.said("D00000001", "1732440999.000001", GREETING).await;
    let rows = rig.executions().await;
    let conversation = |text: &str| {
        let row = rows
            .iter()
            .find(|row| row.execution.input["prompt"] == text)
            .unwrap();
        row.execution.conversation.clone().map(String::from)
    };
    assert!(
        rows.iter()
            .all(|row| row.execution.agent.as_str() == "talker")
    );
    assert_eq!(conversation("one"), conversation("two"));
    assert_ne!(conversation("one"), conversation("three"));
    assert!(conversation("one").unwrap().contains(&thread));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_told_so_politely_and_it_is_written_down() {
    let helper = reached(
        "helper",
        "{ channels: [C00000001], users: [UANN00001], respond_to: [mention] }",
    );
    let rig = Rig::with(
        &[("helper.yml", &helper), ("quiet.yml", &agent("quiet"))],
        false,
    )
    .await;
    let person = rig.mention(BOB, GENERAL, "hello").await;
    rig.said(GENERAL, &person, "Sorry, you may not use *helper*")
        .await;
    let channel = rig.mention(ANN, "C00000002", "hello").await;
    rig.said("C00000002", &channel, "may not be used in this channel")
        .await;
    let event = direct_message("EvD", ANN, "D00000001", "1732440999.000001", "hello");
    assert_eq!(rig.event(&event).await.0, StatusCode::OK);
    rig.said("D00000001", "1732440999.000001", "No agent is set up")
        .await;
    let named = rig.mention(ANN, GENERAL, "quiet: hello").await;
    rig.said(GENERAL, &named, GREETING).await;
    let rows = rig.executions().await;
    assert_eq!(
        rows.len(),
        1,
        "no name reaches an agent without a slack block"
    );
    assert_eq!(rows[0].execution.agent.as_str(), "helper");
    let denied: Vec<_> = rig
        .audited()
        .into_iter()
        .filter(|line| line["outcome"] == "denied")
        .collect();
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert_eq!(
        (&denied[0]["who"]["id"], &denied[0]["details"]["refused"]),
        (&json!(BOB.id), &json!("user"))
    );
    assert_eq!(
        (&denied[1]["who"]["kind"], &denied[1]["details"]["refused"]),
        (&json!("slack"), &json!("channel"))
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_begins_a_thread_of_its_own() {
    let rig = Rig::start().await;
    rig.command(&ask("t.1", GENERAL, "hello")).await;
    rig.command(&ask("t.1", GENERAL, "hello")).await;
    let header = |all: &[testkit::slack::SlackMessage]| {
        let found = all
            .iter()
            .find(|message| message.text.contains("`/ask` hello"));
        found.cloned()
    };
    let header = rig.slack.wait_for(GENERAL, header).await;
    assert!(
        header.text.contains("<@UANN00001>") && header.thread.is_none(),
        "{header:?}"
    );
    rig.said(GENERAL, &header.ts, GREETING).await;
    assert_eq!(rig.slack.messages(GENERAL).len(), 2);
    // Where the app is not, the person is told what to do.
    rig.slack.hide_channel("C00000009");
    rig.command(&ask("t.2", "C00000009", "hello")).await;
    let told = |all: &[testkit::slack::SlackMessage]| all.first().cloned();
    let told = rig.slack.wait_for("DANN00001", told).await;
    assert!(told.text.contains("/invite"), "{told:?}");
    assert_eq!(rig.executions().await.len(), 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_commands_are_topics_that_agents_subscribe_to() {
    let watcher = format!(
        "{}event_subscriptions: [slack.event.reaction_added, slack.command.*]\n",
        agent("watcher")
    );
    let rig = Rig::with(&[("watcher.yml", &watcher)], false).await;
    let mut reaction = mention("EvR", ANN, GENERAL, "1.2", None, "");
    reaction["event"] = json!({
        "type": "reaction_added", "user": ANN.id, "reaction": "eyes",
        "item": { "type": "message", "channel": GENERAL, "ts": "1.2" },
    });
    assert_eq!(rig.event(&reaction).await.0, StatusCode::OK);
    rig.command(&ask("t.1", GENERAL, "hello")).await;
    let rows = loop {
        let rows = rig.executions().await;
        if rows.len() == 2 {
            break rows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let mut topics: Vec<_> = rows
        .iter()
        .map(|row| {
            row.execution.input["event"]["topic"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    topics.sort();
    assert_eq!(topics, ["slack.command.ask", "slack.event.reaction_added"]);
    rig.end().await;
}
