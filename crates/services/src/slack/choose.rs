//! Which agent answers somebody in Slack, and who is refused.

use domain::AgentName;
use domain::definition::{SlackConfig, SlackTrigger};

/// How somebody turned to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way<'a> {
    Talk(SlackTrigger),
    Command(&'a str),
}

/// Somebody who wants an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) way: Way<'a>,
    pub(super) user: &'a str,
    /// `None` for a direct message.
    pub(super) channel: Option<&'a str>,
    /// The agent that the thread belongs to.
    pub(super) thread_of: Option<&'a AgentName>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// It answers this.
    Agent(&'a AgentName, &'a str),
    /// It would, and may not.
    Refused(&'a AgentName, Why),
    /// There is none that answers such things.
    Nobody,
}

/// Why somebody is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Person,
    Channel,
}

impl Why {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Person => "user",
            Self::Channel => "channel",
        }
    }
}

/// Chooses among the agents that are reached by Slack. `writer: do this` names one; else a thread stays with its agent;
/// else it is the one that names the channel, that names the person, or the first by name.
pub(super) fn choose<'a>(
    agents: &'a [(AgentName, SlackConfig)],
    asker: Asker<'_>,
    text: &'a str,
) -> Choice<'a> {
    let answers = |config: &SlackConfig| match asker.way {
        Way::Talk(trigger) => config.respond_to.contains(&trigger),
        Way::Command(name) => config.commands.iter().any(|command| command == name),
    };
    let answering = || agents.iter().filter(|(_, config)| answers(config));
    let named = text.split_once(':').and_then(|(first, rest)| {
        let found = answering().find(|(name, _)| name.as_str() == first.trim())?;
        Some((found, rest.trim()))
    });
    let of_thread = || answering().find(|(name, _)| Some(name) == asker.thread_of);
    let (fixed, text) = match named {
        Some((agent, rest)) => (Some(agent), rest),
        None => (of_thread(), text.trim()),
    };
    let judge = |(name, config): &'a (AgentName, SlackConfig)| match refusal(config, asker) {
        None => Choice::Agent(name, text),
        Some(why) => Choice::Refused(name, why),
    };
    if let Some(agent) = fixed {
        return judge(agent);
    }
    let is_close = |(name, config): &&'a (AgentName, SlackConfig)| {
        let names_channel = asker
            .channel
            .is_some_and(|channel| config.channels.iter().any(|one| one == channel));
        let names_user = config.users.iter().any(|one| one == asker.user);
        (
            refusal(config, asker),
            !names_channel,
            !names_user,
            name.clone(),
        )
    };
    answering()
        .min_by_key(is_close)
        .map_or(Choice::Nobody, judge)
}

fn refusal(config: &SlackConfig, asker: Asker<'_>) -> Option<Why> {
    if !config.covers_channel(asker.channel) {
        return Some(Why::Channel);
    }
    (!config.covers_user(asker.user)).then_some(Why::Person)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn agents(list: &[(&str, Value)]) -> Vec<(AgentName, SlackConfig)> {
        let read = |(name, config): &(&str, Value)| {
            let config = serde_json::from_value(config.clone()).unwrap();
            (name.parse().unwrap(), config)
        };
        list.iter().map(read).collect()
    }

    fn mention(user: &'static str, channel: &'static str) -> Asker<'static> {
        Asker {
            way: Way::Talk(SlackTrigger::Mention),
            user,
            channel: Some(channel),
            thread_of: None,
        }
    }

    fn chosen(agents: &[(AgentName, SlackConfig)], asker: Asker<'_>, text: &str) -> String {
        match choose(agents, asker, text) {
            Choice::Agent(name, text) => format!("{name}: {text}"),
            Choice::Refused(name, why) => format!("{name} refuses the {}", why.word()),
            Choice::Nobody => "nobody".to_owned(),
        }
    }

    #[test]
    fn the_one_that_names_the_channel_goes_before_those_that_name_none() {
        let all = agents(&[
            ("anyone", json!({})),
            ("money", json!({ "channels": ["C9"] })),
            ("vip", json!({ "users": ["U9"] })),
        ]);
        assert_eq!(chosen(&all, mention("U1", "C1"), "hi"), "anyone: hi");
        assert_eq!(chosen(&all, mention("U1", "C9"), "hi"), "money: hi");
        assert_eq!(chosen(&all, mention("U9", "C1"), "hi"), "vip: hi");
    }

    #[test]
    fn a_name_before_a_colon_chooses_and_is_not_got_round() {
        let all = agents(&[("anyone", json!({})), ("vip", json!({ "users": ["U9"] }))]);
        assert_eq!(
            chosen(&all, mention("U9", "C1"), "vip: do  it"),
            "vip: do  it"
        );
        assert_eq!(
            chosen(&all, mention("U1", "C1"), "vip: do it"),
            "vip refuses the user"
        );
        assert_eq!(
            chosen(&all, mention("U1", "C1"), "note: do it"),
            "anyone: note: do it"
        );
    }

    #[test]
    fn a_thread_stays_with_its_agent() {
        let all = agents(&[("anyone", json!({})), ("writer", json!({}))]);
        let writer = "writer".parse().unwrap();
        let asker = Asker {
            thread_of: Some(&writer),
            ..mention("U1", "C1")
        };
        assert_eq!(chosen(&all, asker, "go on"), "writer: go on");
    }

    #[test]
    fn refusals_say_why_and_only_who_answers_such_things_is_asked() {
        let all = agents(&[(
            "money",
            json!({ "channels": ["C9"], "respond_to": ["mention"], "commands": ["pay"] }),
        )]);
        assert_eq!(
            chosen(&all, mention("U1", "C1"), "hi"),
            "money refuses the channel"
        );
        let direct = Asker {
            way: Way::Talk(SlackTrigger::DirectMessage),
            channel: None,
            ..mention("U1", "C1")
        };
        assert_eq!(chosen(&all, direct, "hi"), "nobody");
        let command = |name| Asker {
            way: Way::Command(name),
            ..mention("U1", "C9")
        };
        assert_eq!(chosen(&all, command("pay"), "5"), "money: 5");
        assert_eq!(chosen(&all, command("ask"), "5"), "nobody");
    }
}
