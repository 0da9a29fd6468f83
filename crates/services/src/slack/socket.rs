//! Socket Mode: Slack's events over WebSockets that we open, for whoever has no address that Slack can reach.
//!
//! Two connections, so that one is there while the other is renewed; Slack sends each event to one of them. An envelope is
//! acknowledged when what it holds is on disk. <https://docs.slack.dev/apis/events-api/using-socket-mode>

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::client::{CallError, Client};
use super::gateway::Gateway;
use super::incoming::{self, Heard};
use super::pace::Method;

/// How many connections are open.
const CONNECTIONS: usize = 2;
/// How long Slack may be silent: it pings more often.
const SILENCE: Duration = Duration::from_secs(60);
/// How long opening one may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause before another try, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The largest message that is taken.
const MAX_MESSAGE: usize = 4 << 20;

/// Listens on all connections until `stop`.
pub(super) async fn listen(gateway: &Gateway, client: &Client, stop: &CancellationToken) {
    let all = (0..CONNECTIONS).map(|_| keep_open(gateway, client, stop));
    futures::future::join_all(all).await;
}

/// Keeps one connection open, and opens the next when Slack asks for it.
async fn keep_open(gateway: &Gateway, client: &Client, stop: &CancellationToken) {
    let mut pause = PAUSE.0;
    while !stop.is_cancelled() {
        let talk = async {
            let mut socket = open(client).await?;
            pause = PAUSE.0;
            metrics::gauge!("agentrunner_slack_connections").increment(1.0);
            let end = converse(gateway, &mut socket).await;
            metrics::gauge!("agentrunner_slack_connections").decrement(1.0);
            // Whoever is there still hears that we go.
            socket.close(None).await.ok();
            end
        };
        let end = tokio::select! {
            end = talk => end,
            () = stop.cancelled() => return,
        };
        match end {
            // Slack asked for it: at once.
            Ok(()) => continue,
            Err(why) => tracing::warn!("a connection to Slack ended: {why}; it is opened again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

type Socket = WebSocketStream<reqwest::Upgraded>;

/// Opens a connection: through the same client as all other requests, so by the same rules of TLS.
async fn open(client: &Client) -> Result<Socket, String> {
    let asked = client.call(Method::OpenConnection, None, &json!({})).await;
    let answer = asked.map_err(|error| match error {
        CallError::Later(_, why) => why,
        CallError::Refused(error) => format!("Slack says {error}"),
    })?;
    let url = answer.get("url").and_then(Value::as_str);
    let url = url.ok_or("Slack's answer has no url")?;
    let url = match url.split_once("://") {
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("ws", rest)) => format!("http://{rest}"),
        _ => return Err("Slack's answer has no address of a WebSocket".to_owned()),
    };
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| error.to_string())?;
    let key = BASE64_STANDARD.encode(key);
    let request = client
        .http()
        .get(url)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    // The address is a ticket: it is not to be seen.
    let bare = |error: reqwest::Error| error.without_url().to_string();
    let opening = async {
        let response = request.send().await.map_err(bare)?;
        let status = response.status();
        if status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!("Slack answered {status}"));
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
            return Err("the answer is not that of a WebSocket".to_owned());
        }
        response.upgrade().await.map_err(bare)
    };
    let opened = tokio::time::timeout(PATIENCE, opening).await;
    let upgraded = opened.map_err(|_| "Slack does not answer".to_owned())??;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

/// Takes envelopes until Slack asks for another connection.
async fn converse(gateway: &Gateway, socket: &mut Socket) -> Result<(), String> {
    loop {
        let next = tokio::time::timeout(SILENCE, socket.next()).await;
        let message = match next {
            Err(_) => return Err("nothing was heard for a minute".to_owned()),
            Ok(None) => return Err("it was closed".to_owned()),
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(Some(Ok(message))) => message,
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Close(_) => return Err("it was closed".to_owned()),
            // Pings are answered while we read.
            _ => {
                socket.flush().await.map_err(|error| error.to_string())?;
                continue;
            }
        };
        let Ok(envelope) = serde_json::from_str::<Value>(&text) else {
            tracing::warn!("Slack sent what is no JSON");
            continue;
        };
        match envelope.get("type").and_then(Value::as_str) {
            Some("hello") => tracing::info!("a connection to Slack is open"),
            Some("disconnect") => {
                let reason = envelope
                    .get("reason")
                    .and_then(Value::as_str)
                    .unwrap_or("?");
                if reason == "link_disabled" {
                    return Err("Socket Mode is switched off for the app".to_owned());
                }
                tracing::info!(reason, "Slack asks for another connection");
                return Ok(());
            }
            Some(kind) => take(gateway, socket, kind, &envelope).await?,
            None => {}
        }
    }
}

/// Takes what an envelope holds, and acknowledges it then. What can't be taken is not: Slack sends it again.
async fn take(
    gateway: &Gateway,
    socket: &mut Socket,
    kind: &str,
    envelope: &Value,
) -> Result<(), String> {
    let Some(id) = envelope.get("envelope_id").and_then(Value::as_str) else {
        return Ok(());
    };
    let payload = envelope.get("payload").unwrap_or(&Value::Null);
    let heard = match kind {
        "events_api" => incoming::event(payload),
        "slash_commands" => incoming::command(payload),
        "interactive" => incoming::interaction(payload),
        _ => Ok(Heard::Nothing),
    };
    match heard {
        Ok(heard) => {
            if let Err(error) = gateway.slack.keep(&gateway.app, heard).await {
                tracing::warn!(%error, "what Slack sent can't be taken now; it sends it again");
                return Ok(());
            }
        }
        // Sent again, it would be no better.
        Err(why) => tracing::warn!(kind, why, "Slack sent what can't be read"),
    }
    let acknowledgement = json!({ "envelope_id": id }).to_string();
    let sent = socket.send(Message::text(acknowledgement)).await;
    sent.map_err(|error| error.to_string())
}
