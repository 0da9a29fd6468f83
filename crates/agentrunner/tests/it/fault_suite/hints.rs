//! A stranger at RabbitMQ: through its management API, takes hints out of our queues, throws them away, and publishes
//! them again, twice or in another order.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::servers::Server;

use super::schedule::Astray;

/// The queues that hold the product's hints.
const QUEUES: [&str; 2] = ["autonomous-agent-pool", "agent-subscriptions"];
/// Events that start executions are facts to whoever sent them: they may be doubled, not lost. A broker loses none by
/// itself, and what a stranger with the broker's password takes out of a queue is gone.
const HINTS_ALONE: &str = "autonomous-agent-pool";
const MOST: usize = 20;
/// A broker that was just killed may not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The stranger.
pub(super) struct Stranger {
    client: reqwest::Client,
    url: String,
    user: String,
    password: String,
}

impl Stranger {
    pub(super) fn at(broker: &Server, client: &reqwest::Client) -> Self {
        Self {
            client: client.clone(),
            url: broker.export("RABBITMQ_MANAGEMENT_URL").to_owned(),
            user: broker.export("RABBITMQ_USER").to_owned(),
            password: broker.export("RABBITMQ_PASSWORD").to_owned(),
        }
    }

    /// Meddles once; answers how many hints that was about. None when the broker did not answer.
    pub(super) async fn meddle(&self, how: Astray) -> Option<usize> {
        match how {
            Astray::Purged => {
                let path = format!("queues/%2F/{HINTS_ALONE}/contents");
                self.ask(reqwest::Method::DELETE, &path, &Value::Null)
                    .await?;
                Some(1)
            }
            Astray::Stolen => self.take(HINTS_ALONE).await.map(|taken| taken.len()),
            Astray::Doubled | Astray::Reordered => {
                let mut count = 0;
                for queue in QUEUES {
                    let mut taken = self.take(queue).await?;
                    taken.reverse();
                    for message in &taken {
                        let times = if how == Astray::Doubled { 2 } else { 1 };
                        for _ in 0..times {
                            self.put_back(queue, message).await;
                            count += 1;
                        }
                    }
                }
                Some(count)
            }
        }
    }

    /// Takes messages out of a queue for good.
    async fn take(&self, queue: &str) -> Option<Vec<Value>> {
        let wish = json!({ "count": MOST, "ackmode": "ack_requeue_false", "encoding": "auto" });
        let path = format!("queues/%2F/{queue}/get");
        let taken = self.ask(reqwest::Method::POST, &path, &wish).await?;
        Some(taken.as_array().cloned().unwrap_or_default())
    }

    /// Puts a message into the queue again. Tried until the broker has it: what a stranger may not do is lose facts.
    async fn put_back(&self, queue: &str, message: &Value) {
        let mut properties = message["properties"].clone();
        // As the product itself marks what is addressed to a queue.
        if properties["headers"]["x-topic"].is_null() {
            properties["headers"]["x-topic"] = message["routing_key"].clone();
        }
        let again = json!({
            "routing_key": queue, "properties": properties,
            "payload": message["payload"], "payload_encoding": message["payload_encoding"],
        });
        loop {
            let path = "exchanges/%2F/amq.default/publish";
            if let Some(answer) = self.ask(reqwest::Method::POST, path, &again).await
                && answer["routed"] == true
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: &Value) -> Option<Value> {
        let mut request = self
            .client
            .request(method, format!("{}/api/{path}", self.url))
            .basic_auth(&self.user, Some(&self.password))
            .timeout(PATIENCE);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        // A purge answers with nothing.
        Some(answer.json().await.unwrap_or_default())
    }
}
