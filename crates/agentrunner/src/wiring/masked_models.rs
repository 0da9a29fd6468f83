//! Models whose answers and refusals hold no known secret, because what a model says is journaled, shown, and handed to tools.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _};
use llm::{ChatModel, ChatRequest, ChatStream, Chunk, Error, Providers};
use services::redact::{Flow, Redactor};

pub(super) struct MaskedModels {
    inner: Providers,
    redactor: Redactor,
}

impl MaskedModels {
    pub(super) const fn new(inner: Providers, redactor: Redactor) -> Self {
        Self { inner, redactor }
    }
}

#[async_trait]
impl ChatModel for MaskedModels {
    async fn chat(&self, request: ChatRequest<'_>) -> Result<ChatStream, Error> {
        let redactor = self.redactor.clone();
        let answer = self.inner.chat(request).await;
        let answer = answer.map_err(|error| masked(&redactor, error))?;
        let masking = Masking {
            words: redactor.flow(),
            arguments: BTreeMap::new(),
            redactor,
            ready: VecDeque::new(),
        };
        let chunks = stream::unfold(
            (Some(answer), masking),
            async |(mut answer, mut masking)| {
                loop {
                    if let Some(ready) = masking.ready.pop_front() {
                        return Some((ready, (answer, masking)));
                    }
                    match answer.as_mut()?.next().await {
                        Some(chunk) => masking.take(chunk),
                        None => {
                            answer = None;
                            masking.flush();
                            // The end comes once all that was held back is out.
                            if masking.ready.is_empty() {
                                return None;
                            }
                        }
                    }
                }
            },
        );
        Ok(Box::pin(chunks))
    }
}

fn masked(redactor: &Redactor, mut error: Error) -> Error {
    error.message = redactor.mask(&error.message).into_owned();
    error
}

/// An answer on its way.
struct Masking {
    redactor: Redactor,
    words: Flow,
    /// Of each tool call.
    arguments: BTreeMap<usize, Flow>,
    ready: VecDeque<Result<Chunk, Error>>,
}

impl Masking {
    fn take(&mut self, chunk: Result<Chunk, Error>) {
        let chunk = match chunk {
            Err(error) => Err(masked(&self.redactor, error)),
            Ok(Chunk::Text(text)) => {
                let text = self.words.push(&text);
                if text.is_empty() {
                    return;
                }
                Ok(Chunk::Text(text))
            }
            Ok(Chunk::Arguments { index, fragment }) => {
                let flow = self.arguments.entry(index);
                let fragment = flow.or_insert_with(|| self.redactor.flow()).push(&fragment);
                if fragment.is_empty() {
                    return;
                }
                Ok(Chunk::Arguments { index, fragment })
            }
            Ok(Chunk::ToolCall { index, id, name }) => {
                self.flush();
                let name = self.redactor.mask(&name).into_owned();
                Ok(Chunk::ToolCall { index, id, name })
            }
            Ok(Chunk::ProviderData(mut data)) => {
                self.redactor.mask_json(&mut data);
                Ok(Chunk::ProviderData(data))
            }
            Ok(Chunk::Stop(stop)) => {
                self.flush();
                Ok(Chunk::Stop(stop))
            }
            Ok(Chunk::Usage(usage)) => Ok(Chunk::Usage(usage)),
        };
        self.ready.push_back(chunk);
    }

    /// What was held back.
    fn flush(&mut self) {
        let text = self.words.end();
        if !text.is_empty() {
            self.ready.push_back(Ok(Chunk::Text(text)));
        }
        for (index, flow) in &mut self.arguments {
            let (index, fragment) = (*index, flow.end());
            if !fragment.is_empty() {
                self.ready
                    .push_back(Ok(Chunk::Arguments { index, fragment }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::StopReason;

    use super::*;

    #[test]
    fn a_secret_in_pieces_gets_through_neither_as_words_nor_as_arguments() {
        let redactor = Redactor::default();
        redactor.learn(["sk-canary-0123456789"]);
        let mut masking = Masking {
            words: redactor.flow(),
            arguments: BTreeMap::new(),
            redactor,
            ready: VecDeque::new(),
        };
        let arguments = |fragment: &str| Chunk::Arguments {
            index: 0,
            fragment: fragment.to_owned(),
        };
        for chunk in [
            Chunk::Text("it is sk-can".to_owned()),
            Chunk::Text("ary-0123456789, sk-c".to_owned()),
            Chunk::ToolCall {
                index: 0,
                id: "1".to_owned(),
                name: "send".to_owned(),
            },
            arguments(r#"{"to":"x","text":"sk-canary-"#),
            arguments(r#"0123456789"}"#),
            Chunk::Stop(StopReason::ToolUse),
        ] {
            masking.take(Ok(chunk));
        }
        let (mut words, mut call) = (String::new(), String::new());
        let said: Vec<_> = masking.ready.into_iter().map(Result::unwrap).collect();
        for chunk in &said {
            match chunk {
                Chunk::Text(text) => words.push_str(text),
                Chunk::Arguments { fragment, .. } => call.push_str(fragment),
                _ => {}
            }
        }
        assert_eq!(words, "it is [redacted], sk-c");
        assert_eq!(call, r#"{"to":"x","text":"[redacted]"}"#);
        assert_eq!(said.last(), Some(&Chunk::Stop(StopReason::ToolUse)));
    }
}
