//! Tools that return too much, never answer, or die while they do.

use serde_json::json;

use super::rig::{Rig, says};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_did_wrong_is_told_to_the_model_and_it_goes_on() {
    let rig = Rig::new().await;
    for (prompt, parts) in [
        ("read huge", &["the rest of the result was cut off"][..]),
        (
            "read silent",
            &["no answer in time", "raise timeout_seconds"],
        ),
        ("read cut", &["broke before the answer was complete"]),
        ("read reset", &["broke before the answer was complete"]),
    ] {
        let result = rig.product.run("openai", prompt).await;
        assert_eq!(result["status"], "completed", "{prompt}: {result}");
        let output = result["output"].as_str().unwrap();
        assert!(output.len() < 1 << 20, "{prompt}: {} bytes", output.len());
        let tail = output.len().saturating_sub(400);
        says(&output[tail..], parts);
        rig.is_well().await;
    }
    assert!(rig.provider.rejections().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_an_unsafe_call_asks_a_person_and_is_not_repeated() {
    let rig = Rig::new().await;
    for name in ["silent", "cut", "reset"] {
        let body =
            json!({ "agent_name": "openai", "task_data": { "prompt": format!("set {name}") } });
        let accepted = rig.product.post("/tasks", &body).await;
        let id = accepted["execution_id"].as_str().unwrap();
        let task = rig
            .product
            .until(id, |task| task["status"] == "waiting_for_input")
            .await;
        let question = &task["open_questions"][0];
        assert_eq!(question["question"], "unknown_outcome", "{task}");
        assert_eq!(question["tool"], "set", "{task}");
        let calls = rig.effects.calls();
        let calls = calls
            .iter()
            .filter(|call| call.name.as_deref() == Some(name));
        assert_eq!(calls.count(), 1, "{name}");
    }
    rig.is_well().await;
}
