//! A rolling restart under load: three processes are replaced one after the other, again and again, while tasks keep
//! coming in. Nothing that was accepted is lost, and nothing at all is done twice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Filter;
use testkit::effects::Route;
use testkit::provider::{Answer, Request};

use super::follower::{Book, End, events_of, follow};
use super::{Fleet, PATIENCE, PAUSE, Spread, completed, journal, submit, taken_at, tool_of};
use crate::crash::EFFECTS;
use crate::product::Product;

/// How often each process is replaced.
const ROUNDS: usize = 3;
const PROCESSES: usize = 3;
/// How many clients submit, each one task after the other.
const CLIENTS: usize = 8;
/// How long a model takes to begin its answer.
const THINKING: Duration = Duration::from_millis(150);
/// `AGENT_SHUTDOWN_TIMEOUT`.
const LIMIT: Duration = Duration::from_secs(30);
/// So long that what is gone on with `SOON`, however busy the machine is, was given back: nobody waited for the lease's end.
const LEASE: (&str, &str) = ("AGENT_LEASE_SECONDS", "120");
const SOON: Duration = Duration::from_secs(60);

/// Calls its tool twice, one after the other, and answers.
fn twice_then_done(request: &Request) -> Answer {
    let answer = match request.turn {
        0 | 1 => Answer::call(tool_of(request), json!({})),
        _ => Answer::say("done"),
    };
    answer.after(THINKING)
}

/// The processes as a load balancer sees them.
struct Balancer {
    client: reqwest::Client,
    urls: Vec<String>,
    is_ready: Vec<AtomicBool>,
    turn: AtomicUsize,
    refused: AtomicUsize,
}

impl Balancer {
    fn new(urls: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            is_ready: urls.iter().map(|_| AtomicBool::new(true)).collect(),
            urls,
            turn: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        })
    }

    /// Asks each process again and again whether it is ready.
    async fn look(self: Arc<Self>) {
        loop {
            for (url, is_ready) in self.urls.iter().zip(&self.is_ready) {
                let answer = self.client.get(format!("{url}/health/ready")).send().await;
                let ready = answer.is_ok_and(|answer| answer.status() == 200);
                is_ready.store(ready, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Posts to one that is ready. Only what is answered 503 or finds nobody there is tried again, with the same key.
    async fn post(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let n = self.turn.fetch_add(1, Ordering::SeqCst) % self.urls.len();
            if self.is_ready[n].load(Ordering::SeqCst) {
                let request = self.client.post(format!("{}{path}", self.urls[n]));
                let answer = request.header("idempotency-key", key).json(body);
                match answer.send().await {
                    Ok(answer) if answer.status() == 503 => {}
                    Ok(answer) => {
                        let status = answer.status().as_u16();
                        return (status, answer.json().await.expect("a whole answer"));
                    }
                    Err(error) if error.is_connect() => {}
                    Err(error) => panic!("a request was cut off: {error:?}"),
                }
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
            assert!(began.elapsed() < PATIENCE, "nobody takes {body}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What was accepted.
#[derive(Debug, Clone)]
struct Accepted {
    id: String,
    prompt: String,
    effect: &'static str,
}

/// Submits until `stop`: every other time it waits for the result in the same request.
async fn submit_on(
    n: usize,
    balancer: Arc<Balancer>,
    stop: Arc<AtomicBool>,
    book: Arc<Mutex<Vec<Accepted>>>,
) {
    for i in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let effect = EFFECTS[i % EFFECTS.len()];
        let prompt = format!("task-{i}-of-client-{n}");
        let path = match i % 2 {
            0 => format!("/agents/{effect}/invoke"),
            _ => format!("/agents/{effect}/invoke?wait=20s"),
        };
        let body = json!({ "task_data": { "prompt": prompt } });
        let (status, answer) = balancer.post(&path, &prompt, &body).await;
        assert!(matches!(status, 200 | 202), "{status}: {answer}");
        if status == 200 {
            assert_eq!(answer["status"], "completed", "{answer}");
        }
        let id = answer["execution_id"].as_str().expect("an id").to_owned();
        book.lock().unwrap().push(Accepted { id, prompt, effect });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Follows some of what was accepted, wherever it is.
async fn watch_on(
    balancer: Arc<Balancer>,
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<Accepted>>>,
) -> Vec<(String, Book, Vec<End>)> {
    let mut watched = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let last = accepted.lock().unwrap().last().cloned();
        let Some(Accepted { id, .. }) = last else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut urls: Vec<String> = balancer
            .urls
            .iter()
            .map(|url| format!("{url}/tasks/{id}/events"))
            .collect();
        urls.rotate_left(watched.len() % PROCESSES);
        let book = Book::default();
        let ends = follow(urls, book.clone()).await;
        watched.push((id, book, ends));
    }
    watched
}

/// Replaces a process by a new one at the same place. It says first that it is not ready, and answers all the same.
async fn replace(
    fleet: &Fleet,
    mut old: Product,
    settings: &[(&str, &str)],
) -> (Product, Duration) {
    let ports = old.ports();
    old.signal("TERM");
    let began = Instant::now();
    let said = loop {
        let (status, body) = old.ask("/health/ready").await;
        if status == 503 {
            break body;
        }
        assert!(began.elapsed() < LIMIT, "it never says that it stops");
    };
    assert_eq!(said["dependencies"]["database"], "ok", "{said}");
    let (status, _) = old.ask("/tasks").await;
    assert_eq!(status, 200, "it answers while it drains");
    let code = old.ended().await;
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{}", fleet.log());
    assert!(took < LIMIT, "it took {took:?} to stop");
    (fleet.up_at(&ports, settings).await, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_and_repeats_nothing() {
    let fleet = Fleet::new(twice_then_done).await;
    let settings = [
        ("AGENT_CAPACITY", "40"),
        ("AGENT_SHUTDOWN_TIMEOUT", "30"),
        LEASE,
        ("AGENT_DRAIN_SECONDS", "2"),
    ];
    let mut products = Vec::new();
    for _ in 0..PROCESSES {
        products.push(fleet.up(&settings).await);
    }
    let balancer = Balancer::new(products.iter().map(|p| p.orchestrator.clone()).collect());
    let looking = tokio::spawn(balancer.clone().look());
    let stop = Arc::new(AtomicBool::new(false));
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| submit_on(n, balancer.clone(), stop.clone(), accepted.clone()))
        .map(tokio::spawn)
        .collect();
    let watching = tokio::spawn(watch_on(balancer.clone(), stop.clone(), accepted.clone()));

    let mut stops = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..PROCESSES {
            let (new, took) = replace(&fleet, products.remove(0), &settings).await;
            products.push(new);
            stops.push(took);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let watched = watching.await.unwrap();
    looking.abort();
    let accepted = accepted.lock().unwrap().clone();
    let gaps = audit(&fleet, &products[0], &accepted).await;
    audit_watchers(&watched);
    let refused = balancer.refused.load(Ordering::SeqCst);
    println!(
        "{} stops ({}); {} executions, 0 lost, 0 repeated; {refused} requests tried again; handed back and gone on with: {gaps}",
        stops.len(),
        Spread::of(stops.clone()),
        accepted.len(),
    );
    assert!(gaps.at(0.99) < SOON, "{gaps}");
}

/// Each ended once, with each call made once. Answers how long what was handed back stood still.
async fn audit(fleet: &Fleet, product: &Product, accepted: &[Accepted]) -> Spread {
    let mut gaps = Vec::new();
    for Accepted { id, .. } in accepted {
        completed(product, id).await;
    }
    let asked = fleet.asked();
    let calls = fleet.effects.calls();
    for Accepted { id, prompt, effect } in accepted {
        for turn in 0..3 {
            let times = asked.get(&(prompt.clone(), turn)).copied();
            assert_eq!(times, Some(1), "{prompt}: the model in turn {turn}");
        }
        let mine = calls
            .iter()
            .filter(|call| call.key.as_deref().is_some_and(|key| key.starts_with(id)));
        let mine: Vec<_> = mine.collect();
        assert_eq!(mine.len(), 2, "{prompt}: calls of {effect}: {mine:?}");
        if *effect != "read_only" {
            let effects = mine.iter().filter(|call| call.effect.is_some());
            assert_eq!(effects.count(), 2, "{prompt}: {mine:?}");
        }
        let steps = journal(product, id).await;
        let kinds: Vec<&str> = steps.iter().filter_map(|s| s["kind"].as_str()).collect();
        let (call, ended) = (
            ["model_call", "tool_intent", "tool_result"],
            ["model_call", "finished"],
        );
        assert_eq!(
            kinds,
            [&call[..], &call[..], &ended[..]].concat(),
            "{prompt}"
        );
        for pair in steps.windows(2).filter(|p| p[0]["epoch"] != p[1]["epoch"]) {
            let gap = taken_at(&pair[1]) - taken_at(&pair[0]);
            gaps.push(gap.to_std().unwrap_or_default().saturating_sub(THINKING));
        }
    }
    let charged = fleet.effects.effects(Route::Charge).len();
    let wanted = accepted.iter().filter(|one| one.effect == "unsafe").count();
    assert_eq!(charged, 2 * wanted, "unsafe calls");
    assert!(
        gaps.len() >= ROUNDS * PROCESSES,
        "only {} were handed back",
        gaps.len()
    );
    Spread::of(gaps)
}

/// No stream was cut off, and each watcher saw each step once and in order.
fn audit_watchers(watched: &[(String, Book, Vec<End>)]) {
    let mut resumed = 0;
    for (id, book, ends) in watched {
        assert!(!ends.contains(&End::Broken), "{id}: {ends:?}");
        assert_eq!(book.steps(), (1..=8).collect::<Vec<_>>(), "{id}: {ends:?}");
        resumed += ends.len() - 1;
    }
    println!(
        "{} watchers, {resumed} times resumed elsewhere",
        watched.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stop_must_drop_is_told_and_goes_on_elsewhere_at_once() {
    let fleet = Fleet::new(|request| match request.turn {
        0 => Answer::call(tool_of(request), json!({})),
        _ => Answer::say("a long answer in many words, of which a watcher hears the first half"),
    })
    .await;
    let settings = [
        ("AGENT_SHUTDOWN_TIMEOUT", "1"),
        ("AGENT_DRAIN_SECONDS", "0"),
        LEASE,
    ];
    let mut first = fleet.up(&settings).await;
    let hold = fleet.provider.hold(
        Filter::any().with("point", "mid_stream").with("turn", 1),
        Some(4),
    );
    let mut ids = Vec::new();
    for effect in EFFECTS {
        ids.push(submit(&first, effect, effect).await);
    }
    hold.wait(4).await;
    let second = fleet.up(&settings).await;
    let book = Book::default();
    let urls = vec![events_of(&first, &ids[0]), events_of(&second, &ids[0])];
    let following = tokio::spawn(follow(urls, book.clone()));
    book.until("delta").await;

    let stopped = Instant::now();
    first.signal("TERM");
    assert_eq!(first.ended().await, Some(0), "{}", fleet.log());
    for id in &ids {
        completed(&second, id).await;
    }
    let took = stopped.elapsed();
    assert!(took < SOON, "gone on with after {took:?}");
    let asked: Vec<usize> = fleet.asked().into_values().collect();
    assert_eq!(
        asked,
        [1, 2, 1, 2, 1, 2, 1, 2],
        "only the dropped answer is repeated"
    );
    let said = "a model call was dropped: the time for the shutdown is up";
    assert_eq!(fleet.log().matches(said).count(), 4, "{}", fleet.log());
    assert_eq!(fleet.effects.calls().len(), 4, "no tool is called again");

    assert_eq!(following.await.unwrap(), [End::Closed, End::Done]);
    assert_eq!(book.steps(), [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_process_of_the_fleet_at_once() {
    let fleet = Fleet::new(|_| Answer::say("never heard whole")).await;
    let mut product = fleet.up(&[]).await;
    let hold = fleet
        .provider
        .hold(Filter::any().with("point", "mid_stream"), Some(1));
    let id = submit(&product, "unsafe", "hello").await;
    hold.wait(1).await;
    product.signal("TERM");
    let began = Instant::now();
    while product.ask("/health/ready").await.0 != 503 {
        assert!(began.elapsed() < LIMIT, "it never says that it stops");
    }
    product.signal("TERM");
    assert_eq!(product.ended().await, Some(130));
    assert!(began.elapsed() < LIMIT, "at once, not after 30 s");
    completed(&fleet.up(&[]).await, &id).await;
}
