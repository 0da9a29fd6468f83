//! Socket Mode.

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::service::Service;
use super::world::Order;

pub(super) async fn listen(State(service): State<Service>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| converse(service, socket))
}

async fn converse(service: Service, mut socket: WebSocket) {
    let (sender, mut orders) = mpsc::unbounded_channel();
    let n = service.change(|world| world.join(sender));
    let hello = json!({
        "type": "hello", "num_connections": 1, "connection_info": { "app_id": "A00000001" },
        "debug_info": { "host": "stand-in", "approximate_connection_time": 18_060 },
    });
    let mut is_open = socket.send(Message::text(hello.to_string())).await.is_ok();
    while is_open {
        is_open = tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Send(envelope)) => {
                    socket.send(Message::text(envelope.to_string())).await.is_ok()
                }
                Some(Order::Cut) | None => false,
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Text(text))) => {
                    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                    match answer["envelope_id"].as_str() {
                        Some(id) => service.change(|world| world.acknowledge(id)),
                        None => service.change(|world| {
                            world.rejections.push(format!("over the socket: {text}"));
                        }),
                    }
                    true
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => false,
                Some(Ok(_)) => true,
            },
        };
    }
    service.change(|world| world.leave(n));
}
