//! Following an execution: every step once, in order, also for one who comes back.

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{System, Workers, error, read};

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

fn parse(text: &str) -> Vec<Event> {
    text.split("\n\n")
        .filter_map(|block| {
            let field = |name: &str| {
                let prefix = format!("{name}: ");
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(&prefix))
                    .map(str::to_owned)
            };
            Some(Event {
                name: field("event")?,
                id: field("id").unwrap_or_default(),
                data: serde_json::from_str(&field("data")?).unwrap(),
            })
        })
        .collect()
}

#[tokio::test]
async fn words_and_steps_come_as_they_happen_and_end_with_done() {
    let system = System::start(Workers::Running).await;
    let id = system.submit("helper", "hello").await;
    let response = system
        .ask(Method::GET, &format!("/tasks/{id}/events"))
        .send()
        .await
        .unwrap();
    let headers = response.headers();
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    assert!(!headers.contains_key("content-encoding"));
    let events = parse(&response.text().await.unwrap());
    let last = events.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["status"]),
        ("done", &Value::from("completed"))
    );
    let steps: Vec<_> = events.iter().filter(|event| event.name == "step").collect();
    let kinds: Vec<_> = steps
        .iter()
        .map(|step| step.data["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["model_call", "finished"]);
    let ids: Vec<_> = steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);

    // One who comes back gets what is missing, and nothing twice; one who has all of it gets the end.
    let again = |after: &str| {
        system
            .ask(Method::GET, &format!("/tasks/{id}/events"))
            .header("last-event-id", after)
            .send()
    };
    let rest = parse(&again("1").await.unwrap().text().await.unwrap());
    let names: Vec<_> = rest
        .iter()
        .map(|event| (event.name.as_str(), event.id.as_str()))
        .collect();
    assert_eq!(names, [("step", "2"), ("done", "")]);
    let rest = parse(&again("2").await.unwrap().text().await.unwrap());
    assert_eq!(rest.len(), 1);
    let path = format!("/tasks/{id}/events?after=1");
    let rest = parse(
        &system
            .ask(Method::GET, &path)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
    );
    assert_eq!(rest.len(), 2);

    // Who held words of what is committed by now is told to drop them; who names what never was, that there is a gap.
    let rest = parse(&again("1.256.3").await.unwrap().text().await.unwrap());
    let names: Vec<_> = rest.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["supersede", "step", "step", "done"]);
    for unknown in ["3", "3.256.0", "4000000000"] {
        let rest = parse(&again(unknown).await.unwrap().text().await.unwrap());
        let names: Vec<_> = rest.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["gap", "step", "step", "done"], "{unknown}");
        assert_eq!(rest[0].data["after"], unknown);
    }

    let (status, body) = read(again("x").await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&body).1.contains("not an event id"));
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_is_alive() {
    let system = System::start(Workers::Absent).await;
    let id = system.submit("helper", "hello").await;
    let response = system
        .ask(Method::GET, &format!("/tasks/{id}/events"))
        .send()
        .await
        .unwrap();
    let mut bytes = response.bytes_stream();
    let beat = bytes.next().await.unwrap().unwrap();
    assert_eq!(beat, ":\n\n");
    let (status, _) = system
        .tasks("/tasks/0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f/events")
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
