//! The provider: records, holds, retries, and everything that can go wrong on the way.

use std::time::Duration;

use agentrunner_testkit::provider::{
    Answer, ErrorKind, Fault, ProviderError, Request, flaky, n_turns_then_answer, per_turn, say,
    sequence,
};
use agentrunner_testkit::{Filter, Outcome, ProviderStandIn};
use futures::StreamExt;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

fn openai(provider: &ProviderStandIn, body: &Value) -> RequestBuilder {
    let url = format!("{}/chat/completions", provider.openai_url());
    Client::new().post(url).bearer_auth("sk-test").json(body)
}

fn question(text: &str, stream: bool) -> Value {
    json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]})
}

async fn ask(provider: &ProviderStandIn, text: &str, stream: bool) -> Response {
    openai(provider, &question(text, stream))
        .send()
        .await
        .unwrap()
}

fn breaking(fault: Fault) -> ProviderStandIn {
    ProviderStandIn::start(move |_| Answer::say("one two three four five").fault(fault.clone()))
}

/// Reads a body to its end. Returns what came and whether it ended properly.
async fn read(response: Response) -> (Vec<u8>, bool) {
    let mut chunks = response.bytes_stream();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(_) => return (all, false),
        }
    }
    (all, true)
}

#[tokio::test]
async fn records_what_arrives() {
    let provider = ProviderStandIn::start(say("yes"));
    let (answer, ()) = tokio::join!(
        ask(&provider, "hello", false),
        provider.wait_for_requests(1)
    );
    assert_eq!(
        answer.json::<Value>().await.unwrap()["choices"][0]["message"]["content"],
        "yes"
    );
    ask(&provider, "hello", false).await;
    ask(&provider, "other", false).await;
    let requests = provider.requests();
    let first = &requests[0].request;
    assert_eq!(
        (first.model.as_str(), first.conversation.as_str()),
        ("m", "hello")
    );
    assert_eq!(first.headers["authorization"], "Bearer sk-test");
    assert_eq!(
        (requests[0].status, requests[0].outcome),
        (Some(200), Outcome::Answered)
    );
    assert_eq!(
        requests[1].request.attempt, 2,
        "the very same request again"
    );
    assert_eq!((provider.count(), provider.count_of("hello")), (3, 2));
    assert!(provider.rejections().is_empty());
}

#[tokio::test]
async fn behaviours_answer_by_turn_by_order_and_by_attempt() {
    let text = async |provider: &ProviderStandIn, body: &Value| {
        let answer = openai(provider, body)
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap();
        let message = answer["choices"][0]["message"].clone();
        message["content"].as_str().unwrap_or("a call").to_owned()
    };
    let later = json!({"model": "m", "messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]});
    let provider = ProviderStandIn::start(n_turns_then_answer(1, "look"));
    assert_eq!(text(&provider, &question("go", false)).await, "a call");
    assert_eq!(text(&provider, &later).await, "done");
    provider.behave(per_turn([Answer::say("first"), Answer::say("second")]));
    assert_eq!(text(&provider, &later).await, "second");
    assert_eq!(text(&provider, &question("go", false)).await, "first");
    provider.behave(sequence([Answer::say("a"), Answer::say("b")]));
    for expected in ["a", "b", "b"] {
        assert_eq!(text(&provider, &question("go", false)).await, expected);
    }
    provider.behave(flaky(
        1,
        Answer::error(ErrorKind::Internal),
        |_: &Request| Answer::say("ok"),
    ));
    assert_eq!(ask(&provider, "shaky", false).await.status(), 500);
    assert_eq!(ask(&provider, "shaky", false).await.status(), 200);
}

#[tokio::test]
async fn holds_before_the_answer_and_in_mid_stream() {
    let provider = ProviderStandIn::start(say("one two three four five"));
    let before = provider.hold(
        Filter::any()
            .containing("stop")
            .with("point", "before_answer"),
        None,
    );
    let asked = tokio::spawn(openai(&provider, &question("stop", true)).send());
    before.wait(1).await;
    assert_eq!(
        ask(&provider, "pass", true).await.status(),
        200,
        "others pass"
    );
    assert_eq!(provider.requests()[0].outcome, Outcome::Open);
    before.release();
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);

    let filter = Filter::any().containing("slow").with("point", "mid_stream");
    let middle = provider.hold(filter, Some(1));
    let mut chunks = ask(&provider, "slow", true).await.bytes_stream();
    middle.wait(1).await;
    assert!(
        chunks
            .next()
            .await
            .unwrap()
            .unwrap()
            .starts_with(b"data: {"),
        "half is there"
    );
    assert!(
        read(ask(&provider, "fast", true).await).await.1,
        "the limit is one"
    );
    middle.release();
    assert!(chunks.all(async |chunk| chunk.is_ok()).await);
}

#[tokio::test]
async fn sees_when_the_client_goes_away() {
    let provider = ProviderStandIn::start(say("one two three four five"));
    let hold = provider.hold(Filter::any(), None);
    let asked = tokio::spawn(openai(&provider, &question("bye", true)).send());
    hold.wait(1).await;
    asked.abort();
    provider
        .wait_until(|all| all[0].outcome == Outcome::Abandoned)
        .await;
    assert_eq!(hold.held(), 0);
    drop(hold);

    provider.behave(|_| Answer::say("x").fault(Fault::Endless));
    let mut chunks = ask(&provider, "on and on", true).await.bytes_stream();
    for _ in 0..100 {
        chunks.next().await.unwrap().unwrap();
    }
    drop(chunks);
    provider
        .wait_until(|all| all[1].outcome == Outcome::Abandoned)
        .await;
}

#[tokio::test]
async fn breaks_off_in_every_way() {
    for stream in [true, false] {
        let cut = breaking(Fault::Cut { after: None });
        let (body, ended) = read(ask(&cut, "x", stream).await).await;
        assert!(!body.is_empty() && !ended, "cut");
        cut.wait_until(|all| all[0].outcome == Outcome::Cut).await;

        let early = breaking(Fault::EndEarly { after: None });
        let (body, ended) = read(ask(&early, "x", stream).await).await;
        assert!(
            ended && !body.ends_with(b"}") && !body.ends_with(b"[DONE]\n\n"),
            "end early"
        );

        let (body, ended) = read(ask(&breaking(Fault::HalfEvent), "x", stream).await).await;
        assert!(
            ended && !body.ends_with(b"}") && !body.ends_with(b"\n\n"),
            "half an event"
        );

        let garbage = breaking(Fault::Garbage { after: None });
        let (body, _) = read(ask(&garbage, "x", stream).await).await;
        assert!(String::from_utf8(body).is_err(), "garbage");

        let huge = breaking(Fault::Huge {
            bytes: Some(3 << 20),
        });
        let (body, _) = read(ask(&huge, "x", stream).await).await;
        assert!(body.len() > 3 << 20, "huge");

        let reset = breaking(Fault::Reset);
        assert!(
            openai(&reset, &question("x", stream)).send().await.is_err(),
            "reset"
        );
        reset.wait_until(|all| all[0].outcome == Outcome::Cut).await;
    }
}

#[tokio::test]
async fn falls_silent_or_never_answers() {
    let silent = breaking(Fault::Silence { after: Some(2) });
    let mut chunks = ask(&silent, "x", true).await.bytes_stream();
    assert!(chunks.next().await.unwrap().is_ok());
    let more = async { while chunks.next().await.is_some() {} };
    assert!(
        tokio::time::timeout(Duration::from_millis(50), more)
            .await
            .is_err()
    );

    let never = breaking(Fault::NeverAnswer);
    let asked = tokio::spawn(openai(&never, &question("x", true)).send());
    never.wait_for_requests(1).await;
    assert!(!asked.is_finished());
    asked.abort();
    never
        .wait_until(|all| all[0].outcome == Outcome::Abandoned)
        .await;
}

#[tokio::test]
async fn reports_errors_whole_and_in_mid_stream() {
    let limited = ProviderStandIn::start(|_| Answer::rate_limited(3));
    let answer = ask(&limited, "x", true).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &"3".parse().unwrap())
    );
    let error: ProviderError = serde_json::from_value(json!({"kind": "internal"})).unwrap();
    let broken = breaking(Fault::ErrorEvent {
        after: Some(1),
        error,
    });
    let (body, ended) = read(ask(&broken, "x", true).await).await;
    let text = String::from_utf8(body).unwrap();
    assert!(
        ended && text.contains("\"error\":{") && !text.contains("[DONE]"),
        "{text}"
    );
    let page = ProviderStandIn::start(|_| Answer::html());
    let answer = ask(&page, "x", true).await;
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["content-type"] == "text/html; charset=utf-8"
        ),
        (200, true)
    );
}

#[tokio::test]
async fn cuts_inside_characters_when_asked() {
    let provider = ProviderStandIn::start(|_| Answer::say("世界").in_chunks_of(1));
    let chunks: Vec<_> = ask(&provider, "x", true)
        .await
        .bytes_stream()
        .collect()
        .await;
    assert!(
        chunks
            .iter()
            .any(|chunk| std::str::from_utf8(chunk.as_ref().unwrap()).is_err())
    );
    let whole: Vec<u8> = chunks.into_iter().flat_map(Result::unwrap).collect();
    assert!(String::from_utf8(whole).unwrap().contains("世界"));
}

#[tokio::test]
async fn dies_when_dropped_and_comes_back_on_its_port() {
    let provider = breaking(Fault::Endless);
    let (address, mut chunks) = (
        provider.address(),
        ask(&provider, "x", true).await.bytes_stream(),
    );
    drop(provider);
    while let Some(Ok(_)) = chunks.next().await {}
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let again = ProviderStandIn::start_on(address.port(), say("back")).unwrap();
    assert_eq!(ask(&again, "x", false).await.status(), 200);
}
