//! Who uses a connection, and since when nobody does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The use of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    users: usize,
    last_use: Instant,
    closed: bool,
}

/// Holds a connection open.
#[derive(Debug)]
pub(super) struct InUse(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                users: 0,
                last_use: Instant::now(),
                closed: false,
            }),
        })
    }

    /// Begins a use; `None` when the connection is being closed. Taken before anything is sent, so that a call is
    /// never lost to a server that is stopped because nobody seemed to need it.
    pub(super) fn begin(self: &Arc<Self>) -> Option<InUse> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.users += 1;
        Some(InUse(self.clone()))
    }

    /// Returns once nobody has used the connection for `idle`; no use begins after that.
    pub(super) async fn idle_for(&self, idle: Duration) {
        loop {
            let wake = {
                let mut state = self.lock();
                let since = if state.users > 0 {
                    Instant::now()
                } else {
                    state.last_use
                };
                if state.users == 0 && since.elapsed() >= idle {
                    state.closed = true;
                    return;
                }
                since + idle
            };
            tokio::time::sleep_until(wake).await;
        }
    }

    /// Ends all use: none begins after this.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.users -= 1;
        state.last_use = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_in_use_is_not_idle() {
        let activity = Activity::new();
        let in_use = activity.begin().unwrap();
        let idle = activity.idle_for(Duration::from_millis(1));
        tokio::pin!(idle);
        let early = tokio::time::timeout(Duration::from_millis(30), &mut idle).await;
        assert!(early.is_err());
        drop(in_use);
        idle.await;
        assert!(activity.begin().is_none());
    }
}
