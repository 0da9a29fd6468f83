//! What the parts of the engine share.

use std::sync::Arc;

use domain::{Restored, Status, Time, TimeDelta};
use store::counters::Counters;
use store::{Append, Appended};
use tokio::sync::{Notify, OnceCell};

use crate::definitions::Definitions;
use crate::ended::Subject;
use crate::feed::Feed;
use crate::fleet::Presence;
use crate::leases::Leases;
use crate::live::Hub;
use crate::pins::Pins;
use crate::scheduler::Pace;
use crate::switches::Look;
use crate::traces::Telling;
use crate::{Agents, NewId, OnRefusal, Ports, Settings};

/// Counts writes that came after the lease was lost: each was refused.
pub(crate) const LATE_WRITES: &str = "agentrunner_late_writes_refused_total";
/// Counts executions that were taken over from a process that was lost.
pub(crate) const TAKEN_OVER: &str = "agentrunner_leases_taken_over_total";
/// Counts calls that a shutdown had to drop because its time was up, by kind: `model` and `tool`.
pub(crate) const DROPPED_CALLS: &str = "agentrunner_calls_dropped_total";

/// Shared by the handle, the dispatcher and the runs.
pub(crate) struct Shared {
    pub(crate) ports: Ports,
    pub(crate) agents: Agents,
    pub(crate) settings: Settings,
    pub(crate) counters: Arc<dyn Counters>,
    pub(crate) on_refusal: OnRefusal,
    /// Where what ended waits for its trace to be told.
    pub(crate) telling: Option<Telling>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) leases: Leases,
    pub(crate) definitions: Definitions,
    pub(crate) schemas: tools::Schemas,
    pub(crate) pins: Pins,
    pub(crate) presence: Presence,
    /// Told when there may be something to claim.
    pub(crate) hint: Notify,
    pub(crate) pace: Pace,
    pub(crate) look_at_switches: Look,
    pub(crate) new_id: NewId,
    /// Whether the database came from a backup, once that was read. It does not change while a process uses it.
    pub(crate) restored: OnceCell<Option<Restored>>,
}

impl Shared {
    /// The time.
    pub(crate) fn now(&self) -> Time {
        (self.ports.clock)()
    }

    /// Reads whether the database came from a backup, if that is not known yet.
    ///
    /// # Errors
    /// The store can't be read.
    pub(crate) async fn learn_restored(&self) -> store::Result<()> {
        let read = || self.ports.store.restored();
        self.restored.get_or_try_init(read).await.map(drop)
    }

    /// What an execution carries that was caused at that time; [`Shared::learn_restored`] comes first.
    pub(crate) fn doubt(&self, cause: Time) -> Option<Time> {
        let restored = self.restored.get().copied().flatten();
        restored.and_then(|restored| restored.doubt(cause))
    }

    /// Counts an execution that ended, and has its trace told. Its end is on disk.
    pub(crate) fn ended(&self, subject: &Subject, status: Status) {
        let labels = [
            ("agent", subject.agent.to_string()),
            ("status", status.as_str().to_owned()),
        ];
        metrics::counter!("agentrunner_executions_total", &labels).increment(1);
        let took = seconds(self.now() - subject.created_at);
        metrics::histogram!("agentrunner_execution_duration_seconds", "mode" => subject.mode.as_str())
            .record(took);
        self.tell_end(subject);
    }

    /// Commits as the owner of a lease; a refusal is counted and logged.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn append(&self, append: Append) -> store::Result<Appended> {
        let (id, epoch) = (append.id, append.epoch);
        let answer = self.ports.store.append(append).await;
        if matches!(answer, Ok(Appended::LostLease)) {
            metrics::counter!(LATE_WRITES).increment(1);
            tracing::warn!(execution_id = %id, %epoch, "a late write was refused: the lease was lost");
        }
        answer
    }
}

/// For a metric: clocks may disagree, and no time is below nothing.
pub(crate) fn seconds(time: TimeDelta) -> f64 {
    time.to_std().unwrap_or_default().as_secs_f64()
}
