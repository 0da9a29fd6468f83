//! Slack, for the part that serves it.

use services::Service;
use services::slack::{Settings, Slack};

use super::System;
use super::listeners::Listeners;
use super::part::Role;

impl System {
    /// Everything at free ports of loopback, where Slack's requests are signed with this secret: for measuring.
    ///
    /// # Errors
    /// As for [`System::up`].
    pub(crate) async fn with_slack(
        settings: &crate::settings::Settings,
        secret: &str,
    ) -> anyhow::Result<Self> {
        let mut settings = settings.clone();
        settings.slack.signing_secrets = vec![secret.into()];
        settings.slack.bot_token = None;
        settings.slack.app_token = None;
        let system = Self::build(&settings, Role::EVERYTHING).await?;
        system
            .begun(async |system| {
                system.config.reload().await?;
                system.engine.start();
                let listeners = Listeners::private(system.role.services).await?;
                system.serve_slack_too(listeners)
            })
            .await
    }

    /// Serves, and does what Slack wants where it is served.
    ///
    /// # Errors
    /// As for [`System::serve`].
    pub(super) fn serve_slack_too(&mut self, listeners: Listeners) -> anyhow::Result<()> {
        let app = self.serve(listeners)?;
        if let Some(slack) = app.slack.clone() {
            self.tasks.spawn(slack.run(app));
        }
        Ok(())
    }

    /// Where SlackGateway listens; empty when nothing does.
    pub(crate) fn slack_url(&self) -> String {
        self.url(Service::SlackGateway)
    }

    /// Slack by the settings, for the listeners.
    ///
    /// # Errors
    /// There can be no HTTP client.
    pub(super) fn slack(&self) -> anyhow::Result<Slack> {
        let access = self.settings.slack.clone();
        let settings = Settings {
            api_url: access.api_url,
            bot_token: access.bot_token,
            app_token: access.app_token,
            signing_secrets: access.signing_secrets,
            lease: self.settings.work.lease,
        };
        Slack::new(settings).map_err(anyhow::Error::msg)
    }

    /// Logs how Slack is reached, a line.
    pub(super) fn say_how_slack_is_reached(&self) {
        let access = &self.settings.slack;
        let is_signed = !access.signing_secrets.is_empty();
        let ways = match (is_signed, access.app_token.is_some()) {
            (true, true) => "its requests, and Socket Mode",
            (true, false) => "its requests",
            (false, true) => "Socket Mode",
            (false, false) if access.bot_token.is_none() => "not set up: docs/slack.md",
            (false, false) => {
                "it can be written to, and not heard: set SLACK_SIGNING_SECRET or SLACK_APP_TOKEN"
            }
        };
        tracing::info!("Slack: {ways}");
        if (is_signed || access.app_token.is_some()) && access.bot_token.is_none() {
            tracing::warn!("Slack: SLACK_BOT_TOKEN is not set, so nothing is said there");
        }
    }
}
