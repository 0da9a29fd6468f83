//! Schedules and runs as callers write and read them.

use domain::definition::{MisfirePolicy, OverlapPolicy, ScheduleConfig, ScheduleType};
use domain::schedule::Trigger;
use domain::{ExecutionId, Time};
use engine::NewSchedule;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{ManagedBy, RunState, ScheduleRow, ScheduleRun};
use utoipa::ToSchema;

use crate::http::body::Payload;
use crate::http::{Answer, ApiError, Code};

/// A schedule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleIn {
    /// Its name; left out when the address has it.
    #[serde(default)]
    #[schema(example = "nightly-report")]
    pub(super) name: Option<String>,
    /// Who works.
    #[schema(example = "reporter")]
    pub(super) agent_name: String,
    /// cron, interval or once; left out, it follows from what is given.
    #[serde(default, rename = "type")]
    #[schema(value_type = Option<String>, pattern = "^(cron|interval|once)$", example = "cron")]
    kind: Option<ScheduleType>,
    /// 5 fields (minute hour day month weekday), 6 with seconds first, or `@daily` and kin.
    #[serde(default, alias = "cron_expression")]
    #[schema(example = "0 6 * * 1-5")]
    cron: Option<String>,
    /// The IANA time zone of `cron` and `at`; UTC when nothing is said.
    #[serde(default)]
    #[schema(example = "Europe/Berlin")]
    timezone: Option<String>,
    /// The pause between starts, in seconds.
    #[serde(default)]
    #[schema(minimum = 1)]
    interval_seconds: Option<u64>,
    /// The moment of `once`: a time in the time zone, or one with a difference to UTC.
    #[serde(default)]
    #[schema(example = "2030-12-24T18:00:00")]
    at: Option<String>,
    /// What the agent is given: any JSON.
    #[serde(default)]
    #[schema(value_type = Value, example = json!({"prompt": "Write the report."}))]
    task_data: Value,
    /// How long a run may take; 300 when nothing is said, and never longer than the agent's own limit.
    #[serde(default = "default_timeout")]
    #[schema(minimum = 1, example = 300)]
    timeout_seconds: u64,
    /// Whether it runs by itself.
    #[serde(default = "yes")]
    enabled: bool,
    /// About due times that passed while nothing ran: skip, once (one run for all) or all.
    #[serde(default)]
    #[schema(value_type = String, pattern = "^(skip|once|all)$", example = "skip")]
    misfire_policy: MisfirePolicy,
    /// About due times at which the run before has not ended: skip, queue or cancel.
    #[serde(default)]
    #[schema(value_type = String, pattern = "^(skip|queue|cancel)$", example = "skip")]
    overlap_policy: OverlapPolicy,
    /// Starts are spread by up to this many seconds.
    #[serde(default)]
    jitter_seconds: u64,
}

impl Payload for ScheduleIn {}

const fn default_timeout() -> u64 {
    300
}

const fn yes() -> bool {
    true
}

impl ScheduleIn {
    /// What it asks for.
    ///
    /// # Errors
    /// It says nothing about when.
    pub(super) fn read(self) -> Answer<NewSchedule> {
        let kind = match (self.kind, &self.cron, self.interval_seconds, &self.at) {
            (Some(kind), ..) => kind,
            (None, Some(_), ..) => ScheduleType::Cron,
            (None, None, Some(_), _) => ScheduleType::Interval,
            (None, None, None, Some(_)) => ScheduleType::Once,
            (None, None, None, None) => {
                let (message, hint) = ("it does not say when", "give cron, interval_seconds or at");
                return Err(
                    ApiError::new(Code::InvalidCron, format!("{message}; {hint}"))
                        .with_field("cron", message, hint),
                );
            }
        };
        Ok(NewSchedule {
            agent: self.agent_name,
            config: ScheduleConfig {
                kind,
                cron: self.cron,
                timezone: self.timezone,
                interval_seconds: self.interval_seconds,
                at: self.at,
                task_data: self.task_data,
                timeout_seconds: self.timeout_seconds,
                enabled: self.enabled,
                misfire_policy: self.misfire_policy,
                overlap_policy: self.overlap_policy,
                jitter_seconds: self.jitter_seconds,
            },
        })
    }
}

/// A schedule as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScheduleOut {
    /// Its name.
    name: String,
    /// Who works.
    agent_name: String,
    /// cron, interval or once.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The cron expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    /// The time zone of `cron` and `at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// The pause between starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_seconds: Option<u64>,
    /// The moment of `once`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Time>,
    /// What the agent is given.
    #[schema(value_type = Value)]
    task_data: Value,
    /// How long a run may take.
    timeout_seconds: u64,
    /// Whether it runs by itself.
    enabled: bool,
    /// Somebody has stopped it, whatever its file says.
    paused: bool,
    /// skip, once or all.
    misfire_policy: &'static str,
    /// skip, queue or cancel.
    overlap_policy: &'static str,
    /// Starts are spread by up to this many seconds.
    jitter_seconds: u64,
    /// api, or file: then its agent's file is where it is changed.
    managed_by: &'static str,
    /// That file, relative to the folder of agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// When it starts next; null when nothing is to come.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_run_at: Option<Time>,
    /// The run of the latest fire time.
    last_run: Option<RunOut>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When somebody last changed it.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
}

impl From<&ScheduleRow> for ScheduleOut {
    fn from(row: &ScheduleRow) -> Self {
        let record = &row.record;
        let schedule = &record.schedule;
        let zone = || Some(schedule.trigger.zone().to_string());
        let (kind, cron, timezone, interval_seconds, at) = match &schedule.trigger {
            Trigger::Cron { cron, .. } => ("cron", Some(cron.to_string()), zone(), None, None),
            Trigger::Interval { seconds, .. } => ("interval", None, None, Some(*seconds), None),
            Trigger::Once { at, .. } => ("once", None, zone(), None, Some(*at)),
        };
        let (managed_by, file) = match &record.managed_by {
            ManagedBy::Api => ("api", None),
            ManagedBy::File(path) => ("file", Some(path.clone())),
        };
        Self {
            name: schedule.name.to_string(),
            agent_name: schedule.agent.to_string(),
            kind,
            cron,
            timezone,
            interval_seconds,
            at,
            task_data: schedule.task_data.clone(),
            timeout_seconds: schedule.timeout_seconds,
            enabled: record.is_active(),
            paused: record.is_paused,
            misfire_policy: schedule.misfire_policy.as_str(),
            overlap_policy: schedule.overlap_policy.as_str(),
            jitter_seconds: schedule.jitter_seconds,
            managed_by,
            file,
            next_run_at: record.next_due,
            last_run: row.last_run.as_ref().map(RunOut::from),
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

/// A fire time and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunOut {
    /// What the schedule says; of a triggered run, when it was asked for.
    #[schema(value_type = String, format = DateTime)]
    fire_time: Time,
    /// schedule, or manual.
    trigger: &'static str,
    /// skipped, waiting (for the run before), or the status of the execution.
    #[schema(example = "completed")]
    status: String,
    /// Why, in a word: misfire, misfires, coalesced, overlap, queue_full or agent; null for a run that was not skipped.
    reason: Option<String>,
    /// Why, in words, where there is something to say.
    detail: Option<String>,
    /// The execution.
    #[schema(value_type = Option<String>, format = Uuid)]
    execution_id: Option<ExecutionId>,
    /// When the scheduler acted on it.
    #[schema(value_type = String, format = DateTime)]
    noticed_at: Time,
    /// When the execution was first begun.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Time>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Time>,
}

impl From<&ScheduleRun> for RunOut {
    fn from(run: &ScheduleRun) -> Self {
        let status = match (run.state, run.status) {
            (RunState::Started, Some(status)) => status.as_str(),
            (RunState::Started, None) => "deleted",
            (state, _) => state.as_str(),
        };
        Self {
            fire_time: run.fire_time,
            trigger: run.kind.as_str(),
            status: status.to_owned(),
            reason: run.reason.clone(),
            detail: run.detail.clone().or_else(|| run.status_reason.clone()),
            execution_id: run.execution,
            noticed_at: run.noticed_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}
