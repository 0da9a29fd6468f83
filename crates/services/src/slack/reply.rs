//! Tells a thread what becomes of an execution: its words as they are said, what it asks, and how it ended.
//!
//! Everything that is shown follows from the journal and from what is noted here of Slack, so whoever holds the errand
//! goes on where the last one was.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use domain::step::{InputReceived, InputRequest};
use domain::{AgentName, ExecutionId, Outcome, Seq, Step, StepBody};
use engine::{LiveEvent, Position};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::blocks::{self, Asked, said};
use super::client::{Client, Place};
use super::gateway::{Gateway, Held, Stop};
use super::intake::before;
use super::mrkdwn::{escape, from_markdown};
use super::outgoing::Outgoing;
use super::split::{MOST, split};

/// The shortest time between two updates of a message.
const PACE: Duration = Duration::from_millis(1200);
/// How long it is listened to an execution that waits for a person.
const GRACE: Duration = Duration::from_secs(2);
/// After how long it is looked at again; who presses a button here does not wait for that.
const LOOK: Duration = Duration::from_secs(15);
/// The longest answer that is shown, in parts; the rest is where the whole is.
const MOST_PARTS: usize = 20;

/// What becomes of an execution, as far as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    execution: ExecutionId,
    agent: String,
    channel: String,
    thread: String,
    /// The last step that was told of.
    seen: Option<Seq>,
    /// The messages that hold its words.
    parts: Vec<Part>,
    /// Its questions, by step.
    questions: BTreeMap<u32, Posted>,
}

/// A message that holds words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// None while it may be in Slack or not.
    ts: Option<String>,
    /// Which words.
    hash: u64,
}

/// A message that holds a question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Posted {
    ts: Option<String>,
    is_decided: bool,
}

impl Reply {
    pub(super) fn new(
        execution: ExecutionId,
        agent: &AgentName,
        channel: &str,
        thread: &str,
    ) -> Self {
        Self {
            execution,
            agent: agent.to_string(),
            channel: channel.to_owned(),
            thread: thread.to_owned(),
            seen: None,
            parts: Vec::new(),
            questions: BTreeMap::new(),
        }
    }

    /// The name of the errand.
    pub(super) fn id(execution: ExecutionId) -> String {
        super::intake::reply_id(execution)
    }
}

/// Tells all of it; when this answers, the end is told.
pub(super) async fn tell(
    gateway: &Gateway,
    client: &Client,
    held: &Held<'_>,
    reply: Reply,
) -> Result<(), Stop> {
    let after = reply.seen.map(|seq| Position { seq, piece: None });
    let mut teller = Teller {
        gateway,
        client,
        held,
        may_be_there: reply.parts.iter().any(|part| part.ts.is_none()),
        reply,
        turn: None,
        words: String::new(),
        status: WORKING.to_owned(),
    };
    if teller.reply.parts.iter().all(|part| part.ts.is_none()) {
        teller.show().await?;
    }
    let mut watch = gateway.app.engine.watch(teller.reply.execution, after);
    let mut next_show = Instant::now() + PACE;
    let (mut is_new, mut quiet_since) = (false, Instant::now());
    loop {
        let heard = tokio::select! {
            heard = watch.next() => heard?,
            () = tokio::time::sleep_until(next_show), if is_new => {
                teller.show().await?;
                is_new = false;
                next_show = Instant::now() + PACE;
                continue;
            }
            () = tokio::time::sleep_until(quiet_since + GRACE), if teller.waits() && !is_new => {
                return Err(Stop::Later(LOOK, None));
            }
        };
        quiet_since = Instant::now();
        match heard {
            // It was deleted, or all of it was told.
            None => return teller.end(None).await,
            Some(LiveEvent::Step(step)) => {
                if let Some(outcome) = teller.step(&step).await? {
                    return teller.end(Some(&outcome)).await;
                }
                is_new = true;
            }
            Some(LiveEvent::Delta { position, text }) => {
                if teller.turn != Some(position.seq) {
                    teller.turn = Some(position.seq);
                    teller.words.clear();
                }
                teller.words.push_str(&text);
                teller.status.clear();
                is_new = true;
            }
            Some(LiveEvent::Supersede { .. }) => {
                teller.words.clear();
                is_new = true;
            }
            Some(LiveEvent::ToolCallBegins { tool, .. }) => {
                teller.status = calling(&tool);
                is_new = true;
            }
        }
    }
}

const WORKING: &str = "_is at work\u{2026}_";
const WAITING: &str = "_waits for a decision below\u{2026}_";

fn calling(tool: &str) -> String {
    format!("_calls `{}`\u{2026}_", escape(tool).replace('`', "'"))
}

struct Teller<'a> {
    gateway: &'a Gateway,
    client: &'a Client,
    held: &'a Held<'a>,
    /// Whether a message of words that has no ts may be in Slack.
    may_be_there: bool,
    reply: Reply,
    /// The turn of the model that is heard, by the step that it will become.
    turn: Option<Seq>,
    /// What the model has said of its present turn.
    words: String,
    /// What stands below it.
    status: String,
}

impl Teller<'_> {
    /// Takes a step in; answers the outcome when it is the last.
    async fn step(&mut self, step: &Step) -> Result<Option<Outcome>, Stop> {
        let seq = step.seq;
        match &step.body {
            StepBody::ModelCall(call) if call.purpose.is_said() => {
                self.words.clone_from(&call.reply.text);
                self.status = match call.reply.tool_calls.first() {
                    Some(call) => calling(&call.name),
                    None => String::new(),
                };
            }
            StepBody::InputRequested(request) => self.ask(seq, request).await?,
            StepBody::InputReceived(received) => self.decided(received).await?,
            StepBody::Finished { outcome } => return Ok(Some(outcome.clone())),
            _ => {}
        }
        self.reply.seen = Some(seq);
        Ok(None)
    }

    fn waits(&self) -> bool {
        let mut posted = self.reply.questions.values();
        posted.any(|question| !question.is_decided)
    }

    async fn ask(&mut self, seq: Seq, request: &InputRequest) -> Result<(), Stop> {
        self.status = WAITING.to_owned();
        self.show().await?;
        let known = self.reply.questions.get(&seq.get()).cloned();
        if known.as_ref().is_some_and(|known| known.ts.is_some()) {
            return Ok(());
        }
        self.reply.questions.insert(seq.get(), Posted::default());
        self.note().await?;
        let asked = Asked {
            execution: self.reply.execution,
            request: seq,
        };
        let shown = blocks::question(&self.reply.agent, asked, &self.masked(request));
        let key = format!("{}:q{seq}", self.held.id);
        let posted = self
            .client
            .post_once(self.place(), &shown, &key, known.is_some())
            .await?;
        if let Some(question) = self.reply.questions.get_mut(&seq.get()) {
            question.ts = Some(posted);
        }
        self.reply.seen = Some(seq);
        self.note().await
    }

    async fn decided(&mut self, received: &InputReceived) -> Result<(), Stop> {
        self.status = WORKING.to_owned();
        let request = received.request;
        let Some(question) = self.reply.questions.get_mut(&request.get()) else {
            return Ok(());
        };
        question.is_decided = true;
        if let Some(ts) = question.ts.clone() {
            let store = self.gateway.store();
            let steps = store
                .steps(self.reply.execution, before(request), 1)
                .await?;
            if let Some(StepBody::InputRequested(asked)) = steps.first().map(|step| &step.body) {
                let (asked, answer) = (self.masked(asked), self.masked(&received.answer));
                let shown = blocks::decided(&self.reply.agent, &asked, &answer, &received.by);
                self.client.update(&self.reply.channel, &ts, &shown).await?;
            }
        }
        self.note().await
    }

    /// Shows how it ended, and takes the buttons from what is not asked any more.
    async fn end(mut self, outcome: Option<&Outcome>) -> Result<(), Stop> {
        let open = self.reply.questions.values().filter(|q| !q.is_decided);
        let open: Vec<String> = open.filter_map(|question| question.ts.clone()).collect();
        for ts in open {
            let shown = said("_This is not asked any more: the task is over._");
            self.client.update(&self.reply.channel, &ts, &shown).await?;
        }
        self.status.clear();
        match outcome {
            Some(Outcome::Completed { output, .. }) => self.words.clone_from(output),
            Some(other) => {
                self.words.clear();
                self.status = format!(
                    ":warning: {} (`{}`)",
                    escape(&other.reason()),
                    self.reply.execution
                );
            }
            None => {}
        }
        if self.words.trim().is_empty() && self.status.is_empty() {
            self.status = "_Done, without a word._".to_owned();
        }
        self.show().await?;
        self.shorten().await?;
        for question in self.reply.questions.values_mut() {
            question.is_decided = true;
        }
        self.note().await
    }

    /// Makes the messages say what there is to say.
    async fn show(&mut self) -> Result<(), Stop> {
        let texts = self.texts();
        for (n, text) in texts.iter().enumerate() {
            let hash = hash(text);
            let shown = said(text);
            match self.reply.parts.get(n) {
                Some(part) if part.ts.is_some() && part.hash == hash => continue,
                Some(Part { ts: Some(ts), .. }) => {
                    self.client.update(&self.reply.channel, ts, &shown).await?;
                }
                _ => self.post(n, text).await?,
            }
            if let Some(part) = self.reply.parts.get_mut(n) {
                part.hash = hash;
            }
        }
        Ok(())
    }

    /// Takes away messages that hold more than there is to say: what was said in a try that does not count.
    async fn shorten(&mut self) -> Result<(), Stop> {
        let wanted = self.texts().len();
        while self.reply.parts.len() > wanted {
            let n = self.reply.parts.len() - 1;
            let known = self.reply.parts.last().and_then(|part| part.ts.clone());
            let ts = match known {
                Some(ts) => Some(ts),
                None => self.client.find(self.place(), &self.key(n)).await?,
            };
            if let Some(ts) = ts {
                self.client.delete(&self.reply.channel, &ts).await?;
            }
            self.reply.parts.pop();
            self.note().await?;
        }
        Ok(())
    }

    async fn post(&mut self, n: usize, text: &str) -> Result<(), Stop> {
        let may_be_there = self.may_be_there && self.reply.parts.len() > n;
        if self.reply.parts.len() <= n {
            self.reply.parts.push(Part::default());
            self.note().await?;
        }
        let key = self.key(n);
        let shown = said(text);
        let ts = self
            .client
            .post_once(self.place(), &shown, &key, may_be_there)
            .await?;
        if may_be_there {
            // It may hold other words than these.
            self.client.update(&self.reply.channel, &ts, &shown).await?;
        }
        if let Some(part) = self.reply.parts.get_mut(n) {
            part.ts = Some(ts);
        }
        self.note().await
    }

    /// By what a message of words is found again.
    fn key(&self, n: usize) -> String {
        format!("{}:{n}", self.held.id)
    }

    fn texts(&self) -> Vec<String> {
        let mut text = from_markdown(&self.gateway.app.redactor.mask(&self.words));
        if !self.status.is_empty() {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&self.status);
        }
        let mut texts = split(&text, MOST - 1);
        if texts.len() > MOST_PARTS {
            texts.truncate(MOST_PARTS);
            texts.push(format!(
                "_It is longer than this: `agentrunner tasks result {}` shows the rest._",
                self.reply.execution
            ));
        }
        texts
    }

    /// What leaves the house has no secrets in it. Taken out before it is written as Slack wants it: escaped and cut, a
    /// secret would not be known again.
    fn masked<T: Serialize + DeserializeOwned + Clone>(&self, what: &T) -> T {
        let mut value = serde_json::to_value(what).unwrap_or_default();
        self.gateway.app.redactor.mask_json(&mut value);
        serde_json::from_value(value).unwrap_or_else(|_| what.clone())
    }

    fn place(&self) -> Place<'_> {
        Place {
            channel: &self.reply.channel,
            thread: Some(&self.reply.thread),
        }
    }

    async fn note(&self) -> Result<(), Stop> {
        self.held.note(&Outgoing::Reply(self.reply.clone())).await
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_can_be_read_by_whoever_goes_on() {
        let id = "0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f".parse().unwrap();
        let mut reply = Reply::new(id, &"writer".parse().unwrap(), "C1", "1.2");
        reply.seen = Some(Seq::new(4));
        reply.parts.push(Part {
            ts: Some("1.3".to_owned()),
            hash: u64::MAX,
        });
        reply.questions.insert(4, Posted::default());
        let noted = serde_json::to_string(&Outgoing::Reply(reply.clone())).unwrap();
        let Outgoing::Reply(read) = serde_json::from_str(&noted).unwrap() else {
            panic!("it is a reply: {noted}");
        };
        assert_eq!(read, reply);
    }
}
