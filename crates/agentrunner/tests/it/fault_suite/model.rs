//! The model that tells the agents what to do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::provider::{Answer, Request, Role};
use testkit::{EffectsStandIn, ProviderStandIn};

use super::agents::{self, Kind, PART, PLAN, asked_for, call_name, part_of, subject};

/// What the model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// An agent's turn.
    Turn,
    /// A summary of what was said long ago.
    Summary,
    /// The three things that a lead's model does.
    Plan,
    Review,
    Conclusion,
}

impl Ask {
    pub(super) fn of(request: &Request) -> Self {
        let system = request.messages.iter().find(|m| m.role == Role::System);
        let system = system.map_or("", |message| &message.text);
        let words = [
            ("You keep the memory", Self::Summary),
            ("You plan the work", Self::Plan),
            ("You look at results", Self::Review),
            ("Your team has done", Self::Conclusion),
        ];
        let mut words = words.into_iter();
        words
            .find(|(words, _)| system.contains(words))
            .map_or(Self::Turn, |(_, ask)| ask)
    }
}

/// Which of its execution's answers is asked for, from 0: a lead plans, looks at the first two results, at the last one,
/// and concludes. Summaries are not counted.
pub(super) fn turn_of(request: &Request) -> usize {
    match Ask::of(request) {
        Ask::Turn | Ask::Summary => request.turn,
        Ask::Plan => 0,
        Ask::Review if results(request).any(|step| step == PLAN[2].0) => 2,
        Ask::Review => 1,
        Ask::Conclusion => 3,
    }
}

/// The steps whose results a lead's model is shown.
fn results(request: &Request) -> impl Iterator<Item = &str> {
    let blocks = request.last_user().split("<result step=\"").skip(1);
    blocks.filter_map(|rest| rest.split('"').next())
}

/// How many tool calls had arrived when each request of the model came, in order of their numbers: it orders what two
/// stand-ins saw.
pub(super) type Arrivals = Arc<Mutex<Vec<(usize, usize)>>>;

/// Starts the model.
pub(super) fn provider(effects: &Arc<EffectsStandIn>, arrivals: &Arrivals) -> ProviderStandIn {
    let (effects, arrivals) = (effects.clone(), arrivals.clone());
    ProviderStandIn::start(move |request: &Request| {
        let so_far = effects.count();
        arrivals.lock().unwrap().push((request.number, so_far));
        answer(request)
    })
}

fn answer(request: &Request) -> Answer {
    // Different each time, so that a kill finds executions at all places.
    let pause = Duration::from_millis(20 + (request.number as u64 * 7919) % 280);
    let name = subject(request.last_user());
    let answer = match Ask::of(request) {
        Ask::Turn => turn(request, &name),
        Ask::Summary => Answer::say("they said much"),
        Ask::Plan => Answer::say(plan(&name).to_string()),
        Ask::Review => {
            let verdict = |step| json!({ "step": step, "verdict": "accept", "feedback": "" });
            let verdicts: Vec<Value> = results(request).map(verdict).collect();
            Answer::say(json!({ "verdicts": verdicts }).to_string())
        }
        Ask::Conclusion => Answer::say(format!("{name} is done")),
    };
    answer.after(pause)
}

fn plan(lead: &str) -> Value {
    let steps = PLAN.iter().enumerate().map(|(index, (step, kind))| {
        let waits_for: Vec<&str> = match index {
            2 => PLAN.iter().take(2).map(|(step, _)| *step).collect(),
            _ => Vec::new(),
        };
        json!({
            "id": step, "agent": kind.name(), "instruction": format!("{PART}{}", part_of(lead, step)),
            "inputs": [], "depends_on": waits_for,
        })
    });
    json!({ "question": "", "steps": steps.collect::<Vec<_>>() })
}

fn turn(request: &Request, name: &str) -> Answer {
    let Some(kind) = kind_of(request) else {
        return Answer::say("who am I?");
    };
    let calls = kind.calls(request.turn);
    if calls.is_empty() {
        return Answer::say(format!("{name} is done"));
    }
    let mut answer = Answer::default();
    for (index, tool) in calls.iter().enumerate() {
        let arguments = match *tool {
            "helper" => json!({ "task": agents::child_of(name) }),
            "ask_human" => json!({ "question": "Shall I?" }),
            "shared_state_set" => json!({ "key": name, "value": request.turn }),
            "shared_state_get" => json!({ "key": part_of(asked_for(name), PLAN[0].0) }),
            _ => json!({ "what": call_name(name, request.turn, index) }),
        };
        answer = answer.and_call(*tool, arguments);
    }
    answer
}

fn kind_of(request: &Request) -> Option<Kind> {
    let system = request.messages.iter().find(|m| m.role == Role::System)?;
    let name = system.text.strip_prefix("You are ")?;
    Kind::named(name.split('.').next()?)
}
