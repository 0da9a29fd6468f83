//! A RabbitMQ that is not as it should be: named in the log and in `/health/ready`, while accepted work goes on and the
//! process puts itself right as soon as the broker is.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Weather;
use testkit::servers::{Kind, Server, with_database};

use super::rig::Rig;
use crate::product::{Product, Project};
use crate::project;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// A queue that every process joins.
const QUEUE: &str = "autonomous-agent-pool";

async fn rig(url: &str) -> Rig {
    Rig::with(Project::new(), &[("RABBITMQ_URL", url)]).await
}

/// Asks the management page of a broker.
async fn manage(broker: &Server, method: reqwest::Method, path: &str, body: &Value) -> Value {
    let url = format!("{}/api/{path}", broker.export("RABBITMQ_MANAGEMENT_URL"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method, &url).json(body).basic_auth(
        broker.export("RABBITMQ_USER"),
        Some(broker.export("RABBITMQ_PASSWORD")),
    );
    let response = request.send().await.unwrap();
    let status = response.status();
    assert!(status.is_success(), "{url}: {status}");
    response.json().await.unwrap_or_default()
}

/// Waits until the process says that its queue is of no use; `reason` is in its log.
async fn until_unready(product: &Product, reason: &str) {
    let is_told = |status, body: &Value, log: &str| {
        status == 503
            && body["dependencies"]["message_queue"] == "unavailable"
            && log.contains(reason)
    };
    until(product, is_told).await;
}

async fn until_ready(product: &Product) {
    until(product, |status, _, _| status == 200).await;
}

async fn until(product: &Product, is_wanted: impl Fn(u16, &Value, &str) -> bool) {
    let began = Instant::now();
    loop {
        let (status, body) = product.ask("/health/ready").await;
        if is_wanted(status, &body, &product.log()) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{body}\n{}", product.log());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Work that is handed in now is done, with or without a broker.
async fn works(product: &Product) {
    let result = product.run("openai", "hello").await;
    assert_eq!(result["output"], "hello to you", "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_host_that_is_missing_is_named_at_start() {
    let url = testkit::servers::shared(Kind::RabbitMq).await;
    let project = project::Project::new();
    let mut command = project.command(&["up"]);
    command.env("RABBITMQ_URL", with_database(url, "nowhere"));
    let ran = project::Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in ["RabbitMQ at 127.0.0.1", "virtual host \"nowhere\""] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_named_and_work_goes_on() {
    let broker = Server::start(Kind::RabbitMq).await;
    let queue = format!("queues/%2F/{QUEUE}");
    let classic = json!({ "durable": true, "arguments": {} });
    manage(&broker, reqwest::Method::PUT, &queue, &classic).await;
    let rig = Rig::unwell(Project::new(), &[("RABBITMQ_URL", &broker.url())]).await;
    let advice = format!("rabbitmqctl delete_queue {QUEUE}");
    until_unready(&rig.product, &advice).await;
    works(&rig.product).await;
    // As the line says; the rest happens by itself.
    manage(&broker, reqwest::Method::DELETE, &queue, &json!({})).await;
    until_ready(&rig.product).await;
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_falls_silent_is_told_and_work_goes_on() {
    let broker = Server::start(Kind::RabbitMq).await;
    let (proxy, url) = broker.proxied();
    let rig = rig(&url).await;
    proxy.set(Weather::BlackHole);
    until_unready(&rig.product, "does not answer").await;
    works(&rig.product).await;
    proxy.set(Weather::Clear);
    until_ready(&rig.product).await;
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_short_of_memory_is_told_and_loses_nothing() {
    let broker = Server::start(Kind::RabbitMq).await;
    let rig = rig(&broker.url()).await;
    broker
        .rabbitmqctl(&["set_vm_memory_high_watermark", "0"])
        .await;
    // Who publishes nothing is not blocked.
    works(&rig.product).await;
    until_unready(&rig.product, "RabbitMQ blocks publishers").await;
    works(&rig.product).await;
    broker
        .rabbitmqctl(&["set_vm_memory_high_watermark", "0.8"])
        .await;
    until_ready(&rig.product).await;
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_message_is_a_dead_letter_and_harms_nobody() {
    let broker = Server::start(Kind::RabbitMq).await;
    let rig = rig(&broker.url()).await;
    // By the queue's name, and by a topic that it is bound by.
    for (exchange, key, body) in [
        ("amq.default", QUEUE, "\u{0}\u{fffd} no event"),
        (
            "agent_events",
            "autonomous.task.submitted",
            "{\"specversion\": 9",
        ),
    ] {
        let path = format!("exchanges/%2F/{exchange}/publish");
        let message = json!({
            "routing_key": key, "payload": body, "payload_encoding": "string", "properties": {},
        });
        // The queue may be resting still, before it is bound.
        let began = Instant::now();
        while manage(&broker, reqwest::Method::POST, &path, &message).await["routed"] != true {
            assert!(began.elapsed() < PATIENCE, "{}", rig.product.log());
            tokio::time::sleep(PAUSE).await;
        }
    }
    let began = Instant::now();
    let letters = loop {
        let letters = rig.product.get("/dead-letters").await;
        if letters.as_array().is_some_and(|letters| letters.len() >= 2) {
            break letters;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{letters}\n{}",
            rig.product.log()
        );
        tokio::time::sleep(PAUSE).await;
    };
    for letter in letters.as_array().unwrap() {
        let text = letter.to_string();
        assert!(text.contains(QUEUE), "{text}");
    }
    until_ready(&rig.product).await;
    works(&rig.product).await;
    rig.is_well().await;
}
