//! Taking a proposed plan out of a text. Models put words and fences around JSON, and write numbers for names; all of
//! that is understood, and nothing of it is believed.

use serde_json::Value;

/// The longest text that is looked at, in bytes.
const MAX_BYTES: usize = 256 << 10;
/// How many steps are looked at, at most.
const MAX_STEPS: usize = 1000;

/// A proposed plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Its steps, as they are written.
    pub steps: Vec<DraftStep>,
}

/// A proposed step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftStep {
    /// Its name.
    pub id: String,
    /// For whom.
    pub agent: String,
    /// What is to be done.
    pub instruction: String,
    /// Keys of the shared state.
    pub inputs: Vec<String>,
    /// What it waits for.
    pub depends_on: Vec<String>,
}

/// What a text proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drafted {
    /// A plan.
    Plan(Draft),
    /// Nothing before a question is answered.
    Question(String),
}

/// Reads a proposal: `{"steps": [{"id", "agent", "instruction", "inputs", "depends_on"}]}`, or `{"question": "…"}`.
///
/// # Errors
/// It is neither; the sentence says what it is instead.
pub fn read(text: &str) -> Result<Drafted, String> {
    let value = json_in(text)?;
    let steps = match &value {
        Value::Array(steps) => Some(steps),
        _ => value.get("steps").and_then(Value::as_array),
    };
    let question = value.get("question").and_then(Value::as_str).map(str::trim);
    match (steps, question) {
        (None, Some(question)) | (Some(_), Some(question))
            if !question.is_empty() && steps.is_none_or(Vec::is_empty) =>
        {
            Ok(Drafted::Question(question.to_owned()))
        }
        (Some(steps), _) if steps.len() > MAX_STEPS => Err(format!("it has {} steps", steps.len())),
        (Some(steps), _) => {
            let steps = steps.iter().enumerate();
            let steps = steps.map(|(index, step)| one(index + 1, step));
            let steps = steps.collect::<Result<_, _>>()?;
            Ok(Drafted::Plan(Draft { steps }))
        }
        (None, _) => Err("it has no \"steps\", which is a list".to_owned()),
    }
}

/// The JSON value in a text: the whole of it, what stands in a fenced block, or what lies between the outermost braces.
pub(crate) fn json_in(text: &str) -> Result<Value, String> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "it has {} bytes; at most {MAX_BYTES} are read",
            text.len()
        ));
    }
    let trimmed = text.trim();
    let whole = serde_json::from_str::<Value>(trimmed);
    let Err(error) = whole else {
        return whole.map_err(|error| error.to_string());
    };
    let between = |open: char, close: char| {
        let (start, end) = (trimmed.find(open)?, trimmed.rfind(close)?);
        serde_json::from_str::<Value>(trimmed.get(start..=end)?).ok()
    };
    between('{', '}')
        .or_else(|| between('[', ']'))
        .ok_or_else(|| {
            if trimmed.is_empty() {
                "it is empty".to_owned()
            } else {
                format!("it is not JSON: {error}")
            }
        })
}

fn one(number: usize, value: &Value) -> Result<DraftStep, String> {
    if !value.is_object() {
        return Err(format!("step number {number} is not an object"));
    }
    let text = |field: &str| match value.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(found) => {
            word(found).ok_or_else(|| format!("step number {number}: \"{field}\" is not a text"))
        }
    };
    let list = |field: &str| match value.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MAX_STEPS => {
            let words: Option<Vec<String>> = items.iter().map(word).collect();
            words.ok_or_else(|| format!("step number {number}: \"{field}\" is not a list of texts"))
        }
        Some(found) => word(found)
            .map(|only| vec![only])
            .ok_or_else(|| format!("step number {number}: \"{field}\" is not a list of texts")),
    };
    Ok(DraftStep {
        id: text("id")?,
        agent: text("agent")?,
        instruction: text("instruction")?,
        inputs: list("inputs")?,
        depends_on: list("depends_on")?,
    })
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Vec<DraftStep> {
        match read(text) {
            Ok(Drafted::Plan(draft)) => draft.steps,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plan_is_found_in_what_models_write_around_it() {
        let json =
            r#"{"steps": [{"id": 1, "agent": "a", "instruction": "go", "depends_on": "2"}]}"#;
        let fenced = format!("Here you are:\n```json\n{json}\n```\nGood luck!");
        for text in [json, fenced.as_str()] {
            let steps = plan(text);
            assert_eq!((steps[0].id.as_str(), steps[0].agent.as_str()), ("1", "a"));
            assert_eq!(steps[0].depends_on, ["2"]);
        }
        assert_eq!(plan(r#"[{"id": "x"}]"#).len(), 1);
    }

    #[test]
    fn a_question_is_one_only_without_steps() {
        let question = read(r#"{"question": "Which year?", "steps": []}"#);
        assert_eq!(question, Ok(Drafted::Question("Which year?".to_owned())));
        assert_eq!(plan(r#"{"question": "", "steps": [{"id": "a"}]}"#).len(), 1);
        assert_eq!(
            plan(r#"{"question": "?", "steps": [{"id": "a"}]}"#).len(),
            1
        );
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        for (text, told) in [
            ("", "empty"),
            ("I would rather not", "not JSON"),
            ("{}", "no \"steps\""),
            ("{\"steps\": 7}", "no \"steps\""),
            ("{\"steps\": [7]}", "not an object"),
            ("{\"steps\": [{\"id\": {}}]}", "not a text"),
            ("{\"steps\": [{\"depends_on\": [[]]}]}", "list of texts"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(told), "{text}: {why}");
        }
        assert!(read(&"x".repeat(MAX_BYTES + 1)).is_err());
    }
}
