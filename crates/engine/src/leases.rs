//! The leases that this process holds, and their renewal: independent of what the executions are doing, so that a
//! slow tool costs no lease.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Epoch, ExecutionId, Seq, Time};
use store::{Renewal, Signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// One lease, shared between the run that acts under it and the renewal.
pub(crate) struct Lease {
    id: ExecutionId,
    epoch: Epoch,
    lost: AtomicBool,
    news: AtomicBool,
    stopping: AtomicU8,
    committed: AtomicU32,
    /// Up to which wake-up it was told of news; the same one is told again and again.
    wakes: AtomicU64,
    changed: Notify,
}

/// How often it is asked what other processes did to what this one owns: no tool call starts a second after its
/// execution's end was asked for.
const LISTEN: Duration = Duration::from_millis(500);

const GO_ON: u8 = 0;
const AT_NEXT_COMMIT: u8 = 1;
const NOW: u8 = 2;

impl Lease {
    fn new(id: ExecutionId, epoch: Epoch, committed: u32) -> Self {
        Self {
            id,
            epoch,
            lost: AtomicBool::new(false),
            news: AtomicBool::new(false),
            stopping: AtomicU8::new(GO_ON),
            committed: AtomicU32::new(committed),
            wakes: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// The epoch to write with.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether another owns the execution now.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether something came from outside since this was asked last.
    pub(crate) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    /// Whether to give the execution back; `idle` tells that nothing is under way.
    pub(crate) fn should_hand_back(&self, idle: bool) -> bool {
        match self.stopping.load(Ordering::Acquire) {
            GO_ON => false,
            AT_NEXT_COMMIT => idle,
            _ => true,
        }
    }

    /// Notes the last durable step.
    pub(crate) fn committed(&self, seq: Seq) {
        self.committed.store(seq.get(), Ordering::Release);
    }

    /// The last durable step, as far as this process knows.
    pub(crate) fn last_committed(&self) -> u32 {
        self.committed.load(Ordering::Acquire)
    }

    /// Waits for a reason to look up from what is under way.
    pub(crate) async fn interrupted(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_lost()
                || self.news.load(Ordering::Acquire)
                || self.stopping.load(Ordering::Acquire) == NOW
            {
                return;
            }
            changed.await;
        }
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn tell_news(&self) {
        self.news.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn hear_wakes(&self, wakes: u64) {
        if self.wakes.fetch_max(wakes, Ordering::AcqRel) < wakes {
            self.tell_news();
        }
    }

    fn stop(&self, how: u8) {
        self.stopping.store(how, Ordering::Release);
        self.changed.notify_waiters();
    }
}

/// All leases of this process.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<ExecutionId, Arc<Lease>>>,
    stopping: AtomicU8,
    released: Notify,
}

impl Leases {
    /// Notes a lease that was just taken.
    pub(crate) fn add(&self, id: ExecutionId, epoch: Epoch, committed: u32) -> Arc<Lease> {
        let lease = Arc::new(Lease::new(id, epoch, committed));
        lease.stop(self.stopping.load(Ordering::Acquire));
        self.lock().insert(id, lease.clone());
        lease
    }

    /// Forgets one.
    pub(crate) fn remove(&self, lease: &Lease) {
        let mut held = self.lock();
        if held
            .get(&lease.id)
            .is_some_and(|current| current.epoch == lease.epoch)
        {
            held.remove(&lease.id);
        }
        drop(held);
        self.released.notify_waiters();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells the run of an execution, if it is here, that something came for it.
    pub(crate) fn tell_news(&self, id: ExecutionId) {
        if let Some(lease) = self.lock().get(&id) {
            lease.tell_news();
        }
    }

    /// Asks every run to give its execution back: at its next commit, or now.
    pub(crate) fn stop_all(&self, now: bool) {
        let how = if now { NOW } else { AT_NEXT_COMMIT };
        self.stopping.store(how, Ordering::Release);
        for lease in self.lock().values() {
            lease.stop(how);
        }
    }

    /// Waits until there is none.
    pub(crate) async fn none_left(&self) {
        loop {
            let released = self.released.notified();
            if self.count() == 0 {
                return;
            }
            released.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Arc<Lease>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Vec<(ExecutionId, Epoch)> {
        self.lock()
            .values()
            .map(|lease| (lease.id, lease.epoch))
            .collect()
    }

    fn lose_all(&self, which: &[(ExecutionId, Epoch)]) {
        let held = self.lock();
        for (id, epoch) in which {
            if let Some(lease) = held.get(id).filter(|lease| lease.epoch == *epoch) {
                lease.lose();
            }
        }
    }

    fn hear(&self, signal: &Signal) {
        match signal {
            Signal::Lost(id) => {
                if let Some(lease) = self.lock().get(id) {
                    lease.lose();
                }
            }
            Signal::Woken { id, wakes } => {
                if let Some(lease) = self.lock().get(id) {
                    lease.hear_wakes(*wakes);
                }
            }
        }
    }
}

/// Listens for what comes to leases of this process from others - a cancellation, an answer - until `stop`. What this
/// misses is heard at the next renewal.
pub(crate) async fn hear_others(core: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LISTEN) => {}
            () = stop.cancelled() => return,
        }
        if core.leases.count() == 0 {
            continue;
        }
        match core.ports.store.woken(&core.settings.worker).await {
            Ok(signals) => signals.iter().for_each(|signal| core.leases.hear(signal)),
            Err(error) => tracing::debug!("news of leases can't be asked for: {error}"),
        }
    }
}

/// Renews at a third of the lease until `stop`. When the store does not answer for the length of a lease, everything
/// held is considered lost: another may have it by then.
pub(crate) async fn renew(core: Arc<Shared>, stop: CancellationToken) {
    let mut renewed_at: Time = core.now();
    let mut pause = core.settings.lease / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let held = core.leases.snapshot();
        let now = core.now();
        if held.is_empty() {
            renewed_at = now;
            continue;
        }
        let renewal = Renewal {
            worker: core.settings.worker.clone(),
            leases: held.clone(),
            now,
            until: now + core.settings.lease,
        };
        match core.ports.store.renew(renewal).await {
            Ok(signals) => {
                renewed_at = now;
                pause = core.settings.lease / 3;
                signals.iter().for_each(|signal| core.leases.hear(signal));
            }
            Err(error) => {
                tracing::warn!(held = held.len(), "leases could not be renewed: {error}");
                pause = Duration::from_secs(1).min(core.settings.lease / 3);
                if now - renewed_at
                    > chrono::Duration::from_std(core.settings.lease).unwrap_or_default()
                {
                    core.leases.lose_all(&held);
                }
            }
        }
    }
}
