//! Replies from a script, without any model: for demonstrations, dry runs, tests and benchmarks.
//!
//! An answer depends on the conversation alone, so a repeated call gets the same answer. The one exception are
//! errors with `times`, which a memory of bounded size counts for each trace.

mod load;
mod script;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::{StopReason, Tokens, Usage};
use futures::{StreamExt, stream};
use tokio::time::sleep;

use self::load::Scripts;
use self::script::{Place, Rule, Script};
use crate::{ChatRequest, ChatStream, Chunk, Error};

/// How many traces' errors are remembered; the oldest is forgotten first.
const MOST_COUNTED: usize = 10_000;

/// The provider `scripted`.
#[derive(Debug)]
pub(crate) struct Scripted {
    scripts: Scripts,
    failed: Mutex<Failed>,
}

impl Scripted {
    /// Scripts below this folder.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            scripts: Scripts::new(root),
            failed: Mutex::default(),
        }
    }

    /// Answers by the first rule that fits.
    pub(crate) async fn chat(&self, request: &ChatRequest<'_>) -> Result<ChatStream, Error> {
        let script = self.scripts.get(&request.config.model).await?;
        let place = Place::of(request.messages);
        let (rule, fails) = self.choose(&script, request, &place)?;
        pause(rule.delay_ms).await;
        if fails && let Some(error) = &rule.error {
            return Err(error.made(&request.config.model));
        }
        Ok(spoken(rule, request, &place))
    }

    /// The rule that fits, and whether it fails this time. A rule that has failed often enough and has nothing else
    /// to say is passed over.
    fn choose<'a>(
        &self,
        script: &'a Script,
        request: &ChatRequest<'_>,
        place: &Place<'_>,
    ) -> Result<(&'a Rule, bool), Error> {
        for (number, rule) in script.rules.iter().enumerate() {
            if !rule.when.fits(place, request.messages) {
                continue;
            }
            let Some(error) = &rule.error else {
                return Ok((rule, false));
            };
            let fails = error.times.is_none_or(|times| {
                let trace = format!("{} {}", request.trace_id, request.config.model);
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.count((trace, number, request.messages.len()), times)
            });
            if fails || rule.says_something() {
                return Ok((rule, fails));
            }
        }
        Err(Error::invalid(format!(
            "no rule of the script {} fits turn {} (the prompt is {}, the last tool {}): add a rule without `when` \
             as the last one",
            request.config.model,
            place.turn,
            crate::error::quote(place.prompt),
            place.tool.map_or("none", |(name, _)| name),
        )))
    }
}

/// How often each rule has failed in each trace and at each length of the conversation.
#[derive(Debug, Default)]
struct Failed {
    counts: HashMap<(String, usize, usize), u32>,
    order: VecDeque<(String, usize, usize)>,
}

impl Failed {
    /// Whether it fails once more.
    fn count(&mut self, key: (String, usize, usize), times: u32) -> bool {
        if let Some(count) = self.counts.get_mut(&key) {
            let fails = *count < times;
            *count += u32::from(fails);
            return fails;
        }
        if times == 0 {
            return false;
        }
        if self.order.len() >= MOST_COUNTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.counts.insert(key, 1);
        true
    }
}

/// The rule's answer in pieces: word by word, then the calls.
fn spoken(rule: &Rule, request: &ChatRequest<'_>, place: &Place<'_>) -> ChatStream {
    let text = place.fill(rule.reply.as_deref().unwrap_or_default());
    let mut chunks: Vec<Chunk> = text
        .split_inclusive(char::is_whitespace)
        .map(|word| Chunk::Text(word.to_owned()))
        .collect();
    let mut said = text.len();
    for (index, call) in rule.tool_calls.iter().enumerate() {
        let fragment = place.fill_in(&call.arguments).to_string();
        said += fragment.len();
        chunks.push(Chunk::ToolCall {
            index,
            id: format!("call_{}_{index}", request.messages.len()),
            name: call.name.clone(),
        });
        chunks.push(Chunk::Arguments { index, fragment });
    }
    chunks.push(Chunk::Usage(
        rule.usage.unwrap_or_else(|| estimate(request, said)),
    ));
    chunks.push(Chunk::Stop(rule.stop.unwrap_or(
        if rule.tool_calls.is_empty() {
            StopReason::EndTurn
        } else {
            StopReason::ToolUse
        },
    )));
    let chunks = stream::iter(chunks.into_iter().map(Ok));
    match rule.chunk_delay_ms {
        0 => Box::pin(chunks),
        delay => Box::pin(chunks.then(move |chunk| async move {
            pause(delay).await;
            chunk
        })),
    }
}

async fn pause(millis: u64) {
    if millis > 0 {
        sleep(Duration::from_millis(millis)).await;
    }
}

/// A token for every four bytes: what English needs, near enough.
fn estimate(request: &ChatRequest<'_>, said: usize) -> Usage {
    let heard: usize = request.messages.iter().map(domain::Message::bytes).sum();
    let tokens = |bytes: usize| Tokens((bytes as u64).div_ceil(4));
    Usage {
        input_tokens: tokens(heard + request.system.len()),
        output_tokens: tokens(said),
        cached_tokens: Tokens(0),
    }
}
