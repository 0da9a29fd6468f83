//! Builders, so that a test says only what matters to it.

use std::time::Duration;

use domain::budget::BudgetLimits;
use domain::definition::{Effect, Provider};
use domain::execution::{Parent, Totals};
use domain::step::{CallRef, InputReceived, InputRequest, ModelCall, Question, ToolIntent};
use domain::{
    Event, Execution, ExecutionId, ExecutionMode, Message, Money, Outcome, Priority, Reply, Seq,
    SpanId, Status, Step, StepBody, StopReason, Time, Tokens, TraceId, Upstream, Usage, WorkerId,
};
use serde_json::{Value, json};
use store::{
    Append, Appended, Claim, Claimed, EndedChild, Store, Submission, Submitted, Then, WhenBusy,
};
use uuid::Uuid;

/// How long a lease lasts here.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// The time, in seconds from the beginning of the test's world.
pub(crate) fn at(seconds: i64) -> Time {
    Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

pub(crate) fn new_id() -> ExecutionId {
    ExecutionId::from_uuid(Uuid::now_v7())
}

pub(crate) fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

/// A task of an agent, accepted at 0.
pub(crate) fn task(agent: &str) -> Execution {
    Execution {
        id: new_id(),
        agent: agent.parse().unwrap(),
        version: "0123456789abcdef".parse().unwrap(),
        mode: ExecutionMode::Autonomous,
        input: json!({ "prompt": "count the \u{0}strange\n \"words\" ✓" }),
        history: Vec::new(),
        conversation: None,
        priority: Priority::Normal,
        created_at: at(0),
        deadline: at(3600),
        budget: BudgetLimits::default(),
        trace_id: TraceId::from_uuid(Uuid::now_v7()),
        upstream: Some(Upstream {
            span: SpanId::from_uuid(Uuid::now_v7()),
            sampled: true,
        }),
        parent: None,
        origin: None,
        event_id: None,
        hops: 0,
        restored: None,
        callback_url: None,
        metadata: Value::Null,
    }
}

/// A task that another delegated by its first step.
pub(crate) fn child(parent: ExecutionId, agent: &str) -> Execution {
    let mut child = task(agent);
    child.id = ExecutionId::child_of(parent, Seq::FIRST);
    child.parent = Some(Parent {
        id: parent,
        seq: Seq::FIRST,
        depth: 1,
        deepest: 8,
    });
    child
}

/// A child's end, as its parent is told it.
pub(crate) fn ended(id: ExecutionId, outcome: Outcome, totals: Totals) -> EndedChild {
    EndedChild {
        id,
        outcome,
        totals,
    }
}

pub(crate) fn submission(execution: Execution) -> Submission {
    Submission {
        execution,
        idempotency: None,
        events: Vec::new(),
        when_busy: WhenBusy::default(),
    }
}

/// Accepts it.
pub(crate) async fn submit(store: &dyn Store, execution: Execution) -> ExecutionId {
    let id = execution.id;
    let answer = store.submit(submission(execution)).await.unwrap();
    assert_eq!(answer, Submitted::New);
    id
}

/// A claim of everything at a time.
pub(crate) fn wish(limit: usize, now: Time) -> Claim {
    Claim {
        worker: worker("w1"),
        now,
        lease: LEASE,
        limit,
        only: None,
        modes: vec![
            ExecutionMode::Autonomous,
            ExecutionMode::Collaborative,
            ExecutionMode::Continuous,
            ExecutionMode::Scheduled,
        ],
        without: Vec::new(),
    }
}

pub(crate) async fn claim(store: &dyn Store, limit: usize, now: Time) -> Vec<Claimed> {
    store.claim(wish(limit, now)).await.unwrap()
}

/// Claims the only one that is due.
pub(crate) async fn claim_one(store: &dyn Store, now: Time) -> Claimed {
    let mut claimed = claim(store, 10, now).await;
    assert_eq!(claimed.len(), 1, "one is due");
    claimed.remove(0)
}

/// Claims this one.
pub(crate) async fn claim_this(store: &dyn Store, id: ExecutionId, now: Time) -> Option<Claimed> {
    let mut wish = wish(1, now);
    wish.only = Some(id);
    store.claim(wish).await.unwrap().pop()
}

/// Accepts a task and claims it.
pub(crate) async fn leased(store: &dyn Store, execution: Execution) -> Claimed {
    let at = execution.created_at;
    let id = submit(store, execution).await;
    claim_this(store, id, at).await.unwrap()
}

/// An append of the lease's owner.
pub(crate) fn append(owner: &Claimed, now: Time, steps: Vec<Step>, then: Then) -> Append {
    Append {
        id: owner.execution.id,
        epoch: owner.epoch,
        now,
        steps,
        totals: Totals::default(),
        events: Vec::new(),
        children: Vec::new(),
        then,
    }
}

/// Appends, which must be possible.
pub(crate) async fn commit(store: &dyn Store, append: Append) {
    assert_eq!(store.append(append).await.unwrap(), Appended::Applied);
}

/// A step of the lease's owner.
pub(crate) fn step(owner: &Claimed, seq: u32, body: StepBody) -> Step {
    Step {
        seq: Seq::new(seq),
        at: at(1),
        epoch: owner.epoch,
        body,
    }
}

pub(crate) fn note(owner: &Claimed, seq: u32) -> Step {
    let text = format!("note {seq}");
    step(owner, seq, StepBody::Note { text })
}

/// Notes from one position to another, both included.
pub(crate) fn notes(owner: &Claimed, from: u32, to: u32) -> Vec<Step> {
    (from..=to).map(|seq| note(owner, seq)).collect()
}

pub(crate) const CALL: CallRef = CallRef {
    turn: Seq::FIRST,
    index: 0,
};

pub(crate) fn model_call(owner: &Claimed, seq: u32, model: &str) -> Step {
    let call = ModelCall {
        purpose: domain::Purpose::Turn,
        provider: Provider::Openai,
        model: model.to_owned(),
        reply: Reply {
            text: "well".to_owned(),
            tool_calls: Vec::new(),
            stop: StopReason::EndTurn,
            provider_data: None,
        },
        targets: Vec::new(),
        violations: Vec::new(),
        structured: None,
        usage: Usage {
            input_tokens: Tokens(100),
            output_tokens: Tokens(10),
            cached_tokens: Tokens(1),
        },
        cost_usd: Some(Money::from_usd(0.5)),
        took_ms: 7,
        first_token_ms: None,
    };
    step(owner, seq, StepBody::ModelCall(Box::new(call)))
}

pub(crate) fn intent(owner: &Claimed, seq: u32) -> Step {
    let intent = ToolIntent {
        call: CALL,
        tool: "search".to_owned(),
        effect: Effect::ReadOnly,
        key: format!("k-{seq}"),
    };
    step(owner, seq, StepBody::ToolIntent(intent))
}

/// A question that can be answered until 600.
pub(crate) fn question(owner: &Claimed, seq: u32) -> Step {
    let request = InputRequest {
        call: CALL,
        question: Question::Clarification {
            text: "which one?".to_owned(),
        },
        until: at(600),
        why: None,
        answered_by: None,
        otherwise: None,
    };
    step(owner, seq, StepBody::InputRequested(request))
}

pub(crate) fn received(owner: &Claimed, seq: u32, input: InputReceived) -> Step {
    step(owner, seq, StepBody::InputReceived(input))
}

pub(crate) fn park(until: Time, wakes_seen: u64) -> Then {
    Then::Park {
        status: Status::Running,
        reason: "waiting".to_owned(),
        until,
        wakes_seen,
    }
}

pub(crate) fn done() -> Outcome {
    Outcome::Completed {
        output: "42".to_owned(),
        structured: None,
        stop: StopReason::EndTurn,
    }
}

pub(crate) fn finish() -> Then {
    Then::Finish {
        outcome: done(),
        messages: Vec::new(),
        digest: None,
    }
}

pub(crate) fn said(text: &str) -> Message {
    Message::User {
        text: text.to_owned(),
    }
}

pub(crate) fn event(id: &str) -> Event {
    Event {
        id: id.parse().unwrap(),
        topic: "agent.execution.completed".parse().unwrap(),
        source: "agentrunner/test".to_owned(),
        time: at(0),
        trace_id: TraceId::from_uuid(Uuid::from_u128(1)),
        hops: 0,
        data: json!({ "n": 1 }),
    }
}

/// The ids of events that wait to go out.
pub(crate) async fn outgoing(store: &dyn Store) -> Vec<String> {
    let entries = store.outbox(1000).await.unwrap();
    entries
        .into_iter()
        .map(|entry| entry.event.id.into())
        .collect()
}

/// The state of an execution, its steps' positions, and what else an append could change, as text to compare.
pub(crate) async fn everything(store: &dyn Store, id: ExecutionId) -> String {
    format!(
        "{:#?}\n{:#?}\n{:?}\n{:#?}",
        store.execution(id).await.unwrap(),
        store.steps(id, None, 1000).await.unwrap(),
        outgoing(store).await,
        store.waiting(id).await.unwrap(),
    )
}
