//! Performs one claimed execution: asks [`domain::decide()`], does what it names, journals the outcome, asks again.

mod children;
mod model;
mod pause;
pub(crate) mod resolve;
mod team;
mod tooling;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use chrono::SecondsFormat;
use domain::decide::{Cancel, Facts, decide};
use domain::definition::Provider;
use domain::execution::Totals;
use domain::step::{CallRef, InputReceived, StepBody};
use domain::{
    Action, Definition, Epoch, Execution, ExecutionId, Failure, FailureCode, Message, Outcome,
    State, Status, Step, Tokens, ToolOutcome,
};
use serde_json::Value;
use store::{Append, Appended, Claimed, Digest, Submission, Then, Waiting};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ended::Subject;
use crate::feed::{self, Happened};
use crate::leases::{LISTEN, Lease};
use crate::live::LiveRun;
use crate::shared::{DROPPED_CALLS, Shared};
use crate::tally::Tally;
use crate::task::submitted_event;

/// How a run ended, for the dispatcher's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The execution is over.
    Finished(Status),
    /// It waits for something, until then at the latest.
    Parked(domain::Time),
    /// It was given back.
    HandedBack,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(status) => write!(f, "is over: {status}"),
            Self::Parked(until) => {
                let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
                write!(f, "waits, until {until} at the latest")
            }
            Self::HandedBack => f.write_str("is handed back"),
        }
    }
}

/// A stop of the run that is not an end of the execution.
pub(crate) enum Stop {
    /// The lease is another's.
    Lost,
    /// The store can't be reached or says something impossible: the lease runs out and another tries.
    Store(store::Error),
    /// The decide function and the journal disagree: a defect, or a journal edited by hand.
    Illegal(domain::IllegalStep),
}

impl From<store::Error> for Stop {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// One execution in this process's hands.
pub(crate) struct Run {
    core: Arc<Shared>,
    lease: Arc<Lease>,
    live: Arc<LiveRun>,
    execution: Execution,
    definition: Arc<Definition>,
    epoch: Epoch,
    /// An earlier one of its conversation is not over.
    waits_turn: bool,
    /// What was said before is what the conversation holds, not what the caller brought.
    history_is_stored: bool,
    state: State,
    /// Taken by the state, not yet durable.
    pending: Vec<Step>,
    children: Vec<Submission>,
    cancel: Option<Cancel>,
    wakes_seen: u64,
    spent_today: Totals,
    in_flight: BTreeSet<CallRef>,
    /// What of a team's shared state its next steps are given.
    shared: BTreeMap<String, Value>,
    /// Children that may still run.
    delegated: BTreeSet<ExecutionId>,
    running: JoinSet<(CallRef, ToolOutcome, u64)>,
}

impl Run {
    /// Folds the journal of a claimed execution. `stored` is what its conversation holds: nobody else changes that while
    /// it has the turn, so the journal means the same each time.
    ///
    /// # Errors
    /// The journal or definition can't be used: the outcome that the execution must end with.
    pub(crate) fn new(
        core: Arc<Shared>,
        lease: Arc<Lease>,
        live: Arc<LiveRun>,
        definition: Arc<Definition>,
        mut claimed: Claimed,
        stored: Vec<Message>,
    ) -> Result<(Self, Waiting), Failure> {
        let history_is_stored = claimed.execution.history.is_empty();
        if history_is_stored {
            claimed.execution.history = stored;
        }
        let state = State::replay(&claimed.execution, &claimed.steps)
            .map_err(|illegal| corrupt(format!("its journal does not add up: {illegal}")))?;
        let mut run = Self {
            core,
            lease,
            live,
            execution: claimed.execution,
            definition,
            epoch: claimed.epoch,
            waits_turn: claimed.waits_turn,
            history_is_stored,
            state,
            pending: Vec::new(),
            children: Vec::new(),
            cancel: None,
            wakes_seen: 0,
            spent_today: Totals::default(),
            in_flight: BTreeSet::new(),
            shared: BTreeMap::new(),
            delegated: BTreeSet::new(),
            running: JoinSet::new(),
        };
        let children = run.state.children().into_iter();
        run.delegated = children.map(|(_, child)| child).collect();
        Ok((run, claimed.waiting))
    }

    /// Goes on until the execution is over, parked, handed back or lost. What is `waiting` is as it was when the store was
    /// `asked` for it.
    pub(crate) async fn go(mut self, waiting: Waiting, asked: Instant) -> Result<Ended, Stop> {
        let status = Status::Running;
        let begins = || vec![Happened::Execution { status }];
        self.core
            .feed
            .of(&self.execution, self.core.now(), 1, begins);
        self.load_spending().await?;
        self.absorb(waiting).await?;
        // The store was slow, and nothing has been written since: it may have been called off.
        if asked.elapsed() > LISTEN {
            self.lease.tell_news();
        }
        loop {
            if self.lease.is_lost() {
                return Err(Stop::Lost);
            }
            if self.lease.should_hand_back(self.in_flight.is_empty()) {
                metrics::counter!(DROPPED_CALLS, "kind" => "tool")
                    .increment(self.in_flight.len() as u64);
                self.flush(Then::HandBack).await?;
                return Ok(Ended::HandedBack);
            }
            if self.lease.take_news() {
                let waiting = self.core.ports.store.waiting(self.execution.id).await?;
                self.absorb(waiting).await?;
            }
            if let Some(ended) = self.step().await? {
                return Ok(ended);
            }
        }
    }

    /// One decision and its consequence.
    async fn step(&mut self) -> Result<Option<Ended>, Stop> {
        match decide(
            &self.definition,
            &self.execution,
            &self.state,
            &self.facts(),
        ) {
            Action::Record(bodies) => {
                self.load_shared(&bodies).await?;
                for body in bodies {
                    self.record(body)?;
                }
                Ok(None)
            }
            Action::CallModel(run) => {
                if let Some(until) = self.left_alone_until(&run.config) {
                    let reason = format!(
                        "waits until {} takes requests again",
                        run.config.provider.as_str()
                    );
                    return self.park(until, reason).await.map(Some);
                }
                self.flush(Then::Continue).await?;
                self.call_model(&run).await?;
                Ok(None)
            }
            Action::RunTools(runs) => {
                self.flush(Then::Continue).await?;
                // A cancellation that another process took in before the commit comes first. Frozen since the commit, it
                // might call what another has settled by now.
                if !self.lease.has_news() && self.lease.make_certain().await {
                    self.begin_tools(runs);
                }
                Ok(None)
            }
            Action::AwaitTools => {
                self.await_tools().await?;
                Ok(None)
            }
            Action::Park { until } => {
                let reason = self.waiting_for(self.state.status());
                self.park(until, reason).await.map(Some)
            }
            Action::Done(outcome) => {
                self.running.abort_all();
                let messages = self.conversation_messages(&outcome);
                let (digest, status) = (self.digest(), outcome.status());
                self.flush(Then::Finish {
                    outcome,
                    messages,
                    digest,
                })
                .await?;
                self.core.ended(&Subject::new(&self.execution), status);
                self.tell_relatives();
                Ok(Some(Ended::Finished(status)))
            }
        }
    }

    fn facts(&self) -> Facts {
        // Before its turn it is claimed for one reason only, whatever the clock says now.
        let now = if self.waits_turn {
            self.core.now().max(self.execution.deadline)
        } else {
            self.core.now()
        };
        Facts {
            now,
            epoch: self.epoch,
            cancel: self.cancel.clone(),
            in_flight: self.in_flight.clone(),
            spent_today: self.spent_today,
            context_window: self.context_window(),
            agents: self.colleagues(),
        }
    }

    /// How much the model reads whose turn it is.
    fn context_window(&self) -> Option<Tokens> {
        let domain::state::Turn::Model(turn) = &self.state.turn else {
            return None;
        };
        let config = self.definition.llm_config.choice(turn.choice)?;
        match config.num_ctx {
            Some(tokens) if config.provider == Provider::Ollama => Some(Tokens(tokens.into())),
            _ => llm::context_window(config.provider, &config.model),
        }
    }

    /// Takes a step into the state; it is durable after the next flush.
    fn record(&mut self, body: StepBody) -> Result<(), Stop> {
        let step = Step {
            seq: self.state.next_seq,
            at: self.core.now(),
            epoch: self.epoch,
            body,
        };
        if let StepBody::ChildStarted {
            call,
            child,
            agent,
            budget,
        } = &step.body
        {
            match self.child((*call, *child), agent, *budget, step.seq) {
                Ok(submission) => self.children.push(submission),
                Err(message) => return self.refuse_child(&step, message),
            }
        }
        self.state.apply(&step).map_err(Stop::Illegal)?;
        match &step.body {
            StepBody::ChildStarted { child, .. } => drop(self.delegated.insert(*child)),
            StepBody::ChildFinished { child, .. } => drop(self.delegated.remove(child)),
            _ => {}
        }
        self.pending.push(step);
        Ok(())
    }

    /// Commits what is pending. Nothing is done in the world before what led to it is on disk.
    async fn flush(&mut self, then: Then) -> Result<(), Stop> {
        if self.pending.is_empty() && matches!(then, Then::Continue) {
            return Ok(());
        }
        let events = match &then {
            Then::Finish { outcome, .. } => Subject::new(&self.execution)
                .with_team(self.state.team.as_deref())
                .events(outcome, self.core.now()),
            // The hint once more: others need not wait for their next poll.
            Then::HandBack => submitted_event(&self.execution).into_iter().collect(),
            Then::Continue | Then::Park { .. } => Vec::new(),
        };
        let steps = std::mem::take(&mut self.pending);
        let last = steps.last().map(|step| step.seq);
        let copies: Vec<_> = match self.live.is_watched() {
            true => steps.iter().cloned().map(Arc::new).collect(),
            false => Vec::new(),
        };
        let mut happened: Vec<_> = steps.iter().map(feed::of_step).collect();
        happened.extend(status_after(&then).map(|status| Happened::Execution { status }));
        let tallies: Vec<_> = steps.iter().map(Tally::of).collect();
        let append = Append {
            id: self.execution.id,
            epoch: self.epoch,
            now: self.core.now(),
            steps,
            totals: self.state.totals,
            events,
            children: std::mem::take(&mut self.children),
            then,
        };
        match self.core.append(append).await? {
            Appended::Applied => {}
            Appended::Woken { wakes } => self.lease.hear_wakes(wakes),
            Appended::LostLease => {
                self.lease.lose();
                return Err(Stop::Lost);
            }
        }
        for tally in tallies {
            tally.count(&self.execution.agent);
        }
        if let Some(seq) = last {
            self.lease.committed(seq);
            self.live.committed(seq, &copies);
        }
        let (count, now) = (happened.len(), self.core.now());
        self.core.feed.of(&self.execution, now, count, || happened);
        Ok(())
    }

    async fn park(&mut self, until: domain::Time, reason: String) -> Result<Ended, Stop> {
        let then = Then::Park {
            status: self.state.status(),
            reason,
            until,
            wakes_seen: self.wakes_seen,
        };
        self.flush(then).await?;
        Ok(Ended::Parked(until))
    }

    /// Takes what has come from outside into the journal.
    async fn absorb(&mut self, waiting: Waiting) -> Result<(), Stop> {
        self.wakes_seen = waiting.wakes;
        self.lease.has_seen_wakes(waiting.wakes);
        self.cancel = waiting.cancel;
        for input in waiting.inputs {
            let open = self
                .state
                .open_requests()
                .any(|(request, ..)| request == input.request);
            if open {
                let (request, answer, by) = (input.request, input.answer, input.by);
                self.record(StepBody::InputReceived(InputReceived {
                    request,
                    answer,
                    by,
                }))?;
            }
        }
        for ended in waiting.children {
            let children = self.state.children();
            let waits = children.iter().find(|(_, child)| *child == ended.id);
            if let Some((call, child)) = waits.copied() {
                self.record(StepBody::ChildFinished {
                    call,
                    child,
                    outcome: ended.outcome,
                    spent: ended.totals,
                })?;
            }
        }
        Ok(())
    }

    /// What the agent consumed today, when a daily limit asks for it.
    async fn load_spending(&mut self) -> Result<(), Stop> {
        if self.definition.budget.per_day.is_none() {
            return Ok(());
        }
        let day = self.core.now().format("%Y-%m-%d").to_string();
        let filter = store::UsageFilter {
            agent: Some(self.execution.agent.clone()),
            from_day: Some(day.clone()),
            to_day: Some(day),
        };
        let mut spent = Totals::default();
        for row in self.core.ports.store.usage(filter).await? {
            spent.usage += row.usage;
            spent.cost_usd += row.cost_usd;
            spent.tool_calls = spent
                .tool_calls
                .saturating_add(u32::try_from(row.tool_calls).unwrap_or(u32::MAX));
        }
        // The day's figures contain what this execution has consumed so far; decide adds that itself.
        spent.usage.input_tokens = spent
            .usage
            .input_tokens
            .minus(self.state.totals.usage.input_tokens);
        spent.usage.output_tokens = spent
            .usage
            .output_tokens
            .minus(self.state.totals.usage.output_tokens);
        self.spent_today = spent;
        Ok(())
    }

    fn waiting_for(&self, status: Status) -> String {
        let names = |wanted: fn(&domain::state::Progress) -> bool| {
            let names: Vec<&str> = self
                .state
                .calls()
                .iter()
                .filter(|c| wanted(&c.progress))
                .map(|c| c.wish.name.as_str())
                .collect();
            names.join(", ")
        };
        if let Some(reason) = self.team_waits_for() {
            return reason;
        }
        if status == Status::WaitingForInput {
            return format!(
                "waits for a person: {}",
                names(|p| matches!(p, domain::state::Progress::Asked { .. }))
            );
        }
        match &self.state.turn {
            domain::state::Turn::Model(turn) => match &turn.last_failure {
                Some((_, message)) => format!(
                    "tries the model again (try {}): {message}",
                    turn.attempt + 1
                ),
                None => "waits for its turn".to_owned(),
            },
            _ => format!(
                "waits for {}",
                names(|p| !matches!(p, domain::state::Progress::Settled(_)))
            ),
        }
    }

    /// What a conversation gains by this execution: the question and the last answer.
    fn conversation_messages(&self, outcome: &Outcome) -> Vec<Message> {
        match (&self.execution.conversation, outcome) {
            (Some(_), Outcome::Completed { .. }) => self
                .state
                .transcript
                .iter()
                .skip(self.state.own)
                .cloned()
                .collect(),
            _ => Vec::new(),
        }
    }

    /// What takes the place of older messages there, so that the next execution need not summarise them again. It covers
    /// what was said before this one, so it holds however this one ends.
    fn digest(&self) -> Option<Box<Digest>> {
        let is_ours = self.state.has_new_digest && self.history_is_stored;
        let message = self.state.transcript.first().filter(|_| is_ours)?;
        Some(Box::new(Digest {
            message: message.clone(),
            keep: u32::try_from(self.state.own.saturating_sub(1)).unwrap_or(u32::MAX),
        }))
    }
}

/// How an execution stands after a commit that says so.
const fn status_after(then: &Then) -> Option<Status> {
    match then {
        Then::Finish { outcome, .. } => Some(outcome.status()),
        Then::Park { status, .. } => Some(*status),
        Then::Continue | Then::HandBack => None,
    }
}

/// A failure because of what is stored.
pub(crate) const fn corrupt(message: String) -> Failure {
    Failure {
        code: FailureCode::Corrupt,
        message,
    }
}
