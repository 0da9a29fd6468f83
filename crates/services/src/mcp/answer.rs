//! What a call is answered, in words and for programs.

use domain::step::{InputRequest, Question};
use domain::{ExecutionId, Seq, Status};
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use crate::execution::ResultOut;

/// The schema of what programs are told.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "execution_id": { "type": "string", "description": "What the agent did is kept under this id." },
            "status": {
                "type": "string",
                "enum": ["completed", "failed", "timeout", "cancelled", "waiting_for_input", "running"],
            },
            "output": { "description": "The answer: JSON when the agent has an output_schema, else a text." },
            "question": { "type": "object", "description": "What a person is asked, when one is." },
        },
        "required": ["execution_id", "status"],
    })
}

/// It is over.
pub(super) fn ended(result: &ResultOut) -> CallToolResult {
    let id = result.execution_id;
    let facts = json!({ "execution_id": id, "status": result.status });
    match (&result.output, &result.error) {
        (Some(text), None) => {
            let output = result.structured.clone();
            let output = output.unwrap_or_else(|| Value::String(text.clone()));
            let facts = json!({ "execution_id": id, "status": result.status, "output": output });
            let mut words = text.clone();
            if result.truncated {
                words.push_str("\n\n(The answer was cut off by the model's length limit.)");
            }
            told(false, &words, facts)
        }
        (_, error) => {
            let why = error
                .as_ref()
                .map_or(result.status_reason.as_str(), |error| &error.message);
            let agent = &result.agent_name;
            let status = result.status.as_str();
            let words = format!(
                "The agent {agent} did not answer: {status}, {why}\n\n`agentrunner tasks show {id}` tells what it did."
            );
            told(true, &words, facts)
        }
    }
}

/// It waits for a person. Nobody but a person may answer: who calls a tool is mostly a model.
pub(super) fn waiting(
    agent: &str,
    id: ExecutionId,
    seq: Seq,
    request: &InputRequest,
) -> CallToolResult {
    let (asked, answer) = match &request.question {
        Question::Clarification { text } => (
            text.clone(),
            format!("agentrunner inbox answer {id}:{seq} \"…\""),
        ),
        Question::Approval { tool, arguments } => (
            format!("May it call {tool} with {arguments}?"),
            format!("agentrunner inbox approve {id}:{seq}"),
        ),
        Question::UnknownOutcome {
            tool, arguments, ..
        } => (
            format!("Nobody knows whether its call of {tool} with {arguments} happened."),
            format!("agentrunner inbox settle {id}:{seq} --happened \"…\""),
        ),
        Question::Plan { .. } => (
            "May its plan be carried out?".to_owned(),
            format!("agentrunner inbox approve {id}:{seq}"),
        ),
    };
    let words = format!(
        "The agent {agent} waits for a person: {asked}\n\n\
         A person can {choices}, for example by `{answer}`. The agent goes on then by itself, and \
         `agentrunner tasks show {id}` tells what came of it.",
        choices = request.question.choices(),
    );
    let facts = json!({
        "execution_id": id,
        "status": Status::WaitingForInput,
        "question": {
            "kind": request.question.kind(), "request": seq, "expires_at": request.until,
            "answered_by": request.answered_by,
        },
    });
    told(false, &words, facts)
}

/// Its caller wanted it no more.
pub(super) fn cancelled(id: ExecutionId) -> CallToolResult {
    let facts = json!({ "execution_id": id, "status": Status::Cancelled });
    told(true, &format!("The execution {id} was cancelled."), facts)
}

/// Nothing more can be told here, and it goes on.
pub(super) fn left(id: ExecutionId, why: &str) -> CallToolResult {
    let words =
        format!("{why}; the agent goes on, and `agentrunner tasks show {id}` tells how it stands.");
    told(
        true,
        &words,
        json!({ "execution_id": id, "status": Status::Running }),
    )
}

/// Nothing was begun.
pub(super) fn refused(why: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(why)])
}

fn told(is_error: bool, words: &str, facts: Value) -> CallToolResult {
    let content = vec![ContentBlock::text(words)];
    let mut result = match is_error {
        true => CallToolResult::error(content),
        false => CallToolResult::success(content),
    };
    result.structured_content = Some(facts);
    result
}
