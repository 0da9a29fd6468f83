//! A watcher as a browser is one: it comes back with `Last-Event-ID` when a stream ends before `done`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;

use crate::product::Product;

/// One event as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) event: String,
    pub(super) id: String,
    pub(super) data: Value,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With its last event.
    Done,
    /// Before it, and in good order: the server closed it.
    Closed,
    /// Cut off.
    Broken,
}

/// What one watcher sees.
#[derive(Debug, Clone, Default)]
pub(super) struct Book(Arc<Mutex<Vec<Seen>>>);

impl Book {
    pub(super) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    fn last_id(&self) -> String {
        let seen = self.0.lock().unwrap();
        seen.last().map(|seen| seen.id.clone()).unwrap_or_default()
    }

    /// The positions of the steps, in the order in which they came.
    pub(super) fn steps(&self) -> Vec<u64> {
        let steps = self.all();
        let steps = steps.iter().filter(|seen| seen.event == "step");
        steps.filter_map(|seen| seen.data["seq"].as_u64()).collect()
    }

    /// Waits until something was seen of this kind.
    pub(super) async fn until(&self, event: &str) {
        let began = Instant::now();
        while !self.all().iter().any(|seen| seen.event == event) {
            assert!(began.elapsed() < super::PATIENCE, "no {event}");
            tokio::time::sleep(super::PAUSE).await;
        }
    }
}

/// The address of an execution's events on a process.
pub(super) fn events_of(product: &Product, id: &str) -> String {
    format!("{}/tasks/{id}/events", product.orchestrator)
}

/// Reads one stream to its end. `None` when nobody answered with one.
pub(super) async fn read_once(url: &str, book: &Book) -> Option<End> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(url).header("last-event-id", book.last_id());
    let response = request.send().await.ok()?.error_for_status().ok()?;
    let mut body = response.bytes_stream();
    let mut text = String::new();
    while let Some(piece) = body.next().await {
        let Ok(piece) = piece else {
            return Some(End::Broken);
        };
        text.push_str(std::str::from_utf8(&piece).unwrap());
        while let Some((frame, rest)) = text.split_once("\n\n") {
            let is_done = note(frame, book);
            text = rest.to_owned();
            if is_done {
                return Some(End::Done);
            }
        }
    }
    Some(End::Closed)
}

/// Follows to the last event, at one address after the other. Answers how each stream ended.
pub(super) async fn follow(urls: Vec<String>, book: Book) -> Vec<End> {
    let mut ends = Vec::new();
    let mut urls = urls.iter().cycle();
    let began = Instant::now();
    loop {
        match read_once(urls.next().unwrap(), &book).await {
            Some(End::Done) => {
                ends.push(End::Done);
                return ends;
            }
            Some(end) => ends.push(end),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(began.elapsed() < super::PATIENCE, "{ends:?}");
    }
}

/// Notes a frame; tells whether it is the last one.
fn note(frame: &str, book: &Book) -> bool {
    let field = |name: &str| {
        let lines = frame.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(key, _)| *key == name);
        values.next().map(|(_, value)| value).unwrap_or_default()
    };
    let (event, id) = (field("event").to_owned(), field("id").to_owned());
    if event.is_empty() {
        // A heartbeat.
        return false;
    }
    let is_done = event == "done";
    let data = serde_json::from_str(field("data")).unwrap_or_default();
    book.0.lock().unwrap().push(Seen {
        at: Instant::now(),
        event,
        id,
        data,
    });
    is_done
}
