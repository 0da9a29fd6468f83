//! A stranger at RabbitMQ: through its management API it throws hints away, lets them go nowhere, listens to all events
//! and publishes them again, later, in the reverse order, twice.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::servers::Server;

use super::schedule::Astray;

/// Where the product publishes.
const EXCHANGE: &str = "agent_events";
/// The queue of hints that there is work. What is lost of it is found by asking the store.
const WORK: &str = "autonomous-agent-pool";
/// The queue of events that start agents. To whoever sent them they are facts, and a broker loses none by itself: they
/// are doubled and reordered, never taken away.
const EVENTS: &str = "agent-subscriptions";
/// Where the stranger listens to everything.
const EAR: &str = "stranger";
/// How much it remembers.
const MEMORY: u64 = 200;
/// How long a queue gets no hints.
const DEAF: Duration = Duration::from_secs(3);
/// A broker that was just killed may not answer.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

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
                let path = format!("queues/%2F/{WORK}/contents");
                self.ask(Method::DELETE, &path, &Value::Null).await?;
                Some(0)
            }
            Astray::Stolen => self.deafen().await,
            Astray::Doubled | Astray::Reordered => {
                self.listen().await?;
                let mut heard = self.take().await?;
                // They have all been delivered once by now.
                let times = if how == Astray::Doubled { 2 } else { 1 };
                heard.reverse();
                for message in &heard {
                    for _ in 0..times {
                        self.say_again(message).await;
                    }
                }
                Some(heard.len() * times)
            }
        }
    }

    /// Makes the queue that hears every event, unless it is there.
    async fn listen(&self) -> Option<()> {
        let queue = json!({
            "durable": true, "arguments": { "x-max-length": MEMORY, "x-overflow": "drop-head" },
        });
        let path = format!("queues/%2F/{EAR}");
        self.ask(Method::PUT, &path, &queue).await?;
        self.bind(EAR, "#").await
    }

    async fn bind(&self, queue: &str, key: &str) -> Option<()> {
        let path = format!("bindings/%2F/e/{EXCHANGE}/q/{queue}");
        self.ask(Method::POST, &path, &json!({ "routing_key": key }))
            .await
            .map(drop)
    }

    /// Lets every hint of work that is published meanwhile go nowhere.
    async fn deafen(&self) -> Option<usize> {
        let path = format!("bindings/%2F/e/{EXCHANGE}/q/{WORK}");
        let bindings = self.ask(Method::GET, &path, &Value::Null).await?;
        let bindings = bindings.as_array().cloned().unwrap_or_default();
        for binding in &bindings {
            let key = binding["properties_key"].as_str().unwrap_or("~");
            let path = format!("{path}/{key}");
            self.ask(Method::DELETE, &path, &Value::Null).await;
        }
        tokio::time::sleep(DEAF).await;
        for binding in &bindings {
            let key = binding["routing_key"].as_str().unwrap_or_default();
            while self.bind(WORK, key).await.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Some(0)
    }

    /// Takes what was heard.
    async fn take(&self) -> Option<Vec<Value>> {
        let wish = json!({ "count": MEMORY, "ackmode": "ack_requeue_false", "encoding": "auto" });
        let path = format!("queues/%2F/{EAR}/get");
        let taken = self.ask(Method::POST, &path, &wish).await?;
        Some(taken.as_array().cloned().unwrap_or_default())
    }

    /// Publishes what was heard once more, to the queue that it was for.
    async fn say_again(&self, message: &Value) {
        let topic = message["routing_key"].as_str().unwrap_or_default();
        let queue = if topic == super::agents::TOPIC {
            EVENTS
        } else {
            WORK
        };
        let mut properties = message["properties"].clone();
        // As the product itself marks what is addressed to a queue.
        properties["headers"]["x-topic"] = topic.into();
        let again = json!({
            "routing_key": queue, "properties": properties,
            "payload": message["payload"], "payload_encoding": message["payload_encoding"],
        });
        // A copy that the broker does not take is lost, and nothing is lost with it.
        self.ask(Method::POST, "exchanges/%2F/amq.default/publish", &again)
            .await;
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Option<Value> {
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
