//! Who wants a topic, found without asking each pattern.
//!
//! The patterns of all are one tree of words, walked by the words of a topic: the cost depends on the length of the topic
//! and on the wildcards met, not on how many there are.

use std::collections::HashMap;
use std::ptr;

use super::{Topic, TopicPattern};

/// Patterns, each with those who want what it matches.
#[derive(Debug, Clone)]
pub struct TopicTree<T> {
    root: Node<T>,
}

/// A place in the tree: the patterns that begin with the words on the way here.
#[derive(Debug, Clone)]
struct Node<T> {
    /// Whose pattern ends here.
    ends: Vec<T>,
    words: HashMap<Box<str>, Node<T>>,
    /// After `*`.
    any: Option<Box<Node<T>>>,
    /// After `#`.
    many: Option<Box<Node<T>>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            ends: Vec::new(),
            words: HashMap::new(),
            any: None,
            many: None,
        }
    }
}

impl<T> Default for TopicTree<T> {
    /// Nobody wants anything.
    fn default() -> Self {
        Self {
            root: Node::default(),
        }
    }
}

impl<T: Ord> TopicTree<T> {
    /// Adds what somebody wants. Twice is once.
    pub fn insert(&mut self, pattern: &TopicPattern, who: T) {
        self.root.insert(&mut pattern.as_str().split('.'), who);
    }

    /// Takes it out, and the places that only it needed.
    pub fn remove(&mut self, pattern: &TopicPattern, who: &T) {
        self.root.remove(&mut pattern.as_str().split('.'), who);
    }

    /// Those who want a topic, each once, in order.
    pub fn find(&self, topic: &Topic) -> Vec<&T> {
        let mut places = Vec::new();
        self.root.enter(&mut places);
        for word in topic.as_str().split('.') {
            places = step(&places, word);
        }
        let mut found: Vec<&T> = places.iter().flat_map(|place| &place.node.ends).collect();
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.root.is_bare()
    }
}

/// A place that the words so far lead to.
struct Place<'a, T> {
    node: &'a Node<T>,
    /// Whether it was reached by `#`, which takes further words without leaving.
    many: bool,
}

impl<T> Place<'_, T> {
    fn key(&self) -> usize {
        ptr::from_ref(self.node).addr()
    }
}

/// The places that one more word leads to, each once: without that, a pattern full of `#` would multiply them.
fn step<'a, T>(places: &[Place<'a, T>], word: &str) -> Vec<Place<'a, T>> {
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

impl<T> Node<T> {
    /// Reaches this place by a word. `#` may stand for no word, so what follows it is reached as well.
    fn enter<'a>(&'a self, places: &mut Vec<Place<'a, T>>) {
        places.push(Place {
            node: self,
            many: false,
        });
        if let Some(many) = &self.many {
            many.stay(places);
        }
    }

    /// Reaches this place by `#`.
    fn stay<'a>(&'a self, places: &mut Vec<Place<'a, T>>) {
        places.push(Place {
            node: self,
            many: true,
        });
        if let Some(many) = &self.many {
            many.stay(places);
        }
    }

    fn is_bare(&self) -> bool {
        self.ends.is_empty() && self.words.is_empty() && self.any.is_none() && self.many.is_none()
    }
}

impl<T: PartialEq> Node<T> {
    fn insert<'w>(&mut self, words: &mut impl Iterator<Item = &'w str>, who: T) {
        match words.next() {
            None if self.ends.contains(&who) => {}
            None => self.ends.push(who),
            Some("*") => self.any.get_or_insert_default().insert(words, who),
            Some("#") => self.many.get_or_insert_default().insert(words, who),
            Some(word) => self
                .words
                .entry(word.into())
                .or_default()
                .insert(words, who),
        }
    }

    fn remove<'w>(&mut self, words: &mut impl Iterator<Item = &'w str>, who: &T) {
        match words.next() {
            None => self.ends.retain(|other| other != who),
            Some("*") => prune(&mut self.any, words, who),
            Some("#") => prune(&mut self.many, words, who),
            Some(word) => {
                if let Some(node) = self.words.get_mut(word) {
                    node.remove(words, who);
                    if node.is_bare() {
                        self.words.remove(word);
                    }
                }
            }
        }
    }
}

fn prune<'w, T: PartialEq>(
    child: &mut Option<Box<Node<T>>>,
    words: &mut impl Iterator<Item = &'w str>,
    who: &T,
) {
    if let Some(node) = child {
        node.remove(words, who);
        if node.is_bare() {
            *child = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(from: &'static [&'static str], max: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(from), 1..max).prop_map(|words| words.join("."))
    }

    proptest! {
        /// `TopicPattern::matches` is the rule; the tree must find the same, also after changes of mind.
        #[test]
        fn the_tree_agrees_with_matching_one_by_one(
            wishes in prop::collection::vec((0..4_u8, words(&["a", "b", "*", "#"], 6), any::<bool>()), 0..24),
            topics in prop::collection::vec(words(&["a", "b", "c"], 6), 1..8),
        ) {
            let mut tree = TopicTree::default();
            let mut wanted: Vec<(u8, TopicPattern)> = Vec::new();
            for (who, pattern, stays) in wishes {
                let pattern: TopicPattern = pattern.parse().unwrap();
                tree.insert(&pattern, who);
                wanted.push((who, pattern));
                if !stays {
                    let (who, pattern) = wanted[0].clone();
                    tree.remove(&pattern, &who);
                    wanted.retain(|other| *other != (who, pattern.clone()));
                }
            }
            for topic in topics {
                let topic: Topic = topic.parse().unwrap();
                let mut expected: Vec<&u8> = wanted
                    .iter()
                    .filter(|(_, pattern)| pattern.matches(&topic))
                    .map(|(who, _)| who)
                    .collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(tree.find(&topic), expected);
            }
            for (who, pattern) in &wanted {
                tree.remove(pattern, who);
            }
            prop_assert!(tree.is_empty(), "nothing is left of patterns that nobody wants");
        }
    }

    #[test]
    fn a_pattern_of_many_hashes_does_not_multiply_the_work() {
        let mut tree = TopicTree::default();
        let hostile: TopicPattern = vec!["#"; 128].join(".").parse().unwrap();
        tree.insert(&hostile, 1);
        let topic: Topic = vec!["a"; 128].join(".").parse().unwrap();
        assert_eq!(tree.find(&topic), [&1]);
    }
}
