//! How Slack is reached, and how it proves that it is Slack.

use secrecy::SecretString;

use super::values::{Mistake, Values};

/// What Slack's page of the app says.
#[derive(Debug, Clone)]
pub(crate) struct SlackAccess {
    pub(crate) api_url: String,
    pub(crate) bot_token: Option<SecretString>,
    pub(crate) app_token: Option<SecretString>,
    /// The present one first.
    pub(crate) signing_secrets: Vec<SecretString>,
}

impl SlackAccess {
    pub(super) fn read(values: &Values, mistakes: &mut Vec<Mistake>) -> Self {
        let secret = |name| {
            values
                .text(name)
                .map(str::trim)
                .filter(|text| !text.is_empty())
        };
        let mut mistake = |name: &str, message: &str| {
            mistakes.push(Mistake {
                name: name.to_owned(),
                value: String::new(),
                message: message.to_owned(),
            });
        };
        // Swapped, they would be refused by Slack without a word about which is which.
        let (bot, app) = (secret("SLACK_BOT_TOKEN"), secret("SLACK_APP_TOKEN"));
        if bot.is_some_and(|token| token.starts_with("xapp-")) {
            let message = "this is an App-Level Token, for SLACK_APP_TOKEN; the Bot User OAuth Token begins with xoxb-";
            mistake("SLACK_BOT_TOKEN", message);
        }
        if app.is_some_and(|token| token.starts_with("xoxb-")) {
            let message = "this is a Bot User OAuth Token, for SLACK_BOT_TOKEN; the App-Level Token begins with xapp-";
            mistake("SLACK_APP_TOKEN", message);
        }
        let present = secret("SLACK_SIGNING_SECRET");
        let previous = secret("SLACK_SIGNING_SECRET_PREVIOUS");
        if previous.is_some() && present.is_none() {
            let message = "it is taken besides SLACK_SIGNING_SECRET, which is not set";
            mistake("SLACK_SIGNING_SECRET_PREVIOUS", message);
        }
        let url = values.text("SLACK_API_URL");
        Self {
            api_url: url.unwrap_or(services::slack::API_URL).to_owned(),
            bot_token: bot.map(SecretString::from),
            app_token: app.map(SecretString::from),
            signing_secrets: present
                .into_iter()
                .chain(previous)
                .map(SecretString::from)
                .collect(),
        }
    }
}
