//! Journals over HTTP.

use agentrunner_services::http::Service;
use reqwest::StatusCode;

use crate::harness::{System, Workers, error};

#[tokio::test]
async fn journals_are_read_in_parts_and_without_bodies() {
    let system = System::start(Workers::Running).await;
    let id = system.submit("helper", "hello").await;
    system.tasks(&format!("/tasks/{id}/result?wait=20s")).await;
    let get = async |path: String| system.get(Service::StateManager, &path).await;

    let (_, all) = get("/executions?status=completed".to_owned()).await;
    assert_eq!(all[0]["execution_id"], id.as_str());
    let (_, one) = get(format!("/executions/{id}")).await;
    assert_eq!(one["steps"], 2);
    let (_, steps) = get(format!("/executions/{id}/steps")).await;
    assert_eq!(steps[0]["kind"], "model_call");
    assert_eq!(steps[0]["reply"]["text"], "Hello from the script.");
    let (_, bare) = get(format!("/executions/{id}/steps?bodies=false")).await;
    assert_eq!(bare[0]["usage"]["input_tokens"], 10);
    assert!(!bare.to_string().contains("Hello"), "{bare}");
    let (_, rest) = get(format!("/executions/{id}/steps?after=1&limit=1")).await;
    assert_eq!(rest[0]["seq"], 2);
    let (_, step) = get(format!("/executions/{id}/steps/2")).await;
    assert_eq!(step["kind"], "finished");
    for absent in ["3", "0", "-1", "x"] {
        let (status, body) = get(format!("/executions/{id}/steps/{absent}")).await;
        assert_eq!(
            (status, error(&body).0),
            (StatusCode::NOT_FOUND, "NOT_FOUND")
        );
    }
}
