//! Which agents an event starts.
//!
//! What an event costs depends on its words and on those who want it, not on how many agents there are ([`TopicTree`]).
//! Three rules:
//! - Patterns match as in an AMQP topic exchange ([`TopicPattern`]).
//! - A pattern that begins with a wildcard is not about AgentRunner's own topics ([`topics::is_own`]): an agent that
//!   wants everything would wake itself by ending. MQTT keeps its own topics from wildcards for the same reason
//!   (MQTT 5.0, section 4.7.2).
//! - What an agent said and that it is done are one happening. Who wants both is started by what it said.

use std::collections::BTreeSet;

use crate::event::topics;
use crate::topic::TopicTree;
use crate::{AgentName, Event, Topic, TopicPattern};

/// Who wants which topics.
#[derive(Debug, Clone, Default)]
pub struct Subscribers {
    /// By patterns whose first word is a plain one.
    by_name: TopicTree<AgentName>,
    /// By those that begin with a wildcard.
    by_wildcard: TopicTree<AgentName>,
}

impl Subscribers {
    /// Adds what an agent wants.
    pub fn add(&mut self, agent: &AgentName, pattern: &TopicPattern) {
        let tree = if pattern.as_str().starts_with(['*', '#']) {
            &mut self.by_wildcard
        } else {
            &mut self.by_name
        };
        tree.insert(pattern, agent.clone());
    }

    /// The agents that an event starts.
    pub fn of(&self, event: &Event) -> BTreeSet<&AgentName> {
        let mut wanting = self.matching(&event.topic);
        if event.topic.as_str() == topics::EXECUTION_COMPLETED
            && let Some(said) = said(event)
        {
            let told = self.matching(&said);
            wanting.retain(|agent| !told.contains(agent));
        }
        wanting
    }

    fn matching(&self, topic: &Topic) -> BTreeSet<&AgentName> {
        let mut wanting: BTreeSet<&AgentName> = self.by_name.find(topic).into_iter().collect();
        if !topics::is_own(topic) {
            wanting.extend(self.by_wildcard.find(topic));
        }
        wanting
    }
}

/// The topic of what an agent said with the end that an event tells of.
fn said(ended: &Event) -> Option<Topic> {
    let agent = ended.data.get("agent_name")?.as_str()?;
    topics::output(&agent.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(topic: &str) -> Event {
        Event {
            id: "e".parse().unwrap(),
            topic: topic.parse().unwrap(),
            source: "tests".to_owned(),
            time: "2026-11-24T09:30:00Z".parse().unwrap(),
            trace_id: "1".repeat(32).parse().unwrap(),
            hops: 0,
            data: json!({ "agent_name": "writer" }),
        }
    }

    fn subscribers(wanted: &[(&str, &str)]) -> Subscribers {
        let mut subscribers = Subscribers::default();
        for (agent, pattern) in wanted {
            subscribers.add(&agent.parse().unwrap(), &pattern.parse().unwrap());
        }
        subscribers
    }

    fn started<'a>(subscribers: &'a Subscribers, topic: &str) -> Vec<&'a str> {
        let event = event(topic);
        let started = subscribers.of(&event);
        started.into_iter().map(AgentName::as_str).collect()
    }

    #[test]
    fn whoever_wants_everything_is_not_woken_by_ends() {
        let all = subscribers(&[("all", "#"), ("one", "*.execution.completed")]);
        assert_eq!(started(&all, "orders.created"), ["all"]);
        assert_eq!(started(&all, "mine.execution.completed"), ["all", "one"]);
        for own in [
            "agent.execution.completed",
            "agent.output.writer",
            "autonomous.task.submitted",
            "config.changed.writer",
        ] {
            assert!(started(&all, own).is_empty(), "{own}");
        }
        let named = subscribers(&[("named", "agent.#"), ("narrow", "agent.output.*")]);
        let said = started(&named, "agent.output.writer");
        assert_eq!(said, ["named", "narrow"]);
    }

    #[test]
    fn an_end_and_what_was_said_with_it_start_an_agent_once() {
        let both = subscribers(&[("both", "agent.#"), ("ends", "agent.execution.*")]);
        assert_eq!(started(&both, "agent.output.writer"), ["both"]);
        assert_eq!(started(&both, "agent.execution.completed"), ["ends"]);
        // Nothing is said with a failure.
        assert_eq!(started(&both, "agent.execution.failed"), ["both", "ends"]);
    }

    proptest! {
        #[test]
        fn they_are_those_whose_patterns_match(
            wanted in prop::collection::vec(
                (0..9_u8, prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 1..6)),
                0..12,
            ),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..6),
        ) {
            let topic = topic.join(".");
            let wanted: Vec<(String, String)> = wanted
                .into_iter()
                .map(|(agent, words)| (format!("agent-{agent}"), words.join(".")))
                .collect();
            let mut expected: Vec<&str> = wanted
                .iter()
                .filter(|(_, pattern)| {
                    let pattern: TopicPattern = pattern.parse().unwrap();
                    pattern.matches(&topic.parse().unwrap())
                })
                .map(|(agent, _)| agent.as_str())
                .collect();
            expected.sort_unstable();
            expected.dedup();
            let given: Vec<(&str, &str)> =
                wanted.iter().map(|(agent, pattern)| (agent.as_str(), pattern.as_str())).collect();
            let given = subscribers(&given);
            prop_assert_eq!(started(&given, &topic), expected);
        }
    }
}
