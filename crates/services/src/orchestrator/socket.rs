//! What happens in an execution, as it happens, over a WebSocket: the events of [`super::stream`], one JSON text each.

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::following::{End, Following, Frame};
use super::stream::FollowParams;
use crate::http::access::PROTOCOL;
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::params::{Params, execution_id};
use crate::http::{Answer, ApiError, App, Code};

/// The longest message that is read of a client, which has nothing to say.
const MAX_MESSAGE: usize = 4 << 10;
/// How long a client may take to read what is sent before it is hung up on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Follows an execution as `GET /tasks/{id}/events` does, over a WebSocket: each event is a JSON text with `id`, `event`
/// and `data`. A browser, which can't send headers, shows its key as a second protocol:
/// `new WebSocket(url, ["agentrunner.v1", "agentrunner.key." + key])`. Closed with 1000 after `done`, 1001 when the process
/// ends, 1008 when the key ends or the client sends what is not expected, 1011 when the journal can't be read.
#[utoipa::path(get, path = "/ws/tasks/{id}", tag = "tasks",
    params(("id" = String, Path), FollowParams),
    responses(
        (status = 101, description = "Events until the execution is over."),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
    ))]
pub(super) async fn follow_on_socket(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(params): Params<FollowParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let id = execution_id(&id)?;
    let heartbeat = app.settings.heartbeat;
    let following = Following::begin(app, caller, id, params.after.as_deref()).await?;
    let upgrade = upgrade.map_err(|rejection| {
        let message = format!(
            "this is a WebSocket of HTTP/1.1 ({rejection}); GET /tasks/{id}/events tells the same by server-sent events"
        );
        ApiError::new(Code::InvalidRequest, message)
    })?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .write_buffer_size(0)
        .max_write_buffer_size(1 << 20);
    Ok(upgrade.on_upgrade(move |socket| talk(socket, following, heartbeat)))
}

/// One message.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    event: &'a str,
    data: &'a RawValue,
}

async fn talk(mut socket: WebSocket, mut following: Following, heartbeat: Duration) {
    let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whether it answered since the last beat.
    let mut is_alive = true;
    let farewell = loop {
        let sent = tokio::select! {
            frame = following.next() => match frame {
                Ok(frame) => timeout(PATIENCE, socket.send(message(&frame))).await,
                Err(end) => break close(end),
            },
            heard = socket.recv() => match heard {
                None | Some(Err(_)) => return,
                // Answered by the library.
                Some(Ok(Message::Close(_))) => return,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                    is_alive = true;
                    continue;
                }
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    break (close_code::POLICY, "this stream takes no messages");
                }
            },
            _ = beats.tick() => {
                if !std::mem::take(&mut is_alive) {
                    return;
                }
                timeout(PATIENCE, socket.send(Message::Ping(Default::default()))).await
            }
        };
        // Gone, or it reads nothing: what it missed it is told when it comes back.
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    };
    let (code, reason) = farewell;
    let reason = reason.into();
    let close = socket.send(Message::Close(Some(CloseFrame { code, reason })));
    // In vain when it is gone.
    timeout(PATIENCE, close).await.ok();
}

fn close(end: End) -> (u16, &'static str) {
    match end {
        End::Done => (close_code::NORMAL, "done"),
        End::Shutdown => (
            close_code::AWAY,
            "this process ends; go on elsewhere with ?after=",
        ),
        End::KeyEnded => (close_code::POLICY, "the key is not valid any more"),
        End::Unreadable => (
            close_code::ERROR,
            "the journal can't be read; come back with ?after=",
        ),
    }
}

fn message(frame: &Frame) -> Message {
    let data = serde_json::from_str::<&RawValue>(&frame.data).unwrap_or(RawValue::NULL);
    let said = Said {
        id: frame.id.as_deref(),
        event: frame.event,
        data,
    };
    Message::Text(serde_json::to_string(&said).unwrap_or_default().into())
}
