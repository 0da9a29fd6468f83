//! Tools that their servers changed after they were approved: shown, and approved as they are now.

use axum::Json;
use axum::extract::{Path, State};
use domain::pin::{Fingerprint, Pin};
use domain::{AgentName, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::ToolApproval;
use utoipa::ToSchema;

use super::agents::find;
use crate::http::body::{OptionalBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::{Answer, ApiError, App, Code};

/// A tool that is withheld because its server changed it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ChangedToolOut {
    /// The entry of the agent's `tools`.
    server: String,
    /// The tool's name.
    tool: String,
    /// What it was when it was approved: its description, its schema, its hints.
    #[schema(value_type = Object)]
    was: Value,
    /// What it is.
    #[schema(value_type = Object)]
    is: Value,
    /// Names what it is: give it back to approve that and nothing newer.
    fingerprint: String,
    /// When it was approved, or seen first.
    #[schema(value_type = String, format = DateTime)]
    approved_at: Time,
    /// Who approved it; null when it was seen first then.
    approved_by: Option<String>,
    /// When the change was seen.
    #[schema(value_type = String, format = DateTime)]
    changed_at: Time,
}

impl ChangedToolOut {
    fn new(pin: &Pin) -> Option<Self> {
        let change = pin.change.as_ref()?;
        Some(Self {
            server: entry(&pin.server).to_owned(),
            tool: pin.tool.clone(),
            was: pin.definition.clone(),
            is: change.definition.clone(),
            fingerprint: change.fingerprint.to_string(),
            approved_at: pin.approved_at,
            approved_by: pin.approved_by.clone(),
            changed_at: change.seen_at,
        })
    }
}

/// The entry's name in a server's.
fn entry(server: &str) -> &str {
    server.split('#').next().unwrap_or(server)
}

/// As they are shown.
pub(super) fn shown(pins: &[Pin]) -> Vec<ChangedToolOut> {
    pins.iter().filter_map(ChangedToolOut::new).collect()
}

/// What is approved.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApproveToolsIn {
    /// Only this tool; all that are withheld when absent.
    #[serde(default)]
    tool: Option<String>,
    /// Only if it is what this names.
    #[serde(default)]
    fingerprint: Option<String>,
}

impl Payload for ApproveToolsIn {}

/// What was approved.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApprovedToolsOut {
    /// The agent.
    #[schema(value_type = String)]
    agent_name: AgentName,
    /// The tools, with what they were and what they are now.
    approved: Vec<ChangedToolOut>,
}

/// Lets an agent use tools that their servers changed, as they are now. Look at them first: `changed_tools` of the agent
/// shows each as it was and as it is.
#[utoipa::path(post, path = "/agents/{name}/tools/approve", tag = "agents", params(("name" = String, Path)),
    request_body(content = Option<ApproveToolsIn>, content_type = "application/json"), responses(
    (status = 200, description = "The agent may use them, from its next turn on.", body = ApprovedToolsOut),
    (status = 400, body = ErrorBody),
    (status = 404, description = "There is no such agent, or no such tool is withheld.", body = ErrorBody),
    (status = 409, description = "It has changed again: look at it again.", body = ErrorBody),
))]
pub(super) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    OptionalBody(body): OptionalBody<ApproveToolsIn>,
) -> Answer<Json<ApprovedToolsOut>> {
    let agent = find(&app, &name)?.definition.name.clone();
    let wish = body.value;
    let store = app.engine.store();
    let mut changed = store.changed_tools(Some(&agent)).await?;
    changed.retain(|pin| wish.tool.as_ref().is_none_or(|tool| *tool == pin.tool));
    if let Some(tool) = wish.tool.as_ref().filter(|_| changed.is_empty()) {
        let tool: String = tool.chars().take(80).collect();
        let message = format!(
            "no tool {tool:?} of {agent} is withheld; GET /agents/{agent} shows those that are"
        );
        return Err(ApiError::new(Code::NotFound, message));
    }
    let mut approved = Vec::with_capacity(changed.len());
    for pin in &changed {
        let Some(shown) = ChangedToolOut::new(pin) else {
            continue;
        };
        let is_meant = wish
            .fingerprint
            .as_ref()
            .is_none_or(|wanted| *wanted == shown.fingerprint);
        let approval = ToolApproval {
            agent: agent.clone(),
            server: pin.server.clone(),
            tool: pin.tool.clone(),
            fingerprint: Fingerprint::from_text(shown.fingerprint.clone()),
            by: caller.name().to_owned(),
            at: app.engine.now(),
        };
        if !is_meant || !store.approve_tool(approval).await? {
            let message = format!(
                "the tool {:?} has changed again; look at it with GET /agents/{agent}, and approve what it is then",
                pin.tool
            );
            return Err(ApiError::new(Code::StateConflict, message));
        }
        tracing::info!(agent_name = %agent, tool = pin.tool, by = caller.name(), "a changed tool was approved");
        caller.note("approved", format!("{} {}", pin.tool, shown.fingerprint));
        approved.push(shown);
    }
    Ok(Json(ApprovedToolsOut {
        agent_name: agent,
        approved,
    }))
}
