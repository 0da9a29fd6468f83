//! A receiver of requests that keeps all it is sent, answers what it is told to, and proves signatures by the official
//! library of Standard Webhooks.

use std::collections::VecDeque;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// What the official library says of it.
    pub(crate) fn verify(&self, secret: &str) -> Result<Value, String> {
        const SCRIPT: &str = "\
import json, sys
from standardwebhooks import Webhook
given = json.load(sys.stdin)
print(json.dumps(Webhook(given['secret']).verify(given['body'].encode(), given['headers'])))
";
        let headers: serde_json::Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        let given = json!({ "secret": secret, "body": self.body, "headers": headers });
        let mut child = Command::new(testkit::python())
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(given.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

#[derive(Default)]
struct Shared {
    got: Mutex<Vec<Got>>,
    answers: Mutex<VecDeque<Response>>,
    arrived: Notify,
}

/// The receiver.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    pub(crate) port: u16,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(take).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared, port }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers the next request so; 204 when nothing is said.
    pub(crate) fn answer(&self, response: impl IntoResponse) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.push_back(response.into_response());
    }

    pub(crate) fn all(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    /// Request number `n` (from 1), when it is there.
    pub(crate) async fn nth(&self, n: usize) -> Got {
        let arrived = async {
            loop {
                let next = self.shared.arrived.notified();
                if let Some(got) = self.all().get(n - 1) {
                    return got.clone();
                }
                next.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), arrived)
            .await
            .unwrap_or_else(|_| panic!("request {n} never came: {:?}", self.all()))
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let got = Got {
        path: uri.path().to_owned(),
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    shared.got.lock().unwrap().push(got);
    shared.arrived.notify_one();
    let answer = shared.answers.lock().unwrap().pop_front();
    answer.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
}
