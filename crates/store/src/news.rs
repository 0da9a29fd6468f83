//! What has come for an execution, once its rows are read: answers, requests, ended children.

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::step::Question;
use domain::{ExecutionId, Failure, FailureCode, Outcome, Seq, Status};

use crate::codec::decode;
use crate::{EndedChild, InputAnswer, NewInput, PendingInput, Result};

/// What those are told that work for an execution that is to end: the same as when it has ended.
pub(crate) fn told_to_family(wish: &Cancel) -> String {
    let Cancel { by, reason } = wish.clone();
    Outcome::Cancelled { by, reason }.reason()
}

/// An answer as its row tells it.
#[derive(Debug)]
pub(crate) struct RawInput {
    pub(crate) request: u32,
    pub(crate) answer: String,
    pub(crate) by: String,
}

impl RawInput {
    /// What it means.
    pub(crate) fn read(self, id: ExecutionId) -> Result<PendingInput> {
        let what = || format!("the answer to step {} of execution {id}", self.request);
        Ok(PendingInput {
            request: Seq::new(self.request),
            answer: decode(what, &self.answer)?,
            by: self.by,
        })
    }
}

/// How a child ended. Results may be deleted to make room; a parent must not wait for one that was.
pub(crate) fn ended(id: ExecutionId, outcome: Option<&str>, totals: Totals) -> Result<EndedChild> {
    let outcome = match outcome {
        Some(json) => decode(|| format!("the result of execution {id}"), json)?,
        None => Outcome::Failed(Failure {
            code: FailureCode::Internal,
            message: "it ended, and its result was deleted".to_owned(),
        }),
    };
    Ok(EndedChild {
        id,
        outcome,
        totals,
    })
}

/// A request as its row tells it.
pub(crate) struct Request {
    pub(crate) seq: u32,
    pub(crate) question: String,
    /// Microseconds since 1970.
    pub(crate) until: i64,
    pub(crate) is_consumed: bool,
    pub(crate) answer: Option<RawInput>,
}

impl Request {
    fn is_open(&self, now: i64) -> bool {
        self.answer.is_none() && !self.is_consumed && now < self.until
    }
}

/// What a person's answer comes to.
pub(crate) enum Settled {
    /// Nothing is to be written.
    Answered(InputAnswer),
    /// It is to be written to this request.
    Takes(Seq),
}

/// Finds the request that an answer is for, and whether it may be given.
pub(crate) fn settle(
    input: &NewInput,
    status: Status,
    mut requests: Vec<Request>,
) -> Result<Settled> {
    let now = input.now.timestamp_micros();
    match input.request {
        Some(wanted) => requests.retain(|request| request.seq == wanted.get()),
        None => {
            let open: Vec<Seq> = requests
                .iter()
                .filter(|request| request.is_open(now))
                .map(|request| Seq::new(request.seq))
                .collect();
            if open.len() > 1 && !status.is_terminal() {
                return Ok(Settled::Answered(InputAnswer::Ambiguous(open)));
            }
            // The open one; else the last that a person answered.
            requests.retain(|request| match open.first() {
                Some(only) => request.seq == only.get(),
                None => request.answer.is_some(),
            });
        }
    }
    let nothing = Ok(Settled::Answered(InputAnswer::NothingAsked(status)));
    let Some(request) = requests.pop() else {
        return nothing;
    };
    if request.answer.is_none() && (status.is_terminal() || !request.is_open(now)) {
        return nothing;
    }
    if let Some(first) = request.answer {
        let first = first.read(input.id)?;
        return Ok(Settled::Answered(InputAnswer::AlreadyAnswered { first }));
    }
    let what = || {
        format!(
            "the question of step {} of execution {}",
            request.seq, input.id
        )
    };
    let question: Question = decode(what, &request.question)?;
    if !question.accepts(&input.answer) || question.objection(&input.answer).is_some() {
        return Ok(Settled::Answered(InputAnswer::DoesNotFit(question)));
    }
    Ok(Settled::Takes(Seq::new(request.seq)))
}
