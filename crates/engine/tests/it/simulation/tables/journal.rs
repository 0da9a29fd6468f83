//! The journal: appending steps with all that follows from them.

use domain::definition::Provider;
use domain::{ExecutionId, Message, Money, Outcome, Seq, Status, Step, StepBody, Time, Usage};
use store::{Append, Appended, Digest, Result, Then, UsageRow};

use super::super::plant::Plant;
use super::{Input, Row, Tables, internal};

impl Tables {
    pub(crate) fn append(&mut self, append: Append) -> Result<Appended> {
        check(&append)?;
        let is_fenced = self.plant != Plant::NoFence;
        let row = self.rows.get_mut(&append.id).filter(|row| {
            let is_owner = row.epoch == append.epoch && row.worker.is_some();
            is_owner || (!is_fenced && !row.is_over())
        });
        let Some(row) = row else {
            return Ok(Appended::LostLease);
        };
        if let Some(first) = append.steps.first()
            && first.seq.get() != row.count + 1
        {
            let after = (first.seq.get() as usize).saturating_sub(1);
            let is_repeat = first.seq.get() <= row.count
                && row.steps.get(after..) == Some(append.steps.as_slice());
            if is_repeat {
                return Ok(Appended::Applied);
            }
            let message = format!("step {} can't follow a journal of {}", first.seq, row.count);
            return Err(internal(message));
        }
        if !append.steps.is_empty() {
            row.crashes = 0;
        }
        row.count += append.steps.len() as u32;
        row.heartbeat_at = Some(append.now);
        row.totals = append.totals;
        note_questions(row, &append.steps);
        self.consume(append.id, &append.steps, append.now);
        self.row(append.id).steps.extend(append.steps);
        for child in append.children {
            self.insert(child);
        }
        let is_finish = matches!(append.then, Then::Finish { .. });
        if !(is_finish && self.plant == Plant::NoOutbox) {
            self.send(append.events);
        }
        // Whoever goes on is told of wake-ups, as several processes share these tables.
        let goes_on = matches!(append.then, Then::Continue);
        self.then(append.id, append.then, append.now);
        let row = self.row(append.id);
        if goes_on && row.wakes > row.wakes_claimed {
            return Ok(Appended::Woken { wakes: row.wakes });
        }
        Ok(Appended::Applied)
    }

    fn then(&mut self, id: ExecutionId, then: Then, now: Time) {
        let row = self.row(id);
        match then {
            Then::Continue => {}
            Then::Park {
                status,
                reason,
                until,
                wakes_seen,
            } => {
                row.status = status;
                row.reason = Some(reason);
                row.worker = None;
                let due = if row.wakes > wakes_seen { now } else { until };
                row.due_at = Some(due);
                self.told.work |= due <= now;
            }
            Then::HandBack => {
                row.worker = None;
                row.due_at = Some(now);
                self.told.work = true;
            }
            Then::Finish {
                outcome,
                messages,
                digest,
            } => {
                self.end(id, outcome, (messages, digest), now);
            }
        }
    }

    /// The end: state, result, conversation, the end of the children and the parent's wake-up. Tells whether it was
    /// the end, or that had come before.
    fn end(
        &mut self,
        id: ExecutionId,
        outcome: Outcome,
        (messages, digest): (Vec<Message>, Option<Box<Digest>>),
        now: Time,
    ) -> bool {
        let row = self.row(id);
        if row.is_over() {
            return false;
        }
        let why = outcome.reason();
        row.status = outcome.status();
        row.reason = Some(why.clone());
        row.finished_at = Some(now);
        row.due_at = None;
        row.worker = None;
        row.outcome = Some(outcome);
        let (agent, parent) = (row.execution.agent.clone(), row.execution.parent);
        if let Some(conversation) = row.execution.conversation.clone() {
            let said = self.conversations.entry((agent, conversation)).or_default();
            let is_changed = digest.is_some() || !messages.is_empty();
            if let Some(digest) = digest {
                let covered = said.len().saturating_sub(digest.keep as usize);
                said.splice(..covered, [digest.message]);
            }
            said.extend(messages);
            if is_changed {
                self.count_change(id, now);
            }
        }
        self.tell_end(id, now);
        self.leave_line(id, now);
        self.end_children(id, &why, now);
        if let Some(parent) = parent {
            self.wake(parent.id, now);
        }
        true
    }

    /// An end that no owner writes, with the journal's last step.
    pub(super) fn end_unowned(&mut self, id: ExecutionId, outcome: Outcome, now: Time) {
        if !self.end(id, outcome.clone(), (Vec::new(), None), now) {
            return;
        }
        let row = self.row(id);
        let last = row.steps.last().map_or(0, |step| step.seq.get());
        row.steps.push(Step {
            seq: Seq::new(last + 1),
            at: now,
            epoch: row.epoch,
            body: StepBody::Finished { outcome },
        });
        row.count = last + 1;
    }

    /// Adds what steps consume to the day: tool calls count with the model that wanted them.
    fn consume(&mut self, id: ExecutionId, steps: &[Step], now: Time) {
        let day = now.format("%Y-%m-%d").to_string();
        let row = self.row(id);
        let (agent, mut model) = (row.execution.agent.clone(), row.model.clone());
        for step in steps {
            let (usage, cost, calls, tools) = match &step.body {
                StepBody::ModelCall(call) => {
                    model = Some((call.provider, call.model.clone()));
                    (call.usage, call.cost_usd.unwrap_or(Money::ZERO), 1, 0)
                }
                StepBody::ToolIntent(_) | StepBody::ChildStarted { .. } => {
                    (Usage::default(), Money::ZERO, 0, 1)
                }
                _ => continue,
            };
            let Some((provider, name)) = model.clone() else {
                continue;
            };
            let key = (day.clone(), agent.clone(), provider.as_str(), name.clone());
            let total = self
                .usage
                .entry(key)
                .or_insert_with(|| nothing(&agent, provider, name, &day));
            total.usage += usage;
            total.cost_usd += cost;
            total.model_calls += calls;
            total.tool_calls += tools;
        }
        self.row(id).model = model;
    }
}

fn nothing(agent: &domain::AgentName, provider: Provider, model: String, day: &str) -> UsageRow {
    UsageRow {
        agent: agent.clone(),
        provider,
        model,
        day: day.to_owned(),
        model_calls: 0,
        tool_calls: 0,
        usage: Usage::default(),
        cost_usd: Money::ZERO,
    }
}

fn note_questions(row: &mut Row, steps: &[Step]) {
    for step in steps {
        match &step.body {
            StepBody::InputRequested(request) => {
                let input = Input {
                    question: request.question.clone(),
                    until: request.until,
                    answer: None,
                    is_consumed: false,
                };
                row.inputs.insert(step.seq, input);
            }
            StepBody::InputReceived(received) => {
                if let Some(input) = row.inputs.get_mut(&received.request) {
                    input.is_consumed = true;
                }
            }
            _ => {}
        }
    }
}

/// Refuses what no journal can take.
fn check(append: &Append) -> Result<()> {
    let mut expected = append.steps.first().map_or(Seq::FIRST, |step| step.seq);
    for step in &append.steps {
        if step.seq != expected || step.seq.get() == 0 {
            return Err(internal("the steps of an append are not in order"));
        }
        expected = expected.plus(1);
    }
    match append.then {
        Then::Park { status, .. }
            if !matches!(status, Status::Running | Status::WaitingForInput) =>
        {
            Err(internal(format!(
                "an execution can't be parked as {status}"
            )))
        }
        _ => Ok(()),
    }
}
