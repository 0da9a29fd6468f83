//! A question to a person, as every face shows it.

use domain::step::{InputRequest, Question};
use domain::{ExecutionId, Seq, Step, StepBody, Time};
use serde::Serialize;
use store::{InboxFilter, OpenRequest, Store};
use utoipa::ToSchema;

use crate::http::Answer;

/// A question that waits for a person.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct QuestionOut {
    /// The step that asks; give it back with the answer.
    pub(super) request: u32,
    /// clarification, approval, unknown_outcome or plan; with its text, tool and arguments, or plan.
    #[schema(value_type = Object, example = json!({"question": "approval", "tool": "pay", "arguments": "{}"}))]
    #[serde(flatten)]
    question: Question,
    /// Why a person is asked, where that does not go without saying.
    why: Option<String>,
    /// Who is asked: the `answered_by` of the agent.
    answered_by: Option<String>,
    /// What can be answered, in words.
    choices: &'static str,
    /// When it was asked.
    #[schema(value_type = String, format = DateTime)]
    asked_at: Time,
    /// When it is too late to answer.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Time,
    /// What is done then, in words.
    on_timeout: String,
}

impl QuestionOut {
    fn new(step: &Step, request: &InputRequest) -> Self {
        let otherwise = request.otherwise.clone();
        Self {
            request: step.seq.get(),
            question: request.question.clone(),
            why: request.why.clone(),
            answered_by: request.answered_by.clone(),
            choices: request.question.choices(),
            asked_at: step.at,
            expires_at: request.until,
            on_timeout: otherwise
                .unwrap_or_else(|| "the execution ends by its deadline".to_owned()),
        }
    }
}

/// What an execution asks people now.
pub(super) async fn open_questions(
    store: &dyn Store,
    id: ExecutionId,
    now: Time,
) -> Answer<Vec<QuestionOut>> {
    let filter = InboxFilter {
        agents: Vec::new(),
        execution: Some(id),
        kind: None,
        now,
        after: None,
        limit: 100,
    };
    let (open, _) = store.inbox(filter).await?;
    let mut questions = Vec::with_capacity(open.len());
    for one in &open {
        questions.extend(question(store, one).await?);
    }
    Ok(questions)
}

/// The words of an open question; `None` when its execution was deleted meanwhile.
pub(super) async fn question(store: &dyn Store, open: &OpenRequest) -> Answer<Option<QuestionOut>> {
    let before = open.request.get().checked_sub(1).map(Seq::new);
    let step = store.steps(open.id, before, 1).await?.pop();
    Ok(step.and_then(|step| match &step.body {
        StepBody::InputRequested(request) => Some(QuestionOut::new(&step, request)),
        _ => None,
    }))
}
