//! `api` tools against a server whose effects are counted.

use std::time::Duration;

use agentrunner_tools::{Checked, Toolbox, Toolkit};
use domain::ToolOutcome;
use domain::definition::Tool;
use serde_json::{Value, json};
use testkit::effects::{EffectFault, Route};
use testkit::{EffectsStandIn, Filter};

use crate::support::{
    agent, call, entry, failure, offers, refusal, run, run_for, text, toolkit, trace, unknown,
};

fn tool(url: &str, fields: Value) -> Tool {
    let mut whole = json!({"name": "do_it", "type": "api", "url": url});
    let more = fields.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(more);
    entry(whole)
}

fn plain() -> Toolkit {
    toolkit(|_| {})
}

#[tokio::test]
async fn arguments_go_into_path_query_headers_and_body() {
    let effects = EffectsStandIn::start();
    let toolkit = plain();
    let set = tool(
        &format!(
            "{}/set/{{lamp}}?room={{room}}&floor={{floor}}",
            effects.url()
        ),
        json!({
            "method": "PUT",
            "headers": {"X-Who": "{who}", "Authorization": "Bearer s3cret"},
            "body": {"on": "{on}", "note": "for {who}", "gone": "{absent}"},
        }),
    );
    let arguments = json!({"lamp": "a b", "room": "x&y", "who": "Ann", "on": true, "more": 1});
    text(run(&toolkit, &set, "do_it", arguments).await);
    let calls = effects.calls_to(Route::Set);
    let [call] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(call.name.as_deref(), Some("a b"));
    assert_eq!(json!(call.query), json!({"room": "x&y"}));
    assert_eq!(call.headers["x-who"], "Ann");
    assert_eq!(call.body, json!({"on": true, "note": "for Ann"}));
    assert_eq!(call.key.as_deref(), Some("exec:7"));
    // The span that is told of the call.
    let span = domain::SpanId::of_key("exec:7");
    assert_eq!(
        call.headers["traceparent"],
        format!("00-0af7651916cd43dd8448eb211c80319c-{span}-01")
    );
}

#[tokio::test]
async fn what_the_address_does_not_use_is_the_query_or_the_body() {
    let effects = EffectsStandIn::start();
    let toolkit = plain();
    let read = tool(&format!("{}/read/{{name}}?a=1", effects.url()), json!({}));
    let arguments = json!({"name": "sky", "tags": ["x", "y"], "n": 2, "none": null});
    text(run(&toolkit, &read, "do_it", arguments).await);
    let query = &effects.calls_to(Route::Read)[0].query;
    assert_eq!((query["a"].as_str(), query["n"].as_str()), ("1", "2"));
    assert!(query.contains_key("tags") && !query.contains_key("none"));
    let charge = tool(
        &format!("{}/charge", effects.url()),
        json!({"method": "POST"}),
    );
    text(run(&toolkit, &charge, "do_it", json!({"cents": 300})).await);
    assert_eq!(
        effects.calls_to(Route::Charge)[0].body,
        json!({"cents": 300})
    );
}

#[tokio::test]
async fn a_header_cannot_be_split_and_nothing_is_sent() {
    let effects = EffectsStandIn::start();
    let url = format!("{}/charge", effects.url());
    let charge = tool(
        &url,
        json!({"method": "POST", "headers": {"X-Who": "{who}"}}),
    );
    let arguments = json!({"who": "a\r\nX-Admin: 1"});
    let reason = refusal(run(&plain(), &charge, "do_it", arguments).await);
    assert!(reason.contains("X-Who"), "{reason}");
    assert_eq!(effects.calls().len(), 0);
}

#[tokio::test]
async fn an_answer_with_a_failure_is_a_failure_whatever_the_effect() {
    let effects = EffectsStandIn::start();
    let toolkit = plain();
    let charge = tool(
        &format!("{}/charge", effects.url()),
        json!({"method": "POST"}),
    );
    for status in [400, 404, 409, 429, 500, 503] {
        effects.fail(Filter::any(), Some(1), EffectFault::Status { status });
        let reason = failure(run(&toolkit, &charge, "do_it", json!({})).await);
        assert!(reason.contains(&status.to_string()), "{reason}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_unknown_unless_it_was_a_read() {
    let effects = EffectsStandIn::start();
    let toolkit = plain();
    let patience = Duration::from_millis(300);
    for effect in ["unsafe", "checkable", "idempotent", "read_only"] {
        let fields = json!({"method": "POST", "effect": effect, "check": "x"});
        let charge = tool(&format!("{}/charge", effects.url()), fields);
        for fault in [
            EffectFault::Reset,
            EffectFault::NeverAnswer,
            EffectFault::Cut,
        ] {
            let when = Filter::any().with("point", "after_effect");
            effects.fail(when, Some(1), fault.clone());
            let before = effects.effects(Route::Charge).len();
            let outcome = run_for(&toolkit, &charge, "do_it", json!({}), patience).await;
            match effect {
                "read_only" => drop(failure(outcome)),
                _ => drop(unknown(outcome)),
            }
            assert_eq!(
                effects.effects(Route::Charge).len(),
                before + 1,
                "{effect}, {fault:?}: one call, never repeated"
            );
        }
    }
}

#[tokio::test]
async fn what_was_not_sent_certainly_did_not_happen() {
    let url = {
        let gone = EffectsStandIn::start();
        format!("{}/charge", gone.url())
    };
    let charge = tool(&url, json!({"method": "POST"}));
    let reason = failure(run(&plain(), &charge, "do_it", json!({})).await);
    assert!(reason.contains("connect"), "{reason}");
}

#[tokio::test]
async fn a_huge_answer_is_cut() {
    let effects = EffectsStandIn::start();
    let fields = json!({"method": "POST", "max_result_bytes": 1000});
    let charge = tool(&format!("{}/charge", effects.url()), fields);
    effects.fail(Filter::any(), Some(1), EffectFault::Huge { bytes: None });
    let outcome = run(&plain(), &charge, "do_it", json!({})).await;
    let ToolOutcome::Succeeded { content, truncated } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((content.len(), truncated), (1000, true));
}

#[tokio::test]
async fn a_redirect_to_a_private_place_is_not_followed() {
    let effects = EffectsStandIn::start();
    let inside = EffectsStandIn::start();
    let to = format!("{}/read/secret", inside.url());
    effects.fail(Filter::any(), None, EffectFault::Redirect { to });
    let read = tool(
        &format!("{}/read/sky", effects.url()),
        json!({"effect": "read_only"}),
    );
    failure(run(&plain(), &read, "do_it", json!({})).await);
    let charge = tool(
        &format!("{}/charge", effects.url()),
        json!({"method": "POST"}),
    );
    unknown(run(&plain(), &charge, "do_it", json!({})).await);
    assert_eq!(inside.calls().len(), 0);
}

#[tokio::test]
async fn a_check_tool_tells_whether_a_call_happened() {
    let effects = EffectsStandIn::start();
    let toolkit = plain();
    let fields = json!({"method": "POST", "effect": "checkable", "check": "look"});
    let order = tool(&format!("{}/order", effects.url()), fields);
    let mut look = tool(
        &format!("{}/order/check", effects.url()),
        json!({"method": "POST", "body": {"key": "{idempotency_key}"}}),
    );
    look.name = "look".to_owned();
    let (agent, trace) = (agent(), trace());
    let arguments = json!({});
    let question = || call(&order, "do_it", &arguments, &agent, &trace);
    assert_eq!(
        toolkit.check(question(), &look).await,
        Checked::DidNotHappen
    );
    effects.fail(
        Filter::any()
            .with("point", "after_effect")
            .with("route", "order"),
        Some(1),
        EffectFault::Reset,
    );
    unknown(toolkit.call(question()).await);
    assert!(matches!(
        toolkit.check(question(), &look).await,
        Checked::Happened(_)
    ));
    drop(effects);
    assert!(matches!(
        toolkit.check(question(), &look).await,
        Checked::Unknown(_)
    ));
}

#[tokio::test]
async fn a_template_that_leaves_the_host_open_is_not_offered() {
    let bad = tool("https://{host}.example/", json!({}));
    let error = offers(&plain(), "1", &[bad]).await.unwrap_err().to_string();
    assert!(error.contains("do_it") && error.contains("host"), "{error}");
}
