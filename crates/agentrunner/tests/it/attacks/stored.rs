//! A4, A7: texts that are kept as what they are.

use reqwest::Method;
use serde_json::json;

use super::rig::{CANARY, ORCHESTRATOR, Rig, polite, refused, send};
use crate::product::{Product, Project};

#[tokio::test(flavor = "multi_thread")]
async fn a4_hostile_texts_are_refused_or_kept_as_text_and_loaded_again() {
    let rig = Rig::new(polite).await;
    let post = |body: &str| {
        let request = rig.request(Method::POST, ORCHESTRATOR, "/tasks");
        let request = request.header("content-type", "application/json");
        request.body(body.to_owned())
    };
    let task = |data: &str| format!("{{\"agent_name\": \"helper\", \"task_data\": {data}}}");
    for lone in [
        r#""\ud800""#,
        r#"{"prompt": "\udfff x"}"#,
        r#"{"\ud800": 1}"#,
    ] {
        refused(&send(post(&task(lone))).await, 400, "INVALID_REQUEST");
    }
    let twice = r#"{"agent_name": "helper", "agent_name": "other", "task_data": 1}"#;
    let (status, answer) = send(post(twice)).await;
    assert_eq!(status, 400, "{answer}");
    let inert = [
        r#"{"prompt": "a\u0000b"}"#,
        r#"{"__proto__": {"is_admin": true}, "constructor": {"prototype": {"x": 1}}}"#,
        r#"{"lc": 1, "type": "constructor", "id": ["langchain", "load"], "kwargs": {"secret": "env:PLANTED"}}"#,
        r#"{"py/object": "os.system", "!!python": "id", "$type": "System.Diagnostics.Process"}"#,
        r#"{"prompt": "\u202e\ufeff\u2028 ' OR 1=1 -- ; DROP TABLE executions"}"#,
    ];
    let mut kept = Vec::new();
    for data in inert {
        let (status, accepted) = send(post(&task(data))).await;
        assert!(matches!(status, 202 | 400), "{data}: {accepted}");
        if status == 202 {
            let id = accepted["execution_id"].as_str().unwrap().to_owned();
            let is_over = |task: &serde_json::Value| task["finished_at"].is_string();
            let task = rig.product.until(&id, is_over).await;
            kept.push((id, task["task_data"].clone()));
        }
    }
    assert!(kept.len() >= 4, "{kept:?}");
    rig.is_well().await;

    let Rig {
        product, project, ..
    } = rig;
    product.kill().await;
    let again = Product::up(&project, &[]).await;
    for (id, data) in &kept {
        let task = again.get(&format!("/tasks/{id}")).await;
        assert_eq!(
            (&task["task_data"], &task["status"]),
            (data, &json!("completed"))
        );
        again
            .get_state(&format!("/executions/{id}/steps?bodies=full"))
            .await;
    }
    let listed = again.get("/tasks").await;
    assert_eq!(listed.as_array().unwrap().len(), kept.len());
    again.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_templates_and_variables_in_prompts_are_text() {
    let project = Project::new();
    let template = "{{ env.PLANTED }} ${PLANTED} $PLANTED {% for x in range(9999999) %}x{% endfor %} {{ 7*7 }} <%= 7*7 %>";
    project.agent(
        "teller",
        &super::rig::agent("teller", "").replace("You help.", &format!("\"{template}\"")),
    );
    let rig = Rig::with(project, polite, &[]).await;
    let result = rig.product.run("teller", template).await;
    assert_eq!(result["status"], "completed", "{result}");
    let asked = rig.provider.requests();
    let asked = serde_json::to_value(&asked[0]).unwrap();
    let said = asked["messages"].as_array().unwrap();
    assert_eq!(said.len(), 2, "{asked}");
    for message in said {
        assert_eq!(message["text"], template);
    }
    // The key goes to the provider in its header, and nowhere else.
    let bodies = asked["raw"].to_string();
    assert!(!bodies.contains(CANARY), "{bodies}");
    rig.is_well().await;
}
