//! Reads every journal, and what the model and the tools saw by their own books, and says what does not fit.

mod book;
mod clockwork;
mod people;
mod talk;
mod team;

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use domain::{FailureCode, Outcome, Status, Time};
use store::postgres::{Postgres, Settings};
use store::{Store, UsageFilter};
use testkit::servers::Kind as ServerKind;
use testkit::{EffectsStandIn, ProviderStandIn};

use super::agents::{self, Kind};
use super::clockwork::Clockwork;
use super::load::Accepted;
use super::model::Arrivals;
use super::world::World;
use crate::ledger::{self, Entry, Rule};
use book::Book;

/// What is looked for. Each is counted, and none may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Check {
    RepeatedStep,
    TwoWriters,
    Lost,
    StartedTwice,
    DueTimes,
    OutOfTurn,
    OverBudget,
    ActedAfterEnd,
    Replay,
    Availability,
    Unasked,
    DoubleUnsafe,
    Effects,
    Usage,
    Secret,
}

impl Check {
    pub(super) const ALL: [Self; 15] = [
        Self::RepeatedStep,
        Self::TwoWriters,
        Self::Lost,
        Self::StartedTwice,
        Self::DueTimes,
        Self::OutOfTurn,
        Self::OverBudget,
        Self::ActedAfterEnd,
        Self::Replay,
        Self::Availability,
        Self::Unasked,
        Self::DoubleUnsafe,
        Self::Effects,
        Self::Usage,
        Self::Secret,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RepeatedStep => "I1 committed steps repeated",
            Self::TwoWriters => "I2 writes by one who was not the owner",
            Self::Lost => "I3 accepted and lost, or without exactly one end",
            Self::StartedTwice => "I4 started twice by one key, event or parent",
            Self::DueTimes => "I3, I4 due times lost, doubled, or left out for no reason",
            Self::OutOfTurn => "I5 messages out of order, at once, or lost",
            Self::OverBudget => "I6 budgets overrun, costs that do not add up",
            Self::ActedAfterEnd => "I7 acts after a cancellation, children left",
            Self::Replay => "I8 journals that replay to another state",
            Self::Availability => "I9 wrong answers, processes ended by themselves",
            Self::Unasked => "acts without a person's yes, persons heard twice",
            Self::DoubleUnsafe => "R6 unsafe calls doubled",
            Self::Effects => "R5 effects missing, or doubled in spite of a key",
            Self::Usage => "usage that is not the sum of the journals",
            Self::Secret => "I10 secrets in a log",
        }
    }
}

/// An execution with everything that is known of it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) kind: Kind,
    entry: Entry,
}

impl Deref for Case {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// What the audit found.
pub(super) struct Findings {
    /// When everything was well again.
    pub(super) mended: Time,
    pub(super) wrong: BTreeMap<Check, Vec<String>>,
    pub(super) executions: BTreeMap<&'static str, usize>,
    pub(super) steps: usize,
    pub(super) model_requests: usize,
    pub(super) summaries: usize,
    pub(super) tool_calls: usize,
    pub(super) takeovers: u64,
    /// What became of due times.
    pub(super) due_times: clockwork::DueTimes,
    /// Acts that an owner began just before it was frozen or cut off and that arrived after its time.
    pub(super) late_arrivals: usize,
    /// Writes that the store refused because their epoch was over.
    pub(super) refused_late_writes: usize,
}

impl Findings {
    fn new(mended: Time) -> Self {
        Self {
            mended,
            wrong: BTreeMap::new(),
            executions: BTreeMap::new(),
            due_times: BTreeMap::new(),
            steps: 0,
            model_requests: 0,
            summaries: 0,
            tool_calls: 0,
            takeovers: 0,
            late_arrivals: 0,
            refused_late_writes: 0,
        }
    }

    pub(super) fn wrong(&mut self, check: Check, what: impl Into<String>) {
        self.wrong.entry(check).or_default().push(what.into());
    }

    pub(super) fn executions(&self) -> usize {
        self.executions.values().sum()
    }
}

/// What there is to judge by.
pub(super) struct Evidence<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) provider: &'a ProviderStandIn,
    pub(super) effects: &'a EffectsStandIn,
    pub(super) arrivals: &'a Arrivals,
    /// What was promised.
    pub(super) accepted: Vec<Accepted>,
    /// How many tool calls had arrived when a person first answered whether an execution may make one.
    pub(super) answered: HashMap<String, usize>,
    pub(super) schedules: &'static [Clockwork],
    /// When everything was well again.
    pub(super) mended: Time,
    /// Whether every process that ended was told to, so that nothing is done again by the next owner.
    pub(super) is_orderly: bool,
}

/// Connects to the database itself, without any process of the product.
pub(super) async fn open(url: &str) -> Postgres {
    let settings = Settings {
        url: Some(url.into()),
        auto_migrate: false,
        ..Settings::default()
    };
    Postgres::connect(settings).await.unwrap()
}

/// The audit of everything but the processes.
pub(super) async fn audit(evidence: &Evidence<'_>) -> Findings {
    let Evidence {
        store, accepted, ..
    } = evidence;
    let mut findings = Findings::new(evidence.mended);
    let cases = cases(*store, &mut findings).await;
    let book = Book::read(evidence, &cases);
    nothing_is_lost(accepted, &cases, &mut findings);
    journals(&cases, &mut findings);
    for case in &cases {
        ended_as_it_should(case, accepted, &mut findings);
        book.check(case, &mut findings);
    }
    clockwork::check(evidence, &cases, &book, &mut findings).await;
    talk::check(*store, accepted, &cases, &book, &mut findings).await;
    book.check_summaries(&cases, &mut findings);
    team::check(*store, &cases, &mut findings).await;
    people::check(&cases, &evidence.answered, &book, &mut findings);
    book.check_cancelled(accepted, &mut findings);
    book.count(&mut findings);
    usage_adds_up(*store, &cases, &mut findings).await;
    for rejection in evidence.provider.rejections() {
        findings.wrong(
            Check::Replay,
            format!("the model refused a request: {rejection}"),
        );
    }
    findings
}

async fn cases(store: &dyn Store, findings: &mut Findings) -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in ledger::read(store).await {
        let Entry { row, steps } = &entry;
        let execution = &row.execution;
        let kind = Kind::named(execution.agent.as_str());
        let known = clockwork::name_of(&execution.metadata);
        let known = known.or_else(|| agents::name_in(&execution.input));
        let (Some(name), Some(kind)) = (known, kind) else {
            findings.wrong(
                Check::StartedTwice,
                format!("{} was never asked for: {}", execution.id, execution.input),
            );
            continue;
        };
        *findings.executions.entry(row.status.as_str()).or_default() += 1;
        findings.steps += steps.len();
        findings.takeovers += u64::from(row.epoch.get().saturating_sub(1));
        cases.push(Case { name, kind, entry });
    }
    cases
}

/// What the journals themselves show.
fn journals(cases: &[Case], findings: &mut Findings) {
    let entries = cases.iter().map(|case| &case.entry);
    for flaw in ledger::flaws(entries) {
        let check = match flaw.rule {
            Rule::I2 => Check::TwoWriters,
            Rule::I3 => Check::Lost,
            Rule::I4 => Check::StartedTwice,
            Rule::I6 => Check::OverBudget,
            Rule::I7 => Check::ActedAfterEnd,
            Rule::I8 => Check::Replay,
            Rule::Unasked => Check::Unasked,
        };
        findings.wrong(check, flaw.what);
    }
}

/// I3, I4: what was promised is there, once, and is over.
fn nothing_is_lost(accepted: &[Accepted], cases: &[Case], findings: &mut Findings) {
    let mut by_name: HashMap<&str, Vec<&Case>> = HashMap::new();
    for case in cases {
        by_name.entry(&case.name).or_default().push(case);
    }
    for (name, found) in &by_name {
        if found.len() > 1 {
            findings.wrong(
                Check::StartedTwice,
                format!("{name} is {} executions", found.len()),
            );
        }
    }
    for promise in accepted {
        let name = promise.order.name.as_str();
        let Some(case) = by_name.get(name).and_then(|found| found.first()) else {
            findings.wrong(Check::Lost, format!("{name} is not there"));
            continue;
        };
        let id = case.row.execution.id.to_string();
        if promise.id.as_ref().is_some_and(|promised| *promised != id) {
            findings.wrong(
                Check::Lost,
                format!("{name} was accepted as {:?}, there is {id}", promise.id),
            );
        }
    }
}

/// It ended as an undisturbed one would have, or because it was called off.
fn ended_as_it_should(case: &Case, accepted: &[Accepted], findings: &mut Findings) {
    let Case { name, kind, .. } = case;
    let row = &case.row;
    let is_called_off = |name: &str| {
        let promise = accepted.iter().find(|promise| promise.order.name == name);
        promise.is_some_and(|promise| promise.order.is_called_off())
    };
    let parent = agents::asked_for(name);
    let fits = match (&row.outcome, row.status) {
        (_, status) if !status.is_terminal() => true,
        _ if *kind == Kind::Ticker => clockwork::may_end_so(case),
        (Some(Outcome::Cancelled { .. }), Status::Cancelled) => is_called_off(parent),
        (Some(Outcome::Failed(failure)), Status::Failed) => {
            *kind == Kind::Spender && failure.code == FailureCode::BudgetExceeded
        }
        (Some(_), Status::Completed) => *kind != Kind::Spender,
        _ => false,
    };
    if !fits {
        findings.wrong(
            Check::Lost,
            format!(
                "{name} ({}) ended as {}: {:?}",
                row.execution.id, row.status, row.outcome
            ),
        );
    }
    if *kind == Kind::Spender && row.totals.tool_calls > agents::SPENDERS_BUDGET {
        findings.wrong(
            Check::OverBudget,
            format!("{name} made {} tool calls", row.totals.tool_calls),
        );
    }
}

/// I6: what the budgets are reckoned with is the sum of what the journals say, counted once.
async fn usage_adds_up(store: &dyn Store, cases: &[Case], findings: &mut Findings) {
    let mut by_agent: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for case in cases {
        let sum = by_agent
            .entry(case.row.execution.agent.to_string())
            .or_default();
        let totals = &case.row.totals;
        sum.0 += u64::from(totals.model_calls);
        sum.1 += u64::from(totals.tool_calls);
        sum.2 += totals.usage.output_tokens.0;
    }
    let mut counted: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for row in store.usage(UsageFilter::default()).await.unwrap() {
        let sum = counted.entry(row.agent.to_string()).or_default();
        sum.0 += row.model_calls;
        sum.1 += row.tool_calls;
        sum.2 += row.usage.output_tokens.0;
    }
    by_agent.retain(|_, sum| *sum != (0, 0, 0));
    if by_agent != counted {
        findings.wrong(
            Check::Usage,
            format!("journals {by_agent:?}, counted {counted:?}"),
        );
    }
}

/// I9, I10: no process ended by itself, panicked, or told a secret.
pub(super) fn processes(world: &World, findings: &mut Findings) {
    for complaint in world.complaints() {
        findings.wrong(Check::Availability, complaint);
    }
    let secrets: Vec<String> = [
        ("POSTGRES_PASSWORD", ServerKind::Postgres),
        ("RABBITMQ_PASSWORD", ServerKind::RabbitMq),
    ]
    .into_iter()
    .map(|(name, server)| world.server(server).export(name).to_owned())
    .chain([super::SECRET.to_owned()])
    .collect();
    for process in &world.processes {
        for end in process.own_ends.lock().unwrap().iter() {
            findings.wrong(Check::Availability, format!("ended by itself: {end}"));
        }
        let log = process.log();
        findings.refused_late_writes += log.matches(super::REFUSED).count();
        for (line, next) in log.lines().zip(log.lines().skip(1)) {
            // The thread of lapin when a process ends that never reached RabbitMQ: noise of its last moment.
            let is_noise = line.contains("'lapin-io-loop'") && next.ends_with("was cancelled");
            if line.contains("panicked") && !is_noise {
                findings.wrong(Check::Availability, format!("{line} {next}"));
            }
            if secrets.iter().any(|secret| line.contains(secret)) {
                findings.wrong(Check::Secret, "a log line holds a secret");
            }
        }
    }
}
