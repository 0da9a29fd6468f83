//! A stand-in for a provider, as cheap as it can be: OpenAI's streaming format from prepared bytes, over plain
//! HTTP/1.1 on loopback, with a latency that can be set. It knows four conversations, told apart by the path:
//!
//! - `/turns`: four answers that call one tool each, then a text. With `/bare` before it, without the latency.
//! - `/schema`: a first answer that breaks the agent's schema, then one that meets it: two model turns, no tool.
//! - `/ask`: a question to a person, then a text.
//! - `/clock`: a text that says when the request was there, in nanoseconds since 1970.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How many answers of `/turns` call a tool.
pub(crate) const TOOL_TURNS: usize = 4;
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Serves until standard input ends, which is when the process that measures is gone.
///
/// # Errors
/// No port can be had.
pub(crate) async fn serve(latency: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let answers = Arc::new(Answers::prepare());
    let mut stdin = tokio::io::stdin();
    let mut byte = [0u8; 1];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                tokio::spawn(converse(stream, Arc::clone(&answers), latency));
            }
            read = stdin.read(&mut byte) => if read? == 0 { return Ok(()) },
        }
    }
}

/// Prepared answers, headers included.
struct Answers {
    turns: Vec<Vec<u8>>,
    schema: [Vec<u8>; 2],
    ask: [Vec<u8>; 2],
    not_found: Vec<u8>,
}

impl Answers {
    fn prepare() -> Self {
        let mut turns: Vec<_> = (0..TOOL_TURNS)
            .map(|turn| http(&call(&format!("call_{turn}"), "current_time", "{}")))
            .collect();
        turns.push(http(&text("It is done.")));
        Self {
            turns,
            schema: [http(&text("not JSON")), http(&text(r#"{"x":1}"#))],
            ask: [
                http(&call(
                    "call_0",
                    "ask_human",
                    r#"{"question":"Shall I go on?"}"#,
                )),
                http(&text("It is done.")),
            ],
            not_found: b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        }
    }

    /// What the conversation in `body` is answered with.
    fn to(&self, path: &[u8], body: &[u8]) -> &[u8] {
        let results = count(body, br#""tool_call_id""#);
        let answer = if contains(path, b"/turns/") {
            self.turns.get(results.min(TOOL_TURNS))
        } else if contains(path, b"/schema/") {
            self.schema
                .get(count(body, br#""role":"assistant""#).min(1))
        } else if contains(path, b"/ask/") {
            self.ask.get(results.min(1))
        } else {
            None
        };
        answer.unwrap_or(&self.not_found)
    }
}

async fn converse(mut stream: TcpStream, answers: Arc<Answers>, latency: Duration) {
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await else {
            return;
        };
        let (head, body) = buffer.split_at(request.head.min(buffer.len()));
        let path = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let is_bare = contains(path, b"/bare/");
        let body = body.get(..request.body).unwrap_or_default();
        let answer = if contains(path, b"/clock/") {
            Cow::Owned(http(&text(&nanoseconds().to_string())))
        } else {
            Cow::Borrowed(answers.to(path, body))
        };
        if !latency.is_zero() && !is_bare {
            tokio::time::sleep(latency).await;
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        buffer.drain(..(request.head + request.body).min(buffer.len()));
    }
}

/// The time, as two processes of one machine agree about it.
pub(crate) fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The lengths of a request's parts.
struct Request {
    head: usize,
    body: usize,
}

/// Reads until a whole request is in the buffer; `None` when the peer is gone or talks nonsense.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = end + 4;
            let body = content_length(buffer.get(..head)?)?;
            if buffer.len() >= head + body {
                return Some(Request { head, body });
            }
        }
        if buffer.len() > MAX_REQUEST_BYTES {
            return None;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Some(0), |(_, value)| value.trim().parse().ok())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    count(text, part) > 0
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len())
        .filter(|window| *window == part)
        .count()
}

fn http(events: &[Value]) -> Vec<u8> {
    let mut body = String::new();
    for event in events {
        body.push_str(&format!("data: {event}\n\n"));
    }
    body.push_str("data: [DONE]\n\n");
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn chunk(choices: &Value, usage: &Value) -> Value {
    json!({
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "bench",
        "choices": choices, "usage": usage,
    })
}

fn end(reason: &str) -> [Value; 2] {
    let usage = json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110 });
    let last = json!([{ "index": 0, "delta": {}, "finish_reason": reason }]);
    [chunk(&last, &Value::Null), chunk(&json!([]), &usage)]
}

fn text(text: &str) -> Vec<Value> {
    let delta = json!({ "role": "assistant", "content": text });
    let mut events = vec![chunk(
        &json!([{ "index": 0, "delta": delta, "finish_reason": null }]),
        &Value::Null,
    )];
    events.extend(end("stop"));
    events
}

fn call(id: &str, tool: &str, arguments: &str) -> Vec<Value> {
    let call = json!({ "index": 0, "id": id, "type": "function", "function": { "name": tool, "arguments": arguments } });
    let delta = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let mut events = vec![chunk(
        &json!([{ "index": 0, "delta": delta, "finish_reason": null }]),
        &Value::Null,
    )];
    events.extend(end("tool_calls"));
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_answers_call_a_tool_and_the_fifth_does_not() {
        let answers = Answers::prepare();
        for results in 0..=TOOL_TURNS {
            let body = br#"{"tool_call_id":"x"}"#.repeat(results);
            let answer = answers.to(b"POST /turns/v1/chat/completions", &body);
            let calls = contains(answer, br#""tool_calls":["#);
            assert_eq!(calls, results < TOOL_TURNS, "{results}");
        }
    }
}
