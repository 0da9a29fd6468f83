//! The proxy: the same request in every weather.

use std::time::{Duration, Instant};

use agentrunner_testkit::provider::say;
use agentrunner_testkit::{FaultProxy, ProviderStandIn, Weather};
use reqwest::{Client, Response};

async fn version(proxy: &FaultProxy) -> reqwest::Result<Response> {
    let url = format!("{}/api/version", proxy.url());
    Client::new()
        .get(url)
        .timeout(Duration::from_millis(400))
        .send()
        .await
}

#[tokio::test]
async fn every_weather() {
    let provider = ProviderStandIn::start(say("yes"));
    let proxy = FaultProxy::start(provider.address());
    assert_eq!(version(&proxy).await.unwrap().status(), 200);

    proxy.set(Weather::Slow(Duration::from_millis(30)));
    let start = Instant::now();
    assert_eq!(version(&proxy).await.unwrap().status(), 200);
    assert!(
        start.elapsed() >= Duration::from_millis(60),
        "there and back"
    );

    proxy.set(Weather::BlackHole);
    let asked = tokio::spawn(
        Client::new()
            .get(format!("{}/api/version", proxy.url()))
            .send(),
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(50), asked)
            .await
            .is_err()
    );

    proxy.set(Weather::Reset);
    assert!(version(&proxy).await.is_err());

    proxy.set(Weather::CutAfter(40));
    assert!(version(&proxy).await.is_err());

    proxy.set(Weather::Clear);
    assert_eq!(version(&proxy).await.unwrap().status(), 200);
    assert!(proxy.connections() >= 5);
}

#[tokio::test]
async fn a_reset_breaks_connections_that_are_open() {
    let provider = ProviderStandIn::start(say("yes"));
    let proxy = FaultProxy::start(provider.address());
    let hold = provider.hold(agentrunner_testkit::Filter::any(), None);
    let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let request = Client::new()
        .post(format!("{}/api/chat", proxy.url()))
        .json(&body);
    let caller = tokio::spawn(request.send());
    hold.wait(1).await;
    proxy.set(Weather::Reset);
    assert!(caller.await.unwrap().is_err());
}
