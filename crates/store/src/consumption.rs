//! Tokens and cost of steps, by model.

use domain::definition::Provider;
use domain::{Money, Step, StepBody, Time, Usage};

/// What steps of one model add to a day.
#[derive(Debug)]
pub(crate) struct Consumption {
    /// Whose model and which; the execution's last one when the steps have no model call.
    pub(crate) model: Option<(Provider, String)>,
    pub(crate) day: String,
    pub(crate) usage: Usage,
    pub(crate) cost: Money,
    pub(crate) model_calls: u32,
    pub(crate) tool_calls: u32,
}

/// What the steps consume. Tool calls, delegations to agents among them, count with the model that wanted them.
pub(crate) fn consumption(steps: &[Step], now: Time) -> Vec<Consumption> {
    let mut all: Vec<Consumption> = Vec::new();
    for step in steps {
        match &step.body {
            StepBody::ModelCall(call) => {
                let model = Some((call.provider, call.model.clone()));
                let entry = of_model(&mut all, model, now);
                entry.usage += call.usage;
                entry.cost += call.cost_usd.unwrap_or(Money::ZERO);
                entry.model_calls += 1;
            }
            StepBody::ToolIntent(_) | StepBody::ChildStarted { .. } => {
                let model = all.last().and_then(|last| last.model.clone());
                of_model(&mut all, model, now).tool_calls += 1;
            }
            _ => {}
        }
    }
    all
}

/// The last entry if it is of that model, else a new one.
fn of_model(
    all: &mut Vec<Consumption>,
    model: Option<(Provider, String)>,
    now: Time,
) -> &mut Consumption {
    if all.last().is_none_or(|last| last.model != model) {
        all.push(Consumption {
            model,
            day: now.format("%Y-%m-%d").to_string(),
            usage: Usage::default(),
            cost: Money::ZERO,
            model_calls: 0,
            tool_calls: 0,
        });
    }
    let last = all.len() - 1;
    #[expect(
        clippy::indexing_slicing,
        reason = "there is a last one: it was just made sure of"
    )]
    &mut all[last]
}
