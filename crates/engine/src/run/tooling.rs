//! Making tool calls, side by side, and journaling what came of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use domain::definition::{Definition, Effect};
use domain::step::{StepBody, ToolResult};
use domain::{Execution, ToolOutcome, ToolRun};
use futures::FutureExt;
use store::Then;
use tokio::time::Instant;
use tools::{Call, Checked, Toolbox};

use super::resolve::arguments;
use super::{Run, Stop};

/// What a tool may take beyond its time-out before the engine gives up on the adapter that should have kept it.
const GRACE: Duration = Duration::from_secs(5);

impl Run {
    /// Begins calls whose intents are durable.
    pub(super) fn begin_tools(&mut self, runs: Vec<ToolRun>) {
        for run in runs {
            let call = run.call;
            let (toolbox, definition, execution) = (
                self.core.ports.tools.clone(),
                self.definition.clone(),
                (self.facts_for_tools(), self.is_recorded()),
            );
            let lease = self.lease.clone();
            self.in_flight.insert(call);
            self.running.spawn(async move {
                let started = Instant::now();
                let effect = run.effect;
                // Caught here, so that a panic in a tool's code ends that call and nothing else.
                let work = lease.under(perform(toolbox, definition, execution, run));
                let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                    Ok(Some(outcome)) => outcome,
                    Ok(None) => silent(effect, "another took the execution over".to_owned()),
                    Err(_) => silent(effect, "the tool's code panicked".to_owned()),
                };
                (
                    call,
                    outcome,
                    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                )
            });
        }
    }

    /// Waits for the first of: a call's end, news from outside, the deadline, an unanswered question's end.
    pub(super) async fn await_tools(&mut self) -> Result<(), Stop> {
        let wake = self.next_time();
        let now = self.core.now();
        let sleep = (wake - now).to_std().unwrap_or_default();
        let ended = tokio::select! {
            biased;
            () = self.lease.interrupted() => None,
            ended = self.running.join_next() => ended,
            () = tokio::time::sleep(sleep) => None,
        };
        let Some(Ok((call, outcome, took_ms))) = ended else {
            return Ok(());
        };
        self.in_flight.remove(&call);
        self.record(StepBody::ToolResult(ToolResult {
            call,
            outcome,
            took_ms,
        }))?;
        if !self.in_flight.is_empty() {
            // Others may take long: what is known is made durable now. Otherwise the next action's flush does it.
            self.flush(Then::Continue).await?;
        }
        Ok(())
    }

    fn next_time(&self) -> domain::Time {
        let questions = self.state.open_requests();
        let questions = questions.map(|(_, _, until)| domain::decide::expiry(until));
        questions
            .chain(std::iter::once(self.execution.deadline))
            .min()
            .unwrap_or(self.execution.deadline)
    }

    fn is_recorded(&self) -> bool {
        let Execution {
            trace_id, upstream, ..
        } = &self.execution;
        self.core.is_recorded(trace_id, *upstream)
    }

    fn facts_for_tools(&self) -> Arc<Execution> {
        // The history can be long and no tool sees it.
        Arc::new(Execution {
            history: Vec::new(),
            ..self.execution.clone()
        })
    }
}

async fn perform(
    toolbox: Arc<dyn Toolbox>,
    definition: Arc<Definition>,
    (execution, is_recorded): (Arc<Execution>, bool),
    run: ToolRun,
) -> ToolOutcome {
    let Some(entry) = definition.tool(&run.entry) else {
        return ToolOutcome::Refused {
            message: format!("the agent has no tool {:?} any more", run.entry),
        };
    };
    let arguments = match arguments(&run.arguments) {
        Ok(arguments) => arguments,
        Err(message) => return ToolOutcome::Refused { message },
    };
    let timeout = Duration::from_secs(entry.timeout_seconds);
    let call = Call {
        entry,
        tool: &run.tool,
        arguments: &arguments,
        idempotency_key: &run.key,
        agent: &execution.agent,
        execution: execution.id,
        team: execution.team(),
        trace_id: &execution.trace_id,
        is_recorded,
        hops: execution.hops,
        timeout,
        pin: run.pin.as_ref(),
    };
    let work = async {
        if run.check_first {
            let Some(check) = entry
                .check
                .as_deref()
                .and_then(|name| definition.tool(name))
            else {
                return ToolOutcome::Unknown {
                    message: "its check tool is gone".to_owned(),
                };
            };
            match toolbox.check(call.clone(), check).await {
                Checked::Happened(content) => {
                    return ToolOutcome::Succeeded {
                        content,
                        truncated: false,
                    };
                }
                Checked::Unknown(message) => return ToolOutcome::Unknown { message },
                Checked::DidNotHappen => {}
            }
        }
        toolbox.call(call).await
    };
    match tokio::time::timeout(timeout * 2 + GRACE, work).await {
        Ok(outcome) => outcome,
        Err(_) => silent(
            run.effect,
            format!("no answer within {} s", timeout.as_secs()),
        ),
    }
}

/// The outcome of a call that nobody answered.
fn silent(effect: Effect, message: String) -> ToolOutcome {
    match effect {
        Effect::ReadOnly => ToolOutcome::Failed { message },
        Effect::Idempotent | Effect::Checkable | Effect::Unsafe => ToolOutcome::Unknown { message },
    }
}
