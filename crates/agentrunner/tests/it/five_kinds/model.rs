//! The model behind all agents: what it says follows from what it is asked, so that an answer tells what was known then.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::{Answer, Request, Role};

/// Why a person refuses a refund; the model is told.
pub(super) const TOO_MUCH: &str = "too much for one order";
/// What the plan of a task that nobody touches has.
pub(super) const STEPS: [&str; 3] = ["facts", "figures", "check"];

pub(super) fn start(runbook: PathBuf) -> ProviderStandIn {
    ProviderStandIn::start(move |request: &Request| {
        // Different each time, so that a kill finds executions at all places.
        let pause = Duration::from_millis(30 + (request.number as u64 * 7919) % 220);
        answer(request, &runbook).after(pause)
    })
}

fn answer(request: &Request, runbook: &Path) -> Answer {
    let system = request.messages.first().map_or("", |first| &first.text);
    let is = |words: &str| system.contains(words);
    if is("You keep the memory") {
        Answer::say("they talked about orders")
    } else if is("You plan the work") {
        plan(request)
    } else if is("You look at results") {
        review(request)
    } else if is("Your team has done") {
        Answer::say(format!("{} is answered", task(request).0))
    } else if is("support desk") {
        support(request)
    } else if is("daily report") {
        report(request)
    } else if is("watch the shop's checkout") {
        monitor(request)
    } else if is("shop's analyst") {
        analyst(request, runbook)
    } else if is("You are a researcher") || is("You are a critic") {
        collaborator(request, is("You are a critic"))
    } else {
        Answer::say("who am I?")
    }
}

/// What a customer wrote: the message's name, and the rest.
pub(super) fn written(text: &str) -> Option<(String, String)> {
    let input: Option<Value> = serde_json::from_str(text).ok();
    let words = match &input {
        Some(input) => (input["event"]["data"]["text"].as_str()).or(input["text"].as_str())?,
        None => text,
    };
    let (name, rest) = words.split_once(' ')?;
    Some((name.to_owned(), rest.to_owned()))
}

/// Names the message before, so that the answer proves what the conversation was when it was given.
fn support(request: &Request) -> Answer {
    let users = request.messages.iter().filter(|m| m.role == Role::User);
    let mut names = users.filter_map(|message| written(&message.text));
    let (name, wish) = names.next_back().unwrap_or_default();
    let before = names
        .next_back()
        .map_or("nobody".to_owned(), |(name, _)| name);
    let amount = |text: &str| -> Option<u64> {
        let digits = text.split_once("\"amount\":")?.1;
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != ' ')?;
        digits[..end].trim().parse().ok()
    };
    let result = request.last_tool_result();
    let rest = match (wish.split_once(' '), request.turn) {
        (Some(("where", _)), 0) => return Answer::call("find_order", json!({ "order_id": name })),
        (Some(("where", _)), _) if result.contains(&format!("value of {name}")) => {
            "found".to_owned()
        }
        (Some(("refund", sum)), 0) => {
            let sum: u64 = sum.parse().unwrap_or_default();
            return Answer::call("refund", json!({ "order_id": name, "amount": sum }));
        }
        (Some(("refund", _)), _) if result.contains(TOO_MUCH) => "refused".to_owned(),
        (Some(("refund", _)), _) => match amount(result) {
            Some(sum) => format!("refunded {sum}"),
            None => format!("no idea: {result}"),
        },
        (None, _) if wish == "thanks" => "you are welcome".to_owned(),
        _ => format!("no idea: {wish}: {result}"),
    };
    Answer::say(format!("{name} after {before}: {rest}"))
}

fn report(request: &Request) -> Answer {
    match request.turn {
        0 => Answer::call("current_time", json!({ "timezone": "Europe/Berlin" }))
            .and_call("sales", json!({ "day": "yesterday" })),
        1 => Answer::call("remember", json!({ "key": "sales", "value": "as ever" })),
        _ => Answer::say(if heard(request, "value of yesterday") {
            "The sales were as ever."
        } else {
            "I saw no sales."
        }),
    }
}

/// Whether a tool said this.
fn heard(request: &Request, words: &str) -> bool {
    let mut results = request.messages.iter().flat_map(|m| &m.tool_results);
    results.any(|result| result.text.contains(words))
}

fn monitor(request: &Request) -> Answer {
    match request.turn {
        0 => Answer::call("checkout_status", json!({})),
        1 if request.last_tool_result().contains("degraded") => {
            let data = json!({ "service": "checkout", "status": "degraded" });
            let event = json!({ "topic": "incident.detected", "data": data });
            Answer::call("publish_event", event)
        }
        1 if request.last_tool_result().contains("\"ok\"") => Answer::say("All is well."),
        2 if request.last_tool_result().contains("published") => Answer::say("I reported it."),
        _ => Answer::say(format!("no idea: {}", request.last_tool_result())),
    }
}

/// What an analyst's answer is about.
pub(super) fn subject(text: &str) -> String {
    let input: Option<Value> = serde_json::from_str(text).ok();
    let event = input
        .as_ref()
        .and_then(|input| input["event"]["id"].as_str());
    match event {
        Some(id) => format!("event {id}"),
        None => text.split(' ').next().unwrap_or_default().to_owned(),
    }
}

/// Every question with an even number is answered badly first, so that it has to be repaired.
fn analyst(request: &Request, runbook: &Path) -> Answer {
    let spoken = request
        .messages
        .iter()
        .filter(|m| m.role == Role::Assistant);
    let subject = subject(&request.conversation);
    let is_even = subject.starts_with('q') && subject.ends_with(['0', '2', '4', '6', '8']);
    match spoken.count() {
        0 => Answer::call("metrics", json!({ "service": "payments" })).and_call(
            "read_text_file",
            json!({ "path": runbook.display().to_string() }),
        ),
        1 if is_even => Answer::say(json!({ "subject": subject }).to_string()),
        _ => {
            let knows = heard(request, "value of payments") && heard(request, "Checkout is slow");
            let cause = if knows { "payments" } else { "unknown" };
            let found = json!({ "subject": subject, "cause": cause, "action": "switch_provider" });
            Answer::say(found.to_string())
        }
    }
}

/// Name and manner of the team's task, such as `t4` and `vague`.
fn task(request: &Request) -> (String, String) {
    let text = request.messages.iter().find(|m| m.role == Role::User);
    let text = text.map_or("", |message| &message.text);
    let task = text.split_once("<task>").map_or(text, |(_, rest)| rest);
    let mut words = task.split_whitespace().map(str::to_owned);
    (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    )
}

/// A plan for a task with these of its steps.
pub(super) fn plan_of(task: &str, steps: &[&str]) -> Value {
    let step = |id: &&str| {
        let before: Vec<&&str> = steps.iter().filter(|other| **other != "check").collect();
        let (agent, inputs, waits) = match *id {
            "check" => ("critic", json!(["facts"]), json!(before)),
            _ => ("researcher", json!([]), json!([])),
        };
        json!({ "id": id, "agent": agent, "instruction": format!("{task}/{id} is yours"), "inputs": inputs,
            "depends_on": waits })
    };
    json!({ "question": "", "steps": steps.iter().map(step).collect::<Vec<_>>() })
}

fn plan(request: &Request) -> Answer {
    let (name, manner) = task(request);
    let is_first = !request.messages.iter().any(|m| m.role == Role::Assistant);
    if manner == "vague" && is_first {
        return Answer::say(json!({ "question": "For whom?", "steps": [] }).to_string());
    }
    Answer::say(plan_of(&name, &STEPS).to_string())
}

/// The figures of every third task are done again.
fn review(request: &Request) -> Answer {
    let (name, _) = task(request);
    let number: usize = name.trim_start_matches('t').parse().unwrap_or_default();
    let text = request.last_user();
    let ids = text.split("<result step=\"").skip(1);
    let ids = ids.filter_map(|rest| rest.split('"').next());
    let verdicts = ids.map(|id| {
        let again = id == "figures"
            && number.is_multiple_of(3)
            && text.contains("- figures: 1 attempts left");
        let (verdict, feedback) = match again {
            true => ("retry", "look again"),
            false => ("accept", ""),
        };
        json!({ "step": id, "verdict": verdict, "feedback": feedback })
    });
    Answer::say(json!({ "verdicts": verdicts.collect::<Vec<_>>() }).to_string())
}

fn collaborator(request: &Request, is_critic: bool) -> Answer {
    let text = request.last_user();
    let mut words = text.split_whitespace();
    let step = words.find_map(|word| word.strip_prefix('t')?.split_once('/'));
    let Some((task, step)) = step else {
        return Answer::say("what is mine?");
    };
    match (request.turn, is_critic) {
        (0, true) => Answer::call("shared_state_get", json!({ "key": "facts" })),
        (0, false) => Answer::call(
            "shared_state_set",
            json!({ "key": step, "value": format!("of t{task}") }),
        ),
        (_, true) if !heard(request, &format!("of t{task}")) => Answer::say("I know no facts"),
        _ => Answer::say(format!("the {step} of t{task}")),
    }
}
