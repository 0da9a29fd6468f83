//! What the scheduler and the rest of its process tell each other, so that each goes at the right time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// The longest that others make way for the scheduler, at a time.
const LONGEST_WAY: Duration = Duration::from_millis(250);

/// Who goes when.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Told when a schedule was changed here, or a run ended that another may wait for.
    pub(crate) look: Notify,
    runs_wait: AtomicBool,
    /// Whether much is due at once.
    is_busy: watch::Sender<bool>,
}

impl Pace {
    /// A run of a schedule has ended in this process: what waits for it need not wait for the next look.
    pub(crate) fn run_ended(&self) {
        if self.runs_wait.load(Ordering::Relaxed) {
            self.look.notify_one();
        }
    }

    /// Notes whether runs wait for others to end.
    pub(super) fn note_waiting(&self, runs_wait: bool) {
        self.runs_wait.store(runs_wait, Ordering::Relaxed);
    }

    /// Asks others to make way until what this answers is dropped.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.is_busy.send_replace(true);
        Hurry(self)
    }

    /// Lets the scheduler put on disk what is due before the world is told of what it has: but not for long.
    pub(crate) async fn make_way(&self) {
        if !*self.is_busy.borrow() {
            return;
        }
        let mut is_busy = self.is_busy.subscribe();
        let over = is_busy.wait_for(|is_busy| !is_busy);
        tokio::time::timeout(LONGEST_WAY, over).await.ok();
    }
}

/// Much is due, and on its way to the disk.
pub(super) struct Hurry<'a>(&'a Pace);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.is_busy.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_make_way_and_not_for_ever() {
        let pace = Pace::default();
        assert!(pace.make_way().now_or_never().is_some());
        let hurry = pace.hurry();
        let began = Instant::now();
        pace.make_way().await;
        assert_eq!(began.elapsed(), LONGEST_WAY);
        let mut way = Box::pin(pace.make_way());
        assert!(way.as_mut().now_or_never().is_none());
        drop(hurry);
        way.await;
        assert_eq!(began.elapsed(), LONGEST_WAY, "at once");
    }

    #[test]
    fn an_end_calls_for_a_look_where_a_run_waits() {
        let pace = Pace::default();
        pace.run_ended();
        assert!(pace.look.notified().now_or_never().is_none());
        pace.note_waiting(true);
        pace.run_ended();
        assert!(pace.look.notified().now_or_never().is_some());
    }
}
