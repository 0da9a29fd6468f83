//! What is done about a pressed button: it answers a question once, in the name of whoever pressed it.

use domain::TraceId;
use domain::step::StepBody;
use serde_json::{Value, json};
use store::{InputAnswer, NewInput, PendingInput};

use super::blocks::{self, Asked};
use super::gateway::Gateway;
use super::incoming::Press;
use super::intake::Person;
use super::mrkdwn::escape;
use super::outgoing::{Outgoing, Say};
use super::reply::Reply;

enum Verdict {
    Taken,
    /// What the person is told.
    Told(String),
}

impl Gateway {
    /// Acts on it. When this answers, it is decided, or the person will be told why not.
    ///
    /// # Errors
    /// The store is unavailable.
    pub(super) async fn decide(&self, id: &str, press: Press) -> store::Result<()> {
        let person = Person {
            id: press.user.clone(),
            name: press.user_name.chars().take(80).collect(),
        };
        let Ok(asked) = serde_json::from_str::<Asked>(&press.value) else {
            return Ok(());
        };
        let told = match self.judge(&press, asked, &person).await? {
            Verdict::Taken => {
                self.wake(&Reply::id(asked.execution)).await?;
                return Ok(());
            }
            Verdict::Told(text) => text,
        };
        let say = Say {
            channel: press.channel.clone(),
            thread: press.thread.clone(),
            only_for: Some(press.user.clone()),
            text: told,
            is_begun: false,
        };
        self.send(format!("slack-say:{id}"), &Outgoing::Say(say))
            .await
    }

    async fn judge(&self, press: &Press, asked: Asked, person: &Person) -> store::Result<Verdict> {
        let told = |text: &str| Ok(Verdict::Told(text.to_owned()));
        let Some(row) = self.store().execution(asked.execution).await? else {
            return told("This task is not known any more.");
        };
        let agent = &row.execution.agent;
        let trace = row.execution.trace_id.clone();
        let channel = row.execution.metadata.pointer("/slack/channel");
        let is_its_place = channel.and_then(Value::as_str) == Some(press.channel.as_str());
        let config = self.app.engine.agents().get(agent);
        let config = config.and_then(|agent| agent.definition.slack.clone());
        let may = config.is_some_and(|config| config.may_decide(&press.user));
        if !is_its_place || !may {
            self.note_decision(press, asked, person, ("denied", 403), &trace)
                .await;
            return told(&format!(
                "Sorry, you may not answer the questions of *{}*. Ask somebody whom its file names under `slack.approvers`.",
                escape(agent.as_str())
            ));
        }
        let answer = match blocks::answer(&press.action, &press.words, &person.who()) {
            Ok(answer) => answer,
            Err(why) => return told(why),
        };
        let input = NewInput {
            id: asked.execution,
            request: Some(asked.request),
            answer: answer.clone(),
            by: person.who(),
            now: self.now(),
        };
        let first = match self.app.engine.answer(input).await {
            Ok(InputAnswer::Accepted { .. }) => {
                self.note_decision(press, asked, person, ("done", 200), &trace)
                    .await;
                return Ok(Verdict::Taken);
            }
            Ok(InputAnswer::AlreadyAnswered { first }) => Some(first),
            Ok(InputAnswer::NothingAsked(_)) => self.first_answer(asked).await?,
            Ok(InputAnswer::DoesNotFit(question)) => {
                return told(&format!(
                    "That does not fit the question: {}.",
                    question.choices()
                ));
            }
            Ok(InputAnswer::Ambiguous(_) | InputAnswer::NotFound) => None,
            Err(engine::Error::Store(error)) => return Err(error),
            Err(error) => return told(&escape(&error.to_string())),
        };
        match first {
            // Ours, and we were stopped before that was written down.
            Some(first) if first.by == person.who() && first.answer == answer => Ok(Verdict::Taken),
            Some(first) => {
                self.note_decision(press, asked, person, ("refused", 409), &trace)
                    .await;
                told(&format!(
                    "It is decided already, and nothing was changed. {}",
                    blocks::verdict(&first.answer, &first.by)
                ))
            }
            None => told("This is not asked any more."),
        }
    }

    /// Who answered a question that is closed, as the journal has it.
    async fn first_answer(&self, asked: Asked) -> store::Result<Option<PendingInput>> {
        let mut after = Some(asked.request);
        loop {
            let steps = self.store().steps(asked.execution, after, 100).await?;
            for step in &steps {
                if let StepBody::InputReceived(received) = &step.body
                    && received.request == asked.request
                {
                    return Ok(Some(PendingInput {
                        request: received.request,
                        answer: received.answer.clone(),
                        by: received.by.clone(),
                    }));
                }
            }
            match steps.last() {
                Some(last) if steps.len() == 100 => after = Some(last.seq),
                _ => return Ok(None),
            }
        }
    }

    async fn note_decision(
        &self,
        press: &Press,
        asked: Asked,
        person: &Person,
        outcome: (&'static str, u16),
        trace: &TraceId,
    ) {
        let mut details = serde_json::Map::new();
        details.insert("answer".to_owned(), json!(press.action));
        details.insert("request".to_owned(), json!(asked.request.to_string()));
        details.insert("channel".to_owned(), json!(press.channel));
        let target = format!("/tasks/{}/input", asked.execution);
        self.write_down(
            "SLACK button",
            target,
            person,
            outcome,
            trace.clone(),
            details,
        )
        .await;
    }
}
