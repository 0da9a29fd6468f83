//! What the stand-in holds: channels, messages, what was called, and who listens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::BOT_USER;

/// A message as it stands.
#[derive(Clone, Debug)]
pub struct SlackMessage {
    /// Its name.
    pub ts: String,
    /// The message that it answers.
    pub thread: Option<String>,
    /// Who wrote it.
    pub user: String,
    /// What it says now.
    pub text: String,
    /// Its blocks now.
    pub blocks: Vec<Value>,
    /// What the writer attached.
    pub metadata: Value,
    /// Each text that it had, the present one last.
    pub history: Vec<String>,
}

/// A call of the Web API.
#[derive(Clone, Debug)]
pub struct SlackCall {
    /// Which.
    pub method: String,
    /// When it came.
    pub at: Instant,
    /// Its arguments.
    pub arguments: Value,
    /// What was answered.
    pub status: u16,
}

/// What a connection of Socket Mode is told.
#[derive(Debug)]
pub(super) enum Order {
    Send(Value),
    Cut,
}

/// What happens to the next call of a method.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    Limit(u64),
    Error(String),
    Swallow,
}

#[derive(Debug, Default)]
pub(super) struct World {
    channels: BTreeMap<String, Vec<SlackMessage>>,
    pub(super) hidden: BTreeSet<String>,
    pub(super) whispers: Vec<(String, String)>,
    pub(super) calls: Vec<SlackCall>,
    pub(super) rejections: Vec<String>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    count: u64,
    listeners: BTreeMap<u64, mpsc::UnboundedSender<Order>>,
    /// Envelopes that are not acknowledged, and the connection that has each.
    open: BTreeMap<String, (Value, Option<u64>)>,
    pub(super) acknowledged: BTreeSet<String>,
    pub(super) opened: usize,
    /// What the app may do, when a test says so; all otherwise.
    pub(super) scopes: Option<String>,
}

impl World {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn ts(&mut self) -> String {
        let n = self.next();
        format!("1732440{:03}.{:06}", n / 1_000_000, n % 1_000_000)
    }

    pub(super) fn messages(&self, channel: &str) -> Vec<SlackMessage> {
        self.channels.get(channel).cloned().unwrap_or_default()
    }

    pub(super) fn person_writes(&mut self, channel: &str, user: &str, text: &str) -> String {
        let message = SlackMessage {
            ts: self.ts(),
            thread: None,
            user: user.to_owned(),
            text: text.to_owned(),
            blocks: Vec::new(),
            metadata: Value::Null,
            history: vec![text.to_owned()],
        };
        let ts = message.ts.clone();
        self.channels
            .entry(channel.to_owned())
            .or_default()
            .push(message);
        ts
    }

    pub(super) fn app_writes(
        &mut self,
        channel: &str,
        thread: Option<String>,
        text: &str,
        blocks: Vec<Value>,
        metadata: Value,
    ) -> String {
        let ts = self.person_writes(channel, BOT_USER, text);
        if let Some(message) = self.find(channel, &ts) {
            message.thread = thread;
            message.blocks = blocks;
            message.metadata = metadata;
        }
        ts
    }

    pub(super) fn find(&mut self, channel: &str, ts: &str) -> Option<&mut SlackMessage> {
        let messages = self.channels.get_mut(channel)?;
        messages.iter_mut().find(|message| message.ts == ts)
    }

    pub(super) fn remove(&mut self, channel: &str, ts: &str) {
        if let Some(messages) = self.channels.get_mut(channel) {
            messages.retain(|message| message.ts != ts);
        }
    }

    pub(super) fn limit(&mut self, method: &str, times: usize, retry_after: u64) {
        self.plan(method, times, &Fault::Limit(retry_after));
    }

    pub(super) fn fail(&mut self, method: &str, times: usize, error: &str) {
        self.plan(method, times, &Fault::Error(error.to_owned()));
    }

    pub(super) fn swallow(&mut self, method: &str, times: usize) {
        self.plan(method, times, &Fault::Swallow);
    }

    fn plan(&mut self, method: &str, times: usize, fault: &Fault) {
        let faults = self.faults.entry(method.to_owned()).or_default();
        faults.extend(std::iter::repeat_n(fault.clone(), times));
    }

    pub(super) fn fault(&mut self, method: &str) -> Option<Fault> {
        self.faults.get_mut(method)?.pop_front()
    }

    pub(super) fn connections(&self) -> usize {
        self.listeners.len()
    }

    pub(super) fn join(&mut self, orders: mpsc::UnboundedSender<Order>) -> u64 {
        let n = self.next();
        self.opened += 1;
        self.listeners.insert(n, orders);
        self.pass_on();
        n
    }

    pub(super) fn leave(&mut self, n: u64) {
        self.listeners.remove(&n);
        for (_, owner) in self.open.values_mut() {
            if *owner == Some(n) {
                *owner = None;
            }
        }
        self.pass_on();
    }

    pub(super) fn send(&mut self, kind: &str, payload: &Value) -> String {
        let id = format!("envelope-{}", self.next());
        let envelope = json!({
            "envelope_id": id, "type": kind, "payload": payload, "accepts_response_payload": false,
            "retry_attempt": 0, "retry_reason": "",
        });
        self.open.insert(id.clone(), (envelope, None));
        self.pass_on();
        id
    }

    /// Gives envelopes that nobody has to somebody who listens, in turn.
    fn pass_on(&mut self) {
        let listeners: Vec<u64> = self.listeners.keys().copied().collect();
        if listeners.is_empty() {
            return;
        }
        for (envelope, owner) in self.open.values_mut().filter(|(_, owner)| owner.is_none()) {
            self.count += 1;
            let n = listeners[usize::try_from(self.count).unwrap_or_default() % listeners.len()];
            if let Some(orders) = self.listeners.get(&n)
                && orders.send(Order::Send(envelope.clone())).is_ok()
            {
                *owner = Some(n);
            }
        }
    }

    pub(super) fn acknowledge(&mut self, id: &str) {
        self.open.remove(id);
        self.acknowledged.insert(id.to_owned());
    }

    pub(super) fn refresh(&mut self) {
        let word = json!({ "type": "disconnect", "reason": "refresh_requested", "debug_info": { "host": "stand-in" } });
        for orders in self.listeners.values() {
            orders.send(Order::Send(word.clone())).ok();
        }
    }

    pub(super) fn cut(&mut self) {
        for orders in self.listeners.values() {
            orders.send(Order::Cut).ok();
        }
    }
}
