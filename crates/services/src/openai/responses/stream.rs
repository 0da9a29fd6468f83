//! A response while it is written, in the standard events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use store::ExecutionRow;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{MessageOut, PartOut, ResponseOut};
use crate::http::caller::Caller;
use crate::http::edge::unbuffered;
use crate::http::{ApiError, App};
use crate::openai::OpenAiError;
use crate::openai::telling::{Telling, Told, row};
use crate::openai::words::Words;

/// Answers with the events of an execution.
pub(super) fn response(
    app: App,
    caller: Caller,
    row: ExecutionRow,
    is_quiet: bool,
    place: OwnedSemaphorePermit,
) -> Response {
    let heartbeat = KeepAlive::new().interval(app.settings.heartbeat);
    let writing = Writing {
        events: VecDeque::from(beginning(&row)),
        number: 0,
        item: MessageOut::new(row.execution.id, "in_progress", None).id,
        text: String::new(),
        telling: Some(Telling::new(app, caller, &row, Words::new(is_quiet))),
        _place: place,
    };
    let events = stream::unfold(writing, async |mut writing| {
        let event = writing.next().await?;
        Some((Ok::<_, Infallible>(event), writing))
    });
    unbuffered(Sse::new(events).keep_alive(heartbeat).into_response())
}

/// What is sent before the first words.
fn beginning(row: &ExecutionRow) -> [Value; 4] {
    let mut begun = ResponseOut::new(row);
    begun.status = "in_progress";
    begun.output.clear();
    let item = MessageOut::new(row.execution.id, "in_progress", None);
    let part = PartOut::new(String::new());
    let added = json!({
        "type": "response.content_part.added",
        "item_id": item.id, "output_index": 0, "content_index": 0, "part": part,
    });
    [
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.in_progress", "response": begun }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": item }),
        added,
    ]
}

/// A response that is being written.
struct Writing {
    /// What is to be sent next.
    events: VecDeque<Value>,
    /// The number of the next event.
    number: u64,
    /// The id of the message.
    item: String,
    /// The words that were sent.
    text: String,
    /// Who tells more; none when the end was told.
    telling: Option<Telling>,
    _place: OwnedSemaphorePermit,
}

impl Writing {
    async fn next(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.hear().await;
        }
        let mut event = self.events.pop_front()?;
        if let Some(fields) = event.as_object_mut() {
            fields.insert("sequence_number".to_owned(), self.number.into());
        }
        self.number += 1;
        let name = event.get("type").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        Some(Event::default().event(name).data(event.to_string()))
    }

    /// Turns what is told next into events.
    async fn hear(&mut self) {
        let Some(telling) = &mut self.telling else {
            return;
        };
        match telling.next().await {
            Ok(Told::Words(words)) => self.say(&words),
            Ok(Told::End(last, _, row)) => {
                self.telling = None;
                if let Some(last) = last {
                    self.say(&last);
                }
                self.end(&row);
            }
            Err(error) => {
                let over = match self.telling.take() {
                    Some(telling) => row(&telling.app, telling.id).await.ok(),
                    None => None,
                };
                let over = over.filter(|row| row.outcome.is_some());
                self.events.push_back(failure(over.as_ref(), &error));
            }
        }
    }

    fn say(&mut self, words: &str) {
        self.text.push_str(words);
        self.events.push_back(json!({
            "type": "response.output_text.delta",
            "item_id": self.item, "output_index": 0, "content_index": 0, "delta": words, "logprobs": [],
        }));
    }

    /// The words as they were sent are what the response holds, those before a tool was called too.
    fn end(&mut self, row: &ExecutionRow) {
        let mut response = ResponseOut::new(row);
        let text = self.text.clone();
        let status = response.status;
        let item = MessageOut::new(row.execution.id, status, Some(text.clone()));
        let part = PartOut::new(text.clone());
        response.output = vec![item.clone()];
        let ended = format!("response.{status}");
        self.events.extend([
            json!({
                "type": "response.output_text.done",
                "item_id": item.id, "output_index": 0, "content_index": 0, "text": text, "logprobs": [],
            }),
            json!({
                "type": "response.content_part.done",
                "item_id": item.id, "output_index": 0, "content_index": 0, "part": part,
            }),
            json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
            json!({ "type": ended, "response": response }),
        ]);
    }
}

/// What is sent of a response that comes to no good end: itself, when it is over, else why it can't be told further.
fn failure(over: Option<&ExecutionRow>, error: &ApiError) -> Value {
    match over {
        Some(row) => json!({ "type": "response.failed", "response": ResponseOut::new(row) }),
        None => {
            let (code, message, param) = OpenAiError::new(error).parts();
            json!({ "type": "error", "code": code, "message": message, "param": param })
        }
    }
}
