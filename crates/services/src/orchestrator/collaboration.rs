//! Tasks for coordinators: what is asked, the plan, who does what of it, and how far it is.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::team::{Contribution, Part, Standing};
use domain::{ExecutionId, ExecutionMode, State as Folded, Status, Team, Time};
use engine::NewTask;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{ExecutionRow, IdempotencyKey};
use utoipa::ToSchema;

use super::callbacks;
use super::question::{QuestionOut, open_questions};
use crate::execution::{ExecutionOut, ResultOut, UsageOut, journal};
use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::params::{execution_id, no_execution};
use crate::http::trace::Trace;
use crate::http::{Answer, ApiError, App, Code};

/// How much of a step's result is shown with the plan, in characters.
const SHOWN: usize = 2000;
/// The most agents that a request may allow.
const MOST_AGENTS: u32 = 100;

/// A task for a coordinator and its team.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CollaborationIn {
    /// Who plans: an agent with `execution_mode: collaborative`.
    #[schema(example = "research-lead")]
    coordinator_agent: String,
    /// What is to be done.
    #[schema(example = "Compare three ways to store time series.")]
    task_description: String,
    /// How many agents may take part; never more than the coordinator's own limit.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100, example = 3)]
    max_agents: Option<u32>,
    /// Whether the planner may ask a person; false forbids it where the coordinator would.
    #[serde(default)]
    allow_human_clarification: Option<bool>,
    /// Whether a person must approve the plan; true demands it where the coordinator does not.
    #[serde(default)]
    require_plan_approval: Option<bool>,
    /// How long it may take; never longer than the coordinator's own limit.
    #[serde(default)]
    #[schema(minimum = 1, example = 600)]
    timeout_seconds: Option<u64>,
    /// Where to send the result.
    #[serde(default)]
    callback_url: Option<String>,
}

impl Payload for CollaborationIn {
    const INVALID: Code = Code::InvalidTaskData;
}

/// An accepted task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AcceptedTeamTask)]
struct AcceptedOut {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    task_id: ExecutionId,
    /// The same: the coordinator's execution.
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    /// Who plans.
    coordinator_agent: String,
    /// `queued`: that is how an accepted task begins.
    #[schema(value_type = String, example = "queued")]
    status: Status,
    /// The trace of the request.
    trace_id: String,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// Where to look.
    links: Links,
}

/// Where to look for a collaborative task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CollaborationLinks)]
struct Links {
    /// The plan, and how far it is.
    #[serde(rename = "self")]
    this: String,
    /// How it ended.
    result: String,
    /// What happens, as it happens.
    events: String,
}

/// Gives a coordinator a task: it plans, its agents work, it puts their results together. When this answers, the task is
/// durable and will reach exactly one end.
#[utoipa::path(post, path = "/collaborative/tasks", tag = "tasks",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body = CollaborationIn,
    responses(
        (status = 202, description = "It is accepted.", body = AcceptedOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
pub(super) async fn submit(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: JsonBody<CollaborationIn>,
) -> Answer<Response> {
    caller.check(&body.value.coordinator_agent)?;
    caller.note("agent", body.value.coordinator_agent.as_str());
    let key = idempotency_key(&headers)?;
    let mut task = task(&app, body.value, trace)?;
    task.idempotency = key.map(|key| IdempotencyKey {
        key,
        body_hash: body.hash,
    });
    let accepted = app.engine.submit(task).await?;
    let id = accepted.id;
    let row = app.engine.store().execution(id).await?;
    let execution = row.ok_or_else(|| no_execution(id))?.execution;
    let place = format!("/collaborative/tasks/{id}");
    let out = AcceptedOut {
        task_id: id,
        execution_id: id,
        coordinator_agent: execution.agent.to_string(),
        status: Status::Queued,
        trace_id: execution.trace_id.to_string(),
        created_at: execution.created_at,
        links: Links {
            this: place.clone(),
            result: format!("/tasks/{id}/result"),
            events: format!("/tasks/{id}/events"),
        },
    };
    let mut response = (StatusCode::ACCEPTED, Json(out)).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(place) {
        headers.insert(header::LOCATION, location);
    }
    if accepted.was_known {
        let name = HeaderName::from_static("idempotency-replayed");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidTaskData, format!("{field}: {why}")).with_field(field, why, "")
}

fn task(app: &App, given: CollaborationIn, trace: Trace) -> Answer<NewTask> {
    if given.task_description.trim().is_empty() {
        return Err(invalid(
            "task_description",
            "it is empty; say what is to be done",
        ));
    }
    if given
        .max_agents
        .is_some_and(|most| most == 0 || most > MOST_AGENTS)
    {
        let why = format!("it is 1 to {MOST_AGENTS}");
        return Err(invalid("max_agents", &why));
    }
    if given.timeout_seconds == Some(0) {
        return Err(invalid(
            "timeout_seconds",
            "0 leaves no time; it is at least 1",
        ));
    }
    if let Some(url) = &given.callback_url {
        callbacks::check(app, url).map_err(|why| invalid("callback_url", &why))?;
    }
    let agent = given.coordinator_agent.parse().ok();
    let agent = agent.and_then(|name| app.engine.agents().get(&name));
    // An agent that there is not is told of by whoever takes the task.
    if let Some(agent) = agent
        && agent.definition.execution_mode != ExecutionMode::Collaborative
    {
        let why = format!(
            "{} is an agent of the {} mode; a coordinator has execution_mode: collaborative",
            given.coordinator_agent,
            agent.definition.execution_mode.as_str()
        );
        return Err(invalid("coordinator_agent", &why));
    }
    let mut input = json!({ "task_description": given.task_description });
    if let Some(fields) = input.as_object_mut() {
        let terms = [
            ("max_agents", given.max_agents.map(|most| json!(most))),
            (
                "allow_human_clarification",
                given.allow_human_clarification.map(|may| json!(may)),
            ),
            (
                "require_plan_approval",
                given.require_plan_approval.map(|must| json!(must)),
            ),
        ];
        let given = terms
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        fields.extend(given.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(NewTask {
        timeout: given.timeout_seconds.map(Duration::from_secs),
        callback_url: given.callback_url,
        upstream: Some(trace.upstream()),
        ..NewTask::new(given.coordinator_agent, input, trace.id)
    })
}

/// A collaborative task as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CollaborationOut {
    /// Its id: the coordinator's execution.
    #[schema(value_type = String, format = Uuid)]
    task_id: ExecutionId,
    /// Who plans.
    coordinator_agent: String,
    /// What is to be done.
    task_description: String,
    #[serde(flatten)]
    execution: ExecutionOut,
    /// The plan at work; null before there is one.
    plan: Option<PlanOut>,
    /// The agents that were given work.
    participating_agents: Vec<String>,
    /// How far it is.
    progress: ProgressOut,
    /// Every execution that worked for it, in the order of their ends.
    contributions: Vec<ContributionOut>,
    /// What it asks people now.
    open_questions: Vec<QuestionOut>,
    /// What its agents share: the keys, and who wrote each last.
    shared_state: Vec<SharedOut>,
    /// The answer; null when there is none (yet).
    output: Option<String>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
struct PlanOut {
    /// hierarchical, sequential or consensus.
    #[schema(value_type = String, example = "hierarchical")]
    strategy: domain::definition::PlanningStrategy,
    /// Whether it waits for nobody's approval.
    is_approved: bool,
    /// The person who wrote it; null when the planner did.
    written_by: Option<String>,
    /// How often it was planned anew.
    replans: u32,
    /// Its steps, and what stands of plans before.
    steps: Vec<StepOut>,
}

/// A step of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanStepOut)]
struct StepOut {
    /// Its name.
    id: String,
    /// Who does it.
    agent: String,
    /// What is to be done.
    instruction: String,
    /// The keys of the shared state that it is given.
    inputs: Vec<String>,
    /// The steps that it waits for.
    depends_on: Vec<String>,
    /// waiting, running, delivered (and not reviewed), completed, failed or dropped.
    status: &'static str,
    /// How often it was begun.
    attempts: u32,
    /// The execution that does it, or did.
    #[schema(value_type = Option<String>, format = Uuid)]
    execution_id: Option<ExecutionId>,
    /// The beginning of its result.
    result: Option<String>,
    /// Why it failed, or what was wrong with the last attempt.
    reason: Option<String>,
}

/// How far a plan is, in steps.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ProgressOut {
    /// All of them.
    total: usize,
    /// Those whose results stand.
    completed: usize,
    /// Those under way, or waiting for the coordinator's review.
    running: usize,
    /// Those that have not begun.
    waiting: usize,
    /// Those that came to nothing.
    failed: usize,
    /// Of a hundred.
    percent: usize,
}

/// What one execution did.
#[derive(Debug, Serialize, ToSchema)]
struct ContributionOut {
    /// For which step.
    step: String,
    /// Whose it was.
    agent_name: String,
    /// Which.
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    /// How it ended.
    #[schema(value_type = String, example = "completed")]
    status: Status,
    /// What it consumed, with all that it had others do.
    usage: UsageOut,
    /// What that cost in dollars, as far as prices are known.
    cost_usd: f64,
}

/// A key of the shared state.
#[derive(Debug, Serialize, ToSchema)]
struct SharedOut {
    /// The key.
    key: String,
    /// Its version, from 1.
    version: u64,
    /// The execution that wrote it last.
    #[schema(value_type = String, format = Uuid)]
    written_by: ExecutionId,
}

/// Shows a collaborative task: its plan with every step, who takes part, how far it is and what it consumed.
#[utoipa::path(get, path = "/collaborative/tasks/{id}", tag = "tasks", params(("id" = String, Path)), responses(
    (status = 200, body = CollaborationOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Answer<Json<CollaborationOut>> {
    let id = execution_id(&id)?;
    let store = app.engine.store();
    let row = store.execution(id).await?.ok_or_else(|| no_execution(id))?;
    if row.execution.mode != ExecutionMode::Collaborative {
        let message = format!("execution {id} is no collaborative task; GET /tasks/{id} shows it");
        return Err(ApiError::new(Code::ExecutionNotFound, message));
    }
    let steps = journal(&**store, id).await?;
    let team = Folded::replay(&row.execution, &steps)
        .map_err(|illegal| ApiError::new(Code::DatabaseError, illegal.to_string()))?
        .team;
    let questions = match row.status {
        Status::WaitingForInput | Status::Running => {
            open_questions(&**store, id, app.engine.now()).await?
        }
        _ => Vec::new(),
    };
    let shared = store.shared(id, &[]).await?.into_iter();
    let shared = shared.map(|value| SharedOut {
        key: value.key,
        version: value.version,
        written_by: value.by,
    });
    let mut out = CollaborationOut::new(&row, team.as_deref(), app.engine.now());
    out.open_questions = questions;
    out.shared_state = shared.collect();
    Ok(Json(out))
}

impl CollaborationOut {
    fn new(row: &ExecutionRow, team: Option<&Team>, now: Time) -> Self {
        let names = team.map(Team::participants).unwrap_or_default();
        let contributions = team.map_or(&[] as &[Contribution], |team| &team.contributions);
        Self {
            task_id: row.execution.id,
            coordinator_agent: row.execution.agent.to_string(),
            task_description: row.execution.prompt(),
            execution: ExecutionOut::new(row, now),
            plan: team.and_then(PlanOut::new),
            participating_agents: names.into_iter().map(ToString::to_string).collect(),
            progress: team.map(ProgressOut::new).unwrap_or_default(),
            contributions: contributions.iter().map(ContributionOut::new).collect(),
            open_questions: Vec::new(),
            shared_state: Vec::new(),
            output: ResultOut::new(row, now).output,
        }
    }
}

impl PlanOut {
    fn new(team: &Team) -> Option<Self> {
        let current = team.plan.as_ref()?;
        Some(Self {
            strategy: team.terms.strategy,
            is_approved: current.is_approved,
            written_by: current.by.clone(),
            replans: team.replans,
            steps: team.parts.iter().map(StepOut::new).collect(),
        })
    }
}

impl StepOut {
    fn new(part: &Part) -> Self {
        let (execution_id, result, reason) = match &part.standing {
            Standing::Waiting => (None, None, part.feedback.clone()),
            Standing::Running { child, .. } => (Some(*child), None, part.feedback.clone()),
            Standing::Delivered { child, output } | Standing::Accepted { child, output } => (
                Some(*child),
                Some(output.chars().take(SHOWN).collect()),
                None,
            ),
            Standing::Failed { why } | Standing::Dropped { why } => (None, None, Some(why.clone())),
        };
        Self {
            id: part.step.id.to_string(),
            agent: part.step.agent.to_string(),
            instruction: part.step.instruction.clone(),
            inputs: part.step.inputs.clone(),
            depends_on: part
                .step
                .depends_on
                .iter()
                .map(ToString::to_string)
                .collect(),
            status: part.standing.as_str(),
            attempts: part.attempts,
            execution_id,
            result,
            reason,
        }
    }
}

impl ProgressOut {
    fn new(team: &Team) -> Self {
        let mut progress = Self {
            total: team.parts.len(),
            ..Self::default()
        };
        for part in &team.parts {
            let count = match &part.standing {
                Standing::Accepted { .. } => &mut progress.completed,
                Standing::Running { .. } | Standing::Delivered { .. } => &mut progress.running,
                Standing::Waiting => &mut progress.waiting,
                Standing::Failed { .. } | Standing::Dropped { .. } => &mut progress.failed,
            };
            *count += 1;
        }
        progress.percent = (progress.completed * 100)
            .checked_div(progress.total)
            .unwrap_or(0);
        progress
    }
}

impl ContributionOut {
    fn new(done: &Contribution) -> Self {
        Self {
            step: done.step.to_string(),
            agent_name: done.agent.to_string(),
            execution_id: done.execution_id,
            status: done.status,
            usage: done.totals.usage.into(),
            cost_usd: done.totals.cost_usd.usd(),
        }
    }
}
