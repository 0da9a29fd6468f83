//! Acts on schedules: any number of schedulers may run, each fire time is acted on by one.
//!
//! A look reads what is due, has [`domain::schedule::plan()`] decide about it, and writes what it came to: rows and
//! executions in one transaction, which changes nothing if another scheduler was first. So a scheduler may die at any
//! moment; the next look, anybody's, finds what it left.

mod pace;

use std::sync::Arc;
use std::time::Duration;

use domain::event::topics;
use domain::schedule::{Act, SkipReason, Standing, plan};
use domain::{
    Event, Execution, ExecutionId, ExecutionMode, Priority, Schedule, Time, TimeDelta, TraceId,
};
use futures::StreamExt;
use serde_json::json;
use store::{DueSchedule, Fate, Fired, Firing, NewRun, OpenRun, RunKind, Submission, WhenBusy};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::shared::Shared;
use crate::task;

use pace::Hurry;
pub(crate) use pace::Pace;

/// How many schedules a look takes.
const BATCH: usize = 2048;
/// How many of them share a transaction.
const TOGETHER: usize = 256;
/// How many transactions a look has under way at once.
const AT_ONCE: usize = 4;
/// The longest rest between looks: what other processes change is found by then.
const POLL: Duration = Duration::from_secs(1);
/// The rest when others were at what is due: should they have died over it, it must not wait for long. And the rest
/// while a run waits for the one before, which another process may perform.
const AGAIN: Duration = Duration::from_millis(100);
/// How far the clocks of processes may differ before one is taken to have gone back.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// How long runs are listed.
const KEPT: TimeDelta = TimeDelta::days(30);

/// Acts on schedules.
#[derive(Clone)]
pub struct Scheduler {
    core: Arc<Shared>,
    kept: TimeDelta,
}

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// How many schedules it acted on.
    pub acted: usize,
    /// How many it left, because another scheduler was at them or they could not be written.
    pub left: usize,
    /// When the next one is due, as far as is known.
    pub next_due: Option<Time>,
    /// There is more to look at now.
    pub is_more: bool,
    /// Runs wait for the one before.
    pub runs_wait: bool,
}

/// What some came to.
struct Acted {
    /// On how many it was acted.
    count: usize,
    /// When the first of them is due again.
    next_due: Option<Time>,
    /// Whether one of their runs waits.
    runs_wait: bool,
}

impl Scheduler {
    pub(crate) const fn new(core: Arc<Shared>) -> Self {
        Self { core, kept: KEPT }
    }

    /// The same, which lists runs for longer or shorter than a month.
    #[must_use]
    pub const fn keeping(mut self, runs: TimeDelta) -> Self {
        self.kept = runs;
        self
    }

    /// Looks until `stop`: when the next one is due, when something was changed, and every second.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut is_well = true;
        // Held from one look to the next while there is more.
        let mut hurry = None;
        loop {
            let pause = match self.look_within(&mut hurry).await {
                Ok(looked) => {
                    is_well = true;
                    if !looked.is_more {
                        hurry = None;
                    }
                    self.rest(&looked)
                }
                Err(error) => {
                    if std::mem::take(&mut is_well) {
                        tracing::error!("schedules wait, it is tried every second: {error}");
                    }
                    hurry = None;
                    POLL
                }
            };
            tokio::select! {
                () = self.core.pace.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn rest(&self, looked: &Looked) -> Duration {
        if looked.is_more {
            return Duration::ZERO;
        }
        if looked.left > 0 {
            return AGAIN;
        }
        let longest = if looked.runs_wait { AGAIN } else { POLL };
        let until = looked.next_due.map(|due| due - self.core.now());
        until.map_or(longest, |until| {
            until.to_std().unwrap_or_default().min(longest)
        })
    }

    /// Looks once, and acts on everything that is due.
    ///
    /// # Errors
    /// The store can't be read. What can't be written is logged, and left to the next look.
    pub async fn look(&self) -> Result<Looked, store::Error> {
        self.look_within(&mut None).await
    }

    /// The same, and in a hurry when much is due.
    async fn look_within<'a>(
        &'a self,
        hurry: &mut Option<Hurry<'a>>,
    ) -> Result<Looked, store::Error> {
        self.core.learn_restored().await?;
        let now = self.core.now();
        let ahead = now.checked_add_signed(SKEW).unwrap_or(now);
        let found = self
            .core
            .ports
            .store
            .due_schedules(now, ahead, BATCH)
            .await?;
        let due = found.due.len();
        if due > TOGETHER {
            hurry.get_or_insert_with(|| self.core.pace.hurry());
        }
        let mut due_ones = found.due.into_iter();
        let batches = std::iter::from_fn(|| {
            let batch: Vec<DueSchedule> = due_ones.by_ref().take(TOGETHER).collect();
            (!batch.is_empty()).then_some(batch)
        });
        let mut looked = Looked {
            acted: 0,
            left: due,
            next_due: found.next_due,
            is_more: false,
            runs_wait: found.runs_wait,
        };
        let mut acts = futures::stream::iter(batches)
            .map(|batch| self.act(batch, now))
            .buffer_unordered(AT_ONCE);
        while let Some(acted) = acts.next().await {
            looked.acted += acted.count;
            looked.next_due = earlier(looked.next_due, acted.next_due);
            looked.runs_wait |= acted.runs_wait;
        }
        looked.left = due - looked.acted.min(due);
        looked.is_more = due >= BATCH && looked.acted > 0;
        self.core.pace.note_waiting(looked.runs_wait);
        Ok(looked)
    }

    /// Acts on some.
    async fn act(&self, batch: Vec<DueSchedule>, now: Time) -> Acted {
        let mut firings = Vec::with_capacity(batch.len());
        for due in &batch {
            let (firing, cancel) = self.firing(due, now);
            // Before what takes their place is durable: should this process die in between, the next look repeats it.
            if self.cancel(&due.record.schedule, &cancel, now).await {
                firings.push(firing);
            }
        }
        let next_due = firings.iter().filter_map(|firing| firing.next_due).min();
        let mut runs = firings.iter().flat_map(|firing| &firing.runs);
        let runs_wait = runs.any(|run| matches!(run.fate, Fate::Wait));
        Acted {
            count: self.write(firings).await,
            next_due,
            runs_wait,
        }
    }

    /// Writes what looks have come to; answers of how many.
    async fn write(&self, firings: Vec<Firing>) -> usize {
        let store = &self.core.ports.store;
        match store.fire(firings.clone()).await {
            Ok(fired) => told(&firings, &fired, self.core.now()),
            // One that can't be written must not hold up the others.
            Err(_) if firings.len() > 1 => {
                let mut acted = 0;
                for firing in firings {
                    let alone = vec![firing];
                    match store.fire(alone.clone()).await {
                        Ok(fired) => acted += told(&alone, &fired, self.core.now()),
                        Err(error) => complain(&alone, &error),
                    }
                }
                acted
            }
            Err(error) => {
                complain(&firings, &error);
                0
            }
        }
    }

    /// What a schedule's fire times come to, and which executions have to end for it.
    fn firing(&self, due: &DueSchedule, now: Time) -> (Firing, Vec<ExecutionId>) {
        let record = &due.record;
        let schedule = &record.schedule;
        let mut firing = Firing {
            name: schedule.name.clone(),
            version: record.version,
            cursor: record.cursor,
            next_due: record.next_due,
            runs: Vec::new(),
            waited: Vec::new(),
            over: due
                .open
                .iter()
                .filter(|run| run.is_over)
                .map(|run| run.fire_time)
                .collect(),
            now,
            forget_before: now.checked_sub_signed(self.kept).unwrap_or(now),
        };
        if record.cursor - now > SKEW {
            tracing::warn!(
                schedule = %schedule.name,
                "the clock has gone back from {} to {now}; fire times that were acted on are not acted on again",
                record.cursor
            );
            firing.cursor = now;
            firing.next_due = schedule.next_due(now).filter(|_| record.is_active());
            return (firing, Vec::new());
        }
        let is_waiting = |run: &&OpenRun| run.execution.is_none();
        let waiting: Vec<Time> = due
            .open
            .iter()
            .filter(is_waiting)
            .map(|run| run.fire_time)
            .collect();
        let running: Vec<ExecutionId> = due
            .open
            .iter()
            .filter(|run| !run.is_over)
            .filter_map(|run| run.execution)
            .collect();
        let plan = plan(
            schedule,
            Standing {
                cursor: record.cursor,
                now,
                running: &running,
                waiting: &waiting,
            },
        );
        firing.cursor = plan.cursor;
        firing.next_due = plan.next_due.filter(|_| record.is_active());
        firing.runs = plan
            .planned
            .into_iter()
            .map(|planned| self.run_of(schedule, planned.fire_time, planned.act, now))
            .collect();
        firing.waited = plan
            .begin
            .map(|begin| self.run_of(schedule, begin, Act::Start, now))
            .into_iter()
            .collect();
        (firing, plan.cancel)
    }

    fn run_of(&self, schedule: &Schedule, fire_time: Time, act: Act, now: Time) -> NewRun {
        let fate = match act {
            Act::Start => match self.submission(schedule, fire_time, RunKind::Schedule, now) {
                Ok(submission) => Fate::Start(Box::new(submission)),
                Err(error) => Fate::Skip(SkipReason::Agent {
                    why: error.to_string(),
                }),
            },
            Act::Wait => Fate::Wait,
            Act::Skip(reason) => Fate::Skip(reason),
        };
        NewRun {
            fire_time,
            kind: RunKind::Schedule,
            fate,
        }
    }

    /// The execution of a fire time, with the events that go out with it.
    ///
    /// # Errors
    /// The agent is unknown or disabled.
    pub(crate) fn submission(
        &self,
        schedule: &Schedule,
        fire_time: Time,
        kind: RunKind,
        now: Time,
    ) -> Result<Submission, Error> {
        let agents = &self.core.agents;
        let name = &schedule.agent;
        let unknown = || agents.unknown(name.as_str());
        let agent = agents.get(name).ok_or_else(unknown)?;
        if !agent.takes_work() {
            return Err(Error::disabled(&agent));
        }
        let limit = schedule
            .timeout_seconds
            .min(agent.definition.longest_seconds());
        let id = (self.core.new_id)();
        let execution = Execution {
            id: ExecutionId::from_uuid(id),
            agent: name.clone(),
            version: agent.version,
            mode: agent.definition.execution_mode,
            input: schedule.task_data.clone(),
            history: Vec::new(),
            conversation: None,
            priority: Priority::default(),
            created_at: now,
            deadline: now + Duration::from_secs(limit),
            budget: domain::budget::BudgetLimits::default(),
            trace_id: TraceId::from_uuid((self.core.new_id)()),
            upstream: None,
            parent: None,
            origin: None,
            event_id: schedule
                .event_id(fire_time)
                .filter(|_| kind == RunKind::Schedule),
            hops: 0,
            restored: (kind == RunKind::Schedule)
                .then(|| self.core.doubt(fire_time))
                .flatten(),
            callback_url: None,
            metadata: json!({
                "schedule": schedule.name, "fire_time": fire_time, "trigger": kind.as_str(),
            }),
        };
        let hint = task::submitted_event(&execution)
            .filter(|_| execution.mode != ExecutionMode::Scheduled);
        let events = scheduled_event(&execution)
            .into_iter()
            .chain(hint)
            .collect();
        Ok(Submission {
            execution,
            idempotency: None,
            events,
            when_busy: WhenBusy::default(),
        })
    }

    /// Asks for the end of executions; whether all were asked.
    async fn cancel(&self, schedule: &Schedule, ids: &[ExecutionId], now: Time) -> bool {
        let by = format!("schedule {}", schedule.name);
        let reason = "the next run is due, and overlap_policy is cancel";
        for id in ids {
            if let Err(error) = self.core.ports.store.cancel(*id, &by, reason, now).await {
                tracing::error!(schedule = %schedule.name, execution_id = %id, "it can't be cancelled: {error}");
                return false;
            }
            self.core.leases.tell_news(*id);
        }
        true
    }
}

/// Tells the world, and the pool of the mode, of a scheduled run.
fn scheduled_event(execution: &Execution) -> Option<Event> {
    let mut data = json!({ "execution_id": execution.id, "agent_name": execution.agent });
    if let (Some(data), Some(origin)) = (data.as_object_mut(), execution.metadata.as_object()) {
        data.extend(origin.clone());
    }
    Some(Event {
        id: format!("scheduled-{}", execution.id).parse().ok()?,
        topic: topics::scheduled_task(&execution.agent)?,
        source: format!("agentrunner/{}", execution.agent),
        time: execution.created_at,
        trace_id: execution.trace_id.clone(),
        hops: 0,
        data,
    })
}

fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    one.into_iter().chain(other).min()
}

/// Logs and counts what is on disk at `now`; answers on how many schedules it was acted.
fn told(firings: &[Firing], fired: &[Fired], now: Time) -> usize {
    let mut acted = 0;
    for (firing, fired) in firings.iter().zip(fired) {
        let Fired::Done(started) = fired else {
            continue;
        };
        acted += 1;
        for (fire_time, id) in started {
            let lag = (now - *fire_time).num_milliseconds();
            metrics::histogram!("agentrunner_schedule_lag_seconds").record(lag as f64 / 1000.0);
            tracing::debug!(schedule = %firing.name, execution_id = %id, %fire_time, lag, "a scheduled run starts");
        }
        for run in firing.runs.iter().chain(&firing.waited) {
            let act = run.fate.act();
            let word = match &act {
                Act::Start => "started",
                Act::Wait => "waiting",
                Act::Skip(reason) => reason.as_str(),
            };
            metrics::counter!("agentrunner_schedule_runs_total", "what" => word).increment(1);
            if let Act::Skip(reason) = act {
                let fire_time = run.fire_time;
                tracing::info!(schedule = %firing.name, %fire_time, "a fire time is skipped: {}", reason.sentence());
            }
        }
    }
    acted
}

fn complain(firings: &[Firing], error: &store::Error) {
    for firing in firings {
        tracing::error!(schedule = %firing.name, "what became of its fire times can't be written, it is tried again: {error}");
    }
}
