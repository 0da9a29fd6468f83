//! What the coordinator's model says about results. Nothing of it is believed before it is compared with what it was asked.

use serde_json::Value;

use super::{Team, Verdict, VerdictKind};
use crate::id::PlanStepId;
use crate::plan::json_in;

/// How much of a model's reasons is kept, in characters.
const MAX_WORDS: usize = 4000;

/// What it thinks of the results that it was shown.
///
/// # Errors
/// What is wrong with the answer.
pub(super) fn verdicts(team: &Team, text: &str) -> Result<Vec<Verdict>, Vec<String>> {
    let value = json_in(text).map_err(|why| vec![why])?;
    let list = match &value {
        Value::Array(list) => Some(list),
        _ => value.get("verdicts").and_then(Value::as_array),
    };
    let Some(list) = list else {
        return Err(vec!["it has no \"verdicts\", which is a list".to_owned()]);
    };
    let (mut verdicts, mut problems) = (Vec::new(), Vec::new());
    for part in team.delivered() {
        let id = part.step.id.as_str();
        let mut of_it = list
            .iter()
            .filter(|entry| entry.get("step").and_then(Value::as_str) == Some(id));
        let (Some(entry), None) = (of_it.next(), of_it.next()) else {
            problems.push(format!("there must be one verdict on step {id:?}"));
            continue;
        };
        let word = entry.get("verdict").and_then(Value::as_str);
        let verdict = match word.map(str::trim) {
            Some("accept") => VerdictKind::Accept,
            Some("retry") if team.attempts_left(part) == 0 => {
                problems.push(format!(
                    "step {id:?} can't be done again: accept it, or plan anew"
                ));
                continue;
            }
            Some("retry") => VerdictKind::Retry,
            Some("replan") if team.replans >= team.terms.max_replans => {
                problems.push(format!(
                    "it can't be planned anew any more: accept step {id:?}, or have it done again"
                ));
                continue;
            }
            Some("replan") => VerdictKind::Replan,
            _ => {
                problems.push(format!(
                    "the verdict on step {id:?} is accept, retry or replan"
                ));
                continue;
            }
        };
        verdicts.push(Verdict {
            step: part.step.id.clone(),
            verdict,
            feedback: words(entry.get("feedback")),
        });
    }
    if problems.is_empty() {
        Ok(verdicts)
    } else {
        Err(problems)
    }
}

/// Which answers hold, and why.
///
/// # Errors
/// What is wrong with the answer.
pub(super) fn judgement(team: &Team, text: &str) -> Result<(Vec<PlanStepId>, String), Vec<String>> {
    let value = json_in(text).map_err(|why| vec![why])?;
    let chosen = value.get("chosen").and_then(Value::as_array);
    let Some(chosen) = chosen.filter(|list| !list.is_empty()) else {
        return Err(vec![
            "it has no \"chosen\", which is a list of one step or more".to_owned(),
        ]);
    };
    let known = |entry: &Value| {
        let id = entry.as_str()?;
        let part = team.parts.iter().find(|part| part.step.id.as_str() == id)?;
        part.is_accepted().then(|| part.step.id.clone())
    };
    let ids: Option<Vec<PlanStepId>> = chosen.iter().take(team.parts.len()).map(known).collect();
    match ids {
        Some(ids) => Ok((ids, words(value.get("reason")))),
        None => Err(vec![
            "\"chosen\" names something that is none of the answers".to_owned(),
        ]),
    }
}

fn words(value: Option<&Value>) -> String {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    text.chars().take(MAX_WORDS).collect()
}
