//! Whether Slack takes the token, and gives the app what it needs.

use domain::Definition;
use services::slack::{Need, NoStanding, standing};

use super::Finding;
use super::clocks::Told;
use crate::settings::Settings;
use crate::wiring::own_clock;

const WHAT: &str = "Slack";
const REACTION: &str = "slack.event.reaction_added";

/// Asks Slack, when there is a token for it; and what its clock says.
pub(super) async fn check(
    settings: &Settings,
    agents: &[Definition],
) -> (Vec<Finding>, Option<Told>) {
    let access = &settings.slack;
    let Some(bot) = &access.bot_token else {
        let is_heard = access.app_token.is_some() || !access.signing_secrets.is_empty();
        let mute = is_heard.then(|| {
            let found = "SLACK_BOT_TOKEN is not set, so nothing is said there";
            let advice = "put SLACK_BOT_TOKEN=xoxb-... into .env: docs/slack.md says where it is";
            Finding::failed(WHAT, found, advice)
        });
        return (mute.into_iter().collect(), None);
    };
    let clock = own_clock(settings);
    let asked = clock();
    let standing = match standing(&access.api_url, bot).await {
        Ok(standing) => standing,
        Err(error) => {
            let advice = match error {
                NoStanding::Refused(_) => {
                    "put the app's Bot User OAuth Token (OAuth & Permissions) into .env as SLACK_BOT_TOKEN"
                }
                NoStanding::Away(_) => {
                    "check the network, a proxy (HTTPS_PROXY), and SLACK_API_URL"
                }
            };
            return (vec![Finding::failed(WHAT, error.to_string(), advice)], None);
        }
    };
    let told = standing
        .date
        .map(|date| Told::roughly(WHAT, date, (asked, clock())));
    let mut findings = Vec::new();
    let missing = standing.missing(|need| is_needed(need, agents));
    let who = format!("{} in the workspace {}", standing.user, standing.team);
    findings.push(if missing.is_empty() {
        let scopes = match standing.scopes {
            Some(_) => "with the scopes that are needed",
            None => "and does not say with which scopes",
        };
        Finding::good(WHAT, format!("it takes the token of {who}, {scopes}"))
    } else {
        Finding::failed(
            WHAT,
            format!("the app {who} lacks {}", missing.join(", ")),
            "add the scopes at https://api.slack.com/apps (OAuth & Permissions), and install the app again",
        )
    });
    if access.app_token.is_none() && access.signing_secrets.is_empty() {
        let found = "it can be written to, and not heard";
        let advice =
            "put SLACK_SIGNING_SECRET=... or, for Socket Mode, SLACK_APP_TOKEN=xapp-... into .env";
        findings.push(Finding::warning(WHAT, found, advice));
    }
    (findings, told)
}

fn is_needed(need: Need, agents: &[Definition]) -> bool {
    match need {
        Need::Always | Need::Again => true,
        Need::Commands => agents
            .iter()
            .filter_map(|agent| agent.slack.as_ref())
            .any(|slack| !slack.commands.is_empty()),
        Need::Reactions => agents
            .iter()
            .flat_map(|agent| &agent.event_subscriptions)
            .any(|pattern| pattern.as_str() == REACTION),
    }
}
