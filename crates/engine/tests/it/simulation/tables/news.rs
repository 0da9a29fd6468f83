//! What comes to an execution from outside: a wish that it end, a person's answer, the end of a child.

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::step::Question;
use domain::{ExecutionId, Outcome, Seq, Status, Time};
use store::{
    CancelAnswer, EndedChild, InboxFilter, InputAnswer, NewInput, OpenRequest, PendingInput,
    Waiting,
};

use super::super::plant::Plant;
use super::{Input, Row, Tables};

impl Tables {
    pub(crate) fn waiting(&self, id: ExecutionId) -> Waiting {
        let Some(row) = self.rows.get(&id) else {
            return Waiting::default();
        };
        let inputs = row
            .inputs
            .iter()
            .filter(|(_, input)| !input.is_consumed)
            .filter_map(|(request, input)| pending(*request, input));
        let is_child = |child: &&Row| child.execution.parent.is_some_and(|p| p.id == id);
        let mut ended: Vec<(Option<Time>, ExecutionId, &Outcome)> = self
            .rows
            .values()
            .filter(is_child)
            .filter_map(|child| {
                Some((
                    child.finished_at,
                    child.execution.id,
                    child.outcome.as_ref()?,
                ))
            })
            .collect();
        ended.sort_by_key(|(at, id, _)| (*at, *id));
        Waiting {
            wakes: row.wakes,
            cancel: row
                .cancel
                .clone()
                .filter(|_| self.plant != Plant::DeafToCancel),
            inputs: inputs.collect(),
            children: ended
                .into_iter()
                .map(|(_, id, outcome)| EndedChild {
                    id,
                    outcome: outcome.clone(),
                    totals: self.family_totals(id),
                })
                .collect(),
        }
    }

    fn family_totals(&self, id: ExecutionId) -> Totals {
        let mut totals = self.rows.get(&id).map(|row| row.totals).unwrap_or_default();
        let children = self.rows.values().map(|row| &row.execution);
        for child in children.filter(|child| child.parent.is_some_and(|p| p.id == id)) {
            totals += self.family_totals(child.id);
        }
        totals
    }

    /// Wakes an execution: at once if it is parked, or its owner at the next renewal.
    pub(super) fn wake(&mut self, id: ExecutionId, now: Time) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.is_over()) else {
            return;
        };
        row.wakes += 1;
        if row.worker.is_none() {
            row.due_at = row.due_at.min(Some(now));
            self.told.work = true;
        }
    }

    /// Asks for the end of all that an ended execution had started.
    pub(super) fn end_children(&mut self, parent: ExecutionId, why: &str, now: Time) {
        let is_open_child =
            |row: &&Row| !row.is_over() && row.execution.parent.is_some_and(|p| p.id == parent);
        let children: Vec<ExecutionId> = self
            .rows
            .values()
            .filter(is_open_child)
            .map(|row| row.execution.id)
            .collect();
        for child in children {
            let wish = Cancel {
                by: "its parent".to_owned(),
                reason: why.to_owned(),
            };
            if self.note_wish(child, wish) {
                self.wake(child, now);
            }
        }
    }

    fn note_wish(&mut self, id: ExecutionId, wish: Cancel) -> bool {
        let row = self.row(id);
        let is_first = row.cancel.is_none();
        row.cancel.get_or_insert(wish);
        is_first
    }

    pub(crate) fn cancel(&mut self, id: ExecutionId, wish: Cancel, now: Time) -> CancelAnswer {
        let Some(row) = self.rows.get(&id) else {
            return CancelAnswer::NotFound;
        };
        if row.is_over() {
            return CancelAnswer::AlreadyOver(row.status);
        }
        if row.status == Status::Queued {
            let (by, reason) = (wish.by.clone(), wish.reason.clone());
            self.note_wish(id, wish);
            self.end_unowned(id, Outcome::Cancelled { by, reason }, now);
        } else {
            let why = Outcome::Cancelled {
                by: wish.by.clone(),
                reason: wish.reason.clone(),
            };
            if self.note_wish(id, wish) {
                self.wake(id, now);
            }
            self.cancel_family(id, &why.reason(), now);
        }
        CancelAnswer::Accepted
    }

    /// Asks for the end of all that work for an execution.
    fn cancel_family(&mut self, id: ExecutionId, why: &str, now: Time) {
        self.end_children(id, why, now);
        let is_child = |row: &&Row| row.execution.parent.is_some_and(|p| p.id == id);
        let children = self.rows.values().filter(is_child);
        let children: Vec<ExecutionId> = children.map(|row| row.execution.id).collect();
        for child in children {
            self.cancel_family(child, why, now);
        }
    }

    /// The key of the call whose outcome the question is about.
    pub(crate) fn key_asked_about(&self, id: ExecutionId, request: Seq) -> String {
        let input = self.rows.get(&id).and_then(|row| row.inputs.get(&request));
        match input.map(|input| &input.question) {
            Some(Question::UnknownOutcome { key, .. }) => key.clone(),
            _ => String::new(),
        }
    }

    /// What waits for a person.
    pub(crate) fn open_questions(&self) -> Vec<(ExecutionId, Seq, Question)> {
        let open = self
            .rows
            .values()
            .filter(|row| !row.is_over())
            .flat_map(|row| {
                let unanswered = row
                    .inputs
                    .iter()
                    .filter(|(_, i)| i.answer.is_none() && !i.is_consumed);
                unanswered.map(|(request, i)| (row.execution.id, *request, i.question.clone()))
            });
        open.collect()
    }

    pub(crate) fn inbox(&self, filter: &InboxFilter) -> (Vec<OpenRequest>, u64) {
        let mut open = Vec::new();
        for row in self.rows.values().filter(|row| !row.is_over()) {
            let (id, agent) = (row.execution.id, &row.execution.agent);
            let is_wanted = (filter.agents.is_empty() || filter.agents.contains(agent))
                && filter.execution.is_none_or(|wanted| wanted == id);
            for (request, input) in row.inputs.iter().filter(|_| is_wanted) {
                let is_open =
                    input.answer.is_none() && !input.is_consumed && filter.now < input.until;
                let kind = input.question.kind();
                if is_open && filter.kind.as_ref().is_none_or(|wanted| wanted == kind) {
                    open.push(OpenRequest {
                        id,
                        agent: agent.clone(),
                        request: *request,
                    });
                }
            }
        }
        open.sort_by_key(|one| (one.id, one.request));
        let total = open.len() as u64;
        open.retain(|one| {
            filter
                .after
                .is_none_or(|after| (one.id, one.request) > after)
        });
        open.truncate(filter.limit);
        (open, total)
    }

    pub(crate) fn deliver_input(&mut self, new: &NewInput) -> InputAnswer {
        let Some(row) = self.rows.get_mut(&new.id) else {
            return InputAnswer::NotFound;
        };
        let (status, is_over) = (row.status, row.is_over());
        let nothing = InputAnswer::NothingAsked(status);
        let is_open =
            |input: &Input| input.answer.is_none() && !input.is_consumed && new.now < input.until;
        let request = match new.request {
            Some(request) => Some(request),
            None => {
                let open: Vec<Seq> = row
                    .inputs
                    .iter()
                    .filter(|(_, input)| is_open(input))
                    .map(|(request, _)| *request)
                    .collect();
                if open.len() > 1 && !is_over {
                    return InputAnswer::Ambiguous(open);
                }
                // The open one; else the last that a person answered.
                let answered = row
                    .inputs
                    .iter()
                    .rfind(|(_, input)| input.answer.is_some())
                    .map(|(request, _)| *request);
                open.first().copied().or(answered)
            }
        };
        let Some((request, input)) =
            request.and_then(|request| Some((request, row.inputs.get_mut(&request)?)))
        else {
            return nothing;
        };
        if let Some(first) = pending(request, input) {
            return InputAnswer::AlreadyAnswered { first };
        }
        if is_over || !is_open(input) {
            return nothing;
        }
        if !input.question.accepts(&new.answer) {
            return InputAnswer::DoesNotFit(input.question.clone());
        }
        input.answer = Some((new.answer.clone(), new.by.clone()));
        self.wake(new.id, new.now);
        InputAnswer::Accepted { request }
    }
}

fn pending(request: Seq, input: &Input) -> Option<PendingInput> {
    let (answer, by) = input.answer.clone()?;
    Some(PendingInput {
        request,
        answer,
        by,
    })
}
