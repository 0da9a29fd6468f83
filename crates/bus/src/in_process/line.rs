//! A waiting line: first come, first served, with a place apart for what comes later.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Items for whoever asks next. Whoever waits also watches the clock for the items that rest: the line needs no
/// task of its own.
#[derive(Debug)]
pub(super) struct Line<T> {
    items: Mutex<Items<T>>,
    news: Notify,
}

#[derive(Debug)]
struct Items<T> {
    ready: VecDeque<T>,
    /// By when they are due; the number keeps those of one instant apart and in order.
    resting: BTreeMap<(Instant, u64), T>,
    rested: u64,
}

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self {
            items: Mutex::new(Items {
                ready: VecDeque::new(),
                resting: BTreeMap::new(),
                rested: 0,
            }),
            news: Notify::new(),
        }
    }

    /// Adds an item at the end.
    pub(super) fn push(&self, item: T) {
        self.lock().ready.push_back(item);
        self.news.notify_one();
    }

    /// Puts an item back to the front.
    pub(super) fn put_back(&self, item: T) {
        self.lock().ready.push_front(item);
        self.news.notify_one();
    }

    /// Adds an item at the end once `delay` has passed.
    pub(super) fn push_after(&self, delay: Duration, item: T) {
        let mut items = self.lock();
        let number = items.rested;
        items.rested += 1;
        items.resting.insert((Instant::now() + delay, number), item);
        drop(items);
        // All of them: whoever of them is served first leaves, and the others must know the time too.
        self.news.notify_waiters();
    }

    /// Adds an item at the end; when `capacity` are there already, the oldest makes room and is returned.
    pub(super) fn push_within(&self, capacity: usize, item: T) -> Option<T> {
        let mut items = self.lock();
        let mut oldest = None;
        if items.ready.len() + items.resting.len() >= capacity {
            oldest = items
                .ready
                .pop_front()
                .or_else(|| items.resting.pop_first().map(|(_, item)| item));
        }
        items.ready.push_back(item);
        drop(items);
        self.news.notify_one();
        oldest
    }

    /// Keeps only those items that wait or rest for which that holds.
    pub(super) fn retain(&self, is_kept: impl Fn(&T) -> bool) {
        let mut items = self.lock();
        items.ready.retain(|item| is_kept(item));
        items.resting.retain(|_, item| is_kept(item));
    }

    /// The next item, when there is one. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> T {
        loop {
            let mut news = pin!(self.news.notified());
            // In the list before looking, so that what comes between looking and waiting is not missed.
            news.as_mut().enable();
            let due = match self.lock().take() {
                Ok(item) => return item,
                Err(due) => due,
            };
            match due {
                None => news.await,
                Some(due) => tokio::select! {
                    biased;
                    () = news => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    /// A holder that panicked left whole items behind: each change of them is one call.
    fn lock(&self) -> MutexGuard<'_, Items<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Items<T> {
    /// The next item, or when the first of the resting ones is due.
    fn take(&mut self) -> Result<T, Option<Instant>> {
        if !self.resting.is_empty() {
            self.wake(Instant::now());
        }
        let due = self.resting.first_key_value().map(|((due, _), _)| *due);
        self.ready.pop_front().ok_or(due)
    }

    /// Moves what has rested long enough to the end.
    fn wake(&mut self, now: Instant) {
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > now {
                break;
            }
            self.ready.push_back(first.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn every_waiter_knows_when_a_resting_item_is_due() {
        let line = Line::new();
        let mut waiters = [Box::pin(line.next()), Box::pin(line.next())];
        for waiter in &mut waiters {
            assert!(waiter.now_or_never().is_none());
        }
        line.push_after(SECOND, 1);
        for waiter in &mut waiters {
            assert!(waiter.now_or_never().is_none());
        }
        let [leaver, stayer] = waiters;
        drop(leaver);
        assert_eq!(tokio::time::timeout(2 * SECOND, stayer).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_leaves_hands_its_call_on() {
        let line = Line::new();
        let mut leaver = Box::pin(line.next());
        assert!(leaver.as_mut().now_or_never().is_none());
        let mut stayer = Box::pin(line.next());
        assert!(stayer.as_mut().now_or_never().is_none());
        line.push(1);
        drop(leaver);
        assert_eq!(tokio::time::timeout(SECOND, stayer).await, Ok(1));
    }

    #[test]
    fn a_full_line_gives_up_the_oldest() {
        let line = Line::new();
        assert_eq!(line.push_within(2, 1), None);
        assert_eq!(line.push_within(2, 2), None);
        assert_eq!(line.push_within(2, 3), Some(1));
        assert_eq!(line.next().now_or_never(), Some(2));
        line.put_back(2);
        assert_eq!(line.next().now_or_never(), Some(2));
        assert_eq!(line.next().now_or_never(), Some(3));
    }
}
