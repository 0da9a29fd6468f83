//! One stream of everything.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::harness::{System, Workers, error, read};

/// A stream that is read event by event.
struct Stream {
    response: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
    last_id: String,
}

impl Stream {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            response: response.bytes_stream().boxed(),
            text: String::new(),
            last_id: String::new(),
        }
    }

    /// The next block of lines: name and data, if it has any.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = block.lines().filter_map(|line| line.split_once(": "));
                    let mut values = lines.filter(|(key, _)| *key == name);
                    values.next().map(|(_, value)| value.to_owned())
                };
                let (id, event, data) = (field("id"), field("event"), field("data"));
                self.text = rest.to_owned();
                self.last_id = id.expect("each has a place");
                return event.map(|event| (event, serde_json::from_str(&data.unwrap()).unwrap()));
            }
            let more = tokio::time::timeout(Duration::from_secs(20), self.response.next());
            let more = more.await.expect("it says that it lives").unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    /// The next event.
    async fn event(&mut self) -> (String, Value) {
        loop {
            if let Some(event) = self.next().await {
                return event;
            }
        }
    }

    /// Reads until an execution is completed: what was told of it.
    async fn completed(&mut self, id: &str) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let (event, data) = self.event().await;
            assert_ne!(event, "gap");
            if data["execution_id"] != id || event == "event" {
                continue;
            }
            let what = if event == "step" {
                &data["kind"]
            } else {
                &data["status"]
            };
            told.push(what.as_str().unwrap().to_owned());
            if *what == "completed" {
                return told;
            }
        }
    }
}

async fn look(system: &System, query: &str) -> Stream {
    let path = format!("/events/stream{query}");
    Stream::of(system.ask(Method::GET, &path).send().await.unwrap())
}

#[tokio::test]
async fn what_happens_is_told_once_and_one_who_comes_back_misses_nothing() {
    let system = System::start(Workers::Running).await;
    let mut all = look(&system, "").await;
    let mut failed = look(&system, "?type=execution&status=failed").await;
    let mut published = look(&system, "?topic=news.*").await;
    // A place comes first.
    assert_eq!(all.next().await, None);
    assert!(!all.last_id.is_empty());
    let id = system.submit("helper", "hello").await;
    let whole = ["running", "model_call", "finished", "completed"];
    assert_eq!(all.completed(&id).await, whole);

    let place = all.last_id.clone();
    drop(all);
    let missed = system.submit("helper", "fail").await;
    system.until(&missed, "failed").await;
    let again = system
        .ask(Method::GET, "/events/stream")
        .header("last-event-id", &place);
    let mut again = Stream::of(again.send().await.unwrap());
    let (mut told, mut topics) = (Vec::new(), Vec::new());
    while !told.contains(&"failed".to_owned()) {
        let (event, data) = again.event().await;
        match event.as_str() {
            "execution" => told.push(data["status"].as_str().unwrap().to_owned()),
            "step" => told.push(data["kind"].as_str().unwrap().to_owned()),
            "event" => topics.push(data["topic"].as_str().unwrap().to_owned()),
            _ => panic!("{event}: {data}"),
        }
        let is_old = event != "event" && data["execution_id"] == id.as_str();
        assert!(!is_old, "it was told before: {data}");
    }
    assert_eq!(told, ["running", "finished", "failed"]);

    let (event, data) = failed.event().await;
    assert_eq!(
        (event.as_str(), &data["execution_id"]),
        ("execution", &Value::from(missed))
    );
    let news = serde_json::json!({ "topic": "news.made", "data": { "secret": "words" } });
    let (status, answer) = system.post("/events", &news).await;
    assert!(status.is_success(), "{answer}");
    let (event, data) = published.event().await;
    assert_eq!(
        (event.as_str(), &data["topic"]),
        ("event", &Value::from("news.made"))
    );
    assert!(!data.to_string().contains("words"), "{data}");

    for (query, part) in [
        ("?after=x", "not an event id"),
        ("?type=x", "execution, step or event"),
        ("?status=x", "status"),
        ("?topic=a..b", "empty word"),
        ("?agent=helper", "agent"),
    ] {
        let path = format!("/events/stream{query}");
        let (status, refusal) = read(system.ask(Method::GET, &path).send().await.unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {refusal}");
        assert!(error(&refusal).1.contains(part), "{query}: {refusal}");
    }
}
