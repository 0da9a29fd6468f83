//! Traces, as a collector gets them: from the request to the tool in one tree, over processes, without secrets; and a
//! collector that answers nothing slows no work.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::provider::{Answer, Request};
use testkit::{CollectorStandIn, EffectsStandIn, ProviderStandIn, ToldSpan};

use crate::backing::{self, borrowed};
use crate::product::free_ports;
use crate::project::Project;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const SECRET: &str = "sk-canary-0123456789";
const TOKEN: &str = "otlp-canary-9876543210";

fn behave(request: &Request) -> Answer {
    let tool = request.tools.first().map_or("", |tool| &tool.name);
    match (request.turn, tool) {
        (0, "worker") => Answer::call(tool, json!({ "task": format!("pay, with {SECRET}") })),
        (0, tool) => Answer::call(tool, json!({})),
        _ => Answer::say(format!("it is done with {SECRET}")),
    }
}

/// A leader that has a worker charge.
fn project(effects: &EffectsStandIn) -> Project {
    let project = Project::empty();
    let agent = |name: &str, tool: &str| {
        format!(
            "name: {name}\nexecution_mode: autonomous\nllm_config: {{ provider: openai, model: gpt-4o-mini }}\n\
             system_prompt: You work.\ntools:\n  - {tool}\n"
        )
    };
    let url = effects.url();
    let charge = format!(
        "{{ name: charge, type: api, method: POST, url: '{url}/charge', body: {{ cents: 1 }} }}"
    );
    project.write(
        "config/agents/lead.yml",
        &agent("lead", "{ name: worker, type: agent }"),
    );
    project.write("config/agents/worker.yml", &agent("worker", &charge));
    project
}

async fn submit(project: &Project, agent: &str, trace: &str, flags: &str) -> (String, String) {
    let response = reqwest::Client::new()
        .post(project.url("/tasks"))
        .header("traceparent", format!("00-{trace}-{CALLER}-{flags}"))
        .json(&json!({ "agent_name": agent, "task_data": { "prompt": "a word that is not told" } }))
        .send()
        .await
        .unwrap();
    let parent = response.headers()["traceparent"].to_str().unwrap();
    let parent = parent.to_owned();
    let body: Value = response.json().await.unwrap();
    let id = body["execution_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{body}"));
    (id.to_owned(), parent)
}

fn named<'a>(spans: &'a [ToldSpan], name: &str) -> &'a ToldSpan {
    let mut found = spans.iter().filter(|span| span.name == name);
    let one = found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
    assert!(found.next().is_none(), "more than one {name}: {spans:#?}");
    one
}

async fn told(collector: &CollectorStandIn, enough: impl Fn(&[ToldSpan]) -> bool) {
    let told = tokio::time::timeout(PATIENCE, collector.wait_until(enough)).await;
    assert!(told.is_ok(), "{:#?}", collector.spans());
}

/// The model calls have what they are to have, and no span belongs elsewhere.
fn check_details(spans: &[ToldSpan]) {
    let chats: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "chat gpt-4o-mini")
        .collect();
    assert_eq!(chats.len(), 4, "{spans:#?}");
    for chat in chats {
        assert_eq!(chat.attributes["gen_ai.operation.name"], "chat");
        assert_eq!(chat.attributes["gen_ai.provider.name"], "openai");
        assert!(
            chat.attributes["gen_ai.usage.input_tokens"]
                .parse::<u64>()
                .unwrap()
                > 0
        );
        assert!(chat.attributes.contains_key("gen_ai.output.messages"));
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| span.id.as_str()).collect();
    for span in spans {
        assert_eq!(span.trace, TRACE, "nobody asked for another: {span:#?}");
        assert!(
            span.parent == CALLER || ids.contains(span.parent.as_str()),
            "{span:#?}"
        );
        assert!(span.start <= span.end, "{span:#?}");
    }
}

/// S4: and no secret in any of it, though it tells what was said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_gateway_to_the_tool_it_is_one_tree_over_two_processes() {
    let (mut servers, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
    servers.extend(rabbitmq);
    let (collector, effects) = (CollectorStandIn::start(), EffectsStandIn::start());
    let provider = ProviderStandIn::start(behave);
    let project = project(&effects);
    let (url, base) = (collector.url(), provider.openai_url());
    let shown = format!("authorization=Bearer%20{TOKEN}");
    let port = free_ports(1).first().unwrap().to_string();
    let mut variables = borrowed(&servers);
    variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", shown.as_str()),
        ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_BASE_URL", base.as_str()),
        ("AGENT_POOL_PORT", port.as_str()),
    ]);
    let mut migrate = project.command(&["migrate", "up"]);
    migrate.envs(variables.iter().copied());
    let migrated = crate::project::Ran::of(migrate).await;
    assert_eq!(migrated.code, 0, "{migrated:?}");
    let gateway = project.serve("agent-orchestrator", &variables).await;
    let pool = project.serve("autonomous-agent-pool", &variables).await;

    let (_, parent) = submit(&project, "lead", TRACE, "01").await;
    // The request; of either agent itself, its tool and two calls of the model.
    told(&collector, |spans| spans.len() >= 9).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 9, "{spans:#?}");

    let request = named(&spans, "POST /tasks");
    assert_eq!(
        (request.parent.as_str(), request.kind.as_str()),
        (CALLER, "SERVER")
    );
    assert_eq!(parent, format!("00-{TRACE}-{}-01", request.id));
    assert_eq!(request.attributes["http.response.status_code"], "202");
    let lead = named(&spans, "invoke_agent lead");
    assert_eq!(lead.parent, request.id);
    assert_ne!(lead.instance, request.instance, "two processes");
    assert_eq!(lead.service, "agentrunner");
    let delegation = named(&spans, "execute_tool worker");
    assert_eq!(delegation.parent, lead.id);
    let worker = named(&spans, "invoke_agent worker");
    assert_eq!(worker.parent, delegation.id);
    let charge = named(&spans, "execute_tool charge");
    assert_eq!(charge.parent, worker.id);
    // The tool was sent the span that is told.
    let call = effects.calls().pop().unwrap();
    let sent = format!("00-{TRACE}-{}-01", charge.id);
    assert_eq!(call.headers["traceparent"], sent);

    check_details(&spans);
    let all = format!("{spans:?}");
    assert!(all.contains("it is done with"), "{all}");
    assert!(!all.contains("canary"), "{all}");
    assert_eq!(
        collector.headers()[0]["authorization"],
        format!("Bearer {TOKEN}")
    );
    for server in [gateway, pool] {
        server.signal("TERM");
        let (code, log) = server.ended().await;
        assert_eq!(code, 0, "{log}");
        assert!(!log.contains("canary"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_collector_slows_nothing_and_words_are_not_told_unasked() {
    let (collector, effects) = (CollectorStandIn::start(), EffectsStandIn::start());
    let provider = ProviderStandIn::start(behave);
    let project = project(&effects);
    let (url, base) = (collector.url(), provider.openai_url());
    collector.be_deaf(true);
    let server = project
        .up_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OPENAI_API_KEY", SECRET),
            ("OPENAI_BASE_URL", base.as_str()),
        ])
        .await;
    let completed = async |id: &str| {
        let is_over = |task: &Value| task["status"] == "completed";
        project.until(&format!("/tasks/{id}"), is_over).await
    };
    let (id, _) = submit(&project, "worker", TRACE, "01").await;
    completed(&id).await;
    // What could not be sent is counted, and then given up.
    let metrics = async || {
        let text = reqwest::get(project.url("/metrics")).await.unwrap();
        text.text().await.unwrap()
    };
    let lost = async {
        loop {
            let text = metrics().await;
            let mut lines = text.lines();
            let failed = r#"agentrunner_spans_total{outcome="failed"} "#;
            if lines.any(|line| line.strip_prefix(failed).is_some_and(|n| n != "0")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
    assert!(collector.spans().is_empty());

    collector.be_deaf(false);
    let unwanted = "1".repeat(32);
    let (id, parent) = submit(&project, "worker", &unwanted, "00").await;
    assert!(parent.ends_with("-00"), "{parent}");
    completed(&id).await;
    let sent = effects.calls().pop().unwrap().headers["traceparent"].clone();
    assert!(sent.ends_with("-00"), "{sent}");
    let (id, _) = submit(&project, "worker", &"2".repeat(32), "01").await;
    completed(&id).await;
    told(&collector, |spans| {
        spans
            .iter()
            .any(|span| span.name == "invoke_agent worker" && span.trace == "2".repeat(32))
    })
    .await;
    let spans = collector.spans();
    assert!(
        spans.iter().all(|span| span.trace != unwanted),
        "{spans:#?}"
    );
    assert!(
        spans.iter().all(|span| span.service == "mine"),
        "{spans:#?}"
    );
    assert!(
        spans.iter().all(|span| !span.name.contains("/metrics")),
        "{spans:#?}"
    );
    let all = format!("{spans:?}");
    assert!(
        !all.contains("a word that is not told") && !all.contains("it is done"),
        "{all}"
    );
    server.signal("TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, 0, "{log}");
    let complaints = log.matches("spans can't be sent").count();
    assert_eq!(complaints, 1, "{log}");
}
