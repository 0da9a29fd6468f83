//! Taking a person's answer in.

use domain::step::{Answer, Question, StepBody};
use domain::{ExecutionId, Seq};
use store::{InboxFilter, InputAnswer, NewInput};

use crate::Error;
use crate::pins;
use crate::run::resolve::valid_arguments;
use crate::shared::Shared;

/// Gives it to the store. Other arguments than the model's are checked first: what a person writes must be what the tool
/// takes, as for the model.
pub(crate) async fn answer(core: &Shared, mut input: NewInput) -> Result<InputAnswer, Error> {
    if let Answer::Edit { arguments } = &input.answer
        && let Some((request, tool)) = asked_about(core, &input).await?
    {
        check(core, input.id, &tool, arguments).await?;
        input.request = Some(request);
    }
    let id = input.id;
    let answer = core.ports.store.deliver_input(input).await?;
    core.leases.tell_news(id);
    Ok(answer)
}

/// The call that the question is about, when it is about one that is to be approved.
async fn asked_about(core: &Shared, input: &NewInput) -> Result<Option<(Seq, String)>, Error> {
    let store = &core.ports.store;
    let request = match input.request {
        Some(request) => Some(request),
        None => {
            let filter = InboxFilter {
                agents: Vec::new(),
                execution: Some(input.id),
                kind: None,
                now: input.now,
                after: None,
                limit: 2,
            };
            match store.inbox(filter).await?.0.as_slice() {
                [only] => Some(only.request),
                // The store says what is wrong.
                _ => None,
            }
        }
    };
    let Some(request) = request else {
        return Ok(None);
    };
    let before = request.get().checked_sub(1).map(Seq::new);
    let step = store.steps(input.id, before, 1).await?.pop();
    Ok(step.and_then(|step| match step.body {
        StepBody::InputRequested(asked) if step.seq == request => match asked.question {
            Question::Approval { tool, .. } => Some((request, tool)),
            Question::Clarification { .. }
            | Question::UnknownOutcome { .. }
            | Question::Plan { .. } => None,
        },
        _ => None,
    }))
}

async fn check(core: &Shared, id: ExecutionId, tool: &str, arguments: &str) -> Result<(), Error> {
    let row = core.ports.store.execution(id).await?;
    let execution = row.ok_or(Error::UnknownExecution(id))?.execution;
    let definition = core
        .definitions
        .get(&execution.agent, &execution.version)
        .await?;
    let definition = definition.map_err(|failure| Error::ToolsUnavailable(failure.message))?;
    let offers = core
        .ports
        .tools
        .offers(&execution.agent, &execution.version, &definition.tools)
        .await
        .map_err(|error| Error::ToolsUnavailable(error.to_string()))?;
    let granted = pins::grant(core, &execution, offers).await?;
    if granted.withheld.contains(tool) {
        return Err(Error::ToolsUnavailable(domain::pin::withheld(
            &execution.agent,
            tool,
        )));
    }
    let offers = granted.offers;
    let offer = offers.iter().find(|offer| offer.name == tool);
    let offer = offer
        .ok_or_else(|| Error::ToolsUnavailable(format!("tool {tool:?} is not offered any more")))?;
    valid_arguments(&core.schemas, offer, arguments)
        .map(drop)
        .map_err(|message| Error::Invalid {
            field: "arguments",
            message,
        })
}
