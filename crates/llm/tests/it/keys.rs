//! A key goes to its own host and to no other.

use std::sync::{Arc, Mutex};

use agentrunner_llm::{Host, Key, ProviderSettings, Providers};
use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use secrecy::SecretString;
use serde_json::json;
use testkit::ProviderStandIn;
use testkit::provider::Answer;

use crate::support::{FACES, KEY, ask, config, providers, request, say, settings, user};

#[tokio::test]
async fn another_address_never_sees_the_operators_key() {
    let own = ProviderStandIn::start(|_| Answer::say("own"));
    let other = ProviderStandIn::start(|_| Answer::say("other"));
    let providers = providers(&own);
    for face in FACES {
        let base = match face {
            Provider::Openai => other.openai_url(),
            _ => other.url(),
        };
        let messages = [user("hi")];
        let without = config(face, json!({"api_base": base}));
        let refused = ask(&providers, request(&without, &messages, &[])).await;
        if face != Provider::Ollama {
            let error = refused.unwrap_err();
            assert_eq!(error.class, Class::Auth);
            assert!(error.message.contains("llm_config.api_key"), "{error}");
        }
        let with = config(face, json!({"api_base": base, "api_key": "sk-other"}));
        let answer = ask(&providers, request(&with, &messages, &[]))
            .await
            .unwrap();
        assert_eq!(answer.reply.text, "other");
        let heard = other.requests();
        let shown = format!(
            "{:?}",
            heard.iter().map(|r| &r.request.headers).collect::<Vec<_>>()
        );
        assert!(!shown.contains(KEY), "{shown}");
        assert!(shown.contains("sk-other"), "{shown}");
    }
    assert_eq!(own.count(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let own = ProviderStandIn::start(|_| Answer::say("never"));
    let other = ProviderStandIn::start(|_| Answer::say("never"));
    let target = other.openai_url() + "/chat/completions";
    own.behave(move |_| Answer::raw(307, "text/plain", "").header("location", target.clone()));
    for face in FACES {
        let error = say(&providers(&own), face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::InvalidRequest, "{error}");
        assert!(error.message.contains("another address"), "{error}");
    }
    assert_eq!(other.count(), 0);
}

#[tokio::test]
async fn a_key_can_be_changed_without_a_restart() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("hi"));
    let current = Arc::new(Mutex::new("sk-first".to_owned()));
    let source = current.clone();
    let key = Key::from_fn(move || Some(SecretString::from(source.lock().unwrap().clone())));
    let providers = Providers::new(ProviderSettings {
        openai: Host::new(stand_in.openai_url()).with_key(key),
        ..settings(&stand_in)
    });
    say(&providers, Provider::Openai, "hi").await.unwrap();
    "sk-second".clone_into(&mut current.lock().unwrap());
    say(&providers, Provider::Openai, "hi").await.unwrap();
    let requests = stand_in.requests();
    let sent: Vec<_> = requests
        .iter()
        .map(|r| r.request.headers["authorization"].as_str())
        .collect();
    assert_eq!(sent, ["Bearer sk-first", "Bearer sk-second"]);
}

#[tokio::test]
async fn keys_are_not_shown_and_bad_ones_are_refused() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("hi"));
    let shown = format!("{:?}", settings(&stand_in));
    assert!(!shown.contains(KEY), "{shown}");
    let providers = Providers::new(ProviderSettings {
        openai: Host::new(stand_in.openai_url()).with_key(Key::fixed("sk-a\nb")),
        ..settings(&stand_in)
    });
    let error = say(&providers, Provider::Openai, "hi").await.unwrap_err();
    assert_eq!(error.class, Class::Auth);
    assert!(!error.message.contains("sk-a"), "{error}");
    assert_eq!(stand_in.count(), 0);
}

#[tokio::test]
async fn a_missing_key_is_told_before_any_request() {
    let providers = Providers::new(ProviderSettings::default());
    let error = say(&providers, Provider::Openai, "hi").await.unwrap_err();
    assert_eq!(error.class, Class::Auth);
    assert!(error.message.contains("set OPENAI_API_KEY"), "{error}");
    let config = config(
        Provider::Openai,
        json!({"api_base": "http://localhost:1/v1", "api_key": "${NOT_SET}"}),
    );
    let error = ask(&providers, request(&config, &[user("hi")], &[]))
        .await
        .unwrap_err();
    assert_eq!(error.class, Class::Auth);
}
