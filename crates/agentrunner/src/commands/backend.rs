//! Who answers a command: a server, or, when none runs, this process with the same store.

use domain::ExecutionId;
use serde_json::Value;

use crate::cli::{Context, Exit, block_on};
use crate::client::{Client, Refused};
use crate::telemetry;
use crate::wiring::{Purpose, System};

/// Something to ask, and what must be ended afterwards.
pub(crate) struct Backend {
    pub(crate) client: Client,
    /// StateManager.
    pub(crate) state: Client,
    /// ConfigService.
    pub(crate) configs: Client,
    /// SchedulerService.
    pub(crate) scheduler: Client,
    local: Option<System>,
}

impl Backend {
    /// What most commands are: some questions to whoever answers.
    ///
    /// # Errors
    /// Those of [`Backend::find`] and of `work`.
    pub(crate) fn with(
        context: &Context,
        purpose: Purpose,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        block_on(async {
            let backend = Self::find(context, purpose).await?;
            let result = work(&backend).await;
            backend.close().await;
            result
        })
    }

    /// Asks the server that is named; or the one at the usual port, if one answers; or else serves this one command
    /// itself, on a free port of loopback, so that every command has one way only.
    ///
    /// # Errors
    /// The named server does not answer, or this process can't serve: the store can't be opened, or agents are broken.
    pub(crate) async fn find(context: &Context, purpose: Purpose) -> anyhow::Result<Self> {
        let (listen, key) = (&context.settings.listen, &context.settings.access.own_key);
        let trust = &context.settings.trust;
        let to = |url: &str| anyhow::Ok(Client::new(url, trust)?.with_key(key.clone()));
        let client = to(&context.settings.server_url())?;
        let state = to(&beside(client.base(), listen.state_manager))?;
        let configs = to(&beside(client.base(), listen.config_service))?;
        let scheduler = to(&beside(client.base(), listen.scheduler))?;
        if context.settings.server.is_some() {
            // Fails with the reason, when nobody is there.
            client.get("/health/live").await?;
            return Ok(Self {
                client,
                state,
                configs,
                scheduler,
                local: None,
            });
        }
        if client.answers().await {
            tracing::debug!(server = client.base(), "a server answers");
            return Ok(Self {
                client,
                state,
                configs,
                scheduler,
                local: None,
            });
        }
        let system = System::private(&context.settings, purpose).await?;
        let to = |url: &str| anyhow::Ok(Client::new(url, trust)?.with_key(system.own_key()));
        let client = to(&system.orchestrator_url())?;
        let state = to(&system.state_manager_url())?;
        let configs = to(&system.config_service_url())?;
        let scheduler = to(&system.scheduler_url())?;
        Ok(Self {
            client,
            state,
            configs,
            scheduler,
            local: Some(system),
        })
    }

    /// Whether this process does the work itself.
    pub(crate) const fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// The steps of an execution, oldest first. They are StateManager's to show.
    ///
    /// # Errors
    /// There is no such execution, or nobody answers.
    pub(crate) async fn journal(&self, id: ExecutionId) -> anyhow::Result<Vec<Value>> {
        let path = format!("/executions/{id}/steps");
        match self
            .state
            .get_with(&path, &[("limit", "1000".to_owned())])
            .await?
        {
            Value::Array(steps) => Ok(steps),
            _ => anyhow::bail!(
                "{} does not answer a list of steps; is it AgentRunner?",
                self.state.base()
            ),
        }
    }

    /// What a conversation holds; `None` when there is none. That is StateManager's to show.
    ///
    /// # Errors
    /// Nobody answers, or the conversation's name is not one.
    pub(crate) async fn conversation(
        &self,
        agent: &str,
        conversation: &str,
    ) -> anyhow::Result<Option<Value>> {
        let path = format!("/agents/{agent}/state");
        let which = [
            ("conversation_id", conversation.to_owned()),
            ("limit", "1000".to_owned()),
        ];
        match self.state.get_with(&path, &which).await {
            Ok(state) => Ok(Some(state)),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if refused.code == "NOT_FOUND" => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Ends what was begun for the command.
    pub(crate) async fn close(self) {
        if let Some(system) = self.local {
            system.shutdown(std::time::Duration::ZERO).await;
        }
    }
}

/// The same host at another port.
pub(super) fn beside(base: &str, port: u16) -> String {
    match reqwest::Url::parse(base) {
        Ok(mut url) => {
            // Only an address without a host can't have a port, and such a one was refused with the settings.
            let _is_set = url.set_port(Some(port));
            url.to_string()
        }
        Err(_) => base.to_owned(),
    }
}
