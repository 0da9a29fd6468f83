//! One call: a task for an agent, and what is told of it until it is over.

use std::time::Duration;

use domain::step::StepBody;
use domain::{ConversationId, ExecutionId, Step};
use engine::{LiveEvent, NewTask, Watch};
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ProgressNotificationParam, ProgressToken,
    ProtocolVersion,
};
use rmcp::service::RequestContext;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::{IdempotencyKey, InboxFilter};

use super::agents::Agents;
use super::answer;
use crate::execution::ResultOut;
use crate::http::idempotency::is_key;
use crate::http::params::no_execution;
use crate::http::{Answer, ApiError, Code};

/// How often in a row reading may fail before an answer is given up.
const MAX_FAILURES: u32 = 5;
/// Where a caller that repeats calls (AgentRunner's own client does) names a call.
const REPEATS: &str = "agentrunner/idempotencyKey";

/// What a call says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    message: String,
    #[serde(default)]
    conversation_id: Option<String>,
}

/// A call that is under way.
pub(super) struct Call<'a> {
    agents: &'a Agents,
    agent: String,
    id: ExecutionId,
    /// Whether this call is what began it.
    is_new: bool,
    watch: Watch,
    context: RequestContext<RoleServer>,
    progress: Progress,
}

impl<'a> Call<'a> {
    /// Gives the agent its task. When this answers, the task is durable.
    pub(super) async fn begin(
        agents: &'a Agents,
        request: &CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Answer<Self> {
        let engine = &agents.app.engine;
        let arguments = request.arguments.clone().unwrap_or_default();
        let named = context.meta.get(REPEATS).and_then(Value::as_str);
        let idempotency = named.filter(|key| is_key(key)).map(|key| IdempotencyKey {
            key: format!("mcp:{key}"),
            body_hash: hash(&request.name, &arguments),
        });
        let arguments: Arguments =
            serde_json::from_value(Value::Object(arguments)).map_err(|error| {
                invalid(&format!(
                    "{error}; a call has message and, if you like, conversation_id, both texts"
                ))
            })?;
        if arguments.message.trim().is_empty() {
            return Err(invalid("message: it is empty; say what is to be done"));
        }
        let conversation = arguments.conversation_id.map(ConversationId::try_from);
        let conversation = conversation
            .transpose()
            .map_err(|error| invalid(&format!("conversation_id: {error}")))?;
        let input = json!({ "message": arguments.message });
        let task = NewTask {
            conversation,
            idempotency,
            upstream: Some(agents.trace.upstream()),
            ..NewTask::new(request.name.as_ref(), input, agents.trace.id.clone())
        };
        let accepted = engine.submit(task).await?;
        Ok(Self {
            agent: accepted.agent.to_string(),
            id: accepted.id,
            is_new: !accepted.was_known,
            watch: engine.watch(accepted.id, None),
            progress: Progress {
                token: context.meta.get_progress_token(),
                told: 0.0,
            },
            agents,
            context,
        })
    }

    /// What comes of it.
    pub(super) async fn result(mut self) -> CallToolResult {
        let id = self.id;
        match self.follow().await {
            Ok(result) => result,
            Err(error) => answer::left(id, &error.message),
        }
    }

    async fn follow(&mut self) -> Answer<CallToolResult> {
        let app = self.agents.app.clone();
        let mut beat = tokio::time::interval(app.settings.heartbeat);
        let mut failures = 0;
        loop {
            let next = tokio::select! {
                biased;
                () = app.shutdown.cancelled() => return Ok(answer::left(self.id, "This process ends")),
                () = self.agents.caller.ended() => return Ok(answer::left(self.id, "The key is not valid any more")),
                () = cancelled(self.agents) => return self.cancel("cancelled by the MCP client").await,
                () = self.context.ct.cancelled() => return self.hung_up().await,
                next = self.watch.next() => next,
                _ = beat.tick(), if self.progress.is_wanted() => {
                    self.progress.tell(&self.context, "at work").await;
                    continue;
                }
            };
            match next {
                Ok(Some(event)) => {
                    failures = 0;
                    if let Some(result) = self.hear(&event).await? {
                        return Ok(result);
                    }
                }
                Ok(None) => {
                    let row = app.engine.store().execution(self.id).await?;
                    let row = row.ok_or_else(|| no_execution(self.id))?;
                    return Ok(answer::ended(&ResultOut::new(&row, app.engine.now())));
                }
                Err(error) => {
                    failures += 1;
                    if failures >= MAX_FAILURES {
                        return Err(error.into());
                    }
                    tracing::warn!(%error, failures, "the journal can't be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Tells what happened; the answer, when nothing more happens before a person is heard.
    async fn hear(&mut self, event: &LiveEvent) -> Answer<Option<CallToolResult>> {
        let LiveEvent::Step(step) = event else {
            return Ok(None);
        };
        if let StepBody::InputRequested(request) = &step.body
            && self.is_open(step).await?
        {
            return Ok(Some(answer::waiting(
                &self.agent,
                self.id,
                step.seq,
                request,
            )));
        }
        if let Some(words) = words(step) {
            self.progress.tell(&self.context, &words).await;
        }
        Ok(None)
    }

    /// Whether a question still waits for its answer.
    async fn is_open(&self, step: &Step) -> Answer<bool> {
        let engine = &self.agents.app.engine;
        let filter = InboxFilter {
            agents: Vec::new(),
            execution: Some(self.id),
            kind: None,
            now: engine.now(),
            after: None,
            limit: 100,
        };
        let (open, _) = engine.store().inbox(filter).await?;
        Ok(open.iter().any(|open| open.request == step.seq))
    }

    /// Nobody listens any more. That is a cancellation since 2026-07-28, and was certainly none before.
    async fn hung_up(&self) -> Answer<CallToolResult> {
        let version = self.context.protocol_version();
        let is_a_wish = version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        if is_a_wish {
            return self.cancel("the MCP client closed the stream").await;
        }
        Ok(answer::left(self.id, "Nobody listens any more"))
    }

    /// Ends what this call began; what another one began is that one's.
    async fn cancel(&self, why: &str) -> Answer<CallToolResult> {
        if self.is_new {
            let by = self.agents.caller.name();
            self.agents.app.engine.cancel(self.id, by, why).await?;
        }
        Ok(answer::cancelled(self.id))
    }
}

async fn cancelled(agents: &Agents) {
    let held = agents.held.as_ref();
    match held.and_then(|held| held.under_way.as_ref()) {
        Some(under_way) => under_way.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What a client is told on the way, if it asked for that.
struct Progress {
    token: Option<ProgressToken>,
    told: f64,
}

impl Progress {
    const fn is_wanted(&self) -> bool {
        self.token.is_some()
    }

    async fn tell(&mut self, context: &RequestContext<RoleServer>, words: &str) {
        let Some(token) = self.token.clone() else {
            return;
        };
        self.told += 1.0;
        let progress = ProgressNotificationParam::new(token, self.told).with_message(words);
        // Whoever reads too slowly is waited for, but not for longer than they stay. That it is not delivered is seen then.
        let telling = context.peer.notify_progress(progress);
        drop(context.ct.run_until_cancelled(telling).await);
    }
}

/// A step, for whoever waits.
fn words(step: &Step) -> Option<String> {
    match &step.body {
        StepBody::ToolIntent(intent) => Some(format!("calls {}", intent.tool)),
        StepBody::ChildStarted { agent, .. } => Some(format!("asks {agent}")),
        StepBody::ChildFinished { .. } => Some("has an answer of another agent".to_owned()),
        StepBody::Plan(_) => Some("plans".to_owned()),
        StepBody::InputReceived(_) => Some("heard from a person".to_owned()),
        StepBody::Timer { .. } => Some("waits to ask its model again".to_owned()),
        StepBody::ModelCall(_)
        | StepBody::ToolResult(_)
        | StepBody::InputRequested(_)
        | StepBody::Note { .. }
        | StepBody::Finished { .. } => None,
    }
}

fn hash(name: &str, arguments: &serde_json::Map<String, Value>) -> String {
    let text = json!([name, arguments]).to_string();
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(Code::InvalidTaskData, message)
}
