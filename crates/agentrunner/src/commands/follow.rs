//! Submitting a task and following it to its end, for `run` and `chat`.

use std::io::BufRead;

use anyhow::Context as _;
use domain::step::{Answer, Question};
use domain::{ExecutionId, Outcome, Seq, Status, StepBody};
use engine::LiveEvent;
use serde_json::{Value, json};

use crate::client::Client;
use crate::screen::{Screen, Style};
use crate::transcript::Transcript;

/// How following ended.
pub(crate) enum Followed {
    Over(Outcome),
    /// Ctrl-C: the execution is cancelled.
    Interrupted,
    /// A person must answer, and there is none here.
    Waits(Seq),
}

/// Hands a task to an agent; answers its execution.
///
/// # Errors
/// The server refuses or can't be reached.
pub(crate) async fn submit(client: &Client, task: &Value) -> anyhow::Result<ExecutionId> {
    let accepted = client.post("/tasks", task).await?;
    accepted
        .get("execution_id")
        .and_then(Value::as_str)
        .and_then(|id| id.parse().ok())
        .context("the server's answer has no execution_id; is it AgentRunner?")
}

/// Shows an execution until it is over, asking the person at the terminal what it asks.
///
/// # Errors
/// The server can't be reached any more. The execution goes on without us.
pub(crate) async fn follow(
    client: &Client,
    id: ExecutionId,
    screen: &Screen,
) -> anyhow::Result<Followed> {
    let mut transcript = Transcript::new(screen);
    let mut events = client.events(id);
    let mut outcome = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = tokio::signal::ctrl_c() => {
                transcript.pause();
                cancel(client, id, screen).await?;
                return Ok(Followed::Interrupted);
            }
        };
        let Some(event) = event else { break };
        if let LiveEvent::Step(step) = &event
            && let StepBody::Finished { outcome: last } = &step.body
        {
            outcome = Some(last.clone());
        }
        if let Some((request, question)) = transcript.show(event) {
            if !can_ask(screen) {
                transcript.pause();
                return Ok(Followed::Waits(request));
            }
            transcript.pause();
            let answer = ask(screen, &question).await?;
            give(client, id, Some(request), &answer).await?;
            transcript.resume();
        }
    }
    let outcome = outcome.context("the execution is over and has no last step")?;
    transcript.finish(id, &outcome);
    Ok(Followed::Over(outcome))
}

/// Ends an execution because the person wants it so.
async fn cancel(client: &Client, id: ExecutionId, screen: &Screen) -> anyhow::Result<()> {
    match client.delete(&format!("/tasks/{id}")).await {
        Ok(_) => screen.note(screen.paint(Style::Warn, &format!("✗ {} · {id}", Status::Cancelled))),
        Err(error) => screen.note(format_args!("{id} could not be cancelled: {error}")),
    }
    Ok(())
}

/// Who answers on this command line, when they do not say.
pub(super) const HERE: &str = "command line";

/// Gives a person's answer.
///
/// # Errors
/// It does not fit, or the server can't be reached.
pub(crate) async fn give(
    client: &Client,
    id: ExecutionId,
    request: Option<Seq>,
    answer: &Answer,
) -> anyhow::Result<Value> {
    give_as(client, id, request, answer, HERE).await
}

/// The same, by somebody.
pub(super) async fn give_as(
    client: &Client,
    id: ExecutionId,
    request: Option<Seq>,
    answer: &Answer,
    by: &str,
) -> anyhow::Result<Value> {
    let mut body = serde_json::to_value(answer)?;
    if let Value::Object(fields) = &mut body {
        if let Some(request) = request {
            fields.insert("request".to_owned(), json!(request));
        }
        fields.insert("by".to_owned(), json!(by));
    }
    client.post(&format!("/tasks/{id}/input"), &body).await
}

fn can_ask(screen: &Screen) -> bool {
    use std::io::IsTerminal;
    screen.is_watched && !screen.json && std::io::stdin().is_terminal()
}

/// Asks until the answer fits the question.
async fn ask(screen: &Screen, question: &Question) -> anyhow::Result<Answer> {
    let hint = match question {
        Question::Clarification { .. } => "your answer",
        Question::Approval { .. } => {
            "y to allow it, e and other arguments as JSON to change it, n (and a reason) to refuse"
        }
        Question::Plan { .. } => {
            "y to carry it out, e and the whole plan as JSON to change it, n (and a reason) for another one"
        }
        Question::UnknownOutcome { .. } => {
            "h and its result if it happened, r to call again, n (and a reason) to go on without"
        }
    };
    loop {
        screen.note(screen.paint(Style::Faint, &format!("  {hint}:")));
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .map(|read| (read, line))
        });
        let (read, line) = line.await??;
        anyhow::ensure!(read > 0, "nobody answers: standard input ended");
        if let Some(answer) = understand(question, line.trim()) {
            return Ok(answer);
        }
    }
}

fn understand(question: &Question, line: &str) -> Option<Answer> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim().to_owned();
    let reject = |reason: String| Answer::Reject { reason };
    match (question, word.to_lowercase().as_str()) {
        (_, "") => None,
        (Question::Clarification { .. }, _) => Some(Answer::Text {
            text: line.to_owned(),
        }),
        (Question::Approval { .. } | Question::Plan { .. }, "y" | "yes") => Some(Answer::Approve),
        (Question::Approval { .. }, "e" | "edit") => {
            let is_object = serde_json::from_str(&rest).is_ok_and(|value: Value| value.is_object());
            is_object.then_some(Answer::Edit { arguments: rest })
        }
        (Question::Plan { .. }, "e" | "edit") => {
            let plan: Value = serde_json::from_str(&rest).ok()?;
            let has_steps = plan.get("steps").is_some_and(Value::is_array);
            has_steps.then_some(Answer::EditPlan { plan })
        }
        (Question::UnknownOutcome { .. }, "h" | "happened") => {
            Some(Answer::Happened { result: rest })
        }
        (Question::UnknownOutcome { .. }, "r" | "repeat") => Some(Answer::Repeat),
        (_, "n" | "no") => Some(reject(rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_edited_as_a_whole() {
        let draft = json!({ "steps": [] });
        let question = Question::Plan {
            plan: serde_json::from_value(draft.clone()).unwrap(),
            rules: serde_json::from_value(json!({
                "coordinator": "a", "agents": ["b"], "max_steps": 5, "min_agents": 1, "max_agents": 2,
                "in_order": false, "done": [],
            }))
            .unwrap(),
        };
        let edited = understand(&question, &format!("e {draft}"));
        assert_eq!(edited, Some(Answer::EditPlan { plan: draft }));
        assert_eq!(understand(&question, "y"), Some(Answer::Approve));
        for unclear in ["e", "e {}", "e [1]", "e {"] {
            assert_eq!(understand(&question, unclear), None, "{unclear}");
        }
    }

    #[test]
    fn only_a_plain_yes_allows_a_call() {
        let approval = Question::Approval {
            tool: "pay".to_owned(),
            arguments: "{}".to_owned(),
        };
        assert_eq!(understand(&approval, "y"), Some(Answer::Approve));
        assert_eq!(
            understand(&approval, "n too much"),
            Some(Answer::Reject {
                reason: "too much".to_owned()
            })
        );
        for unclear in ["", "yea", "ok", "1"] {
            assert_eq!(understand(&approval, unclear), None, "{unclear}");
        }
    }
}
