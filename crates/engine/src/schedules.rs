//! Schedules for those who ask: reading, changing, triggering. What a file manages, its file changes.

mod files;

use std::sync::Arc;

use domain::definition::ScheduleConfig;
use domain::nearest::nearest;
use domain::schedule::{Flaw, Trigger};
use domain::{AgentName, ExecutionId, Schedule, ScheduleName, Time, TimeDelta};
use sha2::{Digest, Sha256};
use store::{
    Fate, Fired, Firing, ManagedBy, NewRun, RunKind, ScheduleFilter, ScheduleRecord, ScheduleRow,
    ScheduleRun,
};

use crate::Error;
use crate::scheduler::Scheduler;
use crate::shared::Shared;
use crate::task::MAX_INPUT_BYTES;

pub(crate) use files::follow;

/// How often a change is tried again when others change the same schedule.
const ATTEMPTS: usize = 16;
/// How many next fire times are told at most.
pub const MAX_NEXT: usize = 100;

/// The schedules. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    core: Arc<Shared>,
}

/// A schedule to make or to put in the place of another.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// For whom.
    pub agent: String,
    /// When, with what, and how.
    pub config: ScheduleConfig,
}

/// A fire time to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    /// What the schedule says.
    pub fire_time: Time,
    /// The same as the clocks of its zone show it.
    pub local_time: String,
    /// When the run starts: the jitter added.
    pub starts_at: Time,
}

impl Schedules {
    pub(crate) const fn new(core: Arc<Shared>) -> Self {
        Self { core }
    }

    /// Schedules by name, and how many match in all.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn list(&self, filter: ScheduleFilter) -> Result<(Vec<ScheduleRow>, u64), Error> {
        Ok(self.core.ports.store.schedules(filter).await?)
    }

    /// One schedule.
    ///
    /// # Errors
    /// There is none of that name, or the store can't be reached.
    pub async fn get(&self, name: &str) -> Result<ScheduleRow, Error> {
        let known = match name.parse::<ScheduleName>() {
            Ok(name) => self.core.ports.store.schedule(&name).await?,
            Err(_) => None,
        };
        match known {
            Some(row) => Ok(row),
            None => Err(self.unknown(name).await?),
        }
    }

    /// Makes a schedule. The same again, with `may_exist`, is answered as it is.
    ///
    /// # Errors
    /// Something is wrong with it, the agent is unknown, the name is taken, or the store can't take it.
    pub async fn create(
        &self,
        name: &str,
        new: NewSchedule,
        may_exist: bool,
    ) -> Result<(ScheduleRow, bool), Error> {
        let name: ScheduleName = name.parse().map_err(|error: domain::id::InvalidId| {
            Error::InvalidSchedule(vec![Flaw::new("name", error.to_string(), "")])
        })?;
        let now = self.core.now();
        let schedule = self.checked(&name, new, now)?;
        let record = fresh(schedule, ManagedBy::Api, now);
        if self
            .core
            .ports
            .store
            .save_schedule(record.clone(), None)
            .await?
        {
            self.core.pace.look.notify_one();
            tracing::info!(schedule = %name, agent_name = %record.schedule.agent, "a schedule was made");
            return Ok((self.get(name.as_str()).await?, true));
        }
        let known = self.get(name.as_str()).await?;
        let is_same = Schedule {
            trigger: record
                .schedule
                .trigger
                .clone()
                .counted_as(&known.record.schedule.trigger),
            ..record.schedule
        } == known.record.schedule;
        if may_exist && is_same && known.record.managed_by == ManagedBy::Api {
            return Ok((known, false));
        }
        let message = match &known.record.managed_by {
            ManagedBy::Api => format!(
                "there is a schedule {name}; change it with PUT /schedules/{name}, or choose another name"
            ),
            ManagedBy::File(path) => {
                format!("the file {path} has the schedule {name}; choose another name")
            }
        };
        Err(Error::ScheduleConflict(message))
    }

    /// Puts a definition in the place of a schedule's. Fire times are counted from now on when the trigger changes.
    ///
    /// # Errors
    /// As for [`Schedules::create`], and when a file manages it.
    pub async fn replace(&self, name: &str, new: NewSchedule) -> Result<ScheduleRow, Error> {
        self.get(name).await?;
        let now = self.core.now();
        let schedule = self.checked(&self.get(name).await?.record.schedule.name, new, now)?;
        self.change(name, |record| {
            refuse_file(record, "edit it there", "be changed by the API")?;
            *record = changed(record, schedule.clone(), now);
            Ok(())
        })
        .await
    }

    /// Forgets a schedule and its runs; their executions stay.
    ///
    /// # Errors
    /// There is none, a file manages it, or the store can't be reached.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let record = self.get(name).await?.record;
            refuse_file(
                &record,
                "remove schedule_config there, or pause it with PATCH .../enabled",
                "be deleted by the API",
            )?;
            let store = &self.core.ports.store;
            if store
                .remove_schedule(&record.schedule.name, record.version)
                .await?
            {
                tracing::info!(schedule = %record.schedule.name, "a schedule was deleted");
                return Ok(());
            }
        }
        Err(busy(name))
    }

    /// Lets a schedule run, or stops it. One that a file manages is paused and resumed, whatever its file is reloaded to;
    /// what its file disables can only be enabled there. Fire times that pass meanwhile are not made up for.
    ///
    /// # Errors
    /// There is none, its file disables it, or the store can't be reached.
    pub async fn set_enabled(&self, name: &str, enabled: bool) -> Result<ScheduleRow, Error> {
        let now = self.core.now();
        self.change(name, |record| {
            let was_active = record.is_active();
            match &record.managed_by {
                ManagedBy::Api => {
                    record.schedule.enabled = enabled;
                    record.is_paused = false;
                }
                ManagedBy::File(path) if enabled && !record.schedule.enabled => {
                    let name = &record.schedule.name;
                    return Err(Error::ScheduleConflict(format!(
                        "the file {path} disables the schedule {name}; set enabled: true there"
                    )));
                }
                ManagedBy::File(_) => record.is_paused = !enabled,
            }
            if record.is_active() && !was_active {
                record.cursor = now;
            }
            Ok(())
        })
        .await
    }

    /// Starts a run now, whether the schedule is enabled or not and whatever runs: a person asked for it. The same `key`
    /// starts one run.
    ///
    /// # Errors
    /// There is no such schedule, its agent is unknown or disabled, or the store can't be reached.
    pub async fn trigger(
        &self,
        name: &str,
        key: Option<&str>,
    ) -> Result<(Time, ExecutionId, AgentName), Error> {
        let scheduler = Scheduler::new(self.core.clone());
        for attempt in 0..ATTEMPTS {
            let record = self.get(name).await?.record;
            let now = self.core.now();
            let later = TimeDelta::microseconds(i64::try_from(attempt).unwrap_or_default());
            let fire_time = whole(now + later);
            let schedule = &record.schedule;
            let mut submission = scheduler.submission(schedule, fire_time, RunKind::Manual, now)?;
            submission.execution.event_id = key.and_then(|key| event_of(&schedule.name, key));
            let run = NewRun {
                fire_time,
                kind: RunKind::Manual,
                fate: Fate::Start(Box::new(submission)),
            };
            let firing = Firing {
                name: schedule.name.clone(),
                version: record.version,
                cursor: record.cursor,
                next_due: record.next_due,
                runs: vec![run],
                waited: Vec::new(),
                over: Vec::new(),
                now,
                forget_before: Time::UNIX_EPOCH,
            };
            let fired = self.core.ports.store.fire(vec![firing]).await?;
            if let Some(Fired::Done(started)) = fired.first()
                && let Some((at, id)) = started.first()
            {
                tracing::info!(schedule = %schedule.name, execution_id = %id, "a run was triggered");
                return Ok((*at, *id, schedule.agent.clone()));
            }
        }
        Err(busy(name))
    }

    /// The next fire times, at most [`MAX_NEXT`]; what is paused has them too, in case that it is resumed.
    ///
    /// # Errors
    /// There is no such schedule, or the store can't be reached.
    pub async fn next(&self, name: &str, count: usize) -> Result<Vec<Upcoming>, Error> {
        let record = self.get(name).await?.record;
        let from = if record.is_active() {
            record.cursor
        } else {
            self.core.now()
        };
        let schedule = &record.schedule;
        let zone = schedule.trigger.zone();
        let upcoming = |fire_time| Upcoming {
            fire_time,
            local_time: zone.local(fire_time),
            starts_at: schedule.due_at(fire_time),
        };
        Ok(schedule
            .fire_times(from)
            .take(count.min(MAX_NEXT))
            .map(upcoming)
            .collect())
    }

    /// The runs of a schedule, the latest fire time first, and how many there are.
    ///
    /// # Errors
    /// There is no such schedule, or the store can't be reached.
    pub async fn runs(
        &self,
        name: &str,
        before: Option<Time>,
        limit: usize,
    ) -> Result<(Vec<ScheduleRun>, u64), Error> {
        let name = self.get(name).await?.record.schedule.name;
        Ok(self
            .core
            .ports
            .store
            .schedule_runs(&name, before, limit)
            .await?)
    }

    /// Changes a schedule as it is now; tries again when others changed it meanwhile.
    async fn change(
        &self,
        name: &str,
        work: impl Fn(&mut ScheduleRecord) -> Result<(), Error>,
    ) -> Result<ScheduleRow, Error> {
        for _ in 0..ATTEMPTS {
            let row = self.get(name).await?;
            let mut record = row.record.clone();
            work(&mut record)?;
            if record == row.record {
                return Ok(row);
            }
            record.updated_at = self.core.now();
            record.next_due = next_due(&record);
            let seen = record.version;
            if self
                .core
                .ports
                .store
                .save_schedule(record, Some(seen))
                .await?
            {
                self.core.pace.look.notify_one();
                return self.get(name).await;
            }
        }
        Err(busy(name))
    }

    fn checked(&self, name: &ScheduleName, new: NewSchedule, now: Time) -> Result<Schedule, Error> {
        let unknown = || self.core.agents.unknown(&new.agent);
        let agent: AgentName = new.agent.parse().map_err(|_| unknown())?;
        if self.core.agents.get(&agent).is_none() {
            return Err(unknown());
        }
        let size = new.config.task_data.to_string().len();
        if size > MAX_INPUT_BYTES {
            let message = format!("it has {size} bytes of JSON");
            let hint = format!("at most {MAX_INPUT_BYTES} are taken");
            return Err(Error::InvalidSchedule(vec![Flaw::new(
                "task_data",
                message,
                hint,
            )]));
        }
        let schedule = Schedule::from_config(name.clone(), agent, &new.config, now)
            .map_err(Error::InvalidSchedule)?;
        if schedule.next_after(now).is_none() {
            let field = if matches!(schedule.trigger, Trigger::Once { .. }) {
                "at"
            } else {
                "cron"
            };
            let flaw = Flaw::new(
                field,
                "there is no such time any more",
                "name a time to come",
            );
            return Err(Error::InvalidSchedule(vec![flaw]));
        }
        Ok(schedule)
    }

    async fn unknown(&self, name: &str) -> Result<Error, Error> {
        let filter = ScheduleFilter {
            limit: 1000,
            ..ScheduleFilter::default()
        };
        let (known, _) = self.core.ports.store.schedules(filter).await?;
        let names = known.iter().map(|row| row.record.schedule.name.as_str());
        Ok(Error::UnknownSchedule {
            name: name.chars().take(80).collect(),
            nearest: nearest(name, names).map(str::to_owned),
        })
    }
}

/// A schedule that nothing has become of yet.
fn fresh(schedule: Schedule, managed_by: ManagedBy, now: Time) -> ScheduleRecord {
    let mut record = ScheduleRecord {
        schedule,
        managed_by,
        is_paused: false,
        cursor: now,
        next_due: None,
        version: 0,
        created_at: now,
        updated_at: now,
    };
    record.next_due = next_due(&record);
    record
}

/// The record with another definition. Fire times that were due before are still acted on, unless they are others now.
fn changed(record: &ScheduleRecord, mut schedule: Schedule, now: Time) -> ScheduleRecord {
    schedule.trigger = schedule.trigger.counted_as(&record.schedule.trigger);
    let is_other = schedule.trigger != record.schedule.trigger || !record.is_active();
    ScheduleRecord {
        cursor: if is_other { now } else { record.cursor },
        schedule,
        ..record.clone()
    }
}

fn next_due(record: &ScheduleRecord) -> Option<Time> {
    record
        .schedule
        .next_due(record.cursor)
        .filter(|_| record.is_active())
}

fn refuse_file(record: &ScheduleRecord, instead: &str, what: &str) -> Result<(), Error> {
    match &record.managed_by {
        ManagedBy::Api => Ok(()),
        ManagedBy::File(path) => {
            let name = &record.schedule.name;
            Err(Error::ScheduleConflict(format!(
                "the schedule {name} is managed by the file {path} and can't {what}; {instead}"
            )))
        }
    }
}

fn busy(name: &str) -> Error {
    let message = format!("the schedule {name} is being changed by many at once; try again");
    Error::ScheduleConflict(message)
}

/// What a person's key stands for: it starts one execution.
fn event_of(name: &ScheduleName, key: &str) -> Option<domain::EventId> {
    let hash = Sha256::digest(key.as_bytes());
    let hex: String = hash
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("trigger-{name}-{hex}").parse().ok()
}

/// In whole microseconds, as stores keep times.
fn whole(time: Time) -> Time {
    Time::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}
