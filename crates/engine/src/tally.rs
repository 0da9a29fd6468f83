//! What is counted of a step, once it is on disk. Names of agents, providers and models come from files of the operator's; no
//! word of a model's becomes a label.

use domain::definition::Provider;
use domain::{AgentName, Money, Step, StepBody, ToolOutcome, Usage};

/// What is counted of one step.
pub(crate) struct Tally {
    kind: &'static str,
    what: What,
}

enum What {
    Model {
        provider: Provider,
        model: String,
        usage: Usage,
        cost: Option<Money>,
        first_token_ms: Option<u64>,
    },
    Tool {
        outcome: &'static str,
        took_ms: u64,
    },
    Other,
}

impl Tally {
    pub(crate) fn of(step: &Step) -> Self {
        let what = match &step.body {
            StepBody::ModelCall(call) => What::Model {
                provider: call.provider,
                model: call.model.clone(),
                usage: call.usage,
                cost: call.cost_usd,
                first_token_ms: call.first_token_ms,
            },
            StepBody::ToolResult(result) => What::Tool {
                outcome: match result.outcome {
                    ToolOutcome::Succeeded { .. } => "succeeded",
                    ToolOutcome::Failed { .. } => "failed",
                    ToolOutcome::Refused { .. } => "refused",
                    ToolOutcome::Unknown { .. } => "unknown",
                },
                took_ms: result.took_ms,
            },
            _ => What::Other,
        };
        let kind = step.body.kind();
        Self { kind, what }
    }

    pub(crate) fn count(self, agent: &AgentName) {
        metrics::counter!("agentrunner_steps_total", "kind" => self.kind).increment(1);
        match self.what {
            What::Model {
                provider,
                model,
                usage,
                cost,
                first_token_ms,
            } => {
                let provider = provider.as_str();
                let labels = [
                    ("agent", agent.to_string()),
                    ("provider", provider.to_owned()),
                    ("model", model),
                ];
                let cached = usage.cached_tokens.0;
                // Each token is counted once, so that their sum is what was consumed.
                for (kind, tokens) in [
                    ("input", usage.input_tokens.0.saturating_sub(cached)),
                    ("cached_input", cached),
                    ("output", usage.output_tokens.0),
                ] {
                    let [agent, provider, model] = labels.clone();
                    let labels = [agent, provider, model, ("type", kind.to_owned())];
                    metrics::counter!("agentrunner_tokens_total", &labels).increment(tokens);
                }
                if let Some(cost) = cost {
                    metrics::histogram!("agentrunner_model_call_cost_usd", &labels)
                        .record(cost.usd());
                }
                if let Some(ms) = first_token_ms {
                    metrics::histogram!("agentrunner_model_first_token_seconds", "provider" => provider)
                        .record(seconds(ms));
                }
            }
            What::Tool { outcome, took_ms } => {
                let labels = [
                    ("agent", agent.to_string()),
                    ("outcome", outcome.to_owned()),
                ];
                metrics::counter!("agentrunner_tool_calls_total", &labels).increment(1);
                // What was not called took no time.
                if outcome != "refused" {
                    metrics::histogram!("agentrunner_tool_call_seconds").record(seconds(took_ms));
                }
            }
            What::Other => {}
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
