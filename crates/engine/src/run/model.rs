//! Calling the model and journaling its answer, or what came instead.

use std::time::Duration;

use domain::decide::after_model_failure;
use domain::retry::ModelErrorClass;
use domain::step::{ModelCall, StepBody};
use domain::{Failure, FailureCode, ModelRun, Outcome, Prompt};
use llm::{Answer, ChatRequest, Chunk};
use serde_json::Value;
use tokio::time::Instant;
use tools::Offer;

use super::resolve::targets;
use super::{Run, Stop};
use crate::pins::{self, Granted};
use crate::shared::DROPPED_CALLS;

/// What interrupted a call, or its result.
enum Ending {
    Answered(Answer),
    Failed(llm::Error),
    /// Something came from outside, or the process ends: ask again what to do.
    Interrupted,
}

impl Run {
    pub(super) async fn call_model(&mut self, run: &ModelRun) -> Result<(), Stop> {
        let agent = &self.execution.agent;
        let offers = match self
            .core
            .ports
            .tools
            .offers(agent, &self.execution.version, &self.definition.tools)
            .await
        {
            Ok(offers) => offers,
            Err(error) => return self.tools_failed(run, &error),
        };
        let granted = pins::grant(&self.core, &self.execution, offers).await?;
        let started = Instant::now();
        let mut first_token = None;
        let ending = self
            .ask(run, &granted.offers, &mut first_token, started)
            .await;
        let took_ms = millis(started.elapsed());
        metrics::histogram!("agentrunner_model_call_seconds", "provider" => run.config.provider.as_str())
            .record(started.elapsed().as_secs_f64());
        let outcome = match &ending {
            Ending::Interrupted => "interrupted",
            Ending::Answered(_) => "answered",
            Ending::Failed(error) => error.class.as_str(),
        };
        let labels = [
            ("agent", self.execution.agent.to_string()),
            ("provider", run.config.provider.as_str().to_owned()),
            ("model", run.config.model.clone()),
            ("outcome", outcome.to_owned()),
        ];
        metrics::counter!("agentrunner_model_calls_total", &labels).increment(1);
        match ending {
            Ending::Interrupted => {
                if self.lease.is_time_up() {
                    metrics::counter!(DROPPED_CALLS, "kind" => "model").increment(1);
                    tracing::warn!(
                        execution_id = %self.execution.id, agent_name = %self.execution.agent,
                        trace_id = %self.execution.trace_id,
                        "a model call was dropped: the time for the shutdown is up, and it is made again elsewhere"
                    );
                }
                Ok(())
            }
            Ending::Answered(answer) => {
                let first_token_ms = first_token.map(millis);
                let call = self.journal_form(run, answer, &granted, took_ms, first_token_ms);
                self.record(StepBody::ModelCall(Box::new(call)))
            }
            Ending::Failed(error) => {
                self.keep_others_away(&run.config, &error).await;
                self.model_failed(run, error)
            }
        }
    }

    async fn ask(
        &self,
        run: &ModelRun,
        offers: &[Offer],
        first_token: &mut Option<Duration>,
        started: Instant,
    ) -> Ending {
        let prompt = Prompt::new(&self.definition, &self.state, run.purpose, run.fit);
        let offers = if prompt.may_call { offers } else { &[] };
        let specs: Vec<llm::ToolSpec<'_>> = offers.iter().map(spec).collect();
        let request = ChatRequest {
            config: &run.config,
            system: &prompt.system,
            messages: &prompt.messages,
            tools: &specs,
            output_schema: prompt.output_schema.as_deref(),
            max_tokens: run.max_tokens,
            trace_id: self.execution.trace_id.as_str(),
        };
        let is_said = run.purpose.is_said();
        self.live.model_call_begins(self.state.next_seq);
        let limits = llm::Limits {
            reply_bytes: self.core.settings.max_reply_bytes,
            ..llm::Limits::default()
        };
        let call = async {
            let stream = self.core.ports.model.chat(request).await?;
            llm::fold(
                stream,
                |chunk| {
                    first_token.get_or_insert_with(|| started.elapsed());
                    match chunk {
                        // Only what the agent says is for those who watch.
                        _ if !is_said => {}
                        Chunk::Text(text) => self.live.text(text),
                        Chunk::ToolCall { name, .. } => self.live.tool_call(name),
                        Chunk::Arguments { .. }
                        | Chunk::ProviderData(_)
                        | Chunk::Usage(_)
                        | Chunk::Stop(_) => {}
                    }
                },
                &limits,
            )
            .await
        };
        let call = tokio::time::timeout(run.timeout, call);
        tokio::pin!(call);
        let mut has_heard = false;
        let ended = loop {
            tokio::select! {
                biased;
                () = self.lease.interrupted() => {
                    if self.is_to_be_dropped().await {
                        return Ending::Interrupted;
                    }
                    has_heard = true;
                }
                ended = &mut call => break ended,
            }
        };
        if has_heard {
            // It is taken in when the answer is.
            self.lease.tell_news();
        }
        match ended {
            Ok(Ok(answer)) => Ending::Answered(answer),
            Ok(Err(error)) => Ending::Failed(error),
            Err(_) => Ending::Failed(llm::Error {
                class: ModelErrorClass::TimedOut,
                message: format!(
                    "the model did not answer within {} s (llm_config.timeout)",
                    run.timeout.as_secs()
                ),
                retry_after: None,
                source: None,
            }),
        }
    }

    /// Whether the model call under way is of no use any more. While it is the model's turn only a cancellation makes it
    /// so: an answer to a question of the turn before, which is told late on a busy machine, must not cost a call.
    async fn is_to_be_dropped(&self) -> bool {
        if self.lease.is_lost() || self.lease.is_time_up() || !self.lease.take_news() {
            return true;
        }
        let waiting = self.core.ports.store.waiting(self.execution.id).await;
        let is_called_off = waiting.is_ok_and(|waiting| waiting.cancel.is_some());
        if is_called_off {
            self.lease.tell_news();
        }
        is_called_off
    }

    fn model_failed(&mut self, run: &ModelRun, error: llm::Error) -> Result<(), Stop> {
        tracing::warn!(
            execution_id = %self.execution.id, agent_name = %self.execution.agent, trace_id = %self.execution.trace_id,
            class = ?error.class, "a model call failed: {}", error.message
        );
        let failure = (error.class, error.message, error.retry_after);
        let body = self.after_failure(run, failure);
        self.record(body)
    }

    fn tools_failed(&mut self, run: &ModelRun, error: &tools::Error) -> Result<(), Stop> {
        let retryable = matches!(error, tools::Error::Unavailable { .. });
        let class = if retryable {
            ModelErrorClass::Unavailable
        } else {
            ModelErrorClass::InvalidRequest
        };
        let body = match self.after_failure(run, (class, error.to_string(), None)) {
            // Another model would not bring the tools back.
            StepBody::Timer { reason, .. } if reason.next_choice != self.choice() => None,
            StepBody::Finished { .. } => None,
            later => Some(later),
        };
        self.record(body.unwrap_or_else(|| StepBody::Finished {
            outcome: Outcome::Failed(Failure {
                code: FailureCode::ToolsUnavailable,
                message: error.to_string(),
            }),
        }))
    }

    fn choice(&self) -> usize {
        match &self.state.turn {
            domain::state::Turn::Model(turn) => turn.choice,
            _ => 0,
        }
    }

    fn after_failure(
        &self,
        run: &ModelRun,
        failure: (ModelErrorClass, String, Option<Duration>),
    ) -> StepBody {
        // Any even spread will do; the low bits of a fresh UUID are one.
        let jitter = f64::from((self.core.new_id)().as_u128() as u32) / f64::from(u32::MAX);
        let now = self.core.now();
        after_model_failure(
            &self.definition,
            &self.execution,
            &self.state,
            run,
            failure,
            now,
            jitter,
        )
    }

    /// A tool that was not granted may be a slip of the model's, or somebody who talks through it.
    fn tell_of_strange_tools(&self, calls: &[domain::ToolCall], offers: &[Offer]) {
        let is_strange =
            |call: &&domain::ToolCall| offers.iter().all(|offer| offer.name != call.name);
        for call in calls.iter().filter(is_strange) {
            (self.core.on_refusal)(crate::Refusal {
                agent: self.execution.agent.clone(),
                execution: self.execution.id,
                trace_id: self.execution.trace_id.clone(),
                tool: call.name.clone(),
                why: "the agent was not granted such a tool".to_owned(),
            });
        }
    }

    fn journal_form(
        &self,
        run: &ModelRun,
        answer: Answer,
        granted: &Granted,
        took_ms: u64,
        first_token_ms: Option<u64>,
    ) -> ModelCall {
        let Answer { reply, usage } = answer;
        let config = &run.config;
        let cost_usd =
            llm::price(config.provider, &config.model).map(|price| llm::cost(price, usage));
        self.tell_of_strange_tools(&reply.tool_calls, &granted.offers);
        let schema = Prompt::new(&self.definition, &self.state, run.purpose, run.fit).output_schema;
        let (structured, violations) = match schema.as_deref() {
            Some(schema) if reply.tool_calls.is_empty() => {
                against_schema(&self.core.schemas, schema, &reply.text)
            }
            _ => (None, Vec::new()),
        };
        ModelCall {
            purpose: run.purpose,
            provider: config.provider,
            model: config.model.clone(),
            targets: targets(
                &self.core.schemas,
                &self.definition,
                &reply.tool_calls,
                granted,
            ),
            reply,
            violations,
            structured,
            usage,
            cost_usd,
            took_ms,
            first_token_ms,
        }
    }
}

/// The answer as JSON, or what is wrong with it. Models like to put JSON into a fenced block; that is allowed.
fn against_schema(
    schemas: &tools::Schemas,
    schema: &Value,
    text: &str,
) -> (Option<Value>, Vec<String>) {
    let trimmed = text.trim();
    let inner = trimmed
        .strip_prefix("```json")
        .or_else(|| trimmed.strip_prefix("```"))
        .and_then(|rest| rest.strip_suffix("```"))
        .unwrap_or(trimmed);
    match serde_json::from_str::<Value>(inner.trim()) {
        Err(error) => (None, vec![format!("it is not JSON: {error}")]),
        Ok(value) => match schemas.validate_arguments(schema, &value) {
            Ok(()) => (Some(value), Vec::new()),
            Err(violations) => (None, violations.into_iter().take(20).collect()),
        },
    }
}

fn spec(offer: &Offer) -> llm::ToolSpec<'_> {
    llm::ToolSpec {
        name: &offer.name,
        description: &offer.description,
        parameters: &offer.parameters,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
