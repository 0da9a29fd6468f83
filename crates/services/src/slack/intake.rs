//! What is done about what Slack sends. Everything may be done again: names follow from what came, and what is there
//! already is left as it is.

use chrono::TimeDelta;
use domain::definition::{ExecutionMode, SlackConfig, SlackTrigger};
use domain::{AgentName, ConversationId, Event, ExecutionId, Seq, TraceId};
use engine::NewTask;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::NewErrand;
use uuid::Uuid;

use super::choose::{Asker, Choice, Way, Why, choose};
use super::gateway::{Gateway, THREADS, read};
use super::incoming::{Command, Happening, Incoming, Message};
use super::mrkdwn::{escape, to_plain};
use super::outgoing::{Begin, Outgoing, Say};
use super::reply::Reply;
use crate::audit::{Record, Who};

/// How long a thread is known to be an agent's.
const THREAD: TimeDelta = TimeDelta::days(90);
/// The longest words that are passed on, in bytes.
const MAX_WORDS: usize = 200_000;

/// What has to be done in one order: what is of one thread, or one message's.
pub(super) fn lane(incoming: &Incoming) -> String {
    match incoming {
        Incoming::Event(happening) => match happening.message() {
            Some(message) => format!(
                "{}:{}",
                message.channel,
                message.thread.unwrap_or(message.ts)
            ),
            None => happening.event_id.clone(),
        },
        Incoming::Command(command) => command.trigger.clone(),
        Incoming::Press(press) => press.value.clone(),
    }
}

/// Does it. When this answers, all that follows from it is on disk.
///
/// # Errors
/// The store is unavailable: it is to be done again.
pub(super) async fn act(gateway: &Gateway, id: &str, incoming: Incoming) -> store::Result<()> {
    match incoming {
        Incoming::Event(happening) => {
            if let Some(message) = happening.message() {
                gateway.hear(id, &happening, &message).await?;
            }
            gateway.tell_subscribers(&happening).await
        }
        Incoming::Command(command) => gateway.obey(id, command).await,
        Incoming::Press(press) => gateway.decide(id, press).await,
    }
}

/// Somebody in Slack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) name: String,
}

impl Person {
    /// As journals and the audit log name them.
    pub(super) fn who(&self) -> String {
        match self.name.as_str() {
            "" => format!("Slack {}", self.id),
            name => format!("{name} (Slack {})", self.id),
        }
    }
}

/// Work for an agent, from somebody in a thread.
pub(super) struct Work<'a> {
    pub(super) agent: &'a AgentName,
    pub(super) text: &'a str,
    pub(super) team: &'a str,
    pub(super) channel: &'a str,
    pub(super) thread: &'a str,
    pub(super) user: &'a str,
    /// Tells this from all others.
    pub(super) event_id: String,
}

impl Gateway {
    async fn hear(
        &self,
        id: &str,
        happening: &Happening,
        message: &Message<'_>,
    ) -> store::Result<()> {
        let thread = message.thread.unwrap_or(message.ts);
        let thread_of = self
            .thread_of(&happening.team, message.channel, thread)
            .await?;
        let trigger = if message.is_direct {
            SlackTrigger::DirectMessage
        } else {
            SlackTrigger::Mention
        };
        let asker = Asker {
            way: Way::Talk(trigger),
            user: message.user,
            channel: (!message.is_direct).then_some(message.channel),
            thread_of: thread_of.as_ref(),
        };
        let text = to_plain(without_mention(message.text, happening.bot.as_deref()));
        let agents = self.agents();
        let refusal = match choose(&agents, asker, &text) {
            Choice::Agent(_, "") => Some("Yes? Write after my name what is to be done.".to_owned()),
            Choice::Agent(agent, text) => {
                let work = Work {
                    agent,
                    text,
                    team: &happening.team,
                    channel: message.channel,
                    thread,
                    user: message.user,
                    // One message is one, whatever events tell of it.
                    event_id: format!("slack:{}:{}", message.channel, message.ts),
                };
                self.begin(work).await?
            }
            Choice::Refused(agent, why) => {
                let action = format!("SLACK {}", happening.name());
                self.note_refusal(&action, agent, why, asker, id).await;
                Some(no(agent, why))
            }
            Choice::Nobody => Some(NOBODY.to_owned()),
        };
        let Some(text) = refusal else { return Ok(()) };
        let say = Say {
            channel: message.channel.to_owned(),
            thread: Some(thread.to_owned()),
            only_for: None,
            text: format!("<@{}> {text}", message.user),
            is_begun: false,
        };
        self.send(format!("slack-say:{id}"), &Outgoing::Say(say))
            .await
    }

    async fn obey(&self, id: &str, command: Command) -> store::Result<()> {
        let is_direct = command.channel.starts_with('D');
        let asker = Asker {
            way: Way::Command(&command.name),
            user: &command.user,
            channel: (!is_direct).then_some(command.channel.as_str()),
            thread_of: None,
        };
        let agents = self.agents();
        let text = to_plain(&command.text);
        let refusal = match choose(&agents, asker, &text) {
            Choice::Agent(agent, text) => {
                let begin = Begin {
                    agent: agent.clone(),
                    text: text.to_owned(),
                    command: command.clone(),
                    is_begun: false,
                    thread: None,
                };
                self.send(
                    format!("slack-begin:{}", command.trigger),
                    &Outgoing::Begin(begin),
                )
                .await?;
                None
            }
            Choice::Refused(agent, why) => {
                let action = format!("SLACK /{}", command.name);
                self.note_refusal(&action, agent, why, asker, id).await;
                Some(no(agent, why))
            }
            // Somebody may have subscribed to its topic.
            Choice::Nobody => None,
        };
        if let Some(text) = refusal {
            let say = Say {
                channel: command.channel.clone(),
                thread: None,
                only_for: Some(command.user.clone()),
                text,
                is_begun: false,
            };
            self.send(format!("slack-say:{id}"), &Outgoing::Say(say))
                .await?;
        }
        let data = json!({
            "team_id": command.team, "channel_id": command.channel, "user_id": command.user,
            "user_name": command.user_name, "command": format!("/{}", command.name), "text": command.text,
            "trigger_id": command.trigger,
        });
        let topic = format!("slack.command.{}", command.name);
        self.publish(&topic, &format!("slack-{}", command.trigger), data)
            .await
    }

    /// Gives an agent work and promises the thread an answer; answers what to say when it takes none.
    ///
    /// # Errors
    /// The store is unavailable.
    pub(super) async fn begin(&self, work: Work<'_>) -> store::Result<Option<String>> {
        let agent = self.app.engine.agents().get(work.agent);
        let mode = agent.map(|agent| agent.definition.execution_mode);
        let text: String = work.text.chars().take(MAX_WORDS / 4).collect();
        let trace = trace_of(&work.event_id);
        let mut task = NewTask::new(work.agent.as_str(), json!({ "prompt": text }), trace);
        task.event_id = work.event_id.parse().ok();
        task.metadata = json!({ "slack": {
            "team": work.team, "channel": work.channel, "thread": work.thread, "user": work.user,
        }});
        if mode == Some(ExecutionMode::Continuous) {
            task.conversation = conversation(&work);
        }
        let accepted = match self.app.engine.submit(task).await {
            Ok(accepted) => accepted,
            Err(engine::Error::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(agent_name = %work.agent, %error, "work from Slack is not taken");
                return Ok(Some(format!(
                    "*{}* can't take this now: {}",
                    escape(work.agent.as_str()),
                    escape(&error.to_string())
                )));
            }
        };
        self.own_thread(&work).await?;
        let reply = Reply::new(accepted.id, work.agent, work.channel, work.thread);
        self.send(Reply::id(accepted.id), &Outgoing::Reply(reply))
            .await?;
        Ok(None)
    }

    /// The agent that answered in a thread before.
    async fn thread_of(
        &self,
        team: &str,
        channel: &str,
        thread: &str,
    ) -> store::Result<Option<AgentName>> {
        let id = format!("slack-thread:{team}:{channel}:{thread}");
        let errand = self.store().errand(&id).await?;
        Ok(errand.as_ref().and_then(read))
    }

    async fn own_thread(&self, work: &Work<'_>) -> store::Result<()> {
        let errand = NewErrand {
            id: format!(
                "slack-thread:{}:{}:{}",
                work.team, work.channel, work.thread
            ),
            queue: THREADS.to_owned(),
            body: serde_json::to_string(work.agent).unwrap_or_default(),
            due_at: self.now() + THREAD,
        };
        self.store().add_errand(errand).await.map(drop)
    }

    /// The agents that are reached by Slack.
    fn agents(&self) -> Vec<(AgentName, SlackConfig)> {
        let all = self.app.engine.agents().all();
        let reached = all.into_iter().filter(engine::Agent::takes_work);
        let config = |agent: engine::Agent| {
            let config = agent.definition.slack.clone()?;
            Some((agent.definition.name.clone(), config))
        };
        reached.filter_map(config).collect()
    }

    async fn tell_subscribers(&self, happening: &Happening) -> store::Result<()> {
        let topic = format!("slack.event.{}", happening.name());
        let data = json!({
            "team_id": happening.team, "event_id": happening.event_id, "event": happening.event,
        });
        self.publish(&topic, &format!("slack-{}", happening.event_id), data)
            .await
    }

    async fn publish(&self, topic: &str, id: &str, data: Value) -> store::Result<()> {
        let (Ok(topic), Ok(id)) = (topic.parse(), id.parse()) else {
            return Ok(());
        };
        let event = Event {
            trace_id: trace_of(&format!("{id}")),
            id,
            topic,
            source: "/slack".to_owned(),
            time: self.now(),
            hops: 0,
            data,
        };
        match self.app.engine.publish(event).await {
            Err(engine::Error::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "an event of Slack's is not passed on");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn note_refusal(
        &self,
        action: &str,
        agent: &AgentName,
        why: Why,
        asker: Asker<'_>,
        id: &str,
    ) {
        let mut details = serde_json::Map::new();
        details.insert("agent_name".to_owned(), json!(agent));
        details.insert("refused".to_owned(), json!(why.word()));
        details.insert("channel".to_owned(), json!(asker.channel));
        let person = Person {
            id: asker.user.to_owned(),
            name: String::new(),
        };
        let target = format!("/agents/{agent}");
        self.write_down(
            action,
            target,
            &person,
            ("denied", 403),
            trace_of(id),
            details,
        )
        .await;
    }

    pub(super) async fn write_down(
        &self,
        action: &str,
        target: String,
        person: &Person,
        (outcome, status): (&'static str, u16),
        trace: TraceId,
        details: serde_json::Map<String, Value>,
    ) {
        let record = Record {
            at: self.now(),
            who: Who {
                kind: "slack",
                id: Some(person.id.clone()),
                name: person.name.clone(),
            },
            from: None,
            action: action.to_owned(),
            target,
            outcome,
            status: Some(status),
            code: (status == 403).then_some("FORBIDDEN"),
            trace_id: trace.to_string(),
            details,
        };
        self.app.audit.write(record).await;
    }
}

const NOBODY: &str = "No agent is set up to answer you here. Whoever runs AgentRunner can change that: an agent's file says under `slack` whom it answers.";

fn no(agent: &AgentName, why: Why) -> String {
    let agent = escape(agent.as_str());
    match why {
        Why::Channel => format!(
            "Sorry, *{agent}* may not be used in this channel. Ask whoever runs AgentRunner if it should be."
        ),
        Why::Person => {
            format!("Sorry, you may not use *{agent}*. Ask whoever runs AgentRunner if you should.")
        }
    }
}

/// What was said, without the name that it begins with.
fn without_mention<'a>(text: &'a str, bot: Option<&str>) -> &'a str {
    let text = text.trim();
    let Some((mention, rest)) = text
        .strip_prefix("<@")
        .and_then(|rest| rest.split_once('>'))
    else {
        return text;
    };
    let named = mention.split('|').next().unwrap_or_default();
    match bot {
        Some(bot) if bot != named => text,
        _ => rest.trim(),
    }
}

fn conversation(work: &Work<'_>) -> Option<ConversationId> {
    let id = format!("slack:{}:{}:{}", work.team, work.channel, work.thread);
    id.parse().ok()
}

/// The same each time that it is asked for.
fn trace_of(id: &str) -> TraceId {
    TraceId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()))
}

/// The steps before which a question was asked.
pub(super) fn before(request: Seq) -> Option<Seq> {
    request.get().checked_sub(1).map(Seq::new)
}

/// Names the errand that answers an execution.
pub(super) fn reply_id(execution: ExecutionId) -> String {
    format!("slack-reply:{execution}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apps_name_is_no_part_of_what_is_said() {
        for (text, expected) in [
            ("<@UBOT> do this", "do this"),
            ("  <@UBOT|app>   do this", "do this"),
            ("<@U1> do this", "<@U1> do this"),
            ("please <@UBOT> do this", "please <@UBOT> do this"),
            ("<@UBOT>", ""),
        ] {
            assert_eq!(without_mention(text, Some("UBOT")), expected);
        }
        assert_eq!(without_mention("<@U1> do", None), "do");
    }
}
