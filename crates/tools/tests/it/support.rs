//! What the tests have in common: a toolkit, entries from YAML-like JSON, calls.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrunner_tools as tools;
use async_trait::async_trait;
use axum::Router;
use domain::definition::Tool;
use domain::{AgentName, ConfigVersion, Event, ExecutionId, ToolOutcome, TraceId};
use serde_json::{Value, json};
use tools::egress::Resolver;
use tools::{Call, Error, Host, Offer, Share, Shared, Toolbox, Toolkit, ToolkitSettings};

/// What the built-in functions did to the system.
#[derive(Default)]
pub(crate) struct FakeHost {
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) facts: Mutex<Vec<(String, Value, String)>>,
    pub(crate) shared: Mutex<Vec<(String, Value)>>,
}

#[async_trait]
impl Host for FakeHost {
    async fn remember(
        &self,
        _: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
    ) -> Result<(), String> {
        let fact = (key.to_owned(), value.clone(), idempotency_key.to_owned());
        self.facts.lock().unwrap().push(fact);
        Ok(())
    }

    async fn recall(
        &self,
        _: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>, String> {
        let facts = self.facts.lock().unwrap();
        let found = facts.iter().rev().filter(|(key, ..)| key.contains(like));
        Ok(found
            .take(limit)
            .map(|(key, value, _)| (key.clone(), value.clone()))
            .collect())
    }

    async fn publish(&self, event: Event) -> Result<(), String> {
        self.events.lock().unwrap().push(event);
        Ok(())
    }

    async fn share(&self, share: Share<'_>) -> Result<Shared, String> {
        let mut shared = self.shared.lock().unwrap();
        let version = shared.iter().filter(|(key, _)| key == share.key).count() as u64;
        if share.expected.is_some_and(|expected| expected != version) {
            return Ok(Shared::Refused(format!("it is at version {version}")));
        }
        shared.push((share.key.to_owned(), share.value.clone()));
        Ok(Shared::Written {
            version: version + 1,
        })
    }

    async fn shared(
        &self,
        _: ExecutionId,
        keys: &[String],
    ) -> Result<Vec<(String, u64, Value)>, String> {
        let shared = self.shared.lock().unwrap();
        let wanted = shared
            .iter()
            .filter(|(key, _)| keys.is_empty() || keys.contains(key));
        Ok(wanted
            .map(|(key, value)| (key.clone(), 1, value.clone()))
            .collect())
    }
}

/// A resolver with answers of its own; asked for anything else it fails.
#[derive(Default)]
pub(crate) struct FakeResolver {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl FakeResolver {
    /// Answers with one list after the other; the last one for ever.
    pub(crate) fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut answers: Vec<Vec<IpAddr>> = answers.iter().map(parse).collect();
        answers.reverse();
        Arc::new(Self {
            answers: Mutex::new(answers),
            asked: Mutex::default(),
        })
    }
}

#[async_trait]
impl Resolver for FakeResolver {
    async fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 {
            return Ok(answers.pop().unwrap());
        }
        Ok(answers.last().cloned().unwrap_or_default())
    }
}

pub(crate) fn settings() -> ToolkitSettings {
    let clock = Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap());
    let mut settings = ToolkitSettings::new(PathBuf::from("."), clock);
    // The servers of the tests need node, which is found where the tests are run from.
    settings.path = std::env::var_os("PATH");
    settings.home = std::env::var_os("HOME");
    settings
}

pub(crate) fn toolkit(change: impl FnOnce(&mut ToolkitSettings)) -> Toolkit {
    let mut settings = settings();
    change(&mut settings);
    Toolkit::new(settings, Arc::new(FakeHost::default()))
}

pub(crate) fn entry(fields: Value) -> Tool {
    serde_json::from_value(fields).unwrap()
}

pub(crate) fn agent() -> AgentName {
    "tester".parse().unwrap()
}

pub(crate) fn trace() -> TraceId {
    "0af7651916cd43dd8448eb211c80319c".parse().unwrap()
}

/// A call of a tool, with the values that most tests don't look at.
pub(crate) fn call<'a>(
    entry: &'a Tool,
    tool: &'a str,
    arguments: &'a Value,
    agent: &'a AgentName,
    trace: &'a TraceId,
) -> Call<'a> {
    Call {
        entry,
        tool,
        arguments,
        idempotency_key: "exec:7",
        agent,
        execution: ExecutionId::from_uuid(uuid::Uuid::from_u128(7)),
        team: None,
        trace_id: trace,
        is_recorded: true,
        hops: 0,
        timeout: Duration::from_secs(20),
        pin: None,
    }
}

/// Calls the tool `name` of an entry.
pub(crate) async fn run(
    toolkit: &Toolkit,
    entry: &Tool,
    tool: &str,
    arguments: Value,
) -> ToolOutcome {
    let (agent, trace) = (agent(), trace());
    toolkit
        .call(call(entry, tool, &arguments, &agent, &trace))
        .await
}

/// Calls the tool of an entry within a time.
pub(crate) async fn run_for(
    toolkit: &Toolkit,
    entry: &Tool,
    tool: &str,
    arguments: Value,
    timeout: Duration,
) -> ToolOutcome {
    let (agent, trace) = (agent(), trace());
    let call = Call {
        timeout,
        ..call(entry, tool, &arguments, &agent, &trace)
    };
    toolkit.call(call).await
}

pub(crate) async fn offers(
    toolkit: &Toolkit,
    version: &str,
    entries: &[Tool],
) -> Result<Arc<Vec<Offer>>, Error> {
    let version = ConfigVersion::try_from(format!("{version:0>16}")).unwrap();
    toolkit.offers(&agent(), &version, entries).await
}

pub(crate) fn names(offers: &[Offer]) -> Vec<&str> {
    offers.iter().map(|offer| offer.name.as_str()).collect()
}

/// The text of a result.
#[track_caller]
pub(crate) fn text(outcome: ToolOutcome) -> String {
    match outcome {
        ToolOutcome::Succeeded {
            content,
            truncated: false,
        } => content,
        other => panic!("not a whole result: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn failure(outcome: ToolOutcome) -> String {
    match outcome {
        ToolOutcome::Failed { message } => message,
        other => panic!("not a failure: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn refusal(outcome: ToolOutcome) -> String {
    match outcome {
        ToolOutcome::Refused { message } => message,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn unknown(outcome: ToolOutcome) -> String {
    match outcome {
        ToolOutcome::Unknown { message } => message,
        other => panic!("not unknown: {other:?}"),
    }
}

/// Serves a router on an address until the test ends.
pub(crate) async fn serve(address: &str, router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The MCP server of these tests, over stdio.
pub(crate) fn stdio_server(fields: Value) -> Tool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/server.mjs");
    let mut whole = json!({"name": "srv", "type": "mcp", "command": "node", "args": [script]});
    let more = fields.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(more);
    entry(whole)
}
