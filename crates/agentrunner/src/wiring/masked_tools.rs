//! Tools whose results hold no known secret, because what a tool says is journaled, shown, and sent to a model; and whose
//! refusals are told.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use domain::definition::Tool;
use domain::{AgentName, ConfigVersion, ToolOutcome};
use engine::{OnRefusal, Refusal};
use services::redact::Redactor;
use tools::egress::REFUSED;
use tools::{Call, Checked, Error, Offer, Toolbox, Toolkit};

pub(super) struct MaskedTools {
    inner: Arc<Toolkit>,
    redactor: Redactor,
    on_refusal: OnRefusal,
}

impl MaskedTools {
    pub(super) const fn new(
        inner: Arc<Toolkit>,
        redactor: Redactor,
        on_refusal: OnRefusal,
    ) -> Self {
        Self {
            inner,
            redactor,
            on_refusal,
        }
    }

    fn mask(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.redactor.mask(text) {
            *text = masked;
        }
    }
}

#[async_trait]
impl Toolbox for MaskedTools {
    async fn offers(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
        entries: &[Tool],
    ) -> Result<Arc<Vec<Offer>>, Error> {
        self.inner.offers(agent, version, entries).await
    }

    async fn call(&self, call: Call<'_>) -> ToolOutcome {
        let (agent, execution) = (call.agent.clone(), call.execution);
        let (tool, trace_id) = (call.tool.to_owned(), call.trace_id.clone());
        let mut outcome = self.inner.call(call).await;
        match &mut outcome {
            ToolOutcome::Succeeded { content, .. } => self.mask(content),
            ToolOutcome::Failed { message }
            | ToolOutcome::Refused { message }
            | ToolOutcome::Unknown { message } => self.mask(message),
        }
        let why = match &outcome {
            ToolOutcome::Refused { message } => Some(message.as_str()),
            ToolOutcome::Failed { message } => message.strip_prefix(REFUSED),
            ToolOutcome::Succeeded { .. } | ToolOutcome::Unknown { .. } => None,
        };
        if let Some(why) = why {
            (self.on_refusal)(Refusal {
                agent,
                execution,
                trace_id,
                tool,
                why: why.to_owned(),
            });
        }
        outcome
    }

    async fn check(&self, call: Call<'_>, check_entry: &Tool) -> Checked {
        let mut checked = self.inner.check(call, check_entry).await;
        if let Checked::Happened(text) | Checked::Unknown(text) = &mut checked {
            self.mask(text);
        }
        checked
    }
}
