//! From a journal to spans: one for the execution, and below it one for each model call, tool call, delegation, and wait for
//! a person or for a model. Names are those of OpenTelemetry's conventions for generative AI; what these have no name for
//! begins with `agentrunner.`.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Attribute, Kind, Span, SpanId};
use crate::definition::Provider;
use crate::execution::{Execution, Outcome, Totals};
use crate::id::Seq;
use crate::message::{Reply, StopReason};
use crate::step::{
    Answer, CallRef, InputReceived, InputRequest, ModelCall, ModelFailure, Step, StepBody,
    ToolIntent, ToolOutcome, ToolResult,
};
use crate::{AgentName, ExecutionId, Time, TimeDelta};

/// What is told of what was said: how a text may be shown, or that none is.
pub type Telling<'a> = Option<&'a dyn Fn(&str) -> String>;

/// The longest name of a tool that makes a part of a span's name; a model may ask for anything.
const LONGEST_NAME: usize = 128;

/// The spans of an execution, the execution's own first. Of one that is not over they tell what is.
pub fn spans(
    execution: &Execution,
    started_at: Time,
    steps: &[Step],
    telling: Telling<'_>,
) -> Vec<Span> {
    let last = steps.iter().map(|step| step.at).max();
    let mut tree = Tree {
        execution,
        telling,
        window: (started_at, last.unwrap_or(started_at).max(started_at)),
        done: Vec::new(),
        open: HashMap::new(),
        doubtful: HashMap::new(),
        asked: HashMap::new(),
        names: HashMap::new(),
        totals: Totals::default(),
        model: None,
        outcome: None,
    };
    // What comes before was done by another execution, which tells it.
    let shared = execution.origin.as_ref().map_or(0, |origin| origin.steps);
    for step in steps {
        tree.take(step, step.seq.get() > shared);
    }
    tree.finish()
}

struct Tree<'a> {
    execution: &'a Execution,
    telling: Telling<'a>,
    /// From when to when the execution ran.
    window: (Time, Time),
    done: Vec<Span>,
    /// Calls that are not settled, by what they are.
    open: HashMap<CallRef, Span>,
    /// Calls that nobody answered for, up to then; they may be made again.
    doubtful: HashMap<CallRef, Span>,
    /// Questions without an answer.
    asked: HashMap<Seq, Span>,
    /// What the model called, and the provider's id for it.
    names: HashMap<CallRef, (&'a str, &'a str, &'a str)>,
    totals: Totals,
    /// Who was asked first.
    model: Option<(Provider, &'a str)>,
    outcome: Option<&'a Outcome>,
}

impl<'a> Tree<'a> {
    fn take(&mut self, step: &'a Step, is_own: bool) {
        if let StepBody::ModelCall(call) = &step.body {
            self.remember(step.seq, call);
        }
        if !is_own {
            return;
        }
        match &step.body {
            StepBody::ModelCall(call) => self.model_called(step, call),
            StepBody::ToolIntent(intent) => self.tool_called(step, intent),
            StepBody::ToolResult(result) => self.tool_settled(step, result),
            StepBody::ChildStarted {
                call, child, agent, ..
            } => self.delegated(step, *call, *child, agent),
            StepBody::ChildFinished { call, outcome, .. } => {
                if let Some(mut span) = self.open.remove(call) {
                    if !matches!(outcome, Outcome::Completed { .. }) {
                        fail(&mut span, error_type(outcome));
                    }
                    self.close(span, step.at);
                }
            }
            StepBody::InputRequested(request) => self.asked(step, request),
            StepBody::InputReceived(received) => self.answered(step, received),
            StepBody::Timer { until, reason } => self.paused(step, *until, reason),
            StepBody::Finished { outcome } => self.outcome = Some(outcome),
            StepBody::Plan(_) | StepBody::Note { .. } => {}
        }
    }

    fn remember(&mut self, turn: Seq, call: &'a ModelCall) {
        for (wish, index) in call.reply.tool_calls.iter().zip(0..) {
            let known = (
                wish.name.as_str(),
                wish.id.as_str(),
                wish.arguments.as_str(),
            );
            self.names.insert(CallRef { turn, index }, known);
        }
    }

    /// A span of this execution that begins with a step.
    fn span(&self, id: SpanId, name: String, start: Time) -> Span {
        let (from, to) = self.window;
        Span {
            trace_id: self.execution.trace_id.clone(),
            id,
            parent: Some(SpanId::of_execution(self.execution.id)),
            name,
            kind: Kind::Internal,
            start: start.clamp(from, to),
            end: to,
            attributes: Vec::new(),
            failed: false,
        }
    }

    fn begun_by(&self, step: &Step, name: String) -> Span {
        let id = SpanId::of_step(self.execution.id, step.seq);
        self.span(id, name, step.at)
    }

    fn close(&mut self, mut span: Span, end: Time) {
        span.end = end.clamp(span.start, self.window.1);
        self.done.push(span);
    }

    fn model_called(&mut self, step: &Step, call: &'a ModelCall) {
        self.model.get_or_insert((call.provider, &call.model));
        self.totals.usage += call.usage;
        self.totals.cost_usd += call.cost_usd.unwrap_or_default();
        let took = TimeDelta::milliseconds(i64::try_from(call.took_ms).unwrap_or(i64::MAX / 2));
        let start = step.at.checked_sub_signed(took).unwrap_or(step.at);
        let id = SpanId::of_step(self.execution.id, step.seq);
        let mut span = self.span(id, format!("chat {}", call.model), start);
        span.kind = Kind::Client;
        let usage = call.usage;
        span.attributes.extend([
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", provider_name(call.provider).into()),
            ("gen_ai.request.model", call.model.as_str().into()),
            ("gen_ai.agent.name", self.execution.agent.as_str().into()),
            ("gen_ai.usage.input_tokens", usage.input_tokens.0.into()),
            ("gen_ai.usage.output_tokens", usage.output_tokens.0.into()),
            (
                "gen_ai.response.finish_reasons",
                Attribute::Texts(vec![finish_reason(call.reply.stop).to_owned()]),
            ),
        ]);
        if usage.cached_tokens.0 > 0 {
            let cached = usage.cached_tokens.0.into();
            span.attributes
                .push(("gen_ai.usage.cache_read.input_tokens", cached));
        }
        if let Some(cost) = call.cost_usd {
            span.attributes
                .push(("agentrunner.cost_usd", cost.usd().into()));
        }
        if let Some(ms) = call.first_token_ms {
            let seconds = ms as f64 / 1000.0;
            let name = "gen_ai.response.time_to_first_chunk";
            span.attributes.push((name, seconds.into()));
        }
        self.add_conversation(&mut span);
        if let Some(tell) = self.telling {
            let said = json!([message("assistant", &call.reply, tell)]).to_string();
            span.attributes
                .push(("gen_ai.output.messages", said.into()));
        }
        self.close(span, step.at);
    }

    fn tool_called(&mut self, step: &Step, intent: &ToolIntent) {
        // Called again, it is the same call: the tool is sent the same key.
        if let Some(again) = self.doubtful.remove(&intent.call) {
            self.open.insert(intent.call, again);
        }
        if self.open.contains_key(&intent.call) {
            return;
        }
        let name = format!("execute_tool {}", short(&intent.tool));
        let mut span = self.span(SpanId::of_key(&intent.key), name, step.at);
        self.describe_tool(&mut span, intent.call, &intent.tool);
        let effect = word(&intent.effect).into();
        span.attributes.push(("agentrunner.tool.effect", effect));
        self.open.insert(intent.call, span);
    }

    fn tool_settled(&mut self, step: &Step, result: &ToolResult) {
        let open = self.open.remove(&result.call);
        let mut span = match open.or_else(|| self.doubtful.remove(&result.call)) {
            Some(span) => span,
            // It was never called, and that is worth a look.
            None => {
                let Some((tool, ..)) = self.names.get(&result.call).copied() else {
                    return;
                };
                let name = format!("execute_tool {}", short(tool));
                let mut span = self.begun_by(step, name);
                self.describe_tool(&mut span, result.call, tool);
                span
            }
        };
        if matches!(result.outcome, ToolOutcome::Unknown { .. }) {
            span.end = step.at.clamp(span.start, self.window.1);
            self.doubtful.insert(result.call, span);
            return;
        }
        if let Some(kind) = tool_error(&result.outcome) {
            fail(&mut span, kind);
        }
        if let Some(tell) = self.telling {
            let (said, _) = result.outcome.for_model();
            span.attributes
                .push(("gen_ai.tool.call.result", tell(&said).into()));
        }
        self.close(span, step.at);
    }

    fn delegated(&mut self, step: &Step, call: CallRef, child: ExecutionId, agent: &AgentName) {
        let mut span = self.begun_by(step, format!("execute_tool {agent}"));
        self.describe_tool(&mut span, call, agent.as_str());
        let child = child.to_string().into();
        span.attributes
            .push(("agentrunner.child.execution_id", child));
        // One step of a plan may be done again by another.
        if let Some(earlier) = self.open.insert(call, span) {
            self.close(earlier, step.at);
        }
    }

    fn describe_tool(&self, span: &mut Span, call: CallRef, tool: &str) {
        span.attributes.extend([
            ("gen_ai.operation.name", "execute_tool".into()),
            ("gen_ai.tool.name", tool.into()),
            ("gen_ai.agent.name", self.execution.agent.as_str().into()),
        ]);
        let Some((_, id, arguments)) = self.names.get(&call) else {
            return;
        };
        span.attributes.push(("gen_ai.tool.call.id", (*id).into()));
        if let Some(tell) = self.telling {
            span.attributes
                .push(("gen_ai.tool.call.arguments", tell(arguments).into()));
        }
    }

    fn asked(&mut self, step: &Step, request: &InputRequest) {
        let kind = request.question.kind();
        let mut span = self.begun_by(step, format!("wait_for_person {kind}"));
        span.attributes.extend([
            ("gen_ai.agent.name", self.execution.agent.as_str().into()),
            ("agentrunner.question", kind.into()),
        ]);
        self.asked.insert(step.seq, span);
    }

    fn answered(&mut self, step: &Step, received: &InputReceived) {
        if let Some(mut span) = self.asked.remove(&received.request) {
            let answer = answer_kind(&received.answer);
            span.attributes.push(("agentrunner.answer", answer.into()));
            if matches!(received.answer, Answer::Expired) {
                fail(&mut span, "expired");
            }
            self.close(span, step.at);
        }
    }

    /// The pause after a failed model call. How long the call itself took is not written down.
    fn paused(&mut self, step: &Step, until: Time, reason: &ModelFailure) {
        let mut span = self.begun_by(step, "wait_for_model".to_owned());
        span.attributes.extend([
            ("gen_ai.agent.name", self.execution.agent.as_str().into()),
            ("agentrunner.attempt", u64::from(reason.attempt).into()),
        ]);
        fail(&mut span, reason.class.as_str());
        self.close(span, until);
    }

    fn add_conversation(&self, span: &mut Span) {
        if let Some(conversation) = &self.execution.conversation {
            let id = conversation.as_str().into();
            span.attributes.push(("gen_ai.conversation.id", id));
        }
    }

    fn finish(mut self) -> Vec<Span> {
        let mut spans = vec![self.root()];
        if self.outcome.is_some() {
            // What was under way at the end ended with it.
            for mut span in self.open.into_values().chain(self.asked.into_values()) {
                fail(&mut span, "unfinished");
                self.done.push(span);
            }
            for mut span in self.doubtful.into_values() {
                fail(&mut span, "unknown_outcome");
                self.done.push(span);
            }
        }
        // So that the same journal makes the same list.
        self.done.sort_by_key(|span| (span.start, span.id));
        spans.append(&mut self.done);
        spans
    }

    fn root(&self) -> Span {
        let execution = self.execution;
        let id = SpanId::of_execution(execution.id);
        let mut span = self.span(
            id,
            format!("invoke_agent {}", execution.agent),
            self.window.0,
        );
        let delegated = |parent: &crate::execution::Parent| SpanId::of_step(parent.id, parent.seq);
        span.parent = match &execution.parent {
            Some(parent) => Some(delegated(parent)),
            None => execution.upstream.map(|upstream| upstream.span),
        };
        let queued = (self.window.0 - execution.created_at).num_milliseconds();
        let usage = self.totals.usage;
        span.attributes.extend([
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("gen_ai.agent.name", execution.agent.as_str().into()),
            ("gen_ai.agent.version", execution.version.as_str().into()),
            ("gen_ai.usage.input_tokens", usage.input_tokens.0.into()),
            ("gen_ai.usage.output_tokens", usage.output_tokens.0.into()),
            ("agentrunner.execution.id", execution.id.to_string().into()),
            ("agentrunner.execution.mode", execution.mode.as_str().into()),
            ("agentrunner.cost_usd", self.totals.cost_usd.usd().into()),
            (
                "agentrunner.queued_seconds",
                (queued.max(0) as f64 / 1000.0).into(),
            ),
        ]);
        if let Some((provider, model)) = self.model {
            span.attributes.extend([
                ("gen_ai.provider.name", provider_name(provider).into()),
                ("gen_ai.request.model", model.into()),
            ]);
        }
        if let Some(origin) = &execution.origin {
            let id = origin.id.to_string().into();
            span.attributes
                .push(("agentrunner.origin.execution_id", id));
        }
        self.add_conversation(&mut span);
        if let Some(tell) = self.telling {
            let asked = tell(&execution.prompt());
            let asked = json!([{ "role": "user", "parts": [text(asked)] }]);
            span.attributes
                .push(("gen_ai.input.messages", asked.to_string().into()));
        }
        if let Some(outcome) = self.outcome {
            let status = outcome.status().as_str().into();
            span.attributes
                .push(("agentrunner.execution.status", status));
            self.tell_end(&mut span, outcome);
        }
        span
    }

    fn tell_end(&self, span: &mut Span, outcome: &Outcome) {
        match (outcome, self.telling) {
            (Outcome::Completed { output, stop, .. }, Some(tell)) => {
                let said = json!([{
                    "role": "assistant", "parts": [text(tell(output))], "finish_reason": finish_reason(*stop),
                }]);
                span.attributes
                    .push(("gen_ai.output.messages", said.to_string().into()));
            }
            (Outcome::Completed { .. }, None) => {}
            _ => fail(span, error_type(outcome)),
        }
    }
}

fn fail(span: &mut Span, kind: impl Into<Attribute>) {
    span.failed = true;
    span.attributes.push(("error.type", kind.into()));
}

/// The word that API and journal use.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// The names of OpenTelemetry's registry where it has one.
const fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::Bedrock => "aws.bedrock",
        other => other.as_str(),
    }
}

const fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::EndTurn | StopReason::StopSequence => "stop",
        StopReason::ToolUse => "tool_call",
        StopReason::MaxTokens => "length",
        StopReason::Refusal => "content_filter",
    }
}

fn error_type(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => word(&failure.code),
        Outcome::Completed { .. } | Outcome::Timeout { .. } | Outcome::Cancelled { .. } => {
            outcome.status().as_str().to_owned()
        }
    }
}

const fn tool_error(outcome: &ToolOutcome) -> Option<&'static str> {
    match outcome {
        ToolOutcome::Succeeded { .. } => None,
        ToolOutcome::Failed { .. } => Some("failed"),
        ToolOutcome::Refused { .. } => Some("refused"),
        ToolOutcome::Unknown { .. } => Some("unknown_outcome"),
    }
}

const fn answer_kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Text { .. } => "text",
        Answer::Approve => "approve",
        Answer::Edit { .. } => "edit",
        Answer::Reject { .. } => "reject",
        Answer::Happened { .. } => "happened",
        Answer::Repeat => "repeat",
        Answer::EditPlan { .. } => "edit_plan",
        Answer::Expired => "expired",
    }
}

fn short(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

fn text(content: String) -> Value {
    json!({ "type": "text", "content": content })
}

/// A message as the conventions have it.
fn message(role: &str, reply: &Reply, tell: &dyn Fn(&str) -> String) -> Value {
    let said = (!reply.text.is_empty()).then(|| text(tell(&reply.text)));
    let calls = reply.tool_calls.iter().map(|call| {
        json!({
            "type": "tool_call", "id": call.id, "name": call.name, "arguments": tell(&call.arguments),
        })
    });
    let parts: Vec<Value> = said.into_iter().chain(calls).collect();
    json!({ "role": role, "parts": parts, "finish_reason": finish_reason(reply.stop) })
}
