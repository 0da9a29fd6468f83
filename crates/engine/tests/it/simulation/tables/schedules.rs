//! Schedules and what became of their fire times.

use domain::{ExecutionId, ScheduleName, Time};
use store::{
    DueSchedule, DueSchedules, Fate, Fired, Firing, ManagedBy, NewRun, OpenRun, Result, RunState,
    ScheduleFilter, ScheduleRecord, ScheduleRow, ScheduleRun, Submitted,
};

use super::{MAX_DEPTH, Tables, depth, internal};

/// A fire time's row.
pub(super) struct Run {
    run: ScheduleRun,
    is_open: bool,
}

impl Run {
    pub(super) const fn said(&self) -> &ScheduleRun {
        &self.run
    }
}

impl Tables {
    pub(crate) fn save_schedule(&mut self, mut record: ScheduleRecord, seen: Option<u64>) -> bool {
        let name = record.schedule.name.clone();
        let known = self.schedules.get(&name).map(|known| known.version);
        if known != seen {
            return false;
        }
        record.version = seen.unwrap_or(0) + 1;
        self.schedules.insert(name, record);
        true
    }

    pub(crate) fn remove_schedule(&mut self, name: &ScheduleName, seen: u64) -> bool {
        let is_it = self.schedules.get(name).is_some_and(|r| r.version == seen);
        if is_it {
            self.schedules.remove(name);
            self.runs.retain(|(schedule, _), _| schedule != name);
        }
        is_it
    }

    pub(crate) fn schedule(&self, name: &ScheduleName) -> Option<ScheduleRow> {
        let record = self.schedules.get(name)?.clone();
        let last_run = self.schedule_runs(name, None, 1).0.pop();
        Some(ScheduleRow { record, last_run })
    }

    pub(crate) fn schedules(&self, filter: &ScheduleFilter) -> (Vec<ScheduleRow>, u64) {
        let is_wanted = |record: &&ScheduleRecord| {
            let agent = filter.agent.as_ref();
            let is_of_file = record.managed_by != ManagedBy::Api;
            agent.is_none_or(|agent| record.schedule.agent == *agent)
                && filter.is_active.is_none_or(|is| is == record.is_active())
                && filter.is_of_file.is_none_or(|is| is == is_of_file)
        };
        let wanted: Vec<_> = self.schedules.values().filter(is_wanted).collect();
        let after = |record: &&&ScheduleRecord| {
            let after = filter.after.as_ref();
            after.is_none_or(|after| record.schedule.name > *after)
        };
        let page = wanted.iter().filter(after).take(filter.limit);
        let rows = page.filter_map(|record| self.schedule(&record.schedule.name));
        (rows.collect(), wanted.len() as u64)
    }

    pub(crate) fn schedule_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        limit: usize,
    ) -> (Vec<ScheduleRun>, u64) {
        let all: Vec<&Run> = self.runs_of(name).collect();
        let is_before = |run: &&&Run| before.is_none_or(|before| run.run.fire_time < before);
        let page = all.iter().rev().filter(is_before).take(limit);
        let with_execution = |run: &&Run| {
            let row = run.run.execution.and_then(|id| self.rows.get(&id));
            ScheduleRun {
                status: row.map(|row| row.status),
                status_reason: row.and_then(|row| row.reason.clone()),
                started_at: row.and_then(|row| row.started_at),
                finished_at: row.and_then(|row| row.finished_at),
                ..run.run.clone()
            }
        };
        (page.map(with_execution).collect(), all.len() as u64)
    }

    pub(crate) fn due_schedules(&self, now: Time, ahead: Time, limit: usize) -> DueSchedules {
        let all = || self.schedules.values();
        let mut due: Vec<_> = all()
            .filter(|record| record.next_due.is_some_and(|due| due <= now))
            .collect();
        due.sort_by_key(|record| record.next_due);
        due.truncate(limit);
        let others = all().filter(|record| {
            let is_ahead = record.next_due.is_some() && record.cursor > ahead;
            (is_ahead || self.can_begin(record))
                && !due
                    .iter()
                    .any(|due| due.schedule.name == record.schedule.name)
        });
        let others: Vec<_> = others.take(limit).collect();
        due.extend(others);
        let with_runs = |record: &&ScheduleRecord| DueSchedule {
            record: (*record).clone(),
            open: self.open_runs(&record.schedule.name).collect(),
        };
        DueSchedules {
            due: due.iter().map(with_runs).collect(),
            next_due: all()
                .filter_map(|record| record.next_due)
                .filter(|due| *due > now)
                .min(),
            runs_wait: all().any(|record| {
                let mut open = self.open_runs(&record.schedule.name);
                record.is_active() && open.any(|run| run.execution.is_none())
            }),
        }
    }

    /// Whether a run waits and nothing is before it.
    fn can_begin(&self, record: &ScheduleRecord) -> bool {
        let open = || self.open_runs(&record.schedule.name);
        record.is_active()
            && open().any(|run| run.execution.is_none())
            && open().all(|run| run.execution.is_none() || run.is_over)
    }

    fn runs_of(&self, name: &ScheduleName) -> impl Iterator<Item = &Run> {
        let is_its = move |((schedule, _), _): &(&(ScheduleName, Time), &Run)| *schedule == *name;
        self.runs.iter().filter(is_its).map(|(_, run)| run)
    }

    fn open_runs(&self, name: &ScheduleName) -> impl Iterator<Item = OpenRun> {
        let open = self.runs_of(name).filter(|run| run.is_open);
        open.map(|Run { run, .. }| OpenRun {
            fire_time: run.fire_time,
            execution: run.execution,
            is_over: run
                .execution
                .is_some_and(|id| self.rows.get(&id).is_none_or(super::Row::is_over)),
        })
    }

    pub(crate) fn fire(&mut self, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        let runs = firings.iter().flat_map(|f| f.runs.iter().chain(&f.waited));
        let is_deep = |run: &NewRun| matches!(&run.fate, Fate::Start(it) if depth(&it.execution.input) > MAX_DEPTH);
        if runs.clone().any(is_deep) {
            return Err(internal("the task is nested too deep to be read again"));
        }
        Ok(firings.into_iter().map(|one| self.fire_one(one)).collect())
    }

    fn fire_one(&mut self, firing: Firing) -> Fired {
        let name = firing.name;
        let seen = firing.version;
        let Some(record) = self.schedules.get_mut(&name).filter(|r| r.version == seen) else {
            return Fired::Raced;
        };
        record.cursor = firing.cursor;
        record.next_due = firing.next_due;
        record.version += 1;
        for over in firing.over {
            if let Some(run) = self.runs.get_mut(&(name.clone(), over)) {
                run.is_open &= run.run.state != RunState::Started;
            }
        }
        let mut started = Vec::new();
        let count = firing.runs.len();
        let new = firing.runs.into_iter().map(|run| (run, false));
        for (run, waited) in new.chain(firing.waited.into_iter().map(|run| (run, true))) {
            let known = self.runs.get(&(name.clone(), run.fire_time));
            let is_free = match known {
                Some(known) => waited && known.run.state == RunState::Waiting,
                None => !waited,
            };
            if is_free {
                started.extend(self.begin(&name, run, firing.now));
            }
        }
        self.forget_runs(&name, firing.forget_before, count + 4);
        Fired::Done(started)
    }

    fn begin(
        &mut self,
        name: &ScheduleName,
        new: NewRun,
        now: Time,
    ) -> Option<(Time, ExecutionId)> {
        let (at, kind) = (new.fire_time, new.kind);
        let (state, reason, execution) = match new.fate {
            Fate::Wait => (RunState::Waiting, None, None),
            Fate::Skip(reason) => (RunState::Skipped, Some(reason), None),
            Fate::Start(submission) => {
                let wanted = submission.execution.id;
                let id = match self.insert(*submission) {
                    Submitted::Existing(known) => known,
                    _ => wanted,
                };
                (RunState::Started, None, Some(id))
            }
        };
        let has_row =
            execution.is_some() && self.runs_of(name).any(|r| r.run.execution == execution);
        if !has_row {
            let run = ScheduleRun {
                fire_time: at,
                kind,
                state,
                execution,
                reason: reason.as_ref().map(|reason| reason.as_str().to_owned()),
                detail: reason.as_ref().map(|reason| reason.sentence()),
                noticed_at: now,
                status: None,
                status_reason: None,
                started_at: None,
                finished_at: None,
            };
            let is_open = state != RunState::Skipped;
            self.runs.insert((name.clone(), at), Run { run, is_open });
        }
        execution.map(|id| (at, id))
    }

    fn forget_runs(&mut self, name: &ScheduleName, before: Time, most: usize) {
        let old = self.runs_of(name).filter(|run| !run.is_open);
        let old: Vec<Time> = old
            .map(|run| run.run.fire_time)
            .filter(|at| *at < before)
            .take(most)
            .collect();
        for at in old {
            self.runs.remove(&(name.clone(), at));
        }
    }
}
