//! Which queues want a topic.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use domain::topic::TopicTree;
use domain::{Topic, TopicPattern};

use super::queue::Queue;

/// The queues by their patterns.
#[derive(Debug, Default)]
pub(super) struct Routes {
    tree: TopicTree<Named>,
    /// What each queue wants, by its name: what has to be taken out when it wants something else.
    wanted: HashMap<String, Vec<TopicPattern>>,
}

/// A queue, known by its name and not by its address, so that the order is the same in each run.
#[derive(Debug, Clone)]
struct Named(Arc<Queue>);

impl Routes {
    /// Makes `patterns` all that a queue wants.
    pub(super) fn set(&mut self, queue: &Arc<Queue>, mut patterns: Vec<TopicPattern>) {
        patterns.sort_unstable();
        patterns.dedup();
        let before = self.wanted.get(queue.name()).map_or(&[][..], Vec::as_slice);
        if *before == *patterns {
            return;
        }
        let queue = Named(Arc::clone(queue));
        for pattern in before {
            self.tree.remove(pattern, &queue);
        }
        for pattern in &patterns {
            self.tree.insert(pattern, queue.clone());
        }
        self.wanted.insert(queue.0.name().to_owned(), patterns);
    }

    /// Takes a queue out.
    pub(super) fn forget(&mut self, queue: &Arc<Queue>) {
        self.set(queue, Vec::new());
        self.wanted.remove(queue.name());
    }

    /// The queues that want `topic`, each once.
    pub(super) fn find(&self, topic: &Topic) -> Vec<Arc<Queue>> {
        let found = self.tree.find(topic).into_iter();
        found.map(|Named(queue)| Arc::clone(queue)).collect()
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name().cmp(other.0.name())
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Named {}

#[cfg(test)]
mod tests {
    use super::super::dead_letters::DeadLetters;
    use super::*;

    #[test]
    fn a_queue_that_changes_its_mind_gets_what_it_wants_now() {
        let dead_letters = Arc::new(DeadLetters::new(1));
        let queue = Arc::new(Queue::new("q".to_owned(), 1, dead_letters));
        let mut routes = Routes::default();
        let found = |routes: &Routes, topic: &str| routes.find(&topic.parse().unwrap()).len();
        routes.set(&queue, vec!["a.*".parse().unwrap(), "#".parse().unwrap()]);
        assert_eq!(found(&routes, "a.b"), 1, "once, by whichever pattern");
        routes.set(&queue, vec!["b".parse().unwrap()]);
        assert_eq!((found(&routes, "a.b"), found(&routes, "b")), (0, 1));
        routes.set(&queue, Vec::new());
        assert!(routes.tree.is_empty());
    }
}
