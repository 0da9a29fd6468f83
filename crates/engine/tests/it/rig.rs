//! An engine on a store in a temporary folder, with a model and tools whose every answer the test decides.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrunner_engine::{
    Agent, Agents, Engine, LiveEvent, NewTask, Ports, Settings, Surroundings,
};
use async_trait::async_trait;
use bus::in_process::InProcess;
use chrono::Utc;
use domain::definition::{Effect, Tool};
use domain::{
    AgentName, ConfigVersion, Definition, ExecutionId, ExecutionMode, Outcome, StepBody,
    StopReason, ToolOutcome, TraceId,
};
use futures::StreamExt;
use llm::{ChatModel, ChatRequest, ChatStream, Chunk};
use serde_json::{Value, json};
use store::Store;
use store::counters::Counters;
use store::sqlite::{Options, Sqlite};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tools::{Call, Checked, Offer, Toolbox};
use uuid::Uuid;

/// What the model does when it is asked.
pub(crate) enum Say {
    Text(&'static str),
    /// Says this, as JSON.
    Json(Value),
    Tools(Vec<(&'static str, Value)>),
    Fail(llm::Error),
    Panic,
    /// Says something and then nothing, for ever.
    Hang,
    /// Says something after a while.
    Late(Duration, &'static str),
}

type Play = dyn Fn(usize, &ChatRequest<'_>) -> Say + Send + Sync;

/// A model that the test plays. Asked with the number of the question within its execution, from 0.
pub(crate) struct Model {
    play: Box<Play>,
    pub(crate) asked: AtomicU32,
    /// How many streams are open.
    pub(crate) open: Arc<AtomicU32>,
}

struct Open(Arc<AtomicU32>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ChatModel for Model {
    async fn chat(&self, request: ChatRequest<'_>) -> Result<ChatStream, llm::Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let turn = request
            .messages
            .iter()
            .filter(|m| matches!(m, domain::Message::Assistant(_)))
            .count();
        let chunks = match (self.play)(turn, &request) {
            Say::Text(text) => vec![
                Chunk::Text(text.to_owned()),
                Chunk::Stop(StopReason::EndTurn),
            ],
            Say::Json(value) => vec![
                Chunk::Text(value.to_string()),
                Chunk::Stop(StopReason::EndTurn),
            ],
            Say::Tools(calls) => {
                let mut chunks = Vec::new();
                for (index, (name, arguments)) in calls.into_iter().enumerate() {
                    chunks.push(Chunk::ToolCall {
                        index,
                        id: format!("c{index}"),
                        name: name.to_owned(),
                    });
                    chunks.push(Chunk::Arguments {
                        index,
                        fragment: arguments.to_string(),
                    });
                }
                chunks.push(Chunk::Stop(StopReason::ToolUse));
                chunks
            }
            Say::Fail(error) => return Err(error),
            Say::Late(pause, text) => {
                tokio::time::sleep(pause).await;
                vec![
                    Chunk::Text(text.to_owned()),
                    Chunk::Stop(StopReason::EndTurn),
                ]
            }
            Say::Panic => panic!("the model adapter has a bug"),
            Say::Hang => {
                self.open.fetch_add(1, Ordering::SeqCst);
                let guard = Open(self.open.clone());
                let first = futures::stream::once(async { Ok(Chunk::Text("thinking".to_owned())) });
                let never = futures::stream::once(async move {
                    let _guard = guard;
                    std::future::pending().await
                });
                return Ok(first.chain(never).boxed());
            }
        };
        Ok(futures::stream::iter(chunks.into_iter().map(Ok)).boxed())
    }
}

/// Tools that the test plays: every call is counted by its key and may be held at a gate.
pub(crate) struct Tools {
    pub(crate) calls: Mutex<Vec<(String, String)>>,
    pub(crate) gate: Semaphore,
    /// Lets go on those that check now a tool whose name begins with `slow`.
    pub(crate) checks: tokio::sync::Notify,
    pub(crate) happened: Mutex<BTreeMap<String, String>>,
    pub(crate) entered: tokio::sync::Notify,
    pub(crate) answer: Mutex<Option<ToolOutcome>>,
}

impl Tools {
    pub(crate) fn count(&self, tool: &str) -> usize {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|(name, _)| name == tool)
            .count()
    }
}

#[async_trait]
impl Toolbox for Tools {
    async fn offers(
        &self,
        _: &AgentName,
        _: &ConfigVersion,
        entries: &[Tool],
    ) -> Result<Arc<Vec<Offer>>, tools::Error> {
        let offer = |entry: &Tool| Offer {
            name: entry.name.clone(),
            description: String::new(),
            parameters: json!({ "type": "object", "properties": { "n": { "type": "integer" } } }),
            entry: entry.name.clone(),
            effect: entry.effect_of(&entry.name),
            approval: entry
                .requires_approval
                .as_ref()
                .is_some_and(|approval| approval.covers(&entry.name)),
            pin: None,
        };
        Ok(Arc::new(entries.iter().map(offer).collect()))
    }

    async fn call(&self, call: Call<'_>) -> ToolOutcome {
        self.calls
            .lock()
            .unwrap()
            .push((call.tool.to_owned(), call.idempotency_key.to_owned()));
        self.entered.notify_one();
        if call.tool.starts_with("slow") {
            self.gate.acquire().await.unwrap().forget();
        }
        if call.tool == "panics" {
            panic!("the tool has a bug");
        }
        let content = format!("{} done", call.tool);
        self.happened
            .lock()
            .unwrap()
            .insert(call.idempotency_key.to_owned(), content.clone());
        let answer = self.answer.lock().unwrap().take();
        answer.unwrap_or(ToolOutcome::Succeeded {
            content,
            truncated: false,
        })
    }

    async fn check(&self, call: Call<'_>, _: &Tool) -> Checked {
        if call.tool.starts_with("slow") {
            let let_go = self.checks.notified();
            self.entered.notify_one();
            let_go.await;
        }
        match self.happened.lock().unwrap().get(call.idempotency_key) {
            Some(result) => Checked::Happened(result.clone()),
            None => Checked::DidNotHappen,
        }
    }
}

/// Everything that a test needs.
pub(crate) struct Rig {
    _folder: TempDir,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) model: Arc<Model>,
    pub(crate) tools: Arc<Tools>,
    pub(crate) engine: Engine,
    pub(crate) agents: Agents,
    /// How many seconds the clock is ahead of the real one.
    pub(crate) ahead: Arc<AtomicI64>,
    ports: Ports,
}

impl Rig {
    /// A running engine with the agent `a`, whose definition gets `extra`.
    pub(crate) async fn start(
        extra: Value,
        play: impl Fn(usize, &ChatRequest<'_>) -> Say + Send + Sync + 'static,
    ) -> Self {
        let rig = Self::new(extra, play, |store| store).await;
        rig.engine.start();
        rig
    }

    /// The same, not started, with the store wrapped.
    pub(crate) async fn new(
        extra: Value,
        play: impl Fn(usize, &ChatRequest<'_>) -> Say + Send + Sync + 'static,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = wrap(Arc::new(
            Sqlite::open(&folder.path().join("agentrunner.db"), Options::default()).unwrap(),
        ));
        let model = Arc::new(Model {
            play: Box::new(play),
            asked: AtomicU32::new(0),
            open: Arc::default(),
        });
        let tools = Arc::new(Tools {
            calls: Mutex::default(),
            gate: Semaphore::new(0),
            checks: tokio::sync::Notify::new(),
            happened: Mutex::default(),
            entered: tokio::sync::Notify::new(),
            answer: Mutex::default(),
        });
        let ahead = Arc::new(AtomicI64::new(0));
        let ports = Ports {
            store: store.clone(),
            bus: Arc::new(InProcess::default()),
            model: model.clone(),
            tools: tools.clone(),
            clock: {
                let ahead = ahead.clone();
                Arc::new(move || {
                    Utc::now() + chrono::Duration::seconds(ahead.load(Ordering::SeqCst))
                })
            },
        };
        let agents = Agents::new(Arc::new(|definition: &Definition| Ok(definition.clone())));
        let engine = Engine::new(ports.clone(), agents.clone(), settings("w1"));
        let rig = Self {
            _folder: folder,
            store,
            model,
            tools,
            engine,
            agents,
            ahead,
            ports,
        };
        rig.define(definition(extra)).await;
        rig
    }

    /// A second engine on the same store, not started.
    pub(crate) fn another(&self, name: &str) -> Engine {
        Engine::new(self.ports.clone(), self.agents.clone(), settings(name))
    }

    /// The same, with these counters.
    pub(crate) fn another_with(&self, name: &str, counters: Arc<dyn Counters>) -> Engine {
        let (ports, agents) = (self.ports.clone(), self.agents.clone());
        let surroundings = Surroundings {
            counters,
            ..Surroundings::default()
        };
        Engine::within(ports, agents, settings(name), surroundings)
    }

    /// Adds or changes an agent.
    pub(crate) async fn define(&self, definition: Definition) {
        let mut all: BTreeMap<AgentName, Agent> = self
            .agents
            .all()
            .into_iter()
            .map(|agent| (agent.definition.name.clone(), agent))
            .collect();
        let version = definition.content_hash();
        let record = store::ConfigRecord {
            definition: definition.clone(),
            version: version.clone(),
            source: String::new(),
            path: "a.yml".to_owned(),
            loaded_at: Utc::now(),
        };
        self.store.put_config(record).await.unwrap();
        let name = definition.name.clone();
        let (path, loaded_at, definition) = ("a.yml".to_owned(), Utc::now(), Arc::new(definition));
        all.insert(
            name,
            Agent {
                definition,
                version,
                path,
                loaded_at,
                rejected: None,
                switched_off: None,
            },
        );
        self.agents.replace(all);
    }

    /// What another engine on the same store works with.
    pub(crate) fn ports(&self) -> Ports {
        self.ports.clone()
    }

    pub(crate) async fn submit(&self) -> ExecutionId {
        self.submit_to(&self.engine).await
    }

    /// Gives a task to this engine.
    pub(crate) async fn submit_to(&self, engine: &Engine) -> ExecutionId {
        let trace = TraceId::from_uuid(Uuid::from_u128(1));
        engine
            .submit(NewTask::new("a", json!({ "prompt": "go" }), trace))
            .await
            .unwrap()
            .id
    }

    /// Follows an execution to its end.
    pub(crate) async fn outcome(&self, id: ExecutionId) -> Outcome {
        outcome(&self.engine, id).await
    }

    /// The kinds of an execution's steps.
    pub(crate) async fn kinds(&self, id: ExecutionId) -> Vec<&'static str> {
        let steps = self.store.steps(id, None, 1000).await.unwrap();
        steps.iter().map(|step| step.body.kind()).collect()
    }
}

/// Follows an execution to its end, for ten seconds at most.
pub(crate) async fn outcome(engine: &Engine, id: ExecutionId) -> Outcome {
    let mut watch = engine.watch(id, None);
    let end = async {
        loop {
            match watch.next().await.unwrap() {
                Some(LiveEvent::Step(step)) => {
                    if let StepBody::Finished { outcome } = &step.body {
                        return outcome.clone();
                    }
                }
                Some(_) => {}
                None => panic!("it ended without an end"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), end)
        .await
        .expect("it ends within ten seconds")
}

pub(crate) fn settings(worker: &str) -> Settings {
    Settings {
        worker: worker.parse().unwrap(),
        capacity: 100,
        modes: vec![ExecutionMode::Autonomous, ExecutionMode::Collaborative],
        lease: Duration::from_secs(1),
        poll: Duration::from_millis(50),
        max_crashes: 3,
        max_reply_bytes: 1 << 20,
        is_gone: None,
        registration: agentrunner_engine::Registration::default(),
    }
}

pub(crate) fn definition(extra: Value) -> Definition {
    let mut value = json!({
        "name": "a", "execution_mode": "autonomous", "system_prompt": "You are a test.",
        "llm_config": { "provider": "scripted", "model": "m" },
        "retry_config": { "retry_delay_seconds": 0.05 },
    });
    value
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

/// An entry of `tools`.
pub(crate) fn tool(name: &str, effect: Effect) -> Value {
    let mut tool =
        json!({ "name": name, "type": "api", "url": "http://127.0.0.1/", "effect": effect });
    if effect == Effect::Checkable {
        tool["check"] = json!("check");
    }
    tool
}
