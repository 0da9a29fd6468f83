//! A stand-in for Slack: its Web API with limits and errors, its Socket Mode, and its signatures.
//!
//! It keeps channels and their messages like the real one, and refuses what the real one refuses (a section of more than
//! 3,000 characters, an update of another's message, a token of the wrong kind), so a test ends with
//! `assert!(slack.rejections().is_empty())`. That it is right is proved by the official `slack_sdk`: see
//! `clients/python/slack_client.py`.

mod check;
mod payload;
mod service;
mod socket;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::server::Server;
pub use payload::{SlackUser, direct_message, mention, press, slash_command};
use service::Service;
pub use world::{SlackCall, SlackMessage};

/// The token that may write.
pub const BOT_TOKEN: &str = "xoxb-stand-in";
/// The token that may listen.
pub const APP_TOKEN: &str = "xapp-stand-in";
/// What requests are signed with.
pub const SIGNING_SECRET: &str = "stand-in-signing-secret";
/// The app's own user.
pub const BOT_USER: &str = "UBOT00001";
/// The workspace.
pub const TEAM: &str = "T00000001";

/// How long a test waits for something that should come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Slack. Dropping it is its death.
#[derive(Debug)]
pub struct SlackStandIn {
    server: Server,
    service: Service,
}

impl SlackStandIn {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let service = Service::default();
        let server = Server::start(0, service.router()).expect("a free port");
        service.set_address(server.address());
        Self { server, service }
    }

    /// The address of its Web API, as `SLACK_API_URL` wants it.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.server.address())
    }

    /// The messages of a channel, oldest first.
    #[must_use]
    pub fn messages(&self, channel: &str) -> Vec<SlackMessage> {
        self.service.look(|world| world.messages(channel))
    }

    /// The messages that only one person sees: who, and the text.
    #[must_use]
    pub fn whispers(&self) -> Vec<(String, String)> {
        self.service.look(|world| world.whispers.clone())
    }

    /// Every call of the Web API, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<SlackCall> {
        self.service.look(|world| world.calls.clone())
    }

    /// What was refused because Slack would refuse it, in words.
    #[must_use]
    pub fn rejections(&self) -> Vec<String> {
        self.service.look(|world| world.rejections.clone())
    }

    /// A person writes into a channel; answers the message's `ts`.
    #[must_use]
    pub fn write(&self, channel: &str, user: &str, text: &str) -> String {
        self.service
            .change(|world| world.person_writes(channel, user, text))
    }

    /// From now on the app has these scopes only, separated by commas.
    pub fn grant(&self, scopes: &str) {
        self.service
            .change(|world| world.scopes = Some(scopes.to_owned()));
    }

    /// From now on there is no such channel for the app.
    pub fn hide_channel(&self, channel: &str) {
        self.service
            .change(|world| world.hidden.insert(channel.to_owned()));
    }

    /// Answers the next `times` calls of a method by 429, with this `Retry-After` in seconds.
    pub fn limit(&self, method: &str, times: usize, retry_after: u64) {
        self.service
            .change(|world| world.limit(method, times, retry_after));
    }

    /// Answers the next `times` calls of a method by this error.
    pub fn fail(&self, method: &str, times: usize, error: &str) {
        self.service
            .change(|world| world.fail(method, times, error));
    }

    /// Does the next `times` calls of a method and breaks the connection instead of answering.
    pub fn swallow(&self, method: &str, times: usize) {
        self.service.change(|world| world.swallow(method, times));
    }

    /// Waits until `find` finds something in a channel.
    ///
    /// # Panics
    /// When it does not come; with what is there.
    pub async fn wait_for<T>(
        &self,
        channel: &str,
        find: impl Fn(&[SlackMessage]) -> Option<T>,
    ) -> T {
        let found = self.service.wait(|world| find(&world.messages(channel)));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("it did not come; there is {:#?}", self.messages(channel)),
        }
    }

    /// Waits until there are so many messages that only one person sees.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for_whispers(&self, n: usize) -> Vec<(String, String)> {
        let found = self
            .service
            .wait(|world| (world.whispers.len() >= n).then(|| world.whispers.clone()));
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.expect("so many whispers")
    }

    /// Waits until so many connections of Socket Mode are open.
    ///
    /// # Panics
    /// When they are not opened.
    pub async fn wait_for_connections(&self, n: usize) {
        let open = self
            .service
            .wait(|world| (world.connections() == n).then_some(()));
        let open = tokio::time::timeout(PATIENCE, open).await;
        open.expect("so many connections");
    }

    /// How many connections of Socket Mode were opened in all.
    #[must_use]
    pub fn connections_opened(&self) -> usize {
        self.service.look(|world| world.opened)
    }

    /// Sends an envelope (`events_api`, `slash_commands` or `interactive`) to one of the connections, and again to another
    /// when it closes without having acknowledged it; answers the envelope's id.
    #[must_use]
    pub fn send(&self, kind: &str, payload: &Value) -> String {
        self.service.change(|world| world.send(kind, payload))
    }

    /// Waits until an envelope is acknowledged.
    ///
    /// # Panics
    /// When it is not.
    pub async fn wait_for_acknowledgement(&self, envelope: &str) {
        let done = self
            .service
            .wait(|world| world.acknowledged.contains(envelope).then_some(()));
        let done = tokio::time::timeout(PATIENCE, done).await;
        done.expect("an acknowledgement");
    }

    /// The envelopes that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.service.look(|world| world.acknowledged.clone())
    }

    /// Asks every open connection to be opened anew.
    pub fn ask_for_refresh(&self) {
        self.service.change(world::World::refresh);
    }

    /// Breaks every open connection without a word.
    pub fn cut_connections(&self) {
        self.service.change(world::World::cut);
    }
}

/// The signature of a body, as `X-Slack-Signature` carries it.
///
/// # Panics
/// Never: any secret is a key.
#[must_use]
pub fn sign(secret: &str, timestamp: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(format!("v0:{timestamp}:{body}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v0={hex}")
}
