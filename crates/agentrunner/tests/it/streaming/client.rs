//! A client by the rule of `docs/api.md`, that is cut off now and then and goes on at another process.

use std::collections::BTreeMap;
use std::time::Duration;

use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::Value;

use super::lots::Lots;

/// What asks, with a connection for each request.
pub(super) fn http() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0);
    builder.build().unwrap()
}

/// What a client heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) id: String,
    /// The answer.
    pub(super) text: String,
    /// How many bytes of it, and how many of those before it was committed.
    pub(super) bytes: usize,
    pub(super) early: usize,
    pub(super) streams: usize,
    pub(super) superseded: usize,
}

impl Heard {
    pub(super) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.early += other.early;
        self.streams += other.streams;
        self.superseded += other.superseded;
    }
}

/// One client.
pub(super) struct Reader {
    ports: Vec<u16>,
    http: reqwest::Client,
    lots: Lots,
    last_id: String,
    /// What it holds of each step.
    held: BTreeMap<u64, String>,
    steps: u64,
    heard: Heard,
}

impl Reader {
    pub(super) fn new(http: reqwest::Client, id: String, ports: Vec<u16>, seed: u64) -> Self {
        Self {
            ports,
            http,
            lots: Lots::new(seed),
            last_id: String::new(),
            held: BTreeMap::new(),
            steps: 0,
            heard: Heard {
                id,
                ..Heard::default()
            },
        }
    }

    /// Reads to the end.
    pub(super) async fn read(mut self) -> Heard {
        while !self.read_once().await {
            tokio::time::sleep(Duration::from_millis(self.lots.up_to(100))).await;
        }
        let said = self.held.into_values().filter(|text| !text.is_empty());
        self.heard.text = said.collect::<Vec<_>>().concat();
        self.heard
    }

    /// Reads one stream until it ends or this one is cut off; whether it was all.
    async fn read_once(&mut self) -> bool {
        let (id, port) = (&self.heard.id, self.lots.one_of(&self.ports));
        let request = self
            .http
            .get(format!("http://127.0.0.1:{port}/tasks/{id}/events"))
            .header("last-event-id", &self.last_id);
        let Ok(response) = request.send().await else {
            return false;
        };
        if !response.status().is_success() {
            let status = response.status().as_u16();
            assert!(status >= 500, "{status}: {:?}", response.text().await);
            return false;
        }
        self.heard.streams += 1;
        let patience = Duration::from_millis(self.lots.up_to(3_000) + 100);
        let cut = tokio::time::sleep(patience);
        let mut events = response.bytes_stream().eventsource();
        tokio::pin!(cut);
        loop {
            let event = tokio::select! {
                () = &mut cut => return false,
                event = events.next() => event,
            };
            let Some(Ok(event)) = event else {
                return false;
            };
            let data = serde_json::from_str(&event.data).unwrap();
            if event.event == "done" {
                return true;
            }
            assert!(event.event == "gap" || !event.id.is_empty(), "{event:?}");
            self.last_id.clone_from(&event.id);
            self.takes(&event.event, &data);
        }
    }

    fn takes(&mut self, event: &str, data: &Value) {
        let seq = data["seq"].as_u64().unwrap_or_default();
        match event {
            "delta" => {
                assert_eq!(seq, self.steps + 1, "words of a step that is not the next");
                let words = data["text"].as_str().unwrap();
                self.held.entry(seq).or_default().push_str(words);
            }
            "supersede" => {
                self.heard.superseded += 1;
                self.held.remove(&seq);
            }
            "step" => {
                assert_eq!(seq, self.steps + 1, "each step once, in order");
                self.steps = seq;
                let text = data["reply"]["text"].as_str().unwrap_or_default();
                let held = self.held.insert(seq, text.to_owned()).unwrap_or_default();
                assert!(text.starts_with(&held), "{held:?} is held of {text:?}");
                self.heard.early += held.len();
                self.heard.bytes += text.len();
            }
            "tool_call" => {}
            other => panic!("{other}: {data}"),
        }
    }
}
