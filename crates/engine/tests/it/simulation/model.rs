//! The model as a worker sees it: it answers what the lots say, late, not at all, or half.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::retry::ModelErrorClass;
use domain::{ExecutionId, Message, StepBody, StopReason};
use futures::StreamExt;
use llm::{ChatModel, ChatRequest, ChatStream, Chunk, Error};
use serde_json::json;
use tokio::time::sleep;

use super::wire::Gate;
use super::world::World;

pub(crate) struct Model {
    pub(crate) world: Arc<World>,
    pub(crate) gate: Arc<Gate>,
}

impl Model {
    /// Which execution asks: the model is not told, but an execution's first words are its own.
    fn asker(&self, request: &ChatRequest<'_>) -> Option<(ExecutionId, usize)> {
        let Some(Message::User { text }) = request.messages.first() else {
            return None;
        };
        let tables = self.world.tables();
        let mut rows = tables.rows.values();
        let row = rows.find(|row| {
            let this = &row.execution;
            this.trace_id.as_str() == request.trace_id
                && request.system.contains(&format!("agent {}.", this.agent))
                && this.prompt() == *text
        })?;
        let is_answer = |body: &StepBody| matches!(body, StepBody::ModelCall(_));
        let answers = row.steps.iter().filter(|step| is_answer(&step.body));
        Some((row.execution.id, answers.count()))
    }

    /// A committed answer must not be asked for again.
    fn watch(&self, request: &ChatRequest<'_>) {
        let Some((id, journaled)) = self.asker(request) else {
            let text = format!("nobody asks with trace {}", request.trace_id);
            return self.world.violated("I1", text);
        };
        let worker = &self.gate.worker;
        self.world.count("model calls");
        let is_owner = self.world.begins(worker, id, "a model call");
        let is_reply = |message: &&Message| matches!(message, Message::Assistant(_));
        let heard = request.messages.iter().filter(is_reply).count();
        if is_owner && heard < journaled && self.world.has_claimed_once(worker, id) {
            let text = format!("{worker} asks {id} for answer {heard} of {journaled} again");
            self.world.violated("I1", text);
        }
    }

    fn failure(&self) -> Option<Error> {
        if !self.world.goes_wrong(90) {
            return None;
        }
        let class = *self.world.lots().pick(&[
            ModelErrorClass::RateLimited,
            ModelErrorClass::Unavailable,
            ModelErrorClass::Unavailable,
            ModelErrorClass::Refused,
        ]);
        Some(Error::new(class, "the provider says no").after(Some(Duration::from_secs(2))))
    }

    fn answer(&self, request: &ChatRequest<'_>) -> Vec<Chunk> {
        let is_reply = |message: &&Message| matches!(message, Message::Assistant(_));
        let turn = request.messages.iter().filter(is_reply).count() as u64;
        let mut lots = self.world.lots();
        if request.tools.is_empty() || lots.below(10) < 1 + 3 * turn {
            let text = format!("done after {turn}");
            return vec![Chunk::Text(text), Chunk::Stop(StopReason::EndTurn)];
        }
        let mut chunks = Vec::new();
        for index in 0..=lots.below(3) as usize {
            let tool = lots.pick(request.tools);
            chunks.push(Chunk::ToolCall {
                index,
                id: format!("c{index}"),
                name: tool.name.to_owned(),
            });
            // Unlike any other, so that a child's first words tell which one it is.
            let prompt = format!("{} {:08x}", tool.name, lots.draw() >> 32);
            let fragment = json!({ "prompt": prompt }).to_string();
            chunks.push(Chunk::Arguments { index, fragment });
        }
        chunks.push(Chunk::Stop(StopReason::ToolUse));
        chunks
    }

    fn time_to_think(&self) -> Duration {
        let is_slow = self.world.goes_wrong(60);
        let mut lots = self.world.lots();
        if is_slow {
            lots.millis(4000, 40_000)
        } else {
            lots.millis(20, 1500)
        }
    }
}

#[async_trait]
impl ChatModel for Model {
    async fn chat(&self, request: ChatRequest<'_>) -> Result<ChatStream, Error> {
        self.gate.pass().await;
        self.watch(&request);
        sleep(self.time_to_think()).await;
        self.gate.pass().await;
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if self.world.goes_wrong(4) {
            // Not `panic!`, which would print each one.
            std::panic::resume_unwind(Box::new("the adapter has a bug"));
        }
        let mut chunks = self.answer(&request);
        if self.world.goes_wrong(20) {
            // Cut off: the end mark is missing.
            chunks.pop();
        }
        let (gate, wait) = (self.gate.clone(), self.world.lots().millis(1, 200));
        let stream = futures::stream::iter(chunks).then(move |chunk| {
            let gate = gate.clone();
            async move {
                sleep(wait).await;
                gate.pass().await;
                Ok(chunk)
            }
        });
        Ok(stream.boxed())
    }
}
