//! The agents that work under fault. Everything that an execution does names the execution, so that the audit can tell
//! whose it was.

use serde_json::Value;

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
    /// The same, and has what was said long ago summed up.
    Chronicler,
    /// Is started by schedules.
    Ticker,
    /// Plans, and has a team do it.
    Lead,
    /// Does two steps of the plan, as two children.
    Scout,
    /// Does the last.
    Writer,
}

use Kind::{
    Approver, Asker, Charger, Chronicler, Delegator, Helper, Lead, Listener, Orderer, Reader,
    Scout, Setter, Spender, Stepper, Talker, Ticker, Writer,
};

/// How many calls the spender may make.
pub(super) const SPENDERS_BUDGET: u32 = 3;
/// How many tokens a lead and its team may consume.
pub(super) const LEADS_BUDGET: u64 = 200_000;
/// The steps of a lead's plan, and who does each; the last one waits for the others.
pub(super) const PLAN: [(&str, Kind); 3] = [("find", Scout), ("weigh", Scout), ("write", Writer)];
/// What starts a listener.
pub(super) const TOPIC: &str = "fault.happened";
/// What happens in Slack that starts one too.
pub(super) const HAPPENING: &str = "reaction_added";
/// How many conversations each talking agent has: few, so that messages wait for one another.
pub(super) const CONVERSATIONS: usize = 3;
/// How many messages of a conversation the chronicler is shown: so few that a summary is made again and again.
const CHRONICLE: u32 = 8;
/// How the instruction of a step begins; the name of its execution follows.
pub(super) const PART: &str = "Your part is ";

impl Kind {
    pub(super) const ALL: [Self; 17] = [
        Reader, Setter, Orderer, Charger, Stepper, Delegator, Helper, Asker, Approver, Listener,
        Spender, Talker, Chronicler, Ticker, Lead, Scout, Writer,
    ];

    /// Those that somebody outside asks for.
    pub(super) const ASKED_FOR: [Self; 13] = [
        Reader, Setter, Orderer, Charger, Stepper, Delegator, Asker, Approver, Listener, Spender,
        Talker, Chronicler, Lead,
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
            Chronicler => "chronicler",
            Ticker => "ticker",
            Lead => "lead",
            Scout => "scout",
            Writer => "writer",
        }
    }

    /// How many executions come of one, children among them.
    pub(super) const fn size(self) -> usize {
        match self {
            Delegator => 2,
            Lead => 1 + PLAN.len(),
            _ => 1,
        }
    }

    /// Whether it answers the messages of conversations.
    pub(super) const fn talks(self) -> bool {
        matches!(self, Talker | Chronicler)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Which tools it calls in this turn; none when it answers.
    pub(super) const fn calls(self, turn: usize) -> &'static [&'static str] {
        match (self, turn) {
            (Reader, 0) => &["read"],
            (Setter | Listener | Helper | Talker | Chronicler | Ticker, 0) | (Asker, 1) => &["set"],
            (Scout, 0) => &["shared_state_set", "set"],
            (Writer, 0) => &["shared_state_get", "charge"],
            (Writer, 1) => &["shared_state_set"],
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
            Setter | Listener | Helper | Spender | Talker | Chronicler | Ticker => &["set"],
            Orderer => &["order"],
            Charger => &["charge"],
            Stepper => &["read", "set", "order", "charge"],
            Delegator => &["helper", "charge"],
            Asker => &["ask_human", "set"],
            Approver => &["approved_charge"],
            Lead => &[],
            Scout => &["shared_state_set", "set"],
            Writer => &["shared_state_get", "shared_state_set", "charge"],
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

/// The name of the execution that does a step of a lead's plan.
pub(super) fn part_of(lead: &str, step: &str) -> String {
    format!("{lead}-{step}")
}

/// The name of the execution that somebody outside asked for: the parent's, for a child.
pub(super) fn asked_for(execution: &str) -> &str {
    let steps = PLAN.iter().map(|(step, _)| *step);
    let mut ends = steps.chain(["child"]);
    ends.find_map(|end| execution.strip_suffix(end)?.strip_suffix('-'))
        .unwrap_or(execution)
}

/// Whether a person says no to what this execution wants to do: to one in four.
pub(super) fn is_refused(execution: &str) -> bool {
    let number = execution.trim_start_matches('e').split('-').next();
    let number = number.and_then(|number| number.parse::<usize>().ok());
    number.is_some_and(|number| number % 4 == 0)
}

/// The name of the execution that this text or event is about.
pub(super) fn subject(text: &str) -> String {
    let first_word = |rest: &str| rest.split_whitespace().next().map(str::to_owned);
    if let Some(name) = text.strip_prefix(PART).and_then(first_word) {
        return name;
    }
    // What a coordinator is told about its task.
    if let Some(name) = text
        .split_once("<task>")
        .and_then(|(_, rest)| first_word(rest))
    {
        return name;
    }
    let event: Option<Value> = serde_json::from_str(text).ok();
    let name = event.as_ref().and_then(name_in);
    name.unwrap_or_else(|| text.to_owned())
}

/// The name in the input of an execution.
pub(super) fn name_in(input: &Value) -> Option<String> {
    let data = &input["event"]["data"];
    let names = [&data["name"], &data["event"]["reaction"]];
    let texts = ["prompt", "task", "task_description"].map(|field| input[field].as_str());
    let text = texts.into_iter().flatten().next();
    text.map(subject)
        .or_else(|| Some(names.into_iter().find_map(Value::as_str)?.to_owned()))
}

/// Writes the files of agents.
pub(super) fn write(project: &Project, effects: &str, kinds: impl IntoIterator<Item = Kind>) {
    for kind in kinds {
        project.agent(kind.name(), &definition(kind, effects));
    }
}

fn definition(kind: Kind, url: &str) -> String {
    let name = kind.name();
    let mode = match kind {
        Talker | Chronicler => "continuous",
        Ticker => "scheduled",
        Lead => "collaborative",
        _ => "autonomous",
    };
    let mut text = format!(
        "name: {name}\nexecution_mode: {mode}\nsystem_prompt: You are {name}.\n\
         llm_config: {{ provider: openai, model: gpt-4o-mini }}\n"
    );
    match kind {
        Listener => {
            text += &format!("event_subscriptions: [{TOPIC}, slack.event.{HAPPENING}]\n");
        }
        Spender => text += &format!("budget: {{ max_tool_calls: {SPENDERS_BUDGET} }}\n"),
        Chronicler => {
            text += &format!(
                "continuous_config: {{ max_conversation_history: {CHRONICLE}, conversation_pruning_strategy: summarize }}\n"
            );
        }
        Ticker => text += &super::clockwork::own_schedule(),
        Lead => {
            text += &format!(
                "budget: {{ max_tokens: {LEADS_BUDGET} }}\ncollaborative_config: {{ preferred_collaborators: [scout, writer] }}\n"
            );
        }
        _ => {}
    }
    if !kind.tools().is_empty() {
        text += "tools:\n";
    }
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
