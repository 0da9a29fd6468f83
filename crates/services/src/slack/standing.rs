//! Whose app a token is and what it may do, by one call that changes nothing. For `doctor`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::header::DATE;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::client::Client;

/// How long Slack may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 10;

/// What an app needs a scope for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without it nothing is heard or said.
    Always,
    /// To find its own messages after a crash.
    Again,
    /// If an agent answers a slash command.
    Commands,
    /// If an agent subscribes to reactions.
    Reactions,
}

/// The scopes that docs/slack.md gives an app.
pub const SCOPES: [(&str, Need); 8] = [
    ("app_mentions:read", Need::Always),
    ("chat:write", Need::Always),
    ("im:history", Need::Always),
    ("channels:history", Need::Again),
    ("groups:history", Need::Again),
    ("mpim:history", Need::Again),
    ("commands", Need::Commands),
    ("reactions:read", Need::Reactions),
];

/// What Slack says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The workspace.
    pub team: String,
    /// The app's user there.
    pub user: String,
    /// What it may do; `None` when Slack does not say.
    pub scopes: Option<Vec<String>>,
    /// What Slack's clock says, to the second, where it says so.
    pub date: Option<DateTime<Utc>>,
}

impl Standing {
    /// The scopes that are missing for these needs.
    pub fn missing(&self, is_needed: impl Fn(Need) -> bool) -> Vec<&'static str> {
        let Some(scopes) = &self.scopes else {
            return Vec::new();
        };
        let wanted = SCOPES.into_iter().filter(|(_, need)| is_needed(*need));
        wanted
            .map(|(scope, _)| scope)
            .filter(|scope| !scopes.iter().any(|has| has == scope))
            .collect()
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoStanding {
    /// Slack refuses the token, in a word.
    #[error("Slack says {0} to the token")]
    Refused(String),
    /// Nobody answers as Slack does.
    #[error("{0}")]
    Away(String),
}

/// Asks Slack whose token this is.
///
/// # Errors
/// It is nobody's, or Slack can't be asked.
pub async fn standing(api_url: &str, bot: &SecretString) -> Result<Standing, NoStanding> {
    let client = Client::new(api_url, None, None).map_err(NoStanding::Away)?;
    let away = |error: reqwest::Error| {
        let error = error.without_url();
        NoStanding::Away(format!("Slack at {api_url} can't be reached: {error}"))
    };
    let url = format!("{}/auth.test", api_url.trim_end_matches('/'));
    let request = client.http().post(url).bearer_auth(bot.expose_secret());
    let mut response = request.timeout(PATIENCE).send().await.map_err(away)?;
    let status = response.status();
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let scopes = header("x-oauth-scopes").map(|scopes| {
        let scopes = scopes.split(',').map(|scope| scope.trim().to_owned());
        scopes.filter(|scope| !scope.is_empty()).collect()
    });
    let date = header(DATE.as_str()).and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            let message = format!("what answers at {api_url} is not Slack: it goes on and on");
            return Err(NoStanding::Away(message));
        }
        body.extend_from_slice(&chunk);
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| answer.get(name)?.as_str().map(short);
    match answer.get("ok").and_then(Value::as_bool) {
        Some(true) => Ok(Standing {
            team: text("team").unwrap_or_default(),
            user: text("user").unwrap_or_default(),
            scopes,
            date: date.map(|date| date.to_utc()),
        }),
        Some(false) => Err(NoStanding::Refused(
            text("error").unwrap_or_else(|| "no".to_owned()),
        )),
        None => Err(NoStanding::Away(format!(
            "what answers at {api_url} is not Slack: {status}"
        ))),
    }
}

/// A word of a stranger's.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(scopes: Option<&[&str]>) -> Standing {
        Standing {
            team: String::new(),
            user: String::new(),
            scopes: scopes.map(|scopes| scopes.iter().map(|&scope| scope.to_owned()).collect()),
            date: None,
        }
    }

    #[test]
    fn only_what_is_needed_and_known_to_be_missing_is_missed() {
        let some = with(Some(&["chat:write", "app_mentions:read", "im:history"]));
        assert!(some.missing(|need| need == Need::Always).is_empty());
        assert_eq!(
            some.missing(|need| matches!(need, Need::Always | Need::Commands)),
            ["commands"]
        );
        assert_eq!(with(Some(&[])).missing(|_| true).len(), SCOPES.len());
        assert!(with(None).missing(|_| true).is_empty());
    }

    #[test]
    fn the_page_asks_for_these_scopes() {
        let page = include_str!("../../../../docs/slack.md");
        for (scope, _) in SCOPES {
            assert!(page.contains(&format!("      - {scope}")), "{scope}");
        }
    }
}
