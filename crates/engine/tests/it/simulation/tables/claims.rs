//! Leases: who may write a journal, and until when.

use domain::{Epoch, ExecutionId, Failure, FailureCode, Outcome, Priority, Status, Time, WorkerId};
use store::{Claim, Claimed, Error, Renewal, Result, Signal};

use super::super::plant::Plant;
use super::{Row, Tables, corrupt};

impl Row {
    fn is_due(&self, claim: &Claim) -> bool {
        self.due_at.is_some_and(|due| due <= claim.now)
            && claim.modes.contains(&self.execution.mode)
            && !claim.without.contains(&self.execution.agent)
    }

    /// The whole journal, if it can be read.
    pub(super) fn is_readable(&self) -> Result<()> {
        let id = self.execution.id;
        if self.damage.task {
            return Err(corrupt(format!("execution {id}"), "its task is damaged"));
        }
        if let Some(seq) = self.damage.steps.first() {
            let what = format!("step {seq} of execution {id}");
            return Err(corrupt(what, "it is damaged"));
        }
        if self.steps.len() != self.count as usize {
            let message = format!("{} of its {} steps are there", self.steps.len(), self.count);
            return Err(corrupt(format!("execution {id}"), message));
        }
        Ok(())
    }
}

impl Tables {
    pub(crate) fn claim(&mut self, claim: &Claim) -> Vec<Claimed> {
        let picked = match claim.only {
            Some(id) => {
                let row = self.rows.get(&id).filter(|row| row.is_due(claim));
                row.filter(|_| claim.limit > 0)
                    .map(|_| id)
                    .into_iter()
                    .collect()
            }
            None => self.pick(claim),
        };
        picked
            .into_iter()
            .filter_map(|id| self.lease(id, claim))
            .collect()
    }

    fn lease(&mut self, id: ExecutionId, claim: &Claim) -> Option<Claimed> {
        let row = self.rows.get_mut(&id)?;
        row.epoch = Epoch::new(row.epoch.get() + 1);
        row.crashes += u32::from(row.worker.is_some());
        row.worker = Some(claim.worker.clone());
        row.due_at = Some(claim.now + claim.lease);
        row.heartbeat_at = Some(claim.now);
        row.started_at.get_or_insert(claim.now);
        row.status = Status::Running;
        row.reason = None;
        row.wakes_claimed = row.wakes;
        if let Err(error) = row.is_readable() {
            self.give_up(id, &error, claim.now);
            return None;
        }
        let waiting = self.waiting(id);
        let row = self.rows.get(&id)?;
        Some(Claimed {
            execution: row.execution.clone(),
            epoch: row.epoch,
            steps: row.steps.clone(),
            crashes: row.crashes,
            waiting,
            waits_turn: row.waits_turn,
        })
    }

    /// Ends an execution that can't be read.
    fn give_up(&mut self, id: ExecutionId, error: &Error, now: Time) {
        let failure = Failure {
            code: FailureCode::Corrupt,
            message: error.to_string(),
        };
        self.end_unowned(id, Outcome::Failed(failure), now);
    }

    /// High priority first; then in turn between agents; then the longest due.
    fn pick(&mut self, claim: &Claim) -> Vec<ExecutionId> {
        let mut picked = Vec::new();
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            let room = claim.limit.saturating_sub(picked.len());
            let mut queues = self.queues(claim, priority);
            queues.truncate(room);
            let taken = draw(&mut queues, room);
            if let Some((agent, _)) = taken.last() {
                self.served.clone_from(agent);
            }
            picked.extend(taken.into_iter().flat_map(|(_, ids)| ids));
        }
        picked
    }

    /// The due executions of each agent, the longest due first, in a circle that begins behind the agent that was
    /// served last.
    fn queues(&self, claim: &Claim, priority: Priority) -> Vec<(String, Vec<ExecutionId>)> {
        let mut due: Vec<&Row> = self
            .rows
            .values()
            .filter(|row| row.execution.priority == priority && row.is_due(claim))
            .filter(|row| {
                self.plant != Plant::OnlyHinted || self.hinted.contains(&row.execution.id)
            })
            .collect();
        let place = |row: &Row| {
            let agent = row.execution.agent.as_str();
            (agent <= self.served.as_str(), agent.to_owned())
        };
        due.sort_by_cached_key(|row| (place(row), row.execution.mode.as_str(), row.due_at));
        let mut queues: Vec<(String, Vec<ExecutionId>)> = Vec::new();
        for row in due {
            let agent = row.execution.agent.as_str();
            if queues.last().is_none_or(|(last, _)| last != agent) {
                queues.push((agent.to_owned(), Vec::new()));
            }
            if let Some((_, ids)) = queues.last_mut() {
                ids.push(row.execution.id);
            }
        }
        queues
    }

    pub(crate) fn renew(&mut self, renewal: &Renewal) -> Vec<Signal> {
        let mut signals = Vec::new();
        for (id, epoch) in &renewal.leases {
            let is_fenced = self.plant != Plant::NoFence;
            let held = self.rows.get_mut(id).filter(|row| {
                let is_current =
                    row.epoch == *epoch && row.worker.as_ref() == Some(&renewal.worker);
                !row.is_over() && row.worker.is_some() && (is_current || !is_fenced)
            });
            let Some(row) = held else {
                signals.push(Signal::Lost(*id));
                continue;
            };
            row.due_at = Some(renewal.until);
            row.heartbeat_at = Some(renewal.now);
            if row.wakes > row.wakes_claimed {
                let wakes = row.wakes;
                signals.push(Signal::Woken { id: *id, wakes });
            }
        }
        signals
    }

    pub(crate) fn woken(&self, worker: &WorkerId) -> Vec<Signal> {
        let is_woken =
            |row: &&Row| row.worker.as_ref() == Some(worker) && row.wakes > row.wakes_claimed;
        let signal = |row: &Row| Signal::Woken {
            id: row.execution.id,
            wakes: row.wakes,
        };
        self.rows.values().filter(is_woken).map(signal).collect()
    }

    pub(crate) fn lease_holders(&self) -> Vec<WorkerId> {
        let mut holders: Vec<WorkerId> = self
            .rows
            .values()
            .filter(|row| row.due_at.is_some())
            .filter_map(|row| row.worker.clone())
            .collect();
        holders.sort();
        holders.dedup();
        holders
    }

    pub(crate) fn end_leases(&mut self, worker: &WorkerId, now: Time) -> u64 {
        let mut ended = 0;
        for row in self.rows.values_mut() {
            if row.worker.as_ref() == Some(worker) && row.due_at.is_some() {
                row.due_at = row.due_at.min(Some(now));
                ended += 1;
            }
        }
        self.told.work |= ended > 0;
        ended
    }
}

/// Takes an equal share from each queue; what some leave over is shared again.
fn draw(
    queues: &mut [(String, Vec<ExecutionId>)],
    mut room: usize,
) -> Vec<(String, Vec<ExecutionId>)> {
    let mut taken: Vec<(String, Vec<ExecutionId>)> = Vec::new();
    loop {
        let open = queues.iter().filter(|(_, ids)| !ids.is_empty()).count();
        if open == 0 || room == 0 {
            // The one that was served last stands last.
            let order = |agent: &String| queues.iter().position(|(other, _)| other == agent);
            taken.sort_by_key(|(agent, _)| order(agent));
            return taken;
        }
        let share = room.div_ceil(open);
        for (agent, ids) in queues.iter_mut() {
            let now: Vec<ExecutionId> = ids.drain(..share.min(room).min(ids.len())).collect();
            room -= now.len();
            if !now.is_empty() {
                taken.push((agent.clone(), now));
            }
        }
    }
}
