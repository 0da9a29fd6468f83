//! Tells traces of what ended: its journal is read once more and its spans handed on, after the end is on disk. Whoever
//! performs executions only leaves an id here; when more end than can be told, what is too much is passed over and counted.

use std::sync::{Arc, Mutex, PoisonError};

use domain::span::spans;
use domain::{ExecutionId, Sampling, Span, Step, TraceId, Upstream};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ended::Subject;
use crate::shared::Shared;

/// How many may wait to be told.
const QUEUE: usize = 4096;
/// How many journals are read at once.
const AT_ONCE: usize = 4;
/// How many steps are read at once.
const PAGE: usize = 200;
/// Counts executions whose spans were not made.
const SKIPPED: &str = "agentrunner_traces_skipped_total";

/// Shows a text from a journal as it may be shown: without secrets, and not too long.
pub type Show = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Where spans go; must not block.
pub type Export = Arc<dyn Fn(Vec<Span>) + Send + Sync>;

/// Which traces are told, and where they go.
#[derive(Clone)]
pub struct Traces {
    /// Which.
    pub sampling: Sampling,
    /// How what was said is shown; not at all when none.
    pub show: Option<Show>,
    /// Where they go.
    pub export: Export,
}

/// What ended and is to be told.
pub(crate) struct Telling {
    traces: Traces,
    queue: mpsc::Sender<ExecutionId>,
    /// The other end, until somebody tells.
    waiting: Mutex<Option<mpsc::Receiver<ExecutionId>>>,
}

impl Telling {
    pub(crate) fn new(traces: Traces) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self {
            traces,
            queue,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    fn skip(&self, why: &'static str) {
        metrics::counter!(SKIPPED, "reason" => why).increment(1);
    }

    async fn tell(&self, core: &Shared, id: ExecutionId) {
        match self.read(core, id).await {
            Ok(spans) => (self.traces.export)(spans),
            Err(error) => {
                self.skip("unreadable");
                tracing::debug!(execution_id = %id, %error, "its journal can't be read for its trace");
            }
        }
    }

    async fn read(&self, core: &Shared, id: ExecutionId) -> store::Result<Vec<Span>> {
        let store = &core.ports.store;
        let Some(row) = store.execution(id).await? else {
            return Ok(Vec::new());
        };
        let mut steps: Vec<Step> = Vec::new();
        loop {
            let after = steps.last().map(|step| step.seq);
            let page = store.steps(id, after, PAGE).await?;
            let is_last = page.len() < PAGE;
            steps.extend(page);
            if is_last {
                break;
            }
        }
        let started = row.started_at.unwrap_or(row.execution.created_at);
        let show = self.traces.show.as_deref();
        Ok(spans(
            &row.execution,
            started,
            &steps,
            show.map(|show| show as &dyn Fn(&str) -> String),
        ))
    }
}

impl Shared {
    /// Whether a trace is recorded.
    pub(crate) fn is_recorded(&self, trace: &TraceId, upstream: Option<Upstream>) -> bool {
        let sampling = self.telling.as_ref().map(|telling| telling.traces.sampling);
        let said = upstream.map(|upstream| upstream.sampled);
        sampling.unwrap_or_default().takes(trace, said)
    }

    /// Has an execution told that ended; its end is on disk.
    pub(crate) fn tell_end(&self, subject: &Subject) {
        let Some(telling) = &self.telling else {
            return;
        };
        if self.is_recorded(&subject.trace_id, subject.upstream)
            && telling.queue.try_send(subject.id).is_err()
        {
            telling.skip("queue_full");
        }
    }
}

/// Tells what ended, until nothing runs any more and all is told.
pub(crate) async fn tell(core: Arc<Shared>, close: CancellationToken) {
    let Some(telling) = &core.telling else {
        return;
    };
    for reason in ["queue_full", "unreadable"] {
        metrics::counter!(SKIPPED, "reason" => reason).increment(0);
    }
    let waiting = telling
        .waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut waiting) = waiting else {
        return;
    };
    let mut under_way = FuturesUnordered::new();
    loop {
        let has_place = under_way.len() < AT_ONCE;
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            id = waiting.recv(), if has_place => match id {
                Some(id) => under_way.push(telling.tell(&core, id)),
                None => return,
            },
            // Only when nothing waits: the arms before come first.
            () = close.cancelled(), if under_way.is_empty() => return,
        }
    }
}
