//! What people are asked, what they may answer, and what becomes of a question that nobody answers.

use std::time::Duration;

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::decide::Facts;
use agentrunner_domain::definition::Effect;
use agentrunner_domain::execution::{FailureCode, Totals};
use agentrunner_domain::state::{Progress, Turn};
use agentrunner_domain::step::{Answer, CallTarget, InputReceived, InputRequest, Question};
use agentrunner_domain::{
    Action, Definition, Epoch, Execution, Message, Outcome, Seq, State, Step, StepBody, StopReason,
    Time, decide,
};
use serde_json::{Value, json};

use crate::simulation::{Walk, definition, execution, start};

/// An execution whose model has asked for one call, and what follows from it.
struct Asking {
    definition: Definition,
    execution: Execution,
    state: State,
}

impl Asking {
    fn new(extra: Value, target: CallTarget) -> Self {
        let mut walk = Walk::new(definition(extra), BudgetLimits::default(), Vec::new());
        walk.asks_for(("charge", "{\"cents\":500}"), target);
        let mut asking = Self {
            definition: walk.definition,
            execution: walk.execution,
            state: walk.state,
        };
        asking.perform(start());
        asking
    }

    fn approval(extra: Value) -> Self {
        let target = CallTarget::Tool {
            entry: "charge".to_owned(),
            effect: Effect::Unsafe,
            approval: true,
            pin: None,
        };
        Self::new(extra, target)
    }

    fn decide(&self, now: Time) -> Action {
        let facts = Facts {
            now,
            epoch: Epoch::new(1),
            cancel: None,
            in_flight: Default::default(),
            spent_today: Totals::default(),
            context_window: None,
            agents: Vec::new(),
        };
        decide(&self.definition, &self.execution, &self.state, &facts)
    }

    /// Records what is decided, if something is to be recorded.
    fn perform(&mut self, now: Time) -> Vec<StepBody> {
        let Action::Record(bodies) = self.decide(now) else {
            return Vec::new();
        };
        for body in bodies.clone() {
            self.record(body);
        }
        bodies
    }

    fn record(&mut self, body: StepBody) {
        let step = Step {
            seq: self.state.next_seq,
            at: start(),
            epoch: Epoch::new(1),
            body,
        };
        self.state.apply(&step).unwrap();
    }

    fn asked(&self) -> (Seq, Time) {
        let (request, _, until) = self.state.open_requests().next().expect("a question");
        (request, until)
    }

    fn answer(&mut self, answer: Answer) {
        let (request, _) = self.asked();
        let by = "ada".to_owned();
        self.record(StepBody::InputReceived(InputReceived {
            request,
            answer,
            by,
        }));
    }

    fn told(&self) -> &str {
        match self.state.transcript.last() {
            Some(Message::Tool { content, .. }) => content,
            other => panic!("{other:?}"),
        }
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_approval_is_waited_for_as_long_as_the_agent_says_and_then_denied() {
    let mut asking = Asking::approval(json!({ "approval_timeout_seconds": 60 }));
    let (_, until) = asking.asked();
    assert_eq!(until, start() + seconds(60));
    assert!(
        matches!(asking.decide(until), Action::Park { .. }),
        "an answer may be on its way"
    );
    let bodies = asking.perform(until + seconds(1));
    let [StepBody::InputReceived(received)] = bodies.as_slice() else {
        panic!("{bodies:?}");
    };
    assert_eq!(
        (&received.answer, received.by.as_str()),
        (&Answer::Expired, "time-out")
    );
    assert_eq!(asking.told(), "nobody answered in time");
}

#[test]
fn silence_may_be_consent_or_the_end() {
    let extra = |on: &str| json!({ "approval_timeout_seconds": 60, "on_approval_timeout": on });
    let mut asking = Asking::approval(extra("approve"));
    asking.perform(start() + seconds(61));
    let [call] = asking.state.calls() else {
        panic!()
    };
    assert!(matches!(call.progress, Progress::Allowed { key: None }));

    let mut asking = Asking::approval(extra("fail"));
    let bodies = asking.perform(start() + seconds(61));
    assert!(
        matches!(bodies.first(), Some(StepBody::InputReceived(_))),
        "recorded"
    );
    let Turn::Done(Outcome::Failed(failure)) = &asking.state.turn else {
        panic!("{:?}", asking.state.turn);
    };
    assert_eq!(failure.code, FailureCode::NobodyAnswered);
    assert!(failure.message.contains("charge"), "{failure:?}");
}

#[test]
fn a_question_of_the_model_has_its_own_patience() {
    let mut asking = Asking::new(
        json!({ "clarification_timeout_seconds": 5, "approval_timeout_seconds": 60 }),
        CallTarget::Person,
    );
    assert_eq!(asking.asked().1, start() + seconds(5));
    asking.perform(start() + seconds(6));
    assert_eq!(asking.told(), "nobody answered in time");
    // Nobody waits longer than the execution may take.
    let asking = Asking::approval(json!({ "approval_timeout_seconds": 100_000 }));
    assert_eq!(asking.asked().1, execution().deadline);
}

#[test]
fn a_question_says_why_whom_and_what_otherwise() {
    let rule = json!([{ "argument": "cents", "above": 100 }]);
    let extra = json!({ "requires_approval": rule, "answered_by": "finance" });
    let mut walk = Walk::new(definition(extra), BudgetLimits::default(), Vec::new());
    let target = CallTarget::Tool {
        entry: "charge".to_owned(),
        effect: Effect::Unsafe,
        approval: true,
        pin: None,
    };
    walk.asks_for(("charge", "{\"cents\":500}"), target);
    let asking = Asking {
        definition: walk.definition,
        execution: walk.execution,
        state: walk.state,
    };
    let Action::Record(bodies) = asking.decide(start()) else {
        panic!()
    };
    let Some(StepBody::InputRequested(InputRequest {
        why,
        answered_by,
        otherwise,
        ..
    })) = bodies.first()
    else {
        panic!("{bodies:?}");
    };
    assert_eq!(why.as_deref(), Some("`cents` is above 100, says the agent"));
    assert_eq!(answered_by.as_deref(), Some("finance"));
    assert_eq!(
        otherwise.as_deref(),
        Some("the call is not made, and the model is told")
    );
}

#[test]
fn edited_arguments_are_what_is_called_and_what_the_model_is_told() {
    let mut asking = Asking::approval(json!({}));
    asking.answer(Answer::Edit {
        arguments: "{\"cents\":1}".to_owned(),
    });
    let Action::Record(bodies) = asking.decide(start()) else {
        panic!()
    };
    assert!(matches!(bodies.as_slice(), [StepBody::ToolIntent(_)]));
    asking.perform(start());
    let Action::RunTools(runs) = asking.decide(start()) else {
        panic!()
    };
    assert_eq!(runs[0].arguments, "{\"cents\":1}");
    asking.record(StepBody::ToolResult(agentrunner_domain::step::ToolResult {
        call: runs[0].call,
        outcome: agentrunner_domain::ToolOutcome::Succeeded {
            content: "receipt".to_owned(),
            truncated: false,
        },
        took_ms: 1,
    }));
    assert_eq!(
        asking.told(),
        "[a person changed the arguments to {\"cents\":1}]\nreceipt"
    );
}

#[test]
fn an_approved_call_counts_against_the_budget_when_it_begins() {
    let mut asking = Asking::approval(json!({ "budget": { "max_tool_calls": 0 } }));
    asking.answer(Answer::Approve);
    asking.perform(start());
    let Turn::Done(Outcome::Failed(failure)) = &asking.state.turn else {
        panic!()
    };
    assert_eq!(failure.code, FailureCode::BudgetExceeded);
}

fn agent(approval: bool, hand_over: bool) -> CallTarget {
    CallTarget::Agent {
        agent: "b".parse().unwrap(),
        approval,
        hand_over,
    }
}

fn done(asking: &mut Asking, spent: Totals) {
    let [call] = asking.state.calls() else {
        panic!()
    };
    let Progress::Delegated { child, .. } = call.progress else {
        panic!("{call:?}")
    };
    let call = call.call;
    asking.record(StepBody::ChildFinished {
        call,
        child,
        outcome: Outcome::Completed {
            output: "their answer".to_owned(),
            structured: Some(json!({ "n": 1 })),
            stop: StopReason::EndTurn,
        },
        spent,
    });
}

#[test]
fn a_hand_over_makes_the_other_agents_answer_the_answer() {
    let mut asking = Asking::new(json!({}), agent(false, true));
    done(&mut asking, Totals::default());
    asking.perform(start());
    let Turn::Done(Outcome::Completed {
        output, structured, ..
    }) = &asking.state.turn
    else {
        panic!("{:?}", asking.state.turn);
    };
    assert_eq!(
        (output.as_str(), structured),
        ("their answer", &Some(json!({ "n": 1 })))
    );
    assert_eq!(
        asking.state.totals.model_calls, 1,
        "the model had one word only"
    );
    let last = asking.state.transcript.last();
    assert!(matches!(last, Some(Message::Assistant(reply)) if reply.text == "their answer"));
}

#[test]
fn what_a_child_consumed_is_gone_from_its_parents_budget() {
    let mut asking = Asking::new(
        json!({ "budget": { "max_tool_calls": 3 } }),
        agent(false, false),
    );
    let spent = Totals {
        tool_calls: 3,
        ..Totals::default()
    };
    done(&mut asking, spent);
    assert_eq!(asking.state.totals.tool_calls, 1);
    assert_eq!(asking.state.spent().tool_calls, 4);
}

#[test]
fn an_agent_may_need_a_persons_word_too() {
    let mut asking = Asking::new(json!({}), agent(true, false));
    assert!(matches!(
        asking.state.calls()[0].progress,
        Progress::Asked {
            question: Question::Approval { .. },
            ..
        }
    ));
    asking.answer(Answer::Approve);
    let bodies = asking.perform(start());
    assert!(
        matches!(bodies.as_slice(), [StepBody::ChildStarted { .. }]),
        "{bodies:?}"
    );
}

#[test]
fn delegation_ends_at_the_depth_that_is_allowed() {
    let asking = Asking::new(json!({ "max_delegation_depth": 0 }), agent(false, false));
    assert!(asking.told().contains("0 deep"), "{}", asking.told());
}
