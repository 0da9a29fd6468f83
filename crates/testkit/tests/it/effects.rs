//! The tool's API: what counts as an effect, and what a caller can be made to see of it.

use agentrunner_testkit::effects::{EffectFault, Route};
use agentrunner_testkit::{EffectsStandIn, Filter, Outcome};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

async fn send(
    effects: &EffectsStandIn,
    method: Method,
    path: &str,
    key: &str,
) -> reqwest::Result<Response> {
    let url = format!("{}{path}", effects.url());
    let request = Client::new()
        .request(method, url)
        .header("idempotency-key", key);
    request.json(&json!({"cents": 300})).send().await
}

async fn answer(effects: &EffectsStandIn, method: Method, path: &str, key: &str) -> Value {
    send(effects, method, path, key)
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

#[tokio::test]
async fn each_route_has_the_effects_of_its_class() {
    let effects = EffectsStandIn::start();
    for _ in 0..2 {
        assert_eq!(
            answer(&effects, Method::GET, "/read/sky", "r").await["value"],
            "value of sky"
        );
        let set = answer(&effects, Method::PUT, "/set/lamp", "\"s\"").await;
        assert_eq!(
            set,
            json!({"name": "lamp", "value": {"cents": 300}, "set": 1})
        );
        answer(&effects, Method::POST, "/charge", "c").await;
        answer(&effects, Method::POST, "/order", "o").await;
    }
    answer(&effects, Method::PUT, "/set/lamp", "another").await;
    assert_eq!(
        answer(&effects, Method::GET, "/read/lamp", "r").await["value"]["cents"],
        300
    );
    let count = |route| (effects.calls_to(route).len(), effects.effects(route).len());
    assert_eq!(count(Route::Read), (3, 0));
    assert_eq!(count(Route::Set), (3, 2), "once per key");
    assert_eq!(count(Route::Charge), (2, 2), "every time");
    assert_eq!(count(Route::Order), (2, 2), "every time");
    assert_eq!(
        effects.calls_with_key("s").len(),
        2,
        "quoted and bare keys are the same"
    );
}

#[tokio::test]
async fn a_check_tells_whether_it_happened() {
    let effects = EffectsStandIn::start();
    let check = async |key| {
        answer(
            &effects,
            Method::GET,
            &format!("/order/check?key={key}"),
            "",
        )
        .await
    };
    assert_eq!(check("o").await, json!({"happened": false, "result": null}));
    let order = answer(&effects, Method::POST, "/order", "o").await;
    assert_eq!(check("o").await, json!({"happened": true, "result": order}));
    let by_body = Client::new().post(format!("{}/order/check", effects.url()));
    let by_body = by_body.json(&json!({"key": "o"})).send().await.unwrap();
    assert_eq!(by_body.json::<Value>().await.unwrap()["happened"], true);
}

#[tokio::test]
async fn holds_before_and_after_the_effect() {
    for (point, done) in [("before_effect", 0), ("after_effect", 1)] {
        let effects = EffectsStandIn::start();
        let charges = || effects.effects(Route::Charge).len();
        let hold = effects.hold(Filter::any().with("point", point), Some(1));
        let url = format!("{}/charge", effects.url());
        let caller = tokio::spawn(Client::new().post(url).send());
        hold.wait(1).await;
        assert_eq!(charges(), done, "{point}");
        answer(&effects, Method::POST, "/charge", "another").await;
        assert_eq!(charges(), done + 1, "the limit is one");
        caller.abort();
        effects
            .wait_until(|calls| calls[0].outcome == Outcome::Abandoned)
            .await;
        hold.release();
        answer(&effects, Method::POST, "/charge", "third").await;
        assert_eq!(
            charges(),
            done + 2,
            "a caller that went away has no effect later"
        );
    }
}

#[tokio::test]
async fn fails_in_every_way() {
    let effects = EffectsStandIn::start();
    let fail = |fault| effects.fail(Filter::any().with("route", "charge"), Some(1), fault);
    fail(EffectFault::Status { status: 500 });
    assert_eq!(
        send(&effects, Method::POST, "/charge", "a")
            .await
            .unwrap()
            .status(),
        500
    );
    fail(EffectFault::Reset);
    assert!(send(&effects, Method::POST, "/charge", "b").await.is_err());
    fail(EffectFault::Cut);
    assert!(
        send(&effects, Method::POST, "/charge", "c")
            .await
            .unwrap()
            .bytes()
            .await
            .is_err()
    );
    fail(EffectFault::Huge {
        bytes: Some(2 << 20),
    });
    let huge = send(&effects, Method::POST, "/charge", "d").await.unwrap();
    assert!(huge.bytes().await.unwrap().len() > 2 << 20);
    fail(EffectFault::Redirect {
        to: format!("{}/read/elsewhere", effects.url()),
    });
    let followed = answer(&effects, Method::POST, "/charge", "e").await;
    assert_eq!(followed["name"], "elsewhere");
    assert!(
        effects.effects(Route::Charge).is_empty(),
        "all of them failed before"
    );

    // The worst of all: it is done, and nobody knows.
    let after = Filter::any()
        .with("route", "charge")
        .with("point", "after_effect");
    effects.fail(after, Some(1), EffectFault::Reset);
    assert!(send(&effects, Method::POST, "/charge", "f").await.is_err());
    assert_eq!(effects.effects(Route::Charge).len(), 1);
    answer(&effects, Method::POST, "/charge", "g").await;
    assert_eq!(effects.effects(Route::Charge).len(), 2);
}
