//! The other built-in functions.

use std::sync::Arc;

use agentrunner_tools::{Call, Toolbox, Toolkit};
use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use domain::event::MAX_HOPS;
use domain::{AgentName, TraceId};
use serde_json::{Value, json};

use crate::support::{
    FakeHost, agent, call, entry, failure, refusal, run, serve, settings, text, toolkit, trace,
};

fn function(name: &str) -> domain::definition::Tool {
    entry(json!({"name": name, "type": "function"}))
}

#[tokio::test]
async fn time_is_told_in_a_zone() {
    let toolkit = toolkit(|_| {});
    let tool = function("current_time");
    let of = async |arguments| run(&toolkit, &tool, "current_time", arguments).await;
    let utc: Value = serde_json::from_str(&text(of(json!({})).await)).unwrap();
    assert_eq!(utc["time"], "2026-03-01T12:00:00Z");
    let there = text(of(json!({"timezone": "America/New_York"})).await);
    let there: Value = serde_json::from_str(&there).unwrap();
    assert_eq!(
        (&there["time"], &there["weekday"]),
        (&json!("2026-03-01T07:00:00-05:00"), &json!("Sun"))
    );
    let reason = refusal(of(json!({"timezone": "Moon/Base"})).await);
    assert!(reason.contains("IANA"), "{reason}");
}

#[tokio::test]
async fn an_expression_is_computed() {
    let toolkit = toolkit(|_| {});
    let tool = function("calculate");
    let of = async |e: &str| run(&toolkit, &tool, "calculate", json!({"expression": e})).await;
    assert_eq!(text(of("2^64 - 1").await), "18446744073709551615");
    failure(of("2 +* 3").await);
    refusal(of(&"1+".repeat(1000)).await);
    refusal(run(&toolkit, &tool, "calculate", json!({})).await);
}

#[tokio::test]
async fn an_event_is_published_once_for_a_key_and_loops_are_cut() {
    let host = Arc::new(FakeHost::default());
    let toolkit = Toolkit::new(settings(), host.clone());
    let tool = entry(
        json!({"name": "tell", "type": "function", "function": "publish_event", "topics": ["orders.*", "agent.#"]}),
    );
    let (agent, trace): (AgentName, TraceId) = (agent(), trace());
    let publish = async |topic: &str, hops: u8| {
        let arguments = json!({"topic": topic, "data": {"n": 1}});
        let call = Call {
            hops,
            ..call(&tool, "tell", &arguments, &agent, &trace)
        };
        toolkit.call(call).await
    };
    text(publish("orders.created", 3).await);
    let events = host.events.lock().unwrap().clone();
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((event.id.as_str(), event.hops), ("exec:7", 4));
    assert_eq!(event.source, "agentrunner/tester");
    assert_eq!(event.data, json!({"n": 1}));
    refusal(publish("invoices.created", 0).await);
    refusal(publish("agent.execution.completed", 0).await);
    refusal(publish("no topic", 0).await);
    let reason = refusal(publish("orders.created", MAX_HOPS).await);
    assert!(reason.contains("loop"), "{reason}");
    assert_eq!(host.events.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn facts_are_kept_and_given_back() {
    let host = Arc::new(FakeHost::default());
    let toolkit = Toolkit::new(settings(), host.clone());
    let (keep, give) = (function("remember"), function("recall"));
    for (key, value) in [
        ("a/1", json!("x")),
        ("a/2", json!({"deep": true})),
        ("b", json!(3)),
    ] {
        text(
            run(
                &toolkit,
                &keep,
                "remember",
                json!({"key": key, "value": value}),
            )
            .await,
        );
    }
    assert_eq!(host.facts.lock().unwrap()[0].2, "exec:7");
    let found = text(run(&toolkit, &give, "recall", json!({"key": "a/"})).await);
    assert_eq!(found, r#"{"a/2":{"deep":true},"a/1":"x"}"#);
    refusal(run(&toolkit, &keep, "remember", json!({"key": "", "value": 1})).await);
    let large = json!({"key": "k", "value": "x".repeat(70_000)});
    refusal(run(&toolkit, &keep, "remember", large).await);
}

#[tokio::test]
async fn a_page_is_fetched_as_text() {
    let router = Router::new()
        .route(
            "/",
            get(|| async { Html("<title>T</title><p>Hello &amp; bye<script>x</script>") }),
        )
        .route("/json", get(|| async { axum::Json(json!({"n": 1})) }))
        .route("/bytes", get(|| async { vec![0_u8, 1, 2] }))
        .route("/gone", get(|| async { (StatusCode::GONE, "moved away") }));
    let port = serve("127.0.0.1:0", router).await.port();
    let allow = format!("127.0.0.1:{port}");
    let toolkit = toolkit(|settings| {
        settings.egress = agentrunner_tools::EgressPolicy::parse(&allow, "").unwrap();
    });
    let tool = function("http_fetch");
    let fetch = async |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        run(&toolkit, &tool, "http_fetch", json!({"url": url})).await
    };
    assert_eq!(
        text(fetch("/").await),
        "HTTP 200 OK\ncontent-type: text/html\n\nT\n\nHello & bye"
    );
    assert_eq!(
        text(fetch("/json").await),
        "HTTP 200 OK\ncontent-type: application/json\n\n{\"n\":1}"
    );
    assert!(text(fetch("/bytes").await).ends_with("[not text: 3 bytes]"));
    assert_eq!(failure(fetch("/gone").await), "HTTP 410 Gone\nmoved away");
}

#[tokio::test]
async fn a_page_is_fetched_only_from_where_it_may() {
    let toolkit = toolkit(|_| {});
    let tool = entry(json!({"name": "http_fetch", "type": "function", "hosts": ["*.example.com"]}));
    for url in [
        "http://127.0.0.1:9/",
        "http://example.org/",
        "http://example.com/",
        "file:///etc/passwd",
    ] {
        let reason = failure(run(&toolkit, &tool, "http_fetch", json!({"url": url})).await);
        assert!(reason.contains("refused"), "{url}: {reason}");
    }
    refusal(run(&toolkit, &tool, "http_fetch", json!({"url": "nonsense"})).await);
}

#[tokio::test]
async fn a_team_shares_what_it_knows_and_nobody_else_does() {
    let host = Arc::new(FakeHost::default());
    let toolkit = Toolkit::new(settings(), host.clone());
    let (get, set) = (function("shared_state_get"), function("shared_state_set"));
    let (agent, trace): (AgentName, TraceId) = (agent(), trace());
    let team = domain::ExecutionId::from_uuid(uuid::Uuid::from_u128(1));
    let made =
        async |tool: &domain::definition::Tool, name: &str, arguments: Value, is_member: bool| {
            let call = Call {
                team: is_member.then_some(team),
                ..call(tool, name, &arguments, &agent, &trace)
            };
            toolkit.call(call).await
        };
    let first = json!({"key": "n", "value": {"x": 1}, "expected_version": 0});
    let reason = refusal(made(&set, "shared_state_set", first.clone(), false).await);
    assert!(reason.contains("coordinator"), "{reason}");
    let said = text(made(&set, "shared_state_set", first.clone(), true).await);
    assert!(said.contains("version 1"), "{said}");
    let reason = refusal(made(&set, "shared_state_set", first, true).await);
    assert!(reason.contains("version 1"), "{reason}");
    let huge = json!({"key": "n", "value": "x".repeat(70_000)});
    refusal(made(&set, "shared_state_set", huge, true).await);
    let read = text(made(&get, "shared_state_get", json!({}), true).await);
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read, json!({"n": {"value": {"x": 1}, "version": 1}}));
}
