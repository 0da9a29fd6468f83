//! What the caller of an execution is told when it has ended.

use domain::{Delivery, ExecutionId, Time};
use serde::Serialize;
use serde_json::Value;
use store::ExecutionRow;
use url::Url;

use super::post::{Tried, post};
use super::{Sender, SigningKeys};
use crate::execution::ResultOut;

/// The message.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    timestamp: Time,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    result: ResultOut,
    conversation_id: Option<&'a str>,
    metadata: &'a Value,
}

impl Sender {
    /// Tries to tell how an execution has ended.
    pub(super) async fn call_back(
        &self,
        delivery: &Delivery,
        execution: ExecutionId,
        keys: &SigningKeys,
    ) -> Tried {
        let row = match self.engine.store().execution(execution).await {
            Ok(Some(row)) => row,
            Ok(None) => return Tried::refused("the execution was deleted"),
            Err(error) => return Tried::failed(format!("the execution can't be read: {error}")),
        };
        let url = row.execution.callback_url.as_deref().unwrap_or_default();
        let url = match url.parse::<Url>() {
            Ok(url) => url,
            Err(error) => return Tried::refused(format!("callback_url is no address: {error}")),
        };
        let now = self.engine.now();
        match body(delivery, &row) {
            Ok(body) => post(&self.egress, keys, url, None, (delivery.id, now), body).await,
            Err(error) => Tried::refused(format!("the message can't be written: {error}")),
        }
    }
}

/// The message's text: the same each time, because what has ended does not change.
fn body(delivery: &Delivery, row: &ExecutionRow) -> serde_json::Result<Vec<u8>> {
    let ended = row.finished_at.unwrap_or(delivery.created_at);
    let execution = &row.execution;
    serde_json::to_vec(&Message {
        event: &delivery.event,
        timestamp: ended,
        data: Data {
            result: ResultOut::new(row, ended),
            conversation_id: execution.conversation.as_ref().map(|id| id.as_str()),
            metadata: &execution.metadata,
        },
    })
}
