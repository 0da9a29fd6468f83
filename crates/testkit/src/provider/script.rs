//! Behaviour from a file: rules in YAML or JSON, for a stand-in in a process of its own.
//!
//! ```yaml
//! rules:
//!   - when: { contains: "invoice", turn: 0 }   # attributes of the request; see `Request::ticket`
//!     times: 1                                  # the rule is spent after so many requests
//!     answer: { error: { kind: rate_limited }, headers: { retry-after: "1" } }
//!   - when: { face: openai }
//!     turns:                                    # by the turn of the conversation, the last repeats
//!       - tool_calls:
//!           - { name: charge, arguments: { note: "{{conversation}}" } }
//!           - { name: read, arguments: {} }
//!       - text: "the tool said {{last_tool_result}}"
//!   - calls: { turns: 4, tool: lookup }         # n turns with a call, then an answer
//!   - answers: [{ text: first }, { text: second }]   # in order of arrival, the last repeats
//! otherwise: { text: "done" }                   # without it an unmatched request is refused
//! models: [gpt-4o-mini]                         # what the model lists show
//! ```

use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Answer, ProviderError};
use super::behave::{fill_in, per_turn, sequence};
use super::request::Request;
use crate::barrier::Filter;

/// A script: the first rule that means a request answers it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    rules: Vec<Rule>,
    otherwise: Option<Answer>,
    /// The names in the lists of models. Any model may be called.
    pub models: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    when: Filter,
    times: Option<usize>,
    answer: Option<Answer>,
    answers: Option<Vec<Answer>>,
    turns: Option<Vec<Answer>>,
    calls: Option<Calls>,
}

/// Calls a tool for some turns, then answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    turns: usize,
    tool: String,
    #[serde(default)]
    arguments: Value,
    #[serde(default = "done")]
    then: String,
}

fn done() -> String {
    "done".to_owned()
}

type Behaviour = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

impl Script {
    /// Reads a script from YAML, of which JSON is a part.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        // By way of a JSON value, since flattened and tagged parts want a self-describing source.
        let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let script: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        script.rules.iter().enumerate().try_for_each(|(at, rule)| {
            rule.check()
                .map_err(|reason| format!("rule {}: {reason}", at + 1))
        })?;
        Ok(script)
    }

    /// Makes the behaviour that the script describes.
    pub fn into_behaviour(self) -> impl Fn(&Request) -> Answer + Send + Sync {
        let rules: Vec<Running> = self.rules.into_iter().map(Running::start).collect();
        let otherwise = self.otherwise;
        move |request| {
            let answer = rules.iter().find_map(|rule| rule.answer(request));
            match answer.or_else(|| otherwise.clone()) {
                Some(answer) => fill_in(answer, request),
                None => unmatched(request),
            }
        }
    }
}

/// A request that no rule means is a fault of the test, so it is refused and never retried.
fn unmatched(request: &Request) -> Answer {
    let message = format!(
        "testkit: no rule of the script means request {}",
        request.number
    );
    Answer {
        error: Some(ProviderError::invalid(message)),
        ..Answer::default()
    }
}

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
        let given = [
            self.answer.is_some(),
            self.answers
                .as_ref()
                .is_some_and(|answers| !answers.is_empty()),
            self.turns
                .as_ref()
                .is_some_and(|answers| !answers.is_empty()),
            self.calls.is_some(),
        ];
        match given.iter().filter(|given| **given).count() {
            1 => Ok(()),
            _ => Err("give exactly one of `answer`, `answers`, `turns`, `calls`"),
        }
    }

    fn behaviour(self) -> Behaviour {
        if let Some(answers) = self.answers {
            return Box::new(sequence(answers));
        }
        if let Some(answers) = self.turns {
            return Box::new(per_turn(answers));
        }
        if let Some(calls) = self.calls {
            return Box::new(move |request| match request.turn {
                turn if turn < calls.turns => Answer::call(&calls.tool, calls.arguments.clone()),
                _ => Answer::say(&calls.then),
            });
        }
        let answer = self.answer.expect("checked when parsed");
        Box::new(move |_| answer.clone())
    }
}

struct Running {
    when: Filter,
    left: Mutex<Option<usize>>,
    behaviour: Behaviour,
}

impl Running {
    fn start(rule: Rule) -> Self {
        let left = Mutex::new(rule.times);
        Self {
            when: rule.when.clone(),
            left,
            behaviour: rule.behaviour(),
        }
    }

    fn answer(&self, request: &Request) -> Option<Answer> {
        if !self.when.matches(&request.ticket()) {
            return None;
        }
        let mut left = self.left.lock().expect("no holder panics");
        match left.as_mut() {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        Some((self.behaviour)(request))
    }
}
