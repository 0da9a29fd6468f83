//! SlackGateway: Slack's events, commands and buttons come in; answers and questions go out.
//!
//! What Slack sends is taken in as an errand ([`store::Errands`]) before Slack is answered, once for each event however
//! often and to whichever process it is sent ([`receive`], [`socket`]). From there everything follows from what is on
//! disk: [`intake`] gives an agent work, [`reply`] tells what becomes of it in the thread, and [`outgoing`] sends what
//! else is to be sent. An errand is done by one process at a time; when that one dies, another goes on where it was.

mod blocks;
mod choose;
mod client;
mod decide;
mod gateway;
mod incoming;
mod intake;
mod messages;
mod mrkdwn;
mod notice;
mod outgoing;
mod pace;
mod receive;
mod reply;
mod signature;
mod signed;
mod socket;
mod split;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Notify;
use utoipa_axum::routes;

use crate::http::App;
use crate::http::door::{OPEN, OPERATE, Owner, Routes};
use client::Client;
pub(crate) use mrkdwn::escape;
pub use standing::{Need, NoStanding, SCOPES, Standing, standing};

/// Slack's own address.
pub const API_URL: &str = "https://slack.com/api";

/// How Slack is reached, and proves itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the Web API is; the tokens go there and nowhere else.
    pub api_url: String,
    /// Lets us write.
    pub bot_token: Option<SecretString>,
    /// Lets us use Socket Mode.
    pub app_token: Option<SecretString>,
    /// Prove that requests come from Slack: the present secret, and the one before while it is replaced.
    pub signing_secrets: Vec<SecretString>,
    /// How long an errand is one process's without a sign of life.
    pub lease: Duration,
}

/// Slack, as this process serves it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Slack(Arc<Inner>);

struct Inner {
    signing_secrets: Vec<SecretString>,
    /// None without a token.
    client: Option<Client>,
    lease: Duration,
    /// Told when something has come in.
    came: Notify,
    /// Told when something is to go out.
    goes: Notify,
}

impl Slack {
    /// Slack by these settings.
    ///
    /// # Errors
    /// There can be no HTTP client.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let tokens = (settings.bot_token, settings.app_token);
        let client = match tokens {
            (None, None) => None,
            (bot, app) => Some(Client::new(&settings.api_url, bot, app)?),
        };
        Ok(Self(Arc::new(Inner {
            signing_secrets: settings.signing_secrets,
            client,
            lease: settings.lease,
            came: Notify::new(),
            goes: Notify::new(),
        })))
    }

    /// Does what comes in and what is to go out, until the app's shutdown.
    pub async fn run(self, app: App) {
        gateway::run(self, app).await;
    }

    /// How it stands: a word, and what is the matter when something is.
    pub(crate) fn health(&self) -> (&'static str, Option<String>) {
        match &self.0.client {
            Some(client) => match client.trouble() {
                Some(trouble) => ("degraded", Some(trouble)),
                None => ("ok", None),
            },
            None if self.0.signing_secrets.is_empty() => ("not_configured", None),
            None => {
                let why = "SLACK_BOT_TOKEN is not set, so nothing is said in Slack";
                ("degraded", Some(why.to_owned()))
            }
        }
    }

    /// The client that can write, if there is a token for it.
    fn writer(&self) -> Option<&Client> {
        self.0.client.as_ref().filter(|client| client.can_write())
    }
}

/// The routes.
pub(crate) fn routes() -> Routes {
    Routes::new()
        // Whoever comes shows Slack's signature instead of a key.
        .with(OPEN, routes!(receive::events))
        .with(OPEN, routes!(receive::commands))
        .with(OPEN, routes!(receive::interactive))
        .with(OPERATE.of(Owner::Everybody), routes!(messages::send))
        .with(
            OPERATE.of(Owner::Everybody),
            routes!(messages::change, messages::remove),
        )
}
