//! Which agents an event starts.
//!
//! The patterns of all agents lie in one tree of words, so that what an event costs depends on its words and on those
//! who want it, not on how many agents there are. Three rules:
//! - Patterns match as in an AMQP topic exchange ([`TopicPattern`]).
//! - A pattern that begins with a wildcard is not about AgentRunner's own topics ([`topics::is_own`]): an agent that
//!   wants everything would wake itself by ending. MQTT keeps its own topics from wildcards for the same reason
//!   (MQTT 5.0, section 4.7.2).
//! - What an agent said and that it is done are one happening. Who wants both is started by what it said.

use std::collections::{BTreeSet, HashMap};

use crate::event::topics;
use crate::{AgentName, Event, Topic, TopicPattern};

/// Who wants which topics.
#[derive(Debug, Clone)]
pub struct Subscribers {
    /// The root is the first.
    nodes: Vec<Node>,
}

/// Where a pattern is after some of its words.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Where plain words lead.
    words: HashMap<String, usize>,
    /// Where `*` leads.
    one: Option<usize>,
    /// Where `#` leads.
    any: Option<usize>,
    /// Whether `#` led here: more words may come, and it is here still.
    is_any: bool,
    /// Whose patterns end here.
    wanted_by: BTreeSet<AgentName>,
}

impl Default for Subscribers {
    /// Nobody wants anything.
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Subscribers {
    /// Adds what an agent wants.
    pub fn add(&mut self, agent: &AgentName, pattern: &TopicPattern) {
        let mut at = 0;
        for word in pattern.as_str().split('.') {
            at = self.step(at, word);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.wanted_by.insert(agent.clone());
        }
    }

    /// The agents that an event starts.
    pub fn of<'a>(&'a self, event: &Event) -> BTreeSet<&'a AgentName> {
        let mut wanting = self.matching(&event.topic);
        if event.topic.as_str() == topics::EXECUTION_COMPLETED
            && let Some(said) = said(event)
        {
            let told = self.matching(&said);
            wanting.retain(|agent| !told.contains(agent));
        }
        wanting
    }

    fn matching<'a>(&'a self, topic: &Topic) -> BTreeSet<&'a AgentName> {
        let mut at = BTreeSet::new();
        if topics::is_own(topic) {
            at.insert(0);
        } else {
            self.enter(&mut at, 0);
        }
        for (index, word) in topic.as_str().split('.').enumerate() {
            let by_wildcards = index > 0 || !topics::is_own(topic);
            let mut next = BTreeSet::new();
            for node in at.iter().filter_map(|index| self.nodes.get(*index)) {
                let one = node.one.filter(|_| by_wildcards);
                for reached in node.words.get(word).copied().into_iter().chain(one) {
                    self.enter(&mut next, reached);
                }
            }
            let staying = at.iter().filter(|index| self.is_any(**index));
            next.extend(staying);
            at = next;
        }
        let ends = at.iter().filter_map(|index| self.nodes.get(*index));
        ends.flat_map(|node| &node.wanted_by).collect()
    }

    /// Arrives at a node, and at those that a `#` for no word leads to.
    fn enter(&self, at: &mut BTreeSet<usize>, mut node: usize) {
        while at.insert(node) {
            match self.nodes.get(node).and_then(|node| node.any) {
                Some(next) => node = next,
                None => return,
            }
        }
    }

    fn is_any(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.is_any)
    }

    /// Where a word of a pattern leads; made when it is not there.
    fn step(&mut self, at: usize, word: &str) -> usize {
        let new = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else {
            return at;
        };
        let next = match word {
            "*" => *node.one.get_or_insert(new),
            "#" => *node.any.get_or_insert(new),
            _ => *node.words.entry(word.to_owned()).or_insert(new),
        };
        if next == new {
            self.nodes.push(Node {
                is_any: word == "#",
                ..Node::default()
            });
        }
        next
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
