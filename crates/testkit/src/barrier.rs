//! Barriers: stop a call at a named point until the test says go on.
//!
//! A crash test places a hold, waits until the call stands at it, kills the product, and releases the
//! hold. Nothing is timed, so nothing is flaky.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

/// Says which calls are meant. All conditions must hold; an empty filter means every call.
///
/// As JSON: `{"contains": "invoice 7", "point": "after_effect", "turn": 0}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Filter {
    /// A text that occurs in the body of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contains: Option<String>,
    /// Attributes of the call that must have exactly these values.
    #[serde(flatten)]
    equal: BTreeMap<String, Value>,
}

impl Filter {
    /// Means every call.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Adds a text that must occur in the body of the call.
    #[must_use]
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.contains = Some(text.into());
        self
    }

    /// Adds an attribute that must have the given value. The stand-ins say which attributes they set.
    #[must_use]
    pub fn with(mut self, attribute: impl Into<String>, value: impl Into<Value>) -> Self {
        self.equal.insert(attribute.into(), value.into());
        self
    }

    /// Tells whether the call that `ticket` describes is meant.
    #[must_use]
    pub fn matches(&self, ticket: &Ticket) -> bool {
        self.contains
            .as_ref()
            .is_none_or(|text| ticket.text.contains(text))
            && self.equal.iter().all(|(key, value)| {
                ticket
                    .attributes
                    .get(key.as_str())
                    .is_some_and(|have| *have == plain(value))
            })
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Describes one call at one point, for a [`Filter`] to look at.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    attributes: BTreeMap<&'static str, String>,
    text: String,
}

impl Ticket {
    /// Makes a ticket for a call with this body.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            attributes: BTreeMap::new(),
            text: text.into(),
        }
    }

    /// Sets an attribute.
    #[must_use]
    pub fn with(mut self, attribute: &'static str, value: impl ToString) -> Self {
        self.attributes.insert(attribute, value.to_string());
        self
    }
}

/// The barriers of one stand-in.
#[derive(Clone, Debug, Default)]
pub struct Barrier(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    holds: Mutex<Vec<Arc<Placed>>>,
    placed: Mutex<u64>,
    held: watch::Sender<usize>,
}

#[derive(Debug)]
struct Placed {
    id: u64,
    filter: Filter,
    left: Mutex<Option<usize>>,
    held: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Barrier {
    /// Holds every call that `filter` means, or only the first `limit` of them, until the returned
    /// [`Hold`] is released or dropped.
    #[must_use = "a dropped hold lets everything pass"]
    pub fn hold(&self, filter: Filter, limit: Option<usize>) -> Hold {
        Hold {
            barrier: self.clone(),
            placed: self.place(filter, limit),
        }
    }

    /// Waits at the barrier if a hold asks for it, else returns at once.
    pub async fn pass(&self, ticket: &Ticket) {
        let Some(placed) = self.admit(ticket) else {
            return;
        };
        let _standing = Standing::at(&self.0.held, &placed.held);
        let mut open = placed.open.subscribe();
        // An error means that the hold is gone, which is a release too.
        open.wait_for(|open| *open).await.ok();
    }

    /// Returns how many calls stand at all holds together.
    #[must_use]
    pub fn held(&self) -> usize {
        *self.0.held.borrow()
    }

    /// Waits until at least `calls` calls stand at all holds together.
    pub async fn wait_held(&self, calls: usize) {
        reach(&self.0.held, calls).await;
    }

    pub(crate) fn place_unowned(&self, filter: Filter, limit: Option<usize>) -> u64 {
        self.place(filter, limit).id
    }

    /// Releases one hold, or all when `id` is none. Returns how many holds there were.
    pub(crate) fn release(&self, id: Option<u64>) -> usize {
        let mut holds = lock(&self.0.holds);
        let before = holds.len();
        holds.retain(|placed| {
            let stays = id.is_some_and(|id| id != placed.id);
            if !stays {
                placed.open.send_replace(true);
            }
            stays
        });
        before - holds.len()
    }

    fn place(&self, filter: Filter, limit: Option<usize>) -> Arc<Placed> {
        let mut id = lock(&self.0.placed);
        *id += 1;
        let placed = Arc::new(Placed {
            id: *id,
            filter,
            left: Mutex::new(limit),
            held: watch::Sender::default(),
            open: watch::Sender::default(),
        });
        lock(&self.0.holds).push(placed.clone());
        placed
    }

    /// Finds the first hold that means this call and still takes calls.
    fn admit(&self, ticket: &Ticket) -> Option<Arc<Placed>> {
        let holds = lock(&self.0.holds);
        let admits = |placed: &&Arc<Placed>| {
            if !placed.filter.matches(ticket) {
                return false;
            }
            match lock(&placed.left).as_mut() {
                None => true,
                Some(0) => false,
                Some(left) => {
                    *left -= 1;
                    true
                }
            }
        };
        holds.iter().find(admits).cloned()
    }
}

/// A hold that a test placed. Released when dropped, so that no stand-in hangs for ever.
#[derive(Debug)]
pub struct Hold {
    barrier: Barrier,
    placed: Arc<Placed>,
}

impl Hold {
    /// Waits until at least `calls` calls stand here.
    pub async fn wait(&self, calls: usize) {
        reach(&self.placed.held, calls).await;
    }

    /// Returns how many calls stand here now. A call whose client went away no longer counts.
    #[must_use]
    pub fn held(&self) -> usize {
        *self.placed.held.borrow()
    }

    /// Lets all calls go on, and later ones pass.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.barrier.release(Some(self.placed.id));
    }
}

/// Counts a call as standing at a hold for as long as it lives.
struct Standing<'a>([&'a watch::Sender<usize>; 2]);

impl<'a> Standing<'a> {
    fn at(all: &'a watch::Sender<usize>, one: &'a watch::Sender<usize>) -> Self {
        let counters = [all, one];
        counters
            .iter()
            .for_each(|counter| counter.send_modify(|held| *held += 1));
        Self(counters)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|counter| counter.send_modify(|held| *held -= 1));
    }
}

async fn reach(counter: &watch::Sender<usize>, calls: usize) {
    counter
        .subscribe()
        .wait_for(|held| *held >= calls)
        .await
        .expect("the sender is borrowed");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
