//! What the model and the tools saw, against what the journals allow.

use std::collections::HashMap;

use domain::{ConversationId, ExecutionId, Purpose, StepBody};
use testkit::effects::{Call, Route};

use super::super::agents::{self, Kind};
use super::super::load::Accepted;
use super::super::model::{self, Ask};
use super::{Case, Check, Evidence, Findings};

/// Both stand-ins' books, by execution.
pub(super) struct Book {
    /// Turn and number of each request. Those of a schedule's runs, which all begin with the same words, are under its
    /// name.
    requests: HashMap<String, Vec<(usize, usize)>>,
    /// How many summaries were asked for, by the name of a message that was to be summed up.
    summaries: Vec<String>,
    /// Calls, checks not among them.
    calls: HashMap<String, Vec<Seen>>,
    /// How many calls had come when a request came.
    calls_before: HashMap<usize, usize>,
    request_count: usize,
    call_count: usize,
    /// Whether every process that ended was told to.
    is_orderly: bool,
}

/// A call that arrived.
struct Seen {
    turn: usize,
    /// Its name.
    what: String,
    call: Call,
}

impl Book {
    pub(super) fn read(evidence: &Evidence<'_>, cases: &[Case]) -> Self {
        let mut requests: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        let mut summaries = Vec::new();
        let all = evidence.provider.requests();
        for one in &all {
            let request = &one.request;
            if Ask::of(request) == Ask::Summary {
                summaries.push(request.last_user().to_owned());
                continue;
            }
            let name = agents::subject(request.last_user());
            let entry = requests.entry(name).or_default();
            entry.push((model::turn_of(request), request.number));
        }
        let of_schedules = cases.iter().filter(|case| case.kind == Kind::Ticker);
        let by_id: HashMap<ExecutionId, &str> = of_schedules
            .map(|case| (case.row.execution.id, case.name.as_str()))
            .collect();
        let mut calls: HashMap<String, Vec<Seen>> = HashMap::new();
        let every = evidence.effects.calls();
        let call_count = every.len();
        for call in every.into_iter().filter(|call| call.route != Route::Check) {
            let what = what_of(&call).unwrap_or_default().to_owned();
            let Some((owner, turn)) = agents::owner_of(&what) else {
                continue;
            };
            // The runs of a schedule have one name; whose call it was, its key tells.
            let key = call.key.as_deref().and_then(|key| key.get(..36));
            let run = key.and_then(|id| by_id.get(&id.parse().ok()?));
            let owner = run.map_or(owner, |name| name).to_owned();
            let index = what.rsplit_once('.').map_or("", |(_, index)| index);
            let what = format!("{owner}.{turn}.{index}");
            let seen = Seen { turn, what, call };
            calls.entry(owner).or_default().push(seen);
        }
        Self {
            requests,
            summaries,
            calls,
            calls_before: evidence.arrivals.lock().unwrap().iter().copied().collect(),
            request_count: all.len(),
            call_count,
            is_orderly: evidence.is_orderly,
        }
    }

    /// The numbers of the requests with which an execution was asked for its first and for its latest turn, each when it
    /// was asked first.
    pub(super) fn first_and_last_turn(&self, name: &str) -> Option<(usize, usize)> {
        let requests = self.requests.get(name)?;
        let first_of = |turn: usize| {
            let of_turn = requests.iter().filter(|(of, _)| *of == turn);
            of_turn.map(|(_, number)| *number).min()
        };
        let latest = requests.iter().map(|(turn, _)| *turn).max()?;
        Some((first_of(0)?, first_of(latest)?))
    }

    /// The number of an execution's first tool call.
    pub(super) fn first_call(&self, name: &str) -> Option<usize> {
        let calls = self.calls.get(name)?.iter();
        calls.map(|seen| seen.call.number).min()
    }

    /// The number of an execution's first tool call that had an effect.
    pub(super) fn first_effect(&self, name: &str) -> Option<usize> {
        let calls = self.calls.get(name)?.iter();
        let effects = calls.filter(|seen| seen.call.effect.is_some());
        effects.map(|seen| seen.call.number).min()
    }

    pub(super) fn count(&self, findings: &mut Findings) {
        findings.model_requests = self.request_count;
        findings.summaries = self.summaries.len();
        findings.tool_calls = self.call_count;
    }

    /// I1, R5, R6 for one execution.
    pub(super) fn check(&self, case: &Case, findings: &mut Findings) {
        if self.is_orderly {
            self.nothing_was_done_again(case, findings);
        }
        self.model_calls_are_explained(case, findings);
        self.tool_calls_are_explained(case, findings);
        self.effects_happened_once(case, findings);
        self.count_late_arrivals(case, findings);
    }

    /// Whoever hands an execution back in order has done what it had begun: the next owner begins with something else.
    fn nothing_was_done_again(&self, case: &Case, findings: &mut Findings) {
        let of_timer = |step: &&domain::Step| matches!(step.body, StepBody::Timer { .. });
        let failures = case.steps.iter().filter(of_timer).count();
        let mut times: HashMap<String, usize> = HashMap::new();
        for (turn, _) in self.requests.get(&case.name).into_iter().flatten() {
            *times.entry(format!("turn {turn}")).or_default() += 1;
        }
        for seen in self.calls.get(&case.name).into_iter().flatten() {
            *times.entry(seen.what.clone()).or_default() += 1;
        }
        for (what, times) in times {
            if times > 1 + failures {
                findings.wrong(
                    Check::RepeatedStep,
                    format!("{}: {what} was done {times} times", case.name),
                );
            }
        }
    }

    /// Each owner asked at most once for each turn, beside the failures that are in the journal; and none asked for a
    /// turn whose answer it found there.
    fn model_calls_are_explained(&self, case: &Case, findings: &mut Findings) {
        let Some(requests) = self.requests.get(&case.name) else {
            return;
        };
        for (turn, allowed) in allowed_questions(case).turns.into_iter().enumerate() {
            let asked = requests.iter().filter(|(of, _)| *of == turn).count();
            if asked > allowed || asked == 0 {
                findings.wrong(
                    Check::RepeatedStep,
                    format!(
                        "{}: the model was asked {asked} times in turn {turn}, {allowed} are explained",
                        case.name
                    ),
                );
            }
        }
    }

    /// I1 for the runs of a schedule, which can't be told apart by their words: all of them together.
    pub(super) fn check_anonymous(&self, name: &str, runs: &[&Case], findings: &mut Findings) {
        let requests = self.requests.get(name).map_or(&[][..], Vec::as_slice);
        let (mut allowed, mut answered) = (0, 0);
        for case in runs {
            let questions = allowed_questions(case);
            answered += questions.turns.len();
            allowed += questions.turns.into_iter().sum::<usize>() + questions.unanswered;
        }
        if requests.len() > allowed || requests.len() < answered {
            findings.wrong(
                Check::RepeatedStep,
                format!(
                    "{name}: the model was asked {} times, has answered {answered} times, {allowed} are explained",
                    requests.len()
                ),
            );
        }
    }

    /// I1 for summaries, by conversation: who asks for one can't be told by its words.
    pub(super) fn check_summaries(&self, cases: &[Case], findings: &mut Findings) {
        let mut seen: HashMap<&ConversationId, (usize, usize)> = HashMap::new();
        let talks = cases.iter().filter(|case| case.kind == Kind::Chronicler);
        let talks: Vec<(&ConversationId, &Case)> = talks
            .filter_map(|case| Some((case.row.execution.conversation.as_ref()?, case)))
            .collect();
        for (conversation, case) in &talks {
            seen.entry(conversation).or_default().1 += allowed_questions(case).summaries;
        }
        for text in &self.summaries {
            let is_in = |(_, case): &&(&ConversationId, &Case)| text.contains(&case.name);
            match talks.iter().find(is_in) {
                Some((conversation, _)) => seen.entry(conversation).or_default().0 += 1,
                None => findings.wrong(
                    Check::RepeatedStep,
                    format!("a summary of what nobody said: {text}"),
                ),
            }
        }
        for (conversation, (asked, allowed)) in seen {
            if asked > allowed {
                findings.wrong(
                    Check::RepeatedStep,
                    format!(
                        "{conversation}: {asked} summaries were asked for, {allowed} are explained"
                    ),
                );
            }
        }
    }

    /// Each owner made each call at most once, beside the times that a person or a check allowed.
    fn tool_calls_are_explained(&self, case: &Case, findings: &mut Findings) {
        let Some(calls) = self.calls.get(&case.name) else {
            return;
        };
        let mut arrived: HashMap<String, usize> = HashMap::new();
        for seen in calls {
            *arrived.entry(seen.what.clone()).or_default() += 1;
        }
        let allowed = allowed_calls(case);
        for (what, times) in arrived {
            let most = allowed.get(&what).copied().unwrap_or_default();
            if times > most {
                findings.wrong(
                    Check::RepeatedStep,
                    format!("{what} was called {times} times, {most} are explained"),
                );
            }
        }
    }

    fn effects_happened_once(&self, case: &Case, findings: &mut Findings) {
        let mut effects: HashMap<&str, (Route, usize)> = HashMap::new();
        for Seen { what, call, .. } in self.calls.get(&case.name).into_iter().flatten() {
            let entry = effects.entry(what).or_insert((call.route, 0));
            entry.1 += usize::from(call.effect.is_some());
        }
        for (what, (route, times)) in &effects {
            let check = match route {
                Route::Charge => Check::DoubleUnsafe,
                _ => Check::Effects,
            };
            if *times > 1 {
                findings.wrong(check, format!("{what} ({route}) happened {times} times"));
            }
        }
        if case.row.status != domain::Status::Completed {
            return;
        }
        for turn in 0..case.kind.turns().unwrap_or_default() {
            for (index, tool) in case.kind.calls(turn).iter().enumerate() {
                let what = agents::call_name(&case.name, turn, index);
                let is_refused = case.kind == Kind::Approver && agents::is_refused(&case.name);
                let has_effect = matches!(*tool, "set" | "order" | "charge");
                let wanted = usize::from(has_effect && !is_refused);
                let times = effects.get(what.as_str()).map_or(0, |(_, times)| *times);
                if times < wanted {
                    findings.wrong(Check::Effects, format!("{what} ({tool}) never happened"));
                }
            }
        }
    }

    /// What came for a turn after the next turn had begun: begun by an owner that was frozen or cut off in the act.
    fn count_late_arrivals(&self, case: &Case, findings: &mut Findings) {
        let requests = self.requests.get(&case.name).map_or(&[][..], Vec::as_slice);
        let next_turn_began = |turn: usize| {
            let later = requests.iter().filter(|(of, _)| *of > turn);
            later.map(|(_, number)| *number).min()
        };
        let late_requests = requests
            .iter()
            .filter(|(turn, number)| next_turn_began(*turn).is_some_and(|first| *number > first));
        let calls = self.calls.get(&case.name).map_or(&[][..], Vec::as_slice);
        let late_calls = calls.iter().filter(|seen| {
            let before = next_turn_began(seen.turn).and_then(|first| self.calls_before.get(&first));
            before.is_some_and(|before| seen.call.number > *before)
        });
        findings.late_arrivals += late_requests.count() + late_calls.count();
    }

    /// I7: nothing came any more for what was called off.
    pub(super) fn check_cancelled(&self, accepted: &[Accepted], findings: &mut Findings) {
        for promise in accepted {
            let Some(seen) = promise.called_off else {
                continue;
            };
            let name = &promise.order.name;
            let requests = self.requests.get(name).into_iter().flatten();
            let requests = requests
                .filter(|(_, number)| *number > seen.requests)
                .count();
            let calls = self.calls.get(name).into_iter().flatten();
            let calls = calls.filter(|it| it.call.number > seen.calls).count();
            if requests + calls > 0 {
                findings.wrong(
                    Check::ActedAfterEnd,
                    format!("{name}: {requests} model requests and {calls} tool calls after it was called off"),
                );
            }
        }
    }
}

/// How often the model may have been asked.
struct Questions {
    /// For each answer in the journal, summaries aside.
    turns: Vec<usize>,
    /// For what there is no answer to.
    unanswered: usize,
    /// For summaries.
    summaries: usize,
}

/// How often the model may have been asked: by each owner from the one that came to the question to the one that has the
/// answer, once, and again after each failure that is in the journal.
fn allowed_questions(case: &Case) -> Questions {
    let (mut turns, mut summaries) = (Vec::new(), 0);
    let (mut since, mut failures) = (1, 0);
    for step in &case.steps {
        let epoch = step.epoch.get() as usize;
        let owners = epoch + 1 - since.min(epoch);
        match &step.body {
            StepBody::ModelCall(call) => {
                match call.purpose {
                    Purpose::Summary { .. } => summaries += owners + failures,
                    _ => turns.push(owners + failures),
                }
                (since, failures) = (epoch, 0);
            }
            StepBody::Timer { .. } => failures += 1,
            _ => since = epoch,
        }
    }
    let unanswered = case.row.epoch.get() as usize + 1 - since + failures;
    if turns.is_empty() {
        // It may have ended, or be, before the summary.
        summaries += unanswered;
    }
    Questions {
        turns,
        unanswered,
        summaries,
    }
}

/// How often each call may have been made: by each owner from the one that intended it to the one that settled it, once.
fn allowed_calls(case: &Case) -> HashMap<String, usize> {
    let last = case.row.epoch.get() as usize;
    // By the seq of the model call and the place in it.
    let (mut turns, mut turn) = (HashMap::new(), 0);
    let mut open: HashMap<domain::CallRef, usize> = HashMap::new();
    let mut allowed: HashMap<String, usize> = HashMap::new();
    let mut allow = |turns: &HashMap<domain::Seq, usize>, call: domain::CallRef, times: usize| {
        let turn = turns.get(&call.turn).copied().unwrap_or(usize::MAX);
        let what = agents::call_name(&case.name, turn, usize::from(call.index));
        *allowed.entry(what).or_default() += times;
    };
    for step in &case.steps {
        let epoch = step.epoch.get() as usize;
        match &step.body {
            StepBody::ModelCall(call) if !matches!(call.purpose, Purpose::Summary { .. }) => {
                turns.insert(step.seq, turn);
                turn += 1;
            }
            StepBody::ToolIntent(intent) => {
                open.insert(intent.call, epoch);
            }
            StepBody::ToolResult(result) => {
                if let Some(intended) = open.remove(&result.call) {
                    allow(&turns, result.call, epoch + 1 - intended);
                }
            }
            _ => {}
        }
    }
    for (call, intended) in open {
        allow(&turns, call, last + 1 - intended);
    }
    let is_unsafe = |what: &str| {
        let (_, turn) = agents::owner_of(what).unwrap_or_default();
        let index = what
            .rsplit_once('.')
            .and_then(|(_, index)| index.parse::<usize>().ok());
        let tools = case.kind.calls(turn);
        index.and_then(|index| tools.get(index)) == Some(&"charge")
    };
    // One that is unsafe is made by the owner that intended it alone.
    for (what, times) in &mut allowed {
        if is_unsafe(what) && case.kind != Kind::Spender {
            let intents = case.steps.iter().filter(|step| {
                matches!(&step.body, StepBody::ToolIntent(intent) if intent.tool == "charge")
            });
            *times = (*times).min(intents.count());
        }
    }
    allowed
}

/// The name of a call.
fn what_of(call: &Call) -> Option<&str> {
    call.name.as_deref().or(call.body["what"].as_str())
}
