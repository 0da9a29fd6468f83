//! Many executions wait for a person across a rolling restart of three processes. Waiting holds nothing; each is
//! answered once, and each ends as its answer says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use testkit::effects::Route;
use testkit::provider::{Answer, Request};

use super::Fleet;
use crate::product::Product;

const PROCESSES: usize = 3;
/// How many requests are under way at once.
const AT_ONCE: usize = 32;
/// How long the ten thousand may take for one leg of their way on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(100);

/// Wants to charge 500, and says what came of it.
fn charges(request: &Request) -> Answer {
    match request.turn {
        0 => Answer::call("charge", json!({ "cents": 500 })),
        _ => Answer::say(request.last_tool_result()),
    }
}

fn payer(url: &str) -> String {
    format!(
        "name: payer\nexecution_mode: autonomous\nllm_config: {{ provider: openai, model: gpt-4o-mini }}\n\
         system_prompt: You pay.\nanswered_by: finance\ntools:\n  - name: charge\n    type: api\n    method: POST\n    \
         url: '{url}/charge'\n    body: {{ cents: '{{cents}}' }}\n    \
         parameters: {{ type: object, properties: {{ cents: {{ type: integer }} }}, required: [cents] }}\n    \
         requires_approval: [{{ argument: cents, above: 100 }}]\n"
    )
}

/// What person `n` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Approve,
    Edit,
    Reject,
}

impl Word {
    fn of(n: usize) -> Self {
        match n % 4 {
            0 | 1 => Self::Approve,
            2 => Self::Edit,
            _ => Self::Reject,
        }
    }

    fn body(self, n: usize) -> Value {
        let by = format!("person-{n}");
        match self {
            Self::Approve => json!({ "answer": "approve", "by": by }),
            Self::Edit => json!({ "answer": "edit", "arguments": { "cents": 7 }, "by": by }),
            Self::Reject => json!({ "answer": "reject", "reason": "too much", "by": by }),
        }
    }

    /// What was charged.
    fn cents(self) -> Option<u64> {
        match self {
            Self::Approve => Some(500),
            Self::Edit => Some(7),
            Self::Reject => None,
        }
    }
}

/// Asks whichever process answers.
struct Anyone {
    client: reqwest::Client,
    urls: Vec<String>,
    turn: AtomicUsize,
    again: AtomicUsize,
}

impl Anyone {
    async fn send(&self, path: &str, body: Option<&Value>) -> (u16, Option<u64>, Value) {
        let began = Instant::now();
        loop {
            let n = self.turn.fetch_add(1, Ordering::SeqCst) % self.urls.len();
            let url = format!("{}{path}", self.urls[n]);
            let request = match body {
                Some(body) => self.client.post(url).json(body),
                None => self.client.get(url),
            };
            match request.send().await {
                Ok(answer) if answer.status() != 503 => {
                    let status = answer.status().as_u16();
                    let total = answer.headers().get("x-total-count");
                    let total = total.and_then(|n| n.to_str().ok()?.parse().ok());
                    if let Ok(body) = answer.json().await {
                        return (status, total, body);
                    }
                }
                _ => {}
            }
            self.again.fetch_add(1, Ordering::SeqCst);
            assert!(began.elapsed() < PATIENCE, "nobody answers {path}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a list has so many entries.
    async fn until_there_are(&self, path: &str, wanted: usize) {
        let began = Instant::now();
        loop {
            let (_, total, _) = self.send(path, None).await;
            if total == Some(wanted as u64) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{path} has {total:?}, not {wanted}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn submit(&self, n: usize) -> String {
        let task = json!({ "agent_name": "payer", "task_data": { "prompt": format!("bill {n}") } });
        let (status, _, body) = self.send("/tasks", Some(&task)).await;
        assert_eq!(status, 202, "{body}");
        body["execution_id"].as_str().expect("an id").to_owned()
    }

    /// Answers as person `n`; every fifth is answered once more by another.
    async fn answer(&self, n: usize, id: &str) {
        let path = format!("/tasks/{id}/input");
        let (status, _, body) = self.send(&path, Some(&Word::of(n).body(n))).await;
        let me = format!("person-{n}");
        // Cut off by the restart after it was taken: then the first is this very one.
        let is_mine = status == 409 && body["error"]["details"]["first"]["by"] == me.as_str();
        assert!(status == 200 || is_mine, "{status}: {body}");
        if n.is_multiple_of(5) {
            let other = json!({ "answer": "reject", "reason": "no", "by": "too late" });
            let (status, _, body) = self.send(&path, Some(&other)).await;
            let first = &body["error"]["details"]["first"]["by"];
            assert_eq!((status, first), (409, &json!(me)), "{body}");
        }
    }
}

async fn replace(fleet: &Fleet, mut old: Product, settings: &[(&str, &str)]) -> Product {
    let ports = old.ports();
    old.signal("TERM");
    assert_eq!(old.ended().await, Some(0), "{}", fleet.log());
    fleet.up_at(&ports, settings).await
}

/// All wait, a third is answered before, a third during and a third after the restart.
async fn wait_for_people(count: usize) {
    let fleet = Fleet::new(charges).await;
    fleet.project.agent("payer", &payer(&fleet.effects.url()));
    let settings = [
        ("AGENT_CAPACITY", "40"),
        ("AGENT_DRAIN_SECONDS", "0"),
        ("AGENT_SHUTDOWN_TIMEOUT", "10"),
    ];
    let mut products = Vec::new();
    for _ in 0..PROCESSES {
        products.push(fleet.up(&settings).await);
    }
    let anyone = Arc::new(Anyone {
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
        urls: products.iter().map(|p| p.orchestrator.clone()).collect(),
        turn: AtomicUsize::new(0),
        again: AtomicUsize::new(0),
    });
    let began = Instant::now();
    let ids: Vec<String> = futures::stream::iter(0..count)
        .map(|n| anyone.submit(n))
        .buffered(AT_ONCE)
        .collect()
        .await;
    anyone
        .until_there_are("/tasks?status=waiting_for_input&limit=1", count)
        .await;
    let asked = began.elapsed();
    let inbox = "/inbox?question=approval&answered_by=finance&limit=1";
    anyone.until_there_are(inbox, count).await;

    let each: Arc<Vec<(usize, String)>> = Arc::new(ids.iter().cloned().enumerate().collect());
    let part = |from: usize, to: usize| {
        let (anyone, each) = (anyone.clone(), each.clone());
        async move {
            futures::stream::iter(&each[from..to])
                .for_each_concurrent(AT_ONCE, |(n, id)| anyone.answer(*n, id))
                .await;
        }
    };
    let (first, second) = (count / 3, count * 2 / 3);
    part(0, first).await;
    let during = tokio::spawn(part(first, second));
    for _ in 0..PROCESSES {
        let new = replace(&fleet, products.remove(0), &settings).await;
        products.push(new);
    }
    during.await.unwrap();
    // Those that wait still hold nothing: no lease, no place, and little memory in processes that are new.
    anyone.until_there_are(inbox, count - second).await;
    let idle = |pools: &Value| {
        let active = pools.as_array().expect("a list").iter();
        active
            .filter_map(|pool| pool["active"].as_u64())
            .sum::<u64>()
    };
    let waited = Instant::now();
    while idle(&products[0].get("/metrics/pool-stats").await) > 0 {
        assert!(waited.elapsed() < PATIENCE, "something is held");
        tokio::time::sleep(PAUSE).await;
    }
    let peak = products.iter().map(Product::peak_mib).max();
    part(second, count).await;
    anyone
        .until_there_are("/tasks?status=completed&limit=1", count)
        .await;
    let took = began.elapsed();
    audit(&fleet, &ids);
    println!(
        "{count} waited after {asked:?}, all ended after {took:?}; {} requests tried again; \
         at most {} MiB in a process that was started while they waited",
        anyone.again.load(Ordering::SeqCst),
        peak.unwrap_or_default(),
    );
}

/// What was charged is what each person said, once.
fn audit(fleet: &Fleet, ids: &[String]) {
    let mut charged: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for call in fleet.effects.calls_to(Route::Charge) {
        let key = call.key.clone().expect("a key");
        let cents = call.body["cents"].as_u64().expect("a sum");
        charged.entry(key[..36].to_owned()).or_default().push(cents);
    }
    for (n, id) in ids.iter().enumerate() {
        let cents = charged.remove(id).unwrap_or_default();
        let wanted: Vec<u64> = Word::of(n).cents().into_iter().collect();
        assert_eq!(cents, wanted, "{id}, {:?}", Word::of(n));
    }
    assert!(charged.is_empty(), "nobody asked for {charged:?}");
    let twice = fleet.asked().into_values().filter(|times| *times > 1);
    assert_eq!(twice.count(), 0, "the model was asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_wait_for_people_across_a_rolling_restart() {
    wait_for_people(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo nextest run -p agentrunner ten_thousand --run-ignored all"]
async fn ten_thousand_wait_for_people_across_a_rolling_restart() {
    wait_for_people(10_000).await;
}
