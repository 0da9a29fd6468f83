//! The public API, as a client with patience uses it: one that asks again, with the same key, while nobody answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;

/// How long somebody asks again before it is taken for an outage.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer may take before it is asked for again.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    State,
    Config,
    Orchestrator,
    Scheduler,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
    total: Option<u64>,
    next: Option<String>,
}

/// A request that may be made again.
struct Ask<'a> {
    service: Service,
    method: Method,
    path: &'a str,
    body: Option<&'a Value>,
    key: Option<&'a str>,
}

impl<'a> Ask<'a> {
    const fn get(service: Service, path: &'a str) -> Self {
        Self {
            service,
            method: Method::GET,
            path,
            body: None,
            key: None,
        }
    }
}

/// The four services, wherever they are at the moment.
pub(super) struct Api {
    client: reqwest::Client,
    /// State, config, orchestrator, scheduler.
    ports: [u16; 4],
    /// How often somebody had to ask again.
    pub(super) again: AtomicUsize,
    /// How often a stream was cut and taken up again.
    pub(super) cuts: AtomicUsize,
}

impl Api {
    pub(super) fn new(ports: [u16; 4]) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            ports,
            again: AtomicUsize::new(0),
            cuts: AtomicUsize::new(0),
        }
    }

    fn url(&self, service: Service, path: &str) -> String {
        let [state, config, orchestrator, scheduler] = self.ports;
        let port = match service {
            Service::State => state,
            Service::Config => config,
            Service::Orchestrator => orchestrator,
            Service::Scheduler => scheduler,
        };
        format!("http://127.0.0.1:{port}{path}")
    }

    /// Asks until somebody answers other than 503.
    async fn ask(&self, ask: Ask<'_>) -> Reply {
        let began = Instant::now();
        loop {
            match self.once(&ask).await {
                Ok(reply) if reply.status != 503 => return reply,
                other => {
                    self.again.fetch_add(1, Ordering::Relaxed);
                    let (method, path) = (&ask.method, ask.path);
                    assert!(
                        began.elapsed() < PATIENCE,
                        "nobody answers {method} {path}: {other:?}"
                    );
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Reply, reqwest::Error> {
        let url = self.url(ask.service, ask.path);
        let mut request = self.client.request(ask.method.clone(), url).timeout(ANSWER);
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        if let Some(key) = ask.key {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.send().await?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (total, link) = (header("x-total-count"), header("link"));
        let next =
            link.and_then(|link| Some(link.split_once('<')?.1.split_once('>')?.0.to_owned()));
        Ok(Reply {
            status: response.status().as_u16(),
            total: total.and_then(|total| total.parse().ok()),
            next,
            body: response.json().await?,
        })
    }

    pub(super) async fn get(&self, service: Service, path: &str) -> Value {
        let reply = self.ask(Ask::get(service, path)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.body
    }

    /// How many there are in all.
    pub(super) async fn total(&self, path: &str) -> u64 {
        let reply = self.ask(Ask::get(Service::Orchestrator, path)).await;
        reply.total.unwrap_or_else(|| panic!("{path}: {reply:?}"))
    }

    /// All parts of a list, one after the other.
    pub(super) async fn all(&self, service: Service, path: &str) -> Vec<Value> {
        let (mut all, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = next {
            let mut reply = self.ask(Ask::get(service, &path)).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            let part = reply.body.as_array_mut().expect("a list");
            all.append(part);
            next = reply.next;
        }
        all
    }

    /// Posts to the orchestrator, whatever it answers.
    pub(super) async fn try_post(&self, path: &str, body: &Value, key: Option<&str>) -> Reply {
        let ask = Ask {
            method: Method::POST,
            body: Some(body),
            key,
            ..Ask::get(Service::Orchestrator, path)
        };
        self.ask(ask).await
    }

    /// Posts something that creates: with a key, so that asking again creates nothing more.
    pub(super) async fn create(&self, path: &str, body: &Value, key: &str) -> Value {
        let reply = self.try_post(path, body, Some(key)).await;
        assert_eq!(reply.status, 202, "{path}: {}", reply.body);
        reply.body
    }

    pub(super) async fn patch(&self, service: Service, path: &str, body: &Value) {
        let ask = Ask {
            method: Method::PATCH,
            body: Some(body),
            ..Ask::get(service, path)
        };
        let reply = self.ask(ask).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }

    /// Waits for the result by asking.
    pub(super) async fn result(&self, id: &str) -> Value {
        let path = format!("/tasks/{id}/result?wait=10s");
        let began = Instant::now();
        loop {
            let reply = self.ask(Ask::get(Service::Orchestrator, &path)).await;
            if reply.status == 200 {
                return reply.body;
            }
            assert!(began.elapsed() < 2 * PATIENCE, "{path}: {}", reply.body);
        }
    }

    /// Follows a task's stream to its end, and takes it up again wherever it is cut. Answers the positions of its steps as
    /// they came, and the result.
    pub(super) async fn follow(&self, id: &str) -> (Vec<u64>, Value) {
        let (mut steps, mut last) = (Vec::new(), None);
        let began = Instant::now();
        while began.elapsed() < 2 * PATIENCE {
            if let Some(result) = self.listen(id, &mut last, &mut steps).await {
                return (steps, result);
            }
            self.cuts.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the stream of {id} has no end: {steps:?}");
    }

    /// One connection: the result, if it came to it.
    async fn listen(
        &self,
        id: &str,
        last: &mut Option<String>,
        steps: &mut Vec<u64>,
    ) -> Option<Value> {
        let url = self.url(Service::Orchestrator, &format!("/tasks/{id}/events"));
        let mut request = self.client.get(url);
        if let Some(last) = last.as_ref() {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.ok()?;
        if response.status() == 503 {
            return None;
        }
        assert_eq!(response.status(), 200, "the stream of {id}");
        let mut events = response.bytes_stream().eventsource();
        while let Some(Ok(event)) = events.next().await {
            match event.event.as_str() {
                "done" => return serde_json::from_str(&event.data).ok(),
                "step" => steps.push(event.id.parse().expect("a position")),
                _ => {}
            }
            if !event.id.is_empty() {
                *last = Some(event.id);
            }
        }
        None
    }
}
