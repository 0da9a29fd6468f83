//! What events look like on the wire, and the headers that go with them.

use std::collections::BTreeSet;

use domain::{Event, Time, Topic, TopicPattern, TraceId};
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, message::Delivery as Arrival};
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::publisher::Parcel;
use crate::MAX_ATTEMPTS;

/// The largest event, in bytes of JSON, that is published or read.
pub(super) const MAX_BODY: usize = 16 << 20;
/// The longest reason that is kept, in bytes; and how much of an unreadable message is shown.
const MAX_REASON: usize = 1 << 10;
const MAX_SHOWN: usize = 64 << 10;

/// How often it was tried.
const ATTEMPT: &str = "x-attempt";
/// Why the last try failed.
const REASON: &str = "x-reason";
/// Why each try failed.
const HISTORY: &str = "x-history";
/// What it was published as; a message in a queue of its own kind is addressed to that queue.
const TOPIC: &str = "x-topic";
/// Set by the broker when it gave up by itself.
const DEATH: &str = "x-first-death-reason";

const PERSISTENT: u8 = 2;

/// An event on its way out.
pub(super) fn outgoing(exchange: &ShortString, event: &Event) -> Result<Parcel, Failure> {
    let body = event.to_cloud_event().to_string().into_bytes();
    if body.len() > MAX_BODY {
        let (id, size) = (&event.id, body.len());
        let message =
            format!("the event {id} has {size} bytes, more than the {MAX_BODY} that are allowed");
        return Err(Failure::refused(message));
    }
    let properties = properties(short(event.id.as_str())?)
        .with_content_type("application/cloudevents+json".into())
        .with_type(short(event.topic.as_str())?);
    Ok(Parcel {
        exchange: exchange.clone(),
        routing_key: short(event.topic.as_str())?,
        properties,
        body,
    })
}

/// The record of what a queue is bound by.
pub(super) fn record(
    queue: &ShortString,
    patterns: &BTreeSet<TopicPattern>,
) -> Result<Parcel, Failure> {
    let body = serde_json::to_vec(patterns).map_err(|error| Failure::refused(error.to_string()))?;
    Ok(Parcel {
        exchange: ShortString::default(),
        routing_key: queue.clone(),
        properties: properties("patterns".into()).with_content_type("application/json".into()),
        body,
    })
}

fn properties(message_id: ShortString) -> BasicProperties {
    BasicProperties::default()
        .with_message_id(message_id)
        .with_delivery_mode(PERSISTENT)
        .with_app_id("agentrunner".into())
}

fn short(text: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(text)
        .map_err(|error| Failure::refused(format!("{text:.40?} is too long for AMQP: {error}")))
}

/// Reads an event. The reason says why it is none.
pub(super) fn read(body: &[u8]) -> Result<Event, String> {
    if body.len() > MAX_BODY {
        let size = body.len();
        return Err(format!(
            "it has {size} bytes, more than the {MAX_BODY} that are allowed"
        ));
    }
    let envelope: Value =
        serde_json::from_slice(body).map_err(|error| format!("it is not JSON: {error}"))?;
    Event::from_cloud_event(envelope).map_err(|error| error.to_string())
}

/// A message in our hands, as it is passed on when it is not done with.
pub(super) struct Letter {
    properties: BasicProperties,
    topic: String,
    body: Vec<u8>,
}

impl Letter {
    pub(super) fn new(arrival: &mut Arrival) -> Self {
        let topic = match header(&arrival.properties, TOPIC) {
            Some(AMQPValue::LongString(topic)) => topic.to_string(),
            _ => arrival.routing_key.as_str().to_owned(),
        };
        Self {
            properties: arrival.properties.clone(),
            topic,
            body: std::mem::take(&mut arrival.data),
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// For logs: the event's id, if it has one.
    pub(super) fn id(&self) -> &str {
        let id = self.properties.message_id().as_ref();
        id.map_or("", ShortString::as_str)
    }

    /// How often it was tried before.
    pub(super) fn tried(&self) -> u32 {
        let tried = header(&self.properties, ATTEMPT).and_then(whole);
        // Anybody can write a header.
        tried.map_or(0, |tried| tried.clamp(0, i64::from(MAX_ATTEMPTS)) as u32)
    }

    /// How often the broker handed it out before without hearing of it.
    pub(super) fn returns(&self) -> u32 {
        let count = header(&self.properties, "x-delivery-count").and_then(whole);
        u32::try_from(count.unwrap_or(0)).unwrap_or(0)
    }

    /// Why it was given up.
    pub(super) fn reason(&self) -> String {
        match (
            header(&self.properties, REASON),
            header(&self.properties, DEATH),
        ) {
            (Some(AMQPValue::LongString(reason)), _) => reason.to_string(),
            (_, Some(AMQPValue::LongString(death))) if death.as_bytes() == b"delivery_limit" => {
                "its consumers, or their connections, ended each time without a word about it"
                    .to_owned()
            }
            (_, Some(AMQPValue::LongString(death))) => format!("RabbitMQ gave it up: {death}"),
            _ => "nobody said why".to_owned(),
        }
    }

    /// The message addressed to `queue`, after its `attempt` ended with `reason`.
    pub(super) fn to(&self, queue: &ShortString, attempt: u32, reason: &str) -> Parcel {
        let reason = cut(reason, MAX_REASON);
        let mut history = match header(&self.properties, HISTORY) {
            Some(AMQPValue::FieldArray(history)) => history.clone(),
            _ => FieldArray::default(),
        };
        if history.as_slice().len() < MAX_ATTEMPTS as usize {
            history.push(long(&format!("attempt {attempt}: {reason}")));
        }
        let mut headers = FieldTable::default();
        headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(i64::from(attempt)));
        headers.insert(REASON.into(), long(reason));
        headers.insert(HISTORY.into(), AMQPValue::FieldArray(history));
        headers.insert(TOPIC.into(), long(&self.topic));
        let before = &self.properties;
        let mut properties = properties(before.message_id().clone().unwrap_or_default());
        // Whatever else came with it, such as an expiry of its own, ends here.
        properties = properties.with_headers(headers);
        if let Some(kind) = before.content_type() {
            properties = properties.with_content_type(kind.clone());
        }
        if let Some(kind) = before.kind() {
            properties = properties.with_type(kind.clone());
        }
        Parcel {
            exchange: ShortString::default(),
            routing_key: queue.clone(),
            properties,
            body: self.body.clone(),
        }
    }

    /// An event that shows what could not be read, so that it can be listed with the other dead letters. The same
    /// message always gives the same one.
    pub(super) fn unreadable(&self, queue: &str) -> Option<Event> {
        let topic = self.topic.parse::<Topic>();
        let trace_id = TraceId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, &self.body));
        let id = match self.id() {
            "" => format!("unreadable-{trace_id}"),
            id => id.to_owned(),
        };
        let time = self
            .properties
            .timestamp()
            .and_then(|seconds| Time::from_timestamp(i64::try_from(seconds).ok()?, 0));
        Some(Event {
            id: id
                .parse()
                .ok()
                .or_else(|| format!("unreadable-{trace_id}").parse().ok())?,
            topic: topic.ok().or_else(|| "unreadable".parse().ok())?,
            source: format!("rabbitmq/{queue}"),
            // Better no time than a wrong one: there is always one in a readable event.
            time: time.unwrap_or(Time::UNIX_EPOCH),
            trace_id,
            hops: 0,
            data: serde_json::json!({
                "unreadable": cut(&String::from_utf8_lossy(&self.body), MAX_SHOWN),
                "bytes": self.body.len(),
                "topic": self.topic,
            }),
        })
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// A number, in whichever of AMQP's forms.
fn whole(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// The beginning of a text, at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}
