//! The leases that this process holds, and their renewal: independent of what the executions are doing, so that a
//! slow tool costs no lease.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use domain::{AgentName, Epoch, ExecutionId, Seq, Time};
use store::{Renewal, Signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Clock;
use crate::shared::Shared;

/// Until when everything that this process holds is certainly its own. A process that was frozen, or whose clock was
/// set forth, finds that this moment is past: before it acts on the world, shows words to a watcher or claims more, it
/// renews, and so learns what it has lost.
pub(crate) struct Term {
    clock: Clock,
    /// In microseconds since 1970.
    until: AtomicI64,
    /// Told to every waiting run when the term moved on.
    moved: Notify,
    /// Asks for a renewal at once.
    wanted: Notify,
}

impl Term {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            until: AtomicI64::new(i64::MIN),
            moved: Notify::new(),
            wanted: Notify::new(),
        }
    }

    fn is_running(&self) -> bool {
        (self.clock)().timestamp_micros() < self.until.load(Ordering::Acquire)
    }

    fn extend(&self, until: Time) {
        self.until
            .store(until.timestamp_micros(), Ordering::Release);
        self.moved.notify_waiters();
    }
}

/// One lease, shared between the run that acts under it and the renewal.
pub(crate) struct Lease {
    id: ExecutionId,
    agent: AgentName,
    epoch: Epoch,
    term: Arc<Term>,
    lost: AtomicBool,
    news: AtomicBool,
    /// The wake-ups that are no news: the store tells of them again each time.
    wakes_told: AtomicU64,
    stopping: AtomicU8,
    committed: AtomicU32,
    changed: Notify,
}

/// How often it is asked what other processes did to what this one owns: no tool call starts a second after its
/// execution's end was asked for.
pub(crate) const LISTEN: Duration = Duration::from_millis(500);

const GO_ON: u8 = 0;
const AT_NEXT_COMMIT: u8 = 1;
const NOW: u8 = 2;

impl Lease {
    fn new(
        (id, agent): (ExecutionId, AgentName),
        epoch: Epoch,
        committed: u32,
        term: Arc<Term>,
    ) -> Self {
        Self {
            id,
            agent,
            epoch,
            term,
            lost: AtomicBool::new(false),
            news: AtomicBool::new(false),
            wakes_told: AtomicU64::new(0),
            stopping: AtomicU8::new(GO_ON),
            committed: AtomicU32::new(committed),
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

    /// Whether nobody else can have it.
    pub(crate) fn is_certain(&self) -> bool {
        // In this order: a loss is noted before the term is prolonged, so whoever sees the longer term sees the loss. Asked
        // the other way round, a renewal in between would make a lost lease look certain.
        self.term.is_running() && !self.is_lost()
    }

    /// Makes sure that nobody else can have it, by a renewal when time has passed unseen. `false` when there is a reason
    /// to look up instead.
    pub(crate) async fn make_certain(&self) -> bool {
        loop {
            let moved = self.term.moved.notified();
            if self.is_certain() {
                return true;
            }
            self.term.wanted.notify_one();
            tokio::select! {
                biased;
                () = self.interrupted() => return false,
                () = moved => {}
            }
        }
    }

    /// Goes on with `work` only while nobody else can have the execution: each time that it is to be polled, which is
    /// before each thing that it sends. A process that was frozen on the way, at whatever point, finds out before it
    /// acts. `None` when another has it.
    pub(crate) async fn under<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let polled = poll_fn(|context| match self.is_certain() {
                true => work.as_mut().poll(context).map(Some),
                false => Poll::Ready(None),
            });
            if let Some(output) = polled.await {
                return Some(output);
            }
            if !self.is_still_held().await {
                return None;
            }
        }
    }

    /// Waits until it is certain again, or lost.
    async fn is_still_held(&self) -> bool {
        loop {
            let (moved, changed) = (self.term.moved.notified(), self.changed.notified());
            if self.is_lost() || self.is_certain() {
                return !self.is_lost();
            }
            self.term.wanted.notify_one();
            tokio::select! {
                () = moved => {}
                () = changed => {}
            }
        }
    }

    /// Whether something came from outside since this was asked last.
    pub(crate) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    /// Whether something came from outside that nobody has asked for yet.
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// Notes how often the store says it was woken. Only what is new is news: a model call longer than a renewal would be
    /// interrupted for ever.
    pub(crate) fn hear_wakes(&self, wakes: u64) {
        if self.wakes_told.fetch_max(wakes, Ordering::AcqRel) < wakes {
            self.tell_news();
        }
    }

    /// Notes up to which wake-up everything was looked at.
    pub(crate) fn has_seen_wakes(&self, wakes: u64) {
        self.wakes_told.fetch_max(wakes, Ordering::AcqRel);
    }

    /// Whether to give the execution back; `idle` tells that nothing is under way.
    pub(crate) fn should_hand_back(&self, idle: bool) -> bool {
        match self.stopping.load(Ordering::Acquire) {
            GO_ON => false,
            AT_NEXT_COMMIT => idle,
            _ => true,
        }
    }

    /// Whether what is under way is to be dropped, because the time for a shutdown is over.
    pub(crate) fn is_time_up(&self) -> bool {
        self.stopping.load(Ordering::Acquire) == NOW
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

    /// Notes that another has it.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Notes that something came from outside.
    pub(crate) fn tell_news(&self) {
        self.news.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Drops what is under way, and gives the execution back as it is.
    pub(crate) fn stop_now(&self) {
        self.stop(NOW);
    }

    /// Never less than was asked before.
    fn stop(&self, how: u8) {
        self.stopping.fetch_max(how, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

/// All leases of this process.
pub(crate) struct Leases {
    /// Sorted, so that what is done with all of them is done in the same order everywhere.
    held: Mutex<BTreeMap<ExecutionId, Arc<Lease>>>,
    term: Arc<Term>,
    stopping: AtomicU8,
    released: Notify,
}

impl Leases {
    /// None yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            held: Mutex::default(),
            term: Arc::new(Term::new(clock)),
            stopping: AtomicU8::new(GO_ON),
            released: Notify::new(),
        }
    }

    /// Whether leases may be claimed that run until then at least. Not while those that are held may have run out: what
    /// this process still performs would be taken from itself. Then a renewal is asked for, and its end tells the
    /// dispatcher.
    pub(crate) fn may_claim(&self, until: Time) -> bool {
        if self.count() == 0 {
            self.term.extend(until);
        }
        let may = self.term.is_running();
        if !may {
            self.term.wanted.notify_one();
        }
        may
    }

    /// Notes a lease that was just taken.
    pub(crate) fn add(
        &self,
        id: ExecutionId,
        agent: &AgentName,
        epoch: Epoch,
        committed: u32,
    ) -> Arc<Lease> {
        let whose = (id, agent.clone());
        let lease = Arc::new(Lease::new(whose, epoch, committed, self.term.clone()));
        lease.stop(self.stopping.load(Ordering::Acquire));
        // Another had it in between and gave it back: the run that did not notice yet must not go on beside the new one.
        if let Some(earlier) = self.lock().insert(id, lease.clone()) {
            earlier.lose();
        }
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

    /// Asks the runs of an agent to give their executions back at their next commit; answers whom.
    pub(crate) fn stop_of(&self, agent: &AgentName) -> Vec<Arc<Lease>> {
        let held = self.lock();
        let own = held.values().filter(|lease| lease.agent == *agent);
        let own: Vec<_> = own.cloned().collect();
        own.iter().for_each(|lease| lease.stop(AT_NEXT_COMMIT));
        own
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecutionId, Arc<Lease>>> {
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

    /// Takes the answer to a renewal of `asked`.
    fn hear(&self, asked: &[(ExecutionId, Epoch)], signal: &Signal) {
        match signal {
            // The lease that was asked about: since then the execution may have been let go and claimed anew.
            Signal::Lost(id) => {
                let which: Vec<_> = asked.iter().filter(|(of, _)| of == id).copied().collect();
                self.lose_all(&which);
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
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LISTEN) => {}
        }
        let held = core.leases.snapshot();
        if held.is_empty() {
            continue;
        }
        match core.ports.store.woken(&core.settings.worker).await {
            Ok(signals) => signals
                .iter()
                .for_each(|signal| core.leases.hear(&held, signal)),
            Err(error) => tracing::debug!("news of leases can't be asked for: {error}"),
        }
    }
}

/// Renews at a third of the lease, or at once when somebody is not certain any more, until `stop`. When the store does
/// not answer for the length of a lease, everything held is considered lost: another may have it by then.
pub(crate) async fn renew(core: Arc<Shared>, stop: CancellationToken) {
    let mut renewed_at: Time = core.now();
    let mut pause = core.settings.lease / 3;
    let mut is_well = true;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // While the store does not answer, those who wait would ask without end.
            () = core.leases.term.wanted.notified(), if is_well => {}
            () = tokio::time::sleep(pause) => {}
        }
        let held = core.leases.snapshot();
        let now = core.now();
        if held.is_empty() {
            renewed_at = now;
            continue;
        }
        match renewal(&core, held.clone(), now).await {
            Ok(signals) => {
                renewed_at = now;
                is_well = true;
                pause = core.settings.lease / 3;
                // What is lost is known before anything goes on.
                for signal in &signals {
                    core.leases.hear(&held, signal);
                }
                let was_running = core.leases.term.is_running();
                core.leases.term.extend(now + core.settings.lease);
                if !was_running {
                    core.hint.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(held = held.len(), "leases could not be renewed: {error}");
                is_well = false;
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

async fn renewal(
    core: &Shared,
    leases: Vec<(ExecutionId, Epoch)>,
    now: Time,
) -> store::Result<Vec<Signal>> {
    let renewal = Renewal {
        worker: core.settings.worker.clone(),
        leases,
        now,
        until: now + core.settings.lease,
    };
    core.ports.store.renew(renewal).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_the_lease_that_was_asked_about() {
        let now: Time = "2026-11-24T09:30:00Z".parse().unwrap();
        let leases = Leases::new(Arc::new(move || now));
        let id = ExecutionId::from_uuid(uuid::Uuid::from_u128(1));
        let agent = "a".parse().unwrap();
        let first = leases.add(id, &agent, Epoch::new(1), 0);
        let asked = leases.snapshot();
        // Parked, woken and claimed anew while the renewal was under way.
        leases.remove(&first);
        let second = leases.add(id, &agent, Epoch::new(2), 3);
        leases.hear(&asked, &Signal::Lost(id));
        assert!(!second.is_lost());
        leases.hear(&leases.snapshot(), &Signal::Lost(id));
        assert!(second.is_lost());
    }

    #[test]
    fn who_claims_anew_ends_the_run_that_did_not_notice_its_loss() {
        let now: Time = "2026-11-24T09:30:00Z".parse().unwrap();
        let leases = Leases::new(Arc::new(move || now));
        let id = ExecutionId::from_uuid(uuid::Uuid::from_u128(1));
        let agent = "a".parse().unwrap();
        let first = leases.add(id, &agent, Epoch::new(1), 0);
        let second = leases.add(id, &agent, Epoch::new(3), 0);
        assert!(first.is_lost() && !second.is_lost());
    }

    /// One thread renews and hears of a loss; another asks all the while. However the two are interleaved, the asker is
    /// never told that what is lost is certain.
    #[test]
    fn a_loss_is_known_before_the_term_goes_on() {
        let now: Time = "2026-11-24T09:30:00Z".parse().unwrap();
        let id = ExecutionId::from_uuid(uuid::Uuid::from_u128(1));
        let agent = "a".parse().unwrap();
        for round in 0..100 {
            let leases = Leases::new(Arc::new(move || now));
            let lease = leases.add(id, &agent, Epoch::new(1), 0);
            let asks = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !leases.term.is_running() {
                        asks.store(true, Ordering::Release);
                        for _ in 0..64 {
                            assert!(!lease.is_certain(), "in round {round}");
                        }
                    }
                });
                while !asks.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                leases.hear(&leases.snapshot(), &Signal::Lost(id));
                leases.term.extend(now + chrono::TimeDelta::seconds(30));
            });
            assert!(!lease.is_certain());
        }
    }
}
