//! The MCP server: which tools there are for a caller, and what becomes of a call.

use std::sync::Arc;

use engine::Agent;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, ErrorData, Implementation, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::answer;
use super::call::Call;
use super::sessions::UnderWay;
use crate::http::App;
use crate::http::caller::Caller;
use crate::http::trace::Trace;

const INSTRUCTIONS: &str = "\
Each tool is an agent of AgentRunner. Give it a task in words as `message`; it works on its own, with its own tools, and \
answers when it is done, which may take minutes. To go on where you were with an agent, send the same `conversation_id` \
again. An agent may wait for a person: the answer then says for what, and how the person can be heard.";

/// What a call holds while it goes on.
pub(super) struct Held {
    pub(super) under_way: Option<UnderWay>,
    pub(super) _place: OwnedSemaphorePermit,
}

/// The agents as one caller may use them; made for one request.
#[derive(Clone)]
pub(super) struct Agents {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) trace: Trace,
    pub(super) held: Option<Arc<Held>>,
}

impl Agents {
    pub(super) fn new(app: App, caller: Caller, trace: Trace, held: Option<Arc<Held>>) -> Self {
        Self {
            app,
            caller,
            trace,
            held,
        }
    }

    /// Those that take work and are the caller's to use, by name.
    fn all(&self) -> Vec<Agent> {
        let mut all = self.app.engine.agents().all();
        all.retain(|agent| agent.takes_work() && self.caller.covers(&agent.definition.name));
        all.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        all
    }
}

impl ServerHandler for Agents {
    fn get_info(&self) -> ServerConfig {
        let name = Implementation::new("agentrunner", self.app.settings.version.clone());
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(name)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut list = ListToolsResult::with_all_items(self.all().iter().map(tool).collect());
        // Another key has others, and an agent may come or go at any time.
        list.cache_scope = Some(CacheScope::Private);
        list.ttl_ms = Some(0);
        Ok(list)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.as_ref();
        let known = self.all();
        if !known
            .iter()
            .any(|agent| agent.definition.name.as_str() == name)
        {
            return Err(unknown(name));
        }
        let result = match Call::begin(self, &request, context).await {
            Ok(call) => call.result().await,
            Err(error) => answer::refused(&error.message),
        };
        Ok(result.into())
    }
}

fn unknown(name: &str) -> ErrorData {
    let name: String = name.chars().take(80).collect();
    let message =
        format!("there is no agent {name:?} that takes work; tools/list lists those there are");
    ErrorData::invalid_params(message, None)
}

/// An agent as a tool.
fn tool(agent: &Agent) -> Tool {
    let definition = &agent.definition;
    let name = definition.name.to_string();
    let description = match definition.description.trim() {
        "" => format!("The agent {name}."),
        text => text.to_owned(),
    };
    Tool::new(name, description, Arc::new(object(input())))
        .with_raw_output_schema(Arc::new(object(answer::schema())))
}

/// What a call may say.
fn input() -> Value {
    json!({
        "type": "object",
        "properties": {
            "message": {
                "type": "string", "minLength": 1,
                "description": "The task, in words, with all that the agent needs to know.",
            },
            "conversation_id": {
                "type": "string",
                "description": "Goes on in this conversation, or begins it: any name of your choice. Without one, the agent \
                                knows nothing of what was said before.",
            },
        },
        "required": ["message"],
        "additionalProperties": false,
    })
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}
