//! Questions with buttons: decided once, by whoever may, in the name of the person.

use serde_json::json;
use testkit::slack::{SlackMessage, press};

use super::rig::{ANN, BOB, GENERAL, GREETING, Rig, reached};
use crate::harness::agent;

/// Waits for the question of a thread.
async fn question(rig: &Rig, thread: &str, text: &str) -> SlackMessage {
    let asked = rig.said(GENERAL, thread, text).await;
    assert!(
        asked.blocks.iter().any(|block| block["type"] == "actions"),
        "{asked:?}"
    );
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_allowed_by_a_button_once_and_by_name() {
    let rig = Rig::start().await;
    let thread = rig.mention(ANN, GENERAL, "approve").await;
    let asked = question(&rig, &thread, "wants to call `calculate`").await;
    let shown = serde_json::to_string(&asked.blocks).unwrap();
    assert!(
        shown.contains(r#"{\"expression\":\"6*7\"}"#),
        "letter by letter: {shown}"
    );
    rig.press(&press(
        "p.1",
        BOB,
        GENERAL,
        &asked,
        "agentrunner:approve",
        None,
    ))
    .await;
    let decided = rig
        .said(GENERAL, &thread, "Approved by bob (Slack UBOB00001)")
        .await;
    assert_eq!(decided.ts, asked.ts, "it stands in the question's place");
    assert!(
        decided
            .blocks
            .iter()
            .all(|block| block["type"] != "actions")
    );
    rig.said(GENERAL, &thread, GREETING).await;
    // The second is told who was first, and changes nothing.
    rig.press(&press(
        "p.2",
        ANN,
        GENERAL,
        &asked,
        "agentrunner:reject",
        Some("no"),
    ))
    .await;
    let whispers = rig.slack.wait_for_whispers(1).await;
    assert_eq!(whispers[0].0, ANN.id);
    assert!(
        whispers[0].1.contains("decided already") && whispers[0].1.contains("Approved by bob"),
        "{whispers:?}"
    );
    let done: Vec<_> = rig
        .audited()
        .into_iter()
        .filter(|line| line["action"] == "SLACK button")
        .collect();
    assert_eq!(
        (&done[0]["outcome"], &done[0]["who"]["name"]),
        (&json!("done"), &json!("bob"))
    );
    assert_eq!(
        (&done[1]["outcome"], &done[1]["status"]),
        (&json!("refused"), &json!(409))
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_in_words_and_elsewhere_too() {
    let rig = Rig::start().await;
    let thread = rig.mention(ANN, GENERAL, "ask").await;
    let asked = question(&rig, &thread, "*helper* asks").await;
    rig.press(&press(
        "p.1",
        ANN,
        GENERAL,
        &asked,
        "agentrunner:answer",
        Some(" "),
    ))
    .await;
    let whispers = rig.slack.wait_for_whispers(1).await;
    assert!(whispers[0].1.contains("write your answer"), "{whispers:?}");
    rig.press(&press(
        "p.2",
        ANN,
        GENERAL,
        &asked,
        "agentrunner:answer",
        Some("the <red> one"),
    ))
    .await;
    let decided = rig.said(GENERAL, &thread, "Answered by ann").await;
    assert!(decided.text.contains("the &lt;red&gt; one"), "{decided:?}");
    rig.said(GENERAL, &thread, GREETING).await;

    // What is decided by the API is shown here as well.
    let thread = rig.mention(ANN, GENERAL, "approve").await;
    question(&rig, &thread, "wants to call").await;
    let id = rig.executions().await[0].execution.id;
    let answer = json!({ "answer": "reject", "reason": "too late", "by": "carol" });
    let (status, _) = rig
        .system
        .post(&format!("/tasks/{id}/input"), &answer)
        .await;
    assert!(status.is_success());
    rig.said(GENERAL, &thread, "Refused by carol").await;
    rig.said(GENERAL, &thread, GREETING).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_ask_may_not_decide_where_others_are_named() {
    let careful = format!(
        "{}tools:\n  - {{ name: calculate, type: function, requires_approval: true }}\n",
        reached("careful", "{ approvers: [UBOB00001] }")
    );
    let rig = Rig::with(
        &[("careful.yml", &careful), ("other.yml", &agent("other"))],
        false,
    )
    .await;
    let thread = rig.mention(ANN, GENERAL, "approve").await;
    let asked = question(&rig, &thread, "wants to call").await;
    rig.press(&press(
        "p.1",
        ANN,
        GENERAL,
        &asked,
        "agentrunner:approve",
        None,
    ))
    .await;
    let whispers = rig.slack.wait_for_whispers(1).await;
    assert!(whispers[0].1.contains("may not answer"), "{whispers:?}");
    // A button that was carried into another channel decides nothing.
    rig.press(&press(
        "p.2",
        BOB,
        "C00000002",
        &asked,
        "agentrunner:approve",
        None,
    ))
    .await;
    assert_eq!(rig.slack.wait_for_whispers(2).await[1].0, BOB.id);
    assert_eq!(
        rig.audited()
            .iter()
            .filter(|line| line["outcome"] == "denied")
            .count(),
        2
    );
    rig.press(&press(
        "p.3",
        BOB,
        GENERAL,
        &asked,
        "agentrunner:approve",
        None,
    ))
    .await;
    rig.said(GENERAL, &thread, "Approved by bob").await;
    rig.said(GENERAL, &thread, GREETING).await;
    rig.end().await;
}
