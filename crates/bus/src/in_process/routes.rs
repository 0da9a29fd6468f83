//! Which queues want a topic.
//!
//! The patterns of all queues are one tree of words, walked by the words of a topic: the cost depends on the length
//! of the topic and on the wildcards met, not on how many queues there are.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use domain::{Topic, TopicPattern};

use super::queue::Queue;

/// The queues by their patterns.
#[derive(Debug, Default)]
pub(super) struct Routes {
    root: Node,
    /// What each queue wants, by its name: what has to be taken out when it wants something else.
    wanted: HashMap<String, Vec<TopicPattern>>,
}

/// A place in the tree: the patterns that begin with the words on the way here.
#[derive(Debug, Default)]
struct Node {
    /// The queues whose pattern ends here.
    queues: Vec<Arc<Queue>>,
    words: HashMap<Box<str>, Node>,
    /// After `*`.
    any: Option<Box<Node>>,
    /// After `#`.
    many: Option<Box<Node>>,
}

impl Routes {
    /// Makes `patterns` all that a queue wants.
    pub(super) fn set(&mut self, queue: &Arc<Queue>, mut patterns: Vec<TopicPattern>) {
        patterns.sort_unstable();
        patterns.dedup();
        let before = self.wanted.get(queue.name()).map_or(&[][..], Vec::as_slice);
        if *before == *patterns {
            return;
        }
        for pattern in before {
            self.root.remove(&mut pattern.as_str().split('.'), queue);
        }
        for pattern in &patterns {
            self.root.insert(&mut pattern.as_str().split('.'), queue);
        }
        self.wanted.insert(queue.name().to_owned(), patterns);
    }

    /// The queues that want `topic`, each once.
    pub(super) fn find(&self, topic: &Topic) -> Vec<Arc<Queue>> {
        let mut places = Vec::new();
        self.root.enter(&mut places);
        for word in topic.as_str().split('.') {
            places = step(&places, word);
        }
        let mut found: Vec<_> = places
            .iter()
            .flat_map(|place| place.node.queues.iter().cloned())
            .collect();
        if found.len() > 1 {
            // By name and not by address, so that the order is the same in each run.
            found.sort_unstable_by(|a, b| a.name().cmp(b.name()));
            found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        }
        found
    }
}

/// A place that the words so far lead to.
struct Place<'a> {
    node: &'a Node,
    /// Whether it was reached by `#`, which takes further words without leaving.
    many: bool,
}

impl Place<'_> {
    fn key(&self) -> usize {
        ptr::from_ref(self.node).addr()
    }
}

/// The places that one more word leads to, each once: without that, a pattern full of `#` would multiply them.
fn step<'a>(places: &[Place<'a>], word: &str) -> Vec<Place<'a>> {
    let mut next = Vec::with_capacity(places.len());
    for place in places {
        if place.many {
            place.node.stay(&mut next);
        }
        if let Some(node) = place.node.words.get(word) {
            node.enter(&mut next);
        }
        if let Some(node) = &place.node.any {
            node.enter(&mut next);
        }
    }
    if next.len() > 1 {
        next.sort_unstable_by_key(Place::key);
        next.dedup_by_key(|place| place.key());
    }
    next
}

impl Node {
    /// Reaches this place by a word. `#` may stand for no word, so what follows it is reached as well.
    fn enter<'a>(&'a self, places: &mut Vec<Place<'a>>) {
        places.push(Place {
            node: self,
            many: false,
        });
        if let Some(many) = &self.many {
            many.stay(places);
        }
    }

    /// Reaches this place by `#`.
    fn stay<'a>(&'a self, places: &mut Vec<Place<'a>>) {
        places.push(Place {
            node: self,
            many: true,
        });
        if let Some(many) = &self.many {
            many.stay(places);
        }
    }

    fn insert<'w>(&mut self, words: &mut impl Iterator<Item = &'w str>, queue: &Arc<Queue>) {
        match words.next() {
            None => self.queues.push(Arc::clone(queue)),
            Some("*") => self.any.get_or_insert_default().insert(words, queue),
            Some("#") => self.many.get_or_insert_default().insert(words, queue),
            Some(word) => self
                .words
                .entry(word.into())
                .or_default()
                .insert(words, queue),
        }
    }

    /// Takes a pattern out, and the places that only it needed.
    fn remove<'w>(&mut self, words: &mut impl Iterator<Item = &'w str>, queue: &Arc<Queue>) {
        fn prune<'w>(
            child: &mut Option<Box<Node>>,
            words: &mut impl Iterator<Item = &'w str>,
            queue: &Arc<Queue>,
        ) {
            if let Some(node) = child {
                node.remove(words, queue);
                if node.is_bare() {
                    *child = None;
                }
            }
        }
        match words.next() {
            None => self.queues.retain(|other| !Arc::ptr_eq(other, queue)),
            Some("*") => prune(&mut self.any, words, queue),
            Some("#") => prune(&mut self.many, words, queue),
            Some(word) => {
                if let Some(node) = self.words.get_mut(word) {
                    node.remove(words, queue);
                    if node.is_bare() {
                        self.words.remove(word);
                    }
                }
            }
        }
    }

    fn is_bare(&self) -> bool {
        self.queues.is_empty() && self.words.is_empty() && self.any.is_none() && self.many.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dead_letters::DeadLetters;
    use super::*;

    fn queue(name: usize) -> Arc<Queue> {
        let dead_letters = Arc::new(DeadLetters::new(1));
        Arc::new(Queue::new(name.to_string(), 1, dead_letters))
    }

    fn words(from: &'static [&'static str], max: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(from), 1..max).prop_map(|words| words.join("."))
    }

    proptest! {
        /// `TopicPattern::matches` is the rule; the tree must find the same queues, also after changes of mind.
        #[test]
        fn the_tree_agrees_with_matching_one_by_one(
            wishes in prop::collection::vec(
                (0..4_usize, prop::collection::vec(words(&["a", "b", "*", "#"], 5), 0..3)),
                0..12,
            ),
            topics in prop::collection::vec(words(&["a", "b", "c"], 6), 1..8),
        ) {
            let queues: Vec<_> = (0..4).map(queue).collect();
            let mut wanted = vec![Vec::new(); 4];
            let mut routes = Routes::default();
            for (number, patterns) in wishes {
                let patterns: Vec<TopicPattern> =
                    patterns.iter().map(|text| text.parse().unwrap()).collect();
                routes.set(&queues[number], patterns.clone());
                wanted[number] = patterns;
            }
            for topic in topics {
                let topic: Topic = topic.parse().unwrap();
                let mut found: Vec<_> =
                    routes.find(&topic).iter().map(|queue| queue.name().to_owned()).collect();
                found.sort_unstable();
                let expected: Vec<_> = (0..4)
                    .filter(|&number| wanted[number].iter().any(|pattern| pattern.matches(&topic)))
                    .map(|number| number.to_string())
                    .collect();
                prop_assert_eq!(found, expected);
            }
            for queue in &queues {
                routes.set(queue, Vec::new());
            }
            prop_assert!(routes.root.is_bare(), "nothing is left of patterns that nobody wants");
        }
    }

    #[test]
    fn a_pattern_of_many_hashes_does_not_multiply_the_work() {
        let mut routes = Routes::default();
        let hostile = vec!["#"; 128].join(".").parse().unwrap();
        let queue = queue(1);
        routes.set(&queue, vec![hostile]);
        let topic: Topic = vec!["a"; 128].join(".").parse().unwrap();
        assert_eq!(routes.find(&topic).len(), 1);
    }
}
