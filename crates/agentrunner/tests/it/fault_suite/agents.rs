//! The agents that work under fault, and the model that tells them what to do. Everything that an execution does names
//! the execution, so that the audit can tell whose it was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::provider::{Answer, Request, Role};
use testkit::{EffectsStandIn, ProviderStandIn};

use crate::product::Project;

/// What an execution is an example of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Reader,
    Setter,
    Orderer,
    Charger,
    /// Several turns, several calls in one of them.
    Stepper,
    /// Hands a part to `Helper`.
    Delegator,
    /// Does it, as a child.
    Helper,
    /// Asks a person.
    Asker,
    /// Has a person allow what it does.
    Approver,
    /// Is started by an event.
    Listener,
    /// Never has enough, and has a budget.
    Spender,
    /// Answers messages of conversations.
    Talker,
}

use Kind::{
    Approver, Asker, Charger, Delegator, Helper, Listener, Orderer, Reader, Setter, Spender,
    Stepper, Talker,
};

/// How many calls the spender may make.
pub(super) const SPENDERS_BUDGET: u32 = 3;
/// What starts a listener.
pub(super) const TOPIC: &str = "fault.happened";
/// How many conversations there are: few, so that messages wait for one another.
pub(super) const CONVERSATIONS: usize = 3;

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Reader, Setter, Orderer, Charger, Stepper, Delegator, Helper, Asker, Approver, Listener,
        Spender, Talker,
    ];

    /// Those that somebody outside asks for.
    pub(super) const ASKED_FOR: [Self; 11] = [
        Reader, Setter, Orderer, Charger, Stepper, Delegator, Asker, Approver, Listener, Spender,
        Talker,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Reader => "reader",
            Setter => "setter",
            Orderer => "orderer",
            Charger => "charger",
            Stepper => "stepper",
            Delegator => "delegator",
            Helper => "helper",
            Asker => "asker",
            Approver => "approver",
            Listener => "listener",
            Spender => "spender",
            Talker => "talker",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Which tools it calls in this turn; none when it answers.
    pub(super) const fn calls(self, turn: usize) -> &'static [&'static str] {
        match (self, turn) {
            (Reader, 0) => &["read"],
            (Setter | Listener | Helper | Talker, 0) | (Asker, 1) => &["set"],
            (Orderer, 0) => &["order"],
            (Charger | Approver, 0) | (Delegator, 1) => &["charge"],
            (Delegator, 0) => &["helper"],
            (Asker, 0) => &["ask_human"],
            (Stepper, 0) => &["read", "set"],
            (Stepper, 1) => &["order"],
            (Stepper, 2) => &["charge", "read", "set"],
            (Spender, _) => &["set"],
            _ => &[],
        }
    }

    /// How many turns it takes until its answer, that one not counted; none when it would never end.
    pub(super) fn turns(self) -> Option<usize> {
        (0..8).find(|turn| self.calls(*turn).is_empty())
    }

    fn tools(self) -> &'static [&'static str] {
        match self {
            Reader => &["read"],
            Setter | Listener | Helper | Spender | Talker => &["set"],
            Orderer => &["order"],
            Charger => &["charge"],
            Stepper => &["read", "set", "order", "charge"],
            Delegator => &["helper", "charge"],
            Asker => &["ask_human", "set"],
            Approver => &["approved_charge"],
        }
    }
}

/// Names one call of an execution, the same however often it is made.
pub(super) fn call_name(execution: &str, turn: usize, index: usize) -> String {
    format!("{execution}.{turn}.{index}")
}

/// The execution and turn of a call's name.
pub(super) fn owner_of(call: &str) -> Option<(&str, usize)> {
    let (rest, _) = call.rsplit_once('.')?;
    let (execution, turn) = rest.rsplit_once('.')?;
    Some((execution, turn.parse().ok()?))
}

/// The name of the child that an execution has.
pub(super) fn child_of(execution: &str) -> String {
    format!("{execution}-child")
}

/// The name of the execution that this text or event is about.
pub(super) fn subject(text: &str) -> String {
    let event: Option<Value> = serde_json::from_str(text).ok();
    let name = event.as_ref().and_then(name_in);
    name.unwrap_or(text).to_owned()
}

/// The name in the input of an execution.
pub(super) fn name_in(input: &Value) -> Option<&str> {
    input["prompt"]
        .as_str()
        .or(input["task"].as_str())
        .or(input["event"]["data"]["name"].as_str())
}

/// Writes all agents' files.
pub(super) fn write(project: &Project, effects: &str) {
    for kind in Kind::ALL {
        project.agent(kind.name(), &definition(kind, effects));
    }
}

fn definition(kind: Kind, url: &str) -> String {
    let name = kind.name();
    let mode = match kind {
        Talker => "continuous",
        _ => "autonomous",
    };
    let mut text = format!(
        "name: {name}\nexecution_mode: {mode}\nsystem_prompt: You are {name}.\n\
         llm_config: {{ provider: openai, model: gpt-4o-mini }}\n"
    );
    if kind == Listener {
        text += &format!("event_subscriptions: [{TOPIC}]\n");
    }
    if kind == Spender {
        text += &format!("budget: {{ max_tool_calls: {SPENDERS_BUDGET} }}\n");
    }
    text += "tools:\n";
    for tool in kind.tools() {
        text += &entry(tool, url);
    }
    text
}

fn entry(tool: &str, url: &str) -> String {
    const WHAT: &str =
        "parameters: { type: object, properties: { what: { type: string } }, required: [what] }";
    let charge = format!(
        "name: charge, type: api, method: POST, url: '{url}/charge', body: {{ what: '{{what}}' }}, {WHAT}"
    );
    match tool {
        "read" => format!(
            "  - {{ name: read, type: api, url: '{url}/read/{{what}}', effect: read_only, {WHAT} }}\n"
        ),
        "set" => format!(
            "  - {{ name: set, type: api, method: PUT, url: '{url}/set/{{what}}', body: {{ value: 1 }}, effect: idempotent, {WHAT} }}\n"
        ),
        "order" => format!(
            "  - {{ name: order, type: api, method: POST, url: '{url}/order', body: {{ what: '{{what}}' }}, effect: checkable, check: check, {WHAT} }}\n  \
             - {{ name: check, type: api, method: POST, url: '{url}/order/check', effect: read_only, body: {{ key: '{{idempotency_key}}' }}, \
             parameters: {{ type: object, properties: {{ idempotency_key: {{ type: string }} }} }} }}\n"
        ),
        "charge" => format!("  - {{ {charge} }}\n"),
        "approved_charge" => format!("  - {{ {charge}, requires_approval: true }}\n"),
        "helper" => "  - { name: helper, type: agent }\n".to_owned(),
        other => format!("  - {{ name: {other}, type: function }}\n"),
    }
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
    let name = subject(request.last_user());
    let Some(kind) = kind_of(request) else {
        return Answer::say("who am I?");
    };
    let calls = kind.calls(request.turn);
    // Different each time, so that a kill finds executions at all places.
    let pause = Duration::from_millis(20 + (request.number as u64 * 7919) % 280);
    let mut answer = Answer::default();
    for (index, tool) in calls.iter().enumerate() {
        answer = match *tool {
            "helper" => answer.and_call("helper", json!({ "task": child_of(&name) })),
            "ask_human" => answer.and_call("ask_human", json!({ "question": "Shall I?" })),
            tool => answer.and_call(
                tool,
                json!({ "what": call_name(&name, request.turn, index) }),
            ),
        };
    }
    if calls.is_empty() {
        answer = Answer::say(format!("{name} is done"));
    }
    answer.after(pause)
}

fn kind_of(request: &Request) -> Option<Kind> {
    let system = request.messages.iter().find(|m| m.role == Role::System)?;
    let name = system.text.strip_prefix("You are ")?;
    Kind::named(name.split('.').next()?)
}
