//! What each refusal becomes: its class, the time to wait, and words that say what to do.

use std::time::Duration;

use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use serde_json::json;
use testkit::ProviderStandIn;
use testkit::provider::{Answer, ErrorKind, Fault};

use crate::support::{FACES, KEY, ask, config, providers, request, say, user};

#[tokio::test]
async fn every_refusal_has_its_class() {
    for (kind, class) in [
        (ErrorKind::Invalid, Class::InvalidRequest),
        (ErrorKind::ContextTooLong, Class::ContextTooLong),
        (ErrorKind::Unauthorized, Class::Auth),
        (ErrorKind::Forbidden, Class::Auth),
        (ErrorKind::NotFound, Class::InvalidRequest),
        (ErrorKind::TooLarge, Class::ContextTooLong),
        (ErrorKind::RateLimited, Class::RateLimited),
        (ErrorKind::QuotaExceeded, Class::InvalidRequest),
        (ErrorKind::Internal, Class::Unavailable),
        (ErrorKind::Overloaded, Class::Unavailable),
    ] {
        let stand_in = ProviderStandIn::start(move |_| Answer::error(kind));
        for face in FACES {
            let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
            assert_eq!(error.class, class, "{face:?} {kind:?}: {error}");
            assert!(error.message.starts_with(face.as_str()), "{error}");
        }
    }
}

#[tokio::test]
async fn messages_say_what_to_do() {
    let told = async |face, kind| {
        let stand_in = ProviderStandIn::start(move |_| Answer::error(kind));
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        error.message
    };
    let message = told(Provider::Openai, ErrorKind::Unauthorized).await;
    assert!(message.contains("set OPENAI_API_KEY"), "{message}");
    let message = told(Provider::Anthropic, ErrorKind::Unauthorized).await;
    assert!(message.contains("set ANTHROPIC_API_KEY"), "{message}");
    for face in FACES {
        let message = told(face, ErrorKind::NotFound).await;
        assert!(message.contains("\"a-model\""), "{message}");
        let message = told(face, ErrorKind::QuotaExceeded).await;
        let wanted = match face {
            Provider::Bedrock => "raise the quota",
            _ => "add credit",
        };
        assert!(message.contains(wanted), "{message}");
    }
    let message = told(Provider::Bedrock, ErrorKind::Unauthorized).await;
    assert!(message.contains("set AWS_ACCESS_KEY_ID and"), "{message}");
    let message = told(Provider::Bedrock, ErrorKind::Forbidden).await;
    assert!(
        message.contains("bedrock:InvokeModelWithResponseStream on \"a-model\""),
        "{message}"
    );
    let message = told(Provider::Ollama, ErrorKind::NotFound).await;
    assert!(message.contains("ollama pull"), "{message}");
}

#[tokio::test]
async fn the_wait_that_is_asked_for_is_passed_on() {
    let wait = async |face, answer: Answer| {
        let stand_in = ProviderStandIn::start(move |_| answer.clone());
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        (error.class, error.retry_after)
    };
    for face in FACES {
        let limited = wait(face, Answer::rate_limited(7)).await;
        assert_eq!(
            limited,
            (Class::RateLimited, Some(Duration::from_secs(7))),
            "{face:?}"
        );
        let overloaded = Answer::error(ErrorKind::Overloaded).header("retry-after", "3");
        let overloaded = wait(face, overloaded).await;
        assert_eq!(
            overloaded,
            (Class::Unavailable, Some(Duration::from_secs(3))),
            "{face:?}"
        );
        let precise = Answer::error(ErrorKind::RateLimited).header("retry-after-ms", "1250");
        let precise = wait(face, precise).await;
        assert_eq!(precise.1, Some(Duration::from_millis(1250)), "{face:?}");
        let date = Answer::error(ErrorKind::RateLimited)
            .header("date", "Tue, 24 Nov 2026 10:00:00 GMT")
            .header("retry-after", "Tue, 24 Nov 2026 10:00:11 GMT");
        assert_eq!(
            wait(face, date).await.1,
            Some(Duration::from_secs(11)),
            "{face:?}"
        );
        let invalid = Answer::error(ErrorKind::Invalid).header("retry-after", "3");
        assert_eq!(wait(face, invalid).await.1, None, "{face:?}");
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_has_the_class_that_it_has_at_the_start() {
    for (kind, class) in [
        (ErrorKind::Overloaded, Class::Unavailable),
        (ErrorKind::RateLimited, Class::RateLimited),
        (ErrorKind::Internal, Class::Unavailable),
    ] {
        for face in FACES {
            let stand_in = ProviderStandIn::start(move |_| {
                let error = Answer::error(kind).error.unwrap();
                let broken = Fault::ErrorEvent { after: None, error };
                Answer::say("The beginning of an answer").fault(broken)
            });
            let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
            // Ollama's errors have no type: all that is known is that it broke off.
            let wanted = if face == Provider::Ollama {
                Class::Unavailable
            } else {
                class
            };
            assert_eq!(error.class, wanted, "{face:?} {kind:?}: {error}");
            assert!(
                error.message.contains("broke off its answer: \""),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_web_page_is_no_answer() {
    let stand_in = ProviderStandIn::start(|_| Answer::html());
    for face in FACES {
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Garbled, "{face:?}: {error}");
        assert!(error.message.contains("web page"), "{face:?}: {error}");
    }
    let stand_in = ProviderStandIn::start(|_| {
        Answer::raw(
            502,
            "text/html",
            format!("<h1>Bad\u{1b}[2J Gateway {KEY}</h1>{}", "x".repeat(9999)),
        )
    });
    for face in FACES {
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Unavailable, "{face:?}: {error}");
        assert!(
            error.message.contains("<h1>Bad\\u{1b}[2J"),
            "{face:?}: {error}"
        );
        assert!(error.message.len() < 700, "{face:?}: {error}");
        if face != Provider::Ollama {
            assert!(error.message.contains("[key]"), "{face:?}: {error}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("never"));
    let providers = providers(&stand_in);
    drop(stand_in);
    for face in FACES {
        let error = say(&providers, face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Unavailable, "{face:?}: {error}");
        assert!(
            error.message.contains("nothing listens at 127.0.0.1:"),
            "{face:?}: {error}"
        );
        let is_ollama = face == Provider::Ollama;
        assert_eq!(
            error.message.contains("ollama serve"),
            is_ollama,
            "{face:?}: {error}"
        );
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_said() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("never"));
    let providers = providers(&stand_in);
    let told = async |address: &str| {
        let config = config(
            Provider::Openai,
            json!({"api_base": address, "api_key": "k"}),
        );
        let error = ask(&providers, request(&config, &[user("hi")], &[]))
            .await
            .unwrap_err();
        assert_eq!(error.class, Class::Unavailable, "{error}");
        assert!(error.source.is_some(), "{error}");
        error.message
    };
    let message = told("http://no-such-host.invalid/v1").await;
    assert!(
        message.contains("no-such-host.invalid can't be found"),
        "{message}"
    );
    let message = told(&stand_in.url().replace("http", "https")).await;
    assert!(message.contains("does not speak TLS"), "{message}");
}
