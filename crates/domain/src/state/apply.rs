//! Which step may follow, and what it makes of a state.

use super::{Call, IllegalStep, ModelTurn, Progress, State, Turn};
use crate::execution::{Outcome, Totals};
use crate::id::{AgentName, Epoch, ExecutionId, Seq};
use crate::message::{Message, Reply, StopReason};
use crate::prompt::Purpose;
use crate::pruning;
use crate::step::{
    Answer, CallRef, CallTarget, InputReceived, InputRequest, ModelCall, Question, Remedy, Step,
    StepBody, ToolIntent, ToolOutcome, ToolResult,
};
use crate::{Money, Time};

impl State {
    /// Takes one step.
    ///
    /// # Errors
    /// The step cannot follow; the state is as it was.
    pub fn apply(&mut self, step: &Step) -> Result<(), IllegalStep> {
        let illegal = |why: String| IllegalStep {
            seq: step.seq,
            kind: step.body.kind(),
            why,
        };
        if step.seq != self.next_seq {
            return Err(illegal(format!("the next is {}", self.next_seq)));
        }
        if let Turn::Done(_) = self.turn {
            return Err(illegal("the execution is over".to_owned()));
        }
        match &step.body {
            StepBody::ModelCall(call) => self.model_called(step.seq, call),
            StepBody::Timer { until, reason } => self.model_failed(*until, reason),
            StepBody::ToolIntent(intent) => self.intended(step.epoch, intent),
            StepBody::ToolResult(result) => self.tool_settled(result),
            StepBody::Plan(planning) => self.planned(step.seq, planning),
            StepBody::ChildStarted {
                call,
                child,
                agent,
                budget,
            } => match &mut self.team {
                Some(team) => {
                    let begun =
                        team.child_started(*call, *child, agent, budget.unwrap_or_default());
                    self.totals.tool_calls += u32::from(begun.is_ok());
                    begun
                }
                None => self.child_started(*call, *child, agent),
            },
            StepBody::ChildFinished {
                call,
                child,
                outcome,
                spent,
            } => match &mut self.team {
                Some(team) => {
                    let ended = team.child_finished(*call, *child, outcome, *spent);
                    if ended.is_ok() {
                        self.delegated += *spent;
                    }
                    ended
                }
                None => self.child_finished(*call, *child, outcome, *spent),
            },
            StepBody::InputRequested(request) => match &mut self.team {
                Some(team) => team.asked(step.seq, request),
                None => self.asked(step.seq, request),
            },
            StepBody::InputReceived(input) => match &mut self.team {
                Some(team) => team.answered(input),
                None => self.answered(input),
            },
            StepBody::Note { .. } => Ok(()),
            StepBody::Finished { outcome } => {
                self.turn = Turn::Done(outcome.clone());
                Ok(())
            }
        }
        .map_err(illegal)?;
        self.next_seq = step.seq.plus(1);
        self.close_turn();
        self.branch_off(step.seq.get());
        Ok(())
    }

    fn model_called(&mut self, seq: Seq, call: &ModelCall) -> Result<(), String> {
        let Turn::Model(_) = self.turn else {
            return Err("it is not the model's turn".to_owned());
        };
        if let Purpose::Summary { covers } = call.purpose {
            return self.summarised(covers as usize, call);
        }
        if self.team.is_some() {
            return self.coordinated(call);
        }
        if call.targets.len() != call.reply.tool_calls.len() {
            return Err("the targets do not match the tool calls".to_owned());
        }
        self.consumed(call);
        self.transcript.push(Message::Assistant(call.reply.clone()));
        let calls = call.reply.tool_calls.iter().zip(&call.targets).zip(0u16..);
        self.turn = if call.reply.tool_calls.is_empty() {
            Turn::Answered {
                output: call.reply.text.clone(),
                structured: call.structured.clone(),
                stop: call.reply.stop,
                violations: call.violations.clone(),
            }
        } else {
            Turn::Tools(
                calls
                    .map(|((wish, target), index)| Call {
                        call: CallRef { turn: seq, index },
                        wish: wish.clone(),
                        target: target.clone(),
                        progress: Progress::Proposed,
                        is_edited: false,
                        handed_over: None,
                    })
                    .collect(),
            )
        };
        Ok(())
    }

    pub(super) fn consumed(&mut self, call: &ModelCall) {
        self.totals.usage += call.usage;
        self.totals.cost_usd += call.cost_usd.unwrap_or(Money::ZERO);
        self.totals.model_calls += 1;
    }

    /// The digest takes the place of what it covers. One that says nothing is as good as none.
    fn summarised(&mut self, covers: usize, call: &ModelCall) -> Result<(), String> {
        if covers == 0 || covers > self.own {
            return Err(format!("there are no {covers} messages to summarise"));
        }
        self.consumed(call);
        self.summaries += 1;
        let is_useless =
            call.reply.text.trim().is_empty() || call.reply.stop == StopReason::Refusal;
        if is_useless {
            self.summary_failed = true;
        } else {
            let digest = pruning::digest(&call.reply.text);
            self.transcript.splice(..covers, [digest]);
            self.own = self.own + 1 - covers;
            self.has_new_digest = true;
        }
        self.turn = Turn::Model(ModelTurn::default());
        Ok(())
    }

    fn model_failed(
        &mut self,
        until: Time,
        reason: &crate::step::ModelFailure,
    ) -> Result<(), String> {
        let failure = Some((reason.class, reason.message.clone()));
        match &mut self.turn {
            Turn::Model(turn) => {
                match reason.remedy {
                    Remedy::None => {}
                    Remedy::NoSummary => self.summary_failed = true,
                    Remedy::Prune { bytes } => {
                        self.ceiling = Some(bytes);
                        self.squeezes += 1;
                    }
                }
                *turn = ModelTurn {
                    choice: reason.next_choice,
                    attempt: reason.attempt,
                    not_before: Some(until),
                    last_failure: failure,
                };
                Ok(())
            }
            // An answer that misses the schema is sent back: the same wait, and words to the model.
            Turn::Answered { violations, .. } if !violations.is_empty() => {
                let text = repair_request(violations);
                self.transcript.push(Message::User { text });
                self.repairs += 1;
                self.turn = Turn::Model(ModelTurn {
                    choice: reason.next_choice,
                    ..ModelTurn::default()
                });
                Ok(())
            }
            Turn::Answered { .. } | Turn::Tools(_) | Turn::Done(_) => {
                Err("it is not the model's turn".to_owned())
            }
        }
    }

    fn intended(&mut self, epoch: Epoch, intent: &ToolIntent) -> Result<(), String> {
        let call = self.call_mut(intent.call)?;
        let may_run = match (&call.target, &call.progress) {
            (
                CallTarget::Tool {
                    approval: false, ..
                },
                Progress::Proposed,
            ) => true,
            (CallTarget::Tool { .. }, Progress::Allowed { key }) => {
                key.as_ref().is_none_or(|key| *key == intent.key)
            }
            _ => false,
        };
        if !may_run {
            return Err(format!("call {} may not run now", intent.call));
        }
        call.progress = Progress::Intended {
            epoch,
            key: intent.key.clone(),
            by_word: matches!(call.progress, Progress::Allowed { key: Some(_) }),
        };
        self.totals.tool_calls += 1;
        Ok(())
    }

    fn tool_settled(&mut self, result: &ToolResult) -> Result<(), String> {
        let call = self.call_mut(result.call)?;
        call.progress = match (&call.progress, &result.outcome) {
            (Progress::Intended { key, .. }, ToolOutcome::Unknown { message }) => {
                Progress::Unknown {
                    key: key.clone(),
                    times: 1,
                    known: message.clone(),
                }
            }
            (Progress::Unknown { key, times, .. }, ToolOutcome::Unknown { message }) => {
                Progress::Unknown {
                    key: key.clone(),
                    times: times + 1,
                    known: message.clone(),
                }
            }
            (Progress::Intended { .. } | Progress::Unknown { .. }, outcome) => {
                Progress::Settled(outcome.clone())
            }
            (
                Progress::Proposed | Progress::Allowed { .. } | Progress::Asked { .. },
                refused @ ToolOutcome::Refused { .. },
            ) => Progress::Settled(refused.clone()),
            _ => return Err(format!("call {} has nothing to settle", result.call)),
        };
        Ok(())
    }

    fn child_started(
        &mut self,
        call: CallRef,
        child: ExecutionId,
        agent: &AgentName,
    ) -> Result<(), String> {
        let entry = self.call_mut(call)?;
        let may_start = match (&entry.target, &entry.progress) {
            (CallTarget::Agent { approval, .. }, Progress::Proposed) => !approval,
            (CallTarget::Agent { .. }, Progress::Allowed { .. }) => true,
            _ => false,
        };
        if !may_start {
            return Err(format!("call {call} starts no agent"));
        }
        entry.progress = Progress::Delegated {
            child,
            agent: agent.clone(),
        };
        self.totals.tool_calls += 1;
        Ok(())
    }

    fn child_finished(
        &mut self,
        call: CallRef,
        child: ExecutionId,
        outcome: &Outcome,
        spent: Totals,
    ) -> Result<(), String> {
        let entry = self.call_mut(call)?;
        match &entry.progress {
            Progress::Delegated {
                child: expected, ..
            } if *expected == child => {}
            _ => return Err(format!("call {call} does not wait for {child}")),
        }
        if let (
            CallTarget::Agent {
                hand_over: true, ..
            },
            Outcome::Completed {
                structured, stop, ..
            },
        ) = (&entry.target, outcome)
        {
            entry.handed_over = Some((structured.clone(), *stop));
        }
        entry.progress = Progress::Settled(match outcome {
            Outcome::Completed { output, .. } => ToolOutcome::Succeeded {
                content: output.clone(),
                truncated: false,
            },
            other => ToolOutcome::Failed {
                message: format!("the agent did not finish: {}", other.reason()),
            },
        });
        self.delegated += spent;
        Ok(())
    }

    fn asked(&mut self, seq: Seq, request: &InputRequest) -> Result<(), String> {
        let call = self.call_mut(request.call)?;
        let fits = match (&request.question, &call.target, &call.progress) {
            (Question::Clarification { .. }, CallTarget::Person, Progress::Proposed) => true,
            (
                Question::Approval { .. },
                CallTarget::Tool { approval, .. } | CallTarget::Agent { approval, .. },
                Progress::Proposed,
            ) => *approval,
            (
                Question::UnknownOutcome { .. },
                CallTarget::Tool { .. },
                Progress::Unknown { .. },
            ) => true,
            _ => false,
        };
        if !fits {
            return Err(format!("call {} raises no such question", request.call));
        }
        call.progress = Progress::Asked {
            request: seq,
            question: request.question.clone(),
            until: request.until,
        };
        Ok(())
    }

    fn answered(&mut self, input: &InputReceived) -> Result<(), String> {
        let Turn::Tools(calls) = &mut self.turn else {
            return Err("nobody was asked".to_owned());
        };
        let asked = calls.iter_mut().find_map(|call| match &call.progress {
            Progress::Asked {
                request, question, ..
            } if *request == input.request => Some((question.clone(), call)),
            _ => None,
        });
        let Some((question, call)) = asked else {
            return Err(format!("step {} asks nothing", input.request));
        };
        if input.answer != Answer::Expired && !question.accepts(&input.answer) {
            return Err("the answer does not fit the question".to_owned());
        }
        if let Answer::Edit { arguments } = &input.answer {
            call.wish.arguments.clone_from(arguments);
            call.is_edited = true;
        }
        call.progress = consequence(question, &input.answer);
        Ok(())
    }

    fn call_mut(&mut self, wanted: CallRef) -> Result<&mut Call, String> {
        match &mut self.turn {
            Turn::Tools(calls) => calls
                .iter_mut()
                .find(|c| c.call == wanted)
                .ok_or_else(|| format!("there is no call {wanted}")),
            Turn::Model(_) | Turn::Answered { .. } | Turn::Done(_) => {
                Err("it is not the tools' turn".to_owned())
            }
        }
    }

    /// When every call is settled, the model is told and it is its turn again.
    pub(super) fn close_turn(&mut self) {
        let Turn::Tools(calls) = &self.turn else {
            return;
        };
        let results: Option<Vec<Message>> = calls
            .iter()
            .map(|call| match &call.progress {
                Progress::Settled(outcome) => {
                    let (content, is_error) = outcome.for_model();
                    let content = if call.is_edited {
                        let arguments = &call.wish.arguments;
                        format!("[a person changed the arguments to {arguments}]\n{content}")
                    } else {
                        content
                    };
                    let (call_id, name) = (call.wish.id.clone(), call.wish.name.clone());
                    Some(Message::Tool {
                        call_id,
                        name,
                        content,
                        is_error,
                    })
                }
                _ => None,
            })
            .collect();
        let Some(results) = results else {
            return;
        };
        let next = calls.iter().find_map(handed_over);
        self.transcript.extend(results);
        self.turn = match next {
            Some((reply, structured)) => {
                let (output, stop) = (reply.text.clone(), reply.stop);
                self.transcript.push(Message::Assistant(reply));
                Turn::Answered {
                    output,
                    structured,
                    stop,
                    violations: Vec::new(),
                }
            }
            None => Turn::Model(ModelTurn::default()),
        };
    }
}

/// The answer that another agent gave in the place of the model, if the work was handed over to one.
fn handed_over(call: &Call) -> Option<(Reply, Option<serde_json::Value>)> {
    let (structured, stop) = call.handed_over.clone()?;
    match &call.progress {
        Progress::Settled(ToolOutcome::Succeeded { content, .. }) => {
            let reply = Reply {
                text: content.clone(),
                tool_calls: Vec::new(),
                stop,
                provider_data: None,
            };
            Some((reply, structured))
        }
        _ => None,
    }
}

/// What an answer means for the call that was asked about.
fn consequence(question: Question, answer: &Answer) -> Progress {
    let settled = Progress::Settled;
    match (question, answer) {
        (Question::Clarification { .. }, Answer::Text { text }) => {
            settled(ToolOutcome::Succeeded {
                content: text.clone(),
                truncated: false,
            })
        }
        (Question::Approval { .. }, Answer::Approve | Answer::Edit { .. }) => {
            Progress::Allowed { key: None }
        }
        (Question::UnknownOutcome { .. }, Answer::Happened { result }) => {
            settled(ToolOutcome::Succeeded {
                content: result.clone(),
                truncated: false,
            })
        }
        (Question::UnknownOutcome { key, .. }, Answer::Repeat) => {
            Progress::Allowed { key: Some(key) }
        }
        (Question::UnknownOutcome { known, .. }, Answer::Expired) => settled(ToolOutcome::Failed {
            message: format!("outcome unknown: {known}; nobody decided in time"),
        }),
        (Question::UnknownOutcome { known, .. }, Answer::Reject { reason }) => {
            settled(ToolOutcome::Failed {
                message: format!("outcome unknown: {known}; not repeated: {reason}"),
            })
        }
        (_, Answer::Reject { reason }) => settled(ToolOutcome::Refused {
            message: format!("a person refused: {reason}"),
        }),
        (_, _) => settled(ToolOutcome::Refused {
            message: "nobody answered in time".to_owned(),
        }),
    }
}

fn repair_request(violations: &[String]) -> String {
    format!(
        "Your answer does not meet the required JSON Schema:\n- {}\nAnswer again with JSON that does, and nothing else.",
        violations.join("\n- ")
    )
}
