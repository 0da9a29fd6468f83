//! What is to go out, and how far it has come.
//!
//! Before a message is posted it is written down that it is about to be; who goes on after a crash looks in Slack whether
//! it is there, by the key that it carries. So a message is in Slack once.

use domain::AgentName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::blocks::{Shown, said};
use super::client::{CallError, Client, Place, metadata, set};
use super::gateway::{Gateway, Held, Stop};
use super::incoming::Command;
use super::intake::Work;
use super::mrkdwn::escape;
use super::pace::Method;
use super::reply::{self, Reply};

/// Something to be sent. Tagged from outside: what is tagged inside can't hold a map by numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outgoing {
    /// What becomes of an execution.
    Reply(Reply),
    /// A few words.
    Say(Say),
    /// The message that a command begins a thread with, and then its execution.
    Begin(Begin),
    /// What a caller of the API wants.
    Call(Call),
}

/// A few words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Say {
    pub(super) channel: String,
    pub(super) thread: Option<String>,
    /// Only this person sees it.
    pub(super) only_for: Option<String>,
    /// In Slack's own way of writing.
    pub(super) text: String,
    /// Whether it may be in Slack.
    pub(super) is_begun: bool,
}

/// What a command begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) agent: AgentName,
    pub(super) text: String,
    pub(super) command: Command,
    pub(super) is_begun: bool,
    /// The message that began the thread.
    pub(super) thread: Option<String>,
}

/// A call of the Web API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) act: Act,
    pub(super) channel: String,
    /// The method's arguments.
    pub(super) body: Value,
    /// Of the request that wants it.
    pub(super) hash: String,
    pub(super) is_begun: bool,
    pub(super) result: Option<CallResult>,
}

/// What a caller of the API wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Act {
    Post,
    Update,
    Delete,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CallResult {
    /// It is done, to this message.
    Done(String),
    /// Slack does not do it, in a word.
    Refused(String),
}

/// Sends it; when this answers, it is done.
pub(super) async fn perform(
    gateway: &Gateway,
    client: &Client,
    held: &Held<'_>,
    outgoing: Outgoing,
) -> Result<(), Stop> {
    match outgoing {
        Outgoing::Reply(reply) => reply::tell(gateway, client, held, reply).await,
        Outgoing::Say(words) => say(client, held, words).await,
        Outgoing::Begin(command) => begin(gateway, client, held, command).await,
        Outgoing::Call(wanted) => call(client, held, wanted).await,
    }
}

async fn say(client: &Client, held: &Held<'_>, mut say: Say) -> Result<(), Stop> {
    if let Some(user) = &say.only_for {
        let mut body = json!({ "channel": say.channel, "user": user, "text": say.text });
        set(&mut body, "thread_ts", say.thread.as_deref());
        let told = client
            .call(Method::PostEphemeral, Some(&say.channel), &body)
            .await;
        match told {
            // We are not in that channel: then in a message to the person alone.
            Err(CallError::Refused(error)) => {
                tracing::debug!(error, "a person is told in a message of their own");
                say.channel.clone_from(user);
                say.thread = None;
                say.only_for = None;
            }
            other => return Ok(other.map(drop)?),
        }
    }
    let may_be_there = std::mem::replace(&mut say.is_begun, true);
    held.note(&Outgoing::Say(say.clone())).await?;
    let place = Place {
        channel: &say.channel,
        thread: say.thread.as_deref(),
    };
    let text = said(&say.text);
    client
        .post_once(place, &text, &held.id, may_be_there)
        .await?;
    Ok(())
}

async fn begin(
    gateway: &Gateway,
    client: &Client,
    held: &Held<'_>,
    mut begin: Begin,
) -> Result<(), Stop> {
    let command = begin.command.clone();
    let thread = match &begin.thread {
        Some(thread) => thread.clone(),
        None => {
            let may_be_there = std::mem::replace(&mut begin.is_begun, true);
            held.note(&Outgoing::Begin(begin.clone())).await?;
            let place = Place {
                channel: &command.channel,
                thread: None,
            };
            let posted = client
                .post_once(place, &header(&begin), &held.id, may_be_there)
                .await;
            let thread = match posted {
                Ok(thread) => thread,
                Err(CallError::Refused(error)) => {
                    let text = format!(
                        "I can't write in <#{}> ({}): invite me there (`/invite`), then say `/{}` again.",
                        command.channel,
                        escape(&error),
                        command.name
                    );
                    let words = Say {
                        channel: command.user.clone(),
                        thread: None,
                        only_for: None,
                        text,
                        is_begun: false,
                    };
                    let id = format!("slack-say:{}", held.id);
                    gateway.send(id, &Outgoing::Say(words)).await?;
                    return Ok(());
                }
                Err(later) => return Err(later.into()),
            };
            begin.thread = Some(thread.clone());
            held.note(&Outgoing::Begin(begin.clone())).await?;
            thread
        }
    };
    let text = match begin.text.as_str() {
        "" => format!("/{}", command.name),
        text => text.to_owned(),
    };
    let work = Work {
        agent: &begin.agent,
        text: &text,
        team: &command.team,
        channel: &command.channel,
        thread: &thread,
        user: &command.user,
        event_id: format!("slack:command:{}", command.trigger),
    };
    let Some(refusal) = gateway.begin(work).await? else {
        return Ok(());
    };
    let words = Say {
        channel: command.channel.clone(),
        thread: Some(thread),
        only_for: None,
        text: refusal,
        is_begun: false,
    };
    let id = format!("slack-say:{}", held.id);
    gateway.send(id, &Outgoing::Say(words)).await?;
    Ok(())
}

/// What everybody in the channel sees of a command.
fn header(begin: &Begin) -> Shown {
    let command = &begin.command;
    let words: String = command.text.chars().take(2500).collect();
    // As Slack sent it: its own escapes are in it.
    said(&format!(
        "<@{}> \u{2192} *{}*: `/{}` {words}",
        command.user,
        escape(begin.agent.as_str()),
        command.name
    ))
}

async fn call(client: &Client, held: &Held<'_>, mut call: Call) -> Result<(), Stop> {
    let may_be_there = std::mem::replace(&mut call.is_begun, true);
    held.note(&Outgoing::Call(call.clone())).await?;
    let method = match call.act {
        Act::Post => Method::Post,
        Act::Update => Method::Update,
        Act::Delete => Method::Delete,
    };
    let text = |name| call.body.get(name).and_then(Value::as_str);
    let done = match call.act {
        Act::Post => {
            let place = Place {
                channel: &call.channel,
                thread: text("thread_ts"),
            };
            let found = match may_be_there {
                true => client.find(place, &held.id).await?,
                false => None,
            };
            match found {
                Some(ts) => Ok(ts),
                None => {
                    let mut body = call.body.clone();
                    set(&mut body, "metadata", Some(metadata(&held.id)));
                    let posted = client.call(method, Some(&call.channel), &body).await;
                    posted.and_then(|answer| super::client::ts_of(&answer))
                }
            }
        }
        Act::Update | Act::Delete => {
            let ts = text("ts").unwrap_or_default().to_owned();
            let done = client.call(method, Some(&call.channel), &call.body).await;
            match done {
                // The first time it was done, and that was not written down.
                Err(CallError::Refused(error))
                    if may_be_there && call.act == Act::Delete && error == "message_not_found" =>
                {
                    Ok(ts)
                }
                other => other.map(|_| ts),
            }
        }
    };
    call.result = Some(match done {
        Ok(ts) => CallResult::Done(ts),
        Err(CallError::Refused(error)) => CallResult::Refused(error),
        Err(later) => return Err(later.into()),
    });
    held.note(&Outgoing::Call(call)).await
}
