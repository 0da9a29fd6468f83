//! An engine without a world: it performs what `decide` names by drawing lots, and keeps the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::decide::{Cancel, Facts, after_model_failure};
use agentrunner_domain::definition::{Effect, Provider};
use agentrunner_domain::execution::{Failure, FailureCode, Origin, Totals};
use agentrunner_domain::retry::ModelErrorClass;
use agentrunner_domain::state::{Progress, Turn};
use agentrunner_domain::step::{
    Answer, CallTarget, InputReceived, ModelCall, Question, ToolResult,
};
use agentrunner_domain::{
    Action, CallRef, Definition, Epoch, Execution, ExecutionId, ModelRun, Outcome, Reply, State,
    Step, StepBody, StopReason, Time, ToolCall, ToolOutcome, ToolRun, decide,
};
use serde_json::json;
use uuid::Uuid;

/// Draws lots from a list of bytes; zeros when it is used up, so that every walk ends.
pub(crate) struct Lots(pub(crate) std::vec::IntoIter<u8>);

impl Lots {
    pub(crate) fn draw(&mut self, sides: u8) -> u8 {
        self.0.next().unwrap_or(0) % sides
    }
}

pub(crate) fn definition(extra: serde_json::Value) -> Definition {
    let mut value = json!({
        "name": "a", "execution_mode": "autonomous", "system_prompt": "You are a test.",
        "llm_config": { "provider": "scripted", "model": "m" },
        "timeout_seconds": 1000, "max_steps": 6,
        "tools": [
            { "name": "read", "type": "api", "url": "http://x/", "effect": "read_only" },
            { "name": "put", "type": "api", "url": "http://x/", "effect": "idempotent" },
            { "name": "order", "type": "api", "url": "http://x/", "effect": "checkable", "check": "read" },
            { "name": "charge", "type": "api", "url": "http://x/" },
        ],
    });
    if let (Some(fields), Some(more)) = (value.as_object_mut(), extra.as_object()) {
        fields.extend(more.clone());
    }
    serde_json::from_value(value).unwrap()
}

pub(crate) fn start() -> Time {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub(crate) fn execution() -> Execution {
    serde_json::from_value(json!({
        "id": Uuid::from_u128(42), "agent": "a", "version": "0123456789abcdef", "mode": "autonomous",
        "input": { "prompt": "go" }, "created_at": start(), "deadline": start() + Duration::from_secs(1000),
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }))
    .unwrap()
}

/// One walk through the life of an execution.
pub(crate) struct Walk {
    pub(crate) definition: Definition,
    pub(crate) execution: Execution,
    pub(crate) state: State,
    pub(crate) journal: Vec<Step>,
    /// The state after each step.
    pub(crate) states: Vec<State>,
    /// How often each call was really made, and how often a person asked for a repetition.
    pub(crate) made: BTreeMap<CallRef, u32>,
    pub(crate) repeats_allowed: BTreeMap<CallRef, u32>,
    pub(crate) approved: BTreeSet<CallRef>,
    /// Actions in the world that were begun after a cancellation.
    pub(crate) begun_after_cancel: u32,
    pub(crate) facts: Facts,
    pub(crate) lots: Lots,
}

impl Walk {
    pub(crate) fn new(definition: Definition, budget: BudgetLimits, lots: Vec<u8>) -> Self {
        let execution = Execution {
            budget,
            mode: definition.execution_mode,
            ..execution()
        };
        let state = State::new(&execution);
        let facts = Facts {
            now: start(),
            epoch: Epoch::new(1),
            cancel: None,
            in_flight: BTreeSet::new(),
            spent_today: Totals::default(),
            context_window: None,
            agents: crate::collaboration::colleagues(),
        };
        Self {
            definition,
            execution,
            state,
            journal: Vec::new(),
            states: Vec::new(),
            made: BTreeMap::new(),
            repeats_allowed: BTreeMap::new(),
            approved: BTreeSet::new(),
            begun_after_cancel: 0,
            facts,
            lots: Lots(lots.into_iter()),
        }
    }

    /// Another one that shares the first steps with this one, and goes on by other lots.
    pub(crate) fn branch(&self, steps: usize, message: Option<&str>, lots: Vec<u8>) -> Self {
        let mut other = Self::new(self.definition.clone(), self.execution.budget, lots);
        other.execution.id = ExecutionId::from_uuid(Uuid::from_u128(43));
        other.execution.origin = Some(Origin {
            id: self.execution.id,
            steps: u32::try_from(steps).unwrap(),
            message: message.map(str::to_owned),
            seams: Vec::new(),
        });
        let shared = self.journal.iter().take(steps).cloned();
        other.journal = shared
            .map(|step| Step {
                epoch: Epoch::NONE,
                ..step
            })
            .collect();
        other.state = State::replay(&other.execution, &other.journal).unwrap();
        other
    }

    /// Goes on to the end; answers how it ended.
    pub(crate) fn go_to_the_end(&mut self) -> Outcome {
        for _ in 0..2000 {
            if self.lots.draw(40) == 39 {
                self.crash();
            }
            if self.lots.draw(60) == 59 {
                self.facts.cancel = Some(Cancel {
                    by: "me".to_owned(),
                    reason: String::new(),
                });
            }
            self.facts.now += Duration::from_millis(10);
            match decide(&self.definition, &self.execution, &self.state, &self.facts) {
                Action::Record(bodies) => bodies.into_iter().for_each(|body| self.record(body)),
                Action::CallModel(run) => self.model(&run),
                Action::RunTools(runs) => runs.iter().for_each(|run| self.begin(run)),
                Action::AwaitTools => self.settle_one(),
                Action::Park { until } => self.park(until),
                Action::Done(outcome) => return outcome,
            }
        }
        panic!("the walk does not end: {:?}", self.state.turn);
    }

    /// Has the model ask for these tools, and begins them all.
    pub(crate) fn ask_for(&mut self, tools: &[(&str, Effect)]) {
        let wish = |&(name, effect): &(&str, Effect)| {
            let target = CallTarget::Tool {
                entry: name.to_owned(),
                effect,
                approval: false,
                pin: None,
            };
            (
                ToolCall {
                    id: "1".to_owned(),
                    name: name.to_owned(),
                    arguments: "{}".to_owned(),
                },
                target,
            )
        };
        self.answer(tools.iter().map(wish).collect());
        match decide(&self.definition, &self.execution, &self.state, &self.facts) {
            Action::Record(bodies) => bodies.into_iter().for_each(|body| self.record(body)),
            other => panic!("{other:?}"),
        }
    }

    /// Has the model ask for one call, and begins nothing.
    pub(crate) fn asks_for(&mut self, (name, arguments): (&str, &str), target: CallTarget) {
        let wish = ToolCall {
            id: "1".to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        self.answer(vec![(wish, target)]);
    }

    pub(crate) fn record(&mut self, body: StepBody) {
        let step = Step {
            seq: self.state.next_seq,
            at: self.facts.now,
            epoch: self.facts.epoch,
            body,
        };
        self.state
            .apply(&step)
            .expect("what decide names can follow");
        self.journal.push(step);
        self.states.push(self.state.clone());
    }

    /// The worker is lost; another takes over with the next epoch. What was under way is forgotten.
    fn crash(&mut self) {
        self.facts.epoch = Epoch::new(self.facts.epoch.get() + 1);
        self.facts.in_flight.clear();
        self.facts.now += Duration::from_secs(10);
    }

    fn model(&mut self, run: &ModelRun) {
        self.note_action();
        if self.state.team.is_some() && self.lots.draw(8) != 7 {
            return self.coordinate(run.purpose);
        }
        match self.lots.draw(6) {
            0 | 1 if self.state.team.is_none() => self.answer(Vec::new()),
            _ if self.state.team.is_some() => self.fail(run),
            2 => self.fail(run),
            _ => {
                let calls = (0..=self.lots.draw(4)).map(|_| self.wish()).collect();
                self.answer(calls);
            }
        }
    }

    fn fail(&mut self, run: &ModelRun) {
        let class = [
            ModelErrorClass::RateLimited,
            ModelErrorClass::Unavailable,
            ModelErrorClass::Auth,
            ModelErrorClass::Garbled,
            ModelErrorClass::ContextTooLong,
        ][usize::from(
            self.lots
                .draw(if self.state.team.is_some() { 5 } else { 4 }),
        )];
        let failure = (class, "it failed".to_owned(), Some(Duration::from_secs(2)));
        let body = after_model_failure(
            &self.definition,
            &self.execution,
            &self.state,
            run,
            failure,
            self.facts.now,
            0.5,
        );
        self.record(body);
    }

    fn wish(&mut self) -> (ToolCall, CallTarget) {
        let (name, effect) = [
            ("read", Effect::ReadOnly),
            ("put", Effect::Idempotent),
            ("order", Effect::Checkable),
            ("charge", Effect::Unsafe),
        ][usize::from(self.lots.draw(4))];
        let target = match self.lots.draw(8) {
            0 => CallTarget::Refused {
                message: "no such tool".to_owned(),
            },
            1 => CallTarget::Person,
            2 => CallTarget::Agent {
                agent: "b".parse().unwrap(),
                approval: self.lots.draw(4) == 3,
                hand_over: self.lots.draw(4) == 3,
            },
            3 => CallTarget::Tool {
                entry: name.to_owned(),
                effect,
                approval: true,
                pin: None,
            },
            _ => CallTarget::Tool {
                entry: name.to_owned(),
                effect,
                approval: false,
                pin: None,
            },
        };
        (
            ToolCall {
                id: "same".to_owned(),
                name: name.to_owned(),
                arguments: "{}".to_owned(),
            },
            target,
        )
    }

    fn answer(&mut self, calls: Vec<(ToolCall, CallTarget)>) {
        let (tool_calls, targets): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let stop = if tool_calls.is_empty() {
            StopReason::EndTurn
        } else {
            StopReason::ToolUse
        };
        let violations = if tool_calls.is_empty() && self.lots.draw(4) == 3 {
            vec!["no".to_owned()]
        } else {
            Vec::new()
        };
        self.record(StepBody::ModelCall(Box::new(ModelCall {
            purpose: agentrunner_domain::Purpose::Turn,
            provider: Provider::Scripted,
            model: "m".to_owned(),
            reply: Reply {
                text: "words".to_owned(),
                tool_calls,
                stop,
                provider_data: None,
            },
            targets,
            violations,
            structured: None,
            usage: Default::default(),
            cost_usd: None,
            took_ms: 1,
            first_token_ms: None,
        })));
    }

    fn begin(&mut self, run: &ToolRun) {
        self.note_action();
        self.facts.in_flight.insert(run.call);
        // A check that finds that it happened makes no call; one in two does.
        if !run.check_first || self.lots.draw(2) == 0 {
            *self.made.entry(run.call).or_default() += 1;
        }
    }

    fn note_action(&mut self) {
        if self.facts.cancel.is_some() {
            self.begun_after_cancel += 1;
        }
    }

    fn settle_one(&mut self) {
        let open: Vec<CallRef> = self.facts.in_flight.iter().copied().collect();
        let call = open[usize::from(self.lots.draw(16)) % open.len()];
        let message = "m".to_owned();
        let outcome = match self.lots.draw(5) {
            0 => ToolOutcome::Failed { message },
            1 => ToolOutcome::Unknown { message },
            _ => ToolOutcome::Succeeded {
                content: message,
                truncated: false,
            },
        };
        self.facts.in_flight.remove(&call);
        self.record(StepBody::ToolResult(ToolResult {
            call,
            outcome,
            took_ms: 1,
        }));
    }

    /// Parked: a child ends, a person answers, or time goes by.
    fn park(&mut self, until: Time) {
        if self.lots.draw(8) == 7 {
            self.facts.now = until;
            return;
        }
        let children = self.state.children();
        let lot = usize::from(self.lots.draw(8));
        let child = children.get(lot % children.len().max(1)).copied();
        if let Some((call, child)) = child {
            let outcome = self.child_outcome(child);
            return self.record(StepBody::ChildFinished {
                call,
                child,
                outcome,
                spent: Totals {
                    model_calls: 1,
                    ..Totals::default()
                },
            });
        }
        let open = self
            .state
            .open_requests()
            .next()
            .map(|(request, question, _)| (request, question.clone()));
        let Some((request, question)) = open else {
            self.facts.now = until;
            return;
        };
        let mut answer = self.persons_answer(&question);
        if question.objection(&answer).is_some() {
            answer = Answer::Approve;
        }
        let call = self.state.calls().iter().find(
            |call| matches!(call.progress, Progress::Asked { request: r, .. } if r == request),
        );
        match (&answer, call.map(|call| call.call)) {
            (Answer::Repeat, Some(call)) => *self.repeats_allowed.entry(call).or_default() += 1,
            (Answer::Approve | Answer::Edit { .. }, Some(call)) => {
                self.approved.insert(call);
            }
            _ => {}
        }
        self.record(StepBody::InputReceived(InputReceived {
            request,
            answer,
            by: "me".to_owned(),
        }));
    }

    fn child_outcome(&mut self, _child: ExecutionId) -> Outcome {
        if self.lots.draw(2) == 0 {
            Outcome::Completed {
                output: "done".to_owned(),
                structured: None,
                stop: StopReason::EndTurn,
            }
        } else {
            Outcome::Failed(Failure {
                code: FailureCode::Internal,
                message: "no".to_owned(),
            })
        }
    }

    fn persons_answer(&mut self, question: &Question) -> Answer {
        let (reason, text, result) = ("no".to_owned(), "yes".to_owned(), "did".to_owned());
        match (question, self.lots.draw(3)) {
            (_, 2) => Answer::Reject { reason },
            (Question::Clarification { .. }, _) => Answer::Text { text },
            (Question::Approval { .. }, 0) => Answer::Approve,
            (Question::Approval { .. }, _) => Answer::Edit {
                arguments: "{\"n\":1}".to_owned(),
            },
            (Question::UnknownOutcome { .. }, 0) => Answer::Happened { result },
            (Question::UnknownOutcome { .. }, _) => Answer::Repeat,
            (Question::Plan { .. }, 0) => Answer::Approve,
            (Question::Plan { plan, .. }, _) => {
                let edited = json!({ "steps": plan.steps.iter().rev().collect::<Vec<_>>() });
                Answer::EditPlan { plan: edited }
            }
        }
    }

    /// Whether the last turn waits for tools.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.turn, Turn::Done(_))
    }
}
