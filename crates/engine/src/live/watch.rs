//! One reader of an execution.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use domain::{ExecutionId, Step, StepBody};
use store::Store;

use super::board::Look;
use super::hub::{Hub, Seat};
use super::reader::Reader;
use super::{LiveEvent, Position};

/// How often the store is asked when nobody tells of news: often after a step, for the next one may be near, and ever
/// less often while nothing comes.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How often it is asked when somebody does: what is told may be lost.
const TOLD: Duration = Duration::from_secs(2);
/// At which of the looks that find nothing it is asked whether anything can come: its end is a step as well, so only
/// who has all steps, or watches what is gone, would wait for nothing.
const ASK_EVERY: u32 = 16;

/// A running view of an execution.
pub struct Watch {
    store: Arc<dyn Store>,
    seat: Seat,
    id: ExecutionId,
    reader: Reader,
    steps: VecDeque<Arc<Step>>,
    over: bool,
    /// Whether the store is to be asked, whatever is told.
    is_due: bool,
    /// How many looks into the store in a row have found nothing.
    idle: u32,
}

impl Watch {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        hub: &Arc<Hub>,
        id: ExecutionId,
        after: Option<Position>,
    ) -> Self {
        Self {
            store,
            seat: hub.enter(id),
            id,
            reader: Reader::new(after),
            steps: VecDeque::new(),
            over: false,
            is_due: true,
            idle: 0,
        }
    }

    /// The next event; `None` after the last step. Can be dropped and called again without losing anything.
    ///
    /// # Errors
    /// The store can't be reached; calling again goes on where it was.
    pub async fn next(&mut self) -> Result<Option<LiveEvent>, store::Error> {
        let mut ear = self.seat.board.ear();
        loop {
            if let Some(step) = self.steps.front() {
                let event = self.reader.read(step);
                if let LiveEvent::Step(step) = &event {
                    self.over = matches!(step.body, StepBody::Finished { .. });
                    self.steps.pop_front();
                }
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            ear.mark_unchanged();
            let look = self.seat.board.look(&mut self.reader);
            if let Look::Heard(event) = look {
                return Ok(Some(event));
            }
            let is_told = matches!(look, Look::Here | Look::Elsewhere);
            let mut pause = TOLD;
            if !is_told || self.is_due {
                if self.read().await? {
                    continue;
                }
                let is_here = matches!(look, Look::Here);
                if !is_here && self.idle.is_multiple_of(ASK_EVERY) && self.is_over().await? {
                    return Ok(None);
                }
                self.is_due = false;
                if !is_told {
                    pause = pause_after(self.idle);
                }
                self.idle = self.idle.saturating_add(1);
            }
            tokio::select! {
                _ = ear.changed() => {}
                // What others tell may be lost; a run of this process is not.
                () = tokio::time::sleep(pause) => self.is_due = !matches!(look, Look::Here),
            }
        }
    }

    /// Whether nothing can come any more; asked when nothing came, so after the last step was read.
    async fn is_over(&self) -> Result<bool, store::Error> {
        let row = self.store.execution(self.id).await?;
        let last = self.reader.last_step().get();
        Ok(row.is_none_or(|row| row.finished_at.is_some() && row.steps <= last))
    }

    /// Reads on in the journal; whether there was something.
    async fn read(&mut self) -> Result<bool, store::Error> {
        let after = self.reader.last_step();
        let steps = self.seat.board.steps(self.store.as_ref(), self.id, after);
        self.steps = steps.await?.into();
        if !self.steps.is_empty() {
            self.idle = 0;
        }
        Ok(!self.steps.is_empty())
    }
}

/// How long to wait after so many looks that found nothing.
fn pause_after(idle: u32) -> Duration {
    POLL.0.saturating_mul(1 << idle.min(8)).min(POLL.1)
}
