//! Folds the pieces of an answer into the answer, within bounds.

use domain::{Reply, StopReason, ToolCall, Usage};
use futures::StreamExt;
use serde_json::Value;

use crate::{Answer, ChatStream, Chunk, Error};

/// How much an answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its text, in bytes.
    pub reply_bytes: usize,
    /// Its tool calls.
    pub tool_calls: usize,
    /// The arguments of all its calls together, in bytes.
    pub arguments_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reply_bytes: 4 << 20,
            tool_calls: 256,
            arguments_bytes: 4 << 20,
        }
    }
}

/// Folds a stream into an answer, showing each piece to `on_chunk` as it comes.
///
/// # Errors
/// The stream's own error; or garbled, when the stream ends without [`Chunk::Stop`], holds more than `limits`
/// allow, or contradicts itself. The stream is dropped then, which closes the connection.
pub async fn fold(
    mut stream: ChatStream,
    mut on_chunk: impl FnMut(&Chunk),
    limits: &Limits,
) -> Result<Answer, Error> {
    let mut folding = Folding::default();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        on_chunk(&chunk);
        folding.add(chunk, limits)?;
    }
    folding.finish()
}

#[derive(Default)]
struct Folding {
    text: String,
    /// Each call with the place that the wire gives it; places are not trusted to be small or in order.
    calls: Vec<(usize, ToolCall)>,
    arguments_bytes: usize,
    provider_data: Option<Value>,
    usage: Usage,
    stop: Option<StopReason>,
}

impl Folding {
    fn add(&mut self, chunk: Chunk, limits: &Limits) -> Result<(), Error> {
        match chunk {
            Chunk::Text(text) => {
                bounded(
                    self.text.len() + text.len(),
                    limits.reply_bytes,
                    "bytes of text",
                )?;
                self.text.push_str(&text);
            }
            Chunk::ToolCall { index, id, name } => self.begin(index, id, name, limits)?,
            Chunk::Arguments { index, fragment } => self.argue(index, &fragment, limits)?,
            Chunk::ProviderData(data) => self.provider_data = Some(data),
            Chunk::Usage(usage) => self.usage = usage,
            Chunk::Stop(reason) => self.stop = Some(reason),
        }
        Ok(())
    }

    fn begin(
        &mut self,
        index: usize,
        id: String,
        name: String,
        limits: &Limits,
    ) -> Result<(), Error> {
        bounded(self.calls.len() + 1, limits.tool_calls, "tool calls")?;
        if self.calls.iter().any(|(place, _)| *place == index) {
            return Err(Error::garbled(format!(
                "the answer begins its tool call number {index} twice"
            )));
        }
        let arguments = String::new();
        self.calls.push((
            index,
            ToolCall {
                id,
                name,
                arguments,
            },
        ));
        Ok(())
    }

    fn argue(&mut self, index: usize, fragment: &str, limits: &Limits) -> Result<(), Error> {
        self.arguments_bytes += fragment.len();
        bounded(
            self.arguments_bytes,
            limits.arguments_bytes,
            "bytes of arguments",
        )?;
        let call = self.calls.iter_mut().rfind(|(place, _)| *place == index);
        let Some((_, call)) = call else {
            return Err(Error::garbled(format!(
                "the answer has arguments for tool call number {index}, which never began"
            )));
        };
        call.arguments.push_str(fragment);
        Ok(())
    }

    fn finish(mut self) -> Result<Answer, Error> {
        let Some(stop) = self.stop else {
            return Err(Error::garbled("the answer ended without its end mark"));
        };
        self.calls.sort_by_key(|(place, _)| *place);
        let mut tool_calls: Vec<ToolCall> = self.calls.into_iter().map(|(_, call)| call).collect();
        for call in &mut tool_calls {
            // A call without arguments is a call with none.
            if call.arguments.trim().is_empty() {
                "{}".clone_into(&mut call.arguments);
            }
        }
        // Some servers say `stop` where they mean the tools.
        let stop = match stop {
            StopReason::EndTurn if !tool_calls.is_empty() => StopReason::ToolUse,
            StopReason::ToolUse if tool_calls.is_empty() => StopReason::EndTurn,
            said => said,
        };
        Ok(Answer {
            reply: Reply {
                text: self.text,
                tool_calls,
                stop,
                provider_data: self.provider_data,
            },
            usage: self.usage,
        })
    }
}

fn bounded(have: usize, limit: usize, what: &str) -> Result<(), Error> {
    if have <= limit {
        return Ok(());
    }
    Err(Error::garbled(format!(
        "the answer has more than {limit} {what}; it was stopped there"
    )))
}
