//! Reads every journal, and what the model and the tools saw by their own books, and says what does not fit.

mod book;
mod journal;
mod talk;

use std::collections::{BTreeMap, HashMap};

use domain::{Execution, FailureCode, Outcome, Status, Step};
use store::postgres::{Postgres, Settings};
use store::{ExecutionFilter, ExecutionRow, Page, Store, UsageFilter};
use testkit::servers::Kind as ServerKind;

use super::agents::{self, Kind};
use super::load::{Accepted, Load};
use super::world::World;
use book::Book;

/// What is looked for. Each is counted, and none may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Check {
    RepeatedStep,
    TwoWriters,
    Lost,
    StartedTwice,
    OutOfTurn,
    OverBudget,
    ActedAfterEnd,
    Replay,
    Availability,
    DoubleUnsafe,
    Effects,
    Usage,
    Secret,
}

impl Check {
    pub(super) const ALL: [Self; 13] = [
        Self::RepeatedStep,
        Self::TwoWriters,
        Self::Lost,
        Self::StartedTwice,
        Self::OutOfTurn,
        Self::OverBudget,
        Self::ActedAfterEnd,
        Self::Replay,
        Self::Availability,
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
            Self::StartedTwice => "I4 started twice by one key or event",
            Self::OutOfTurn => "I5 messages of a conversation out of order, at once, or lost",
            Self::OverBudget => "I6 budgets overrun",
            Self::ActedAfterEnd => "I7 acts after a cancellation, children left",
            Self::Replay => "I8 journals that replay to another state",
            Self::Availability => "I9 wrong answers, processes ended by themselves",
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
    pub(super) row: ExecutionRow,
    pub(super) steps: Vec<Step>,
}

/// What the audit found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) wrong: BTreeMap<Check, Vec<String>>,
    pub(super) executions: BTreeMap<&'static str, usize>,
    pub(super) steps: usize,
    pub(super) model_requests: usize,
    pub(super) tool_calls: usize,
    pub(super) takeovers: u64,
    /// Acts that an owner began just before it was frozen or cut off and that arrived after its time.
    pub(super) late_arrivals: usize,
    /// Writes that the store refused because their epoch was over.
    pub(super) refused_late_writes: usize,
}

impl Findings {
    pub(super) fn wrong(&mut self, check: Check, what: impl Into<String>) {
        self.wrong.entry(check).or_default().push(what.into());
    }

    pub(super) fn executions(&self) -> usize {
        self.executions.values().sum()
    }
}

/// Connects to the database itself, without any process of the product.
pub(super) async fn open(world: &World) -> Postgres {
    let settings = Settings {
        url: Some(world.server(ServerKind::Postgres).url().into()),
        auto_migrate: false,
        ..Settings::default()
    };
    Postgres::connect(settings).await.unwrap()
}

/// Every execution.
pub(super) async fn rows(store: &Postgres) -> Vec<ExecutionRow> {
    let mut all: Vec<ExecutionRow> = Vec::new();
    loop {
        let position = |row: &ExecutionRow| {
            let Execution { created_at, id, .. } = &row.execution;
            (*created_at, id.to_string())
        };
        let page = Page {
            limit: 500,
            after: all.last().map(position),
        };
        let (rows, _) = store
            .executions(ExecutionFilter::default(), page)
            .await
            .unwrap();
        if rows.is_empty() {
            return all;
        }
        all.extend(rows);
    }
}

/// The audit.
pub(super) async fn audit(world: &World, load: &Load) -> Findings {
    let store = open(world).await;
    let mut findings = Findings::default();
    let cases = cases(&store, &mut findings).await;
    let accepted = load.accepted();
    let book = Book::read(world);
    nothing_is_lost(&accepted, &cases, &mut findings);
    for case in &cases {
        journal::check(case, &mut findings);
        ended_as_it_should(case, &accepted, &mut findings);
        book.check(case, &mut findings);
    }
    children_end_too(&cases, &mut findings);
    talk::check(&store, &accepted, &cases, &book, &mut findings).await;
    book.check_cancelled(&accepted, &mut findings);
    book.count(&mut findings);
    usage_adds_up(&store, &cases, &mut findings).await;
    processes(world, &mut findings);
    for rejection in world.provider.rejections() {
        findings.wrong(
            Check::Replay,
            format!("the model refused a request: {rejection}"),
        );
    }
    store.close().await.unwrap();
    findings
}

async fn cases(store: &Postgres, findings: &mut Findings) -> Vec<Case> {
    let mut cases = Vec::new();
    for row in rows(store).await {
        let id = row.execution.id;
        let steps = store.steps(id, None, 10_000).await.unwrap();
        let known = agents::name_in(&row.execution.input);
        let kind = Kind::named(row.execution.agent.as_str());
        let (Some(name), Some(kind)) = (known, kind) else {
            findings.wrong(
                Check::StartedTwice,
                format!("{id} was never asked for: {}", row.execution.input),
            );
            continue;
        };
        *findings.executions.entry(row.status.as_str()).or_default() += 1;
        findings.steps += steps.len();
        findings.takeovers += u64::from(row.epoch.get().saturating_sub(1));
        cases.push(Case {
            name: name.to_owned(),
            kind,
            steps,
            row,
        });
    }
    cases
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
    for case in cases.iter().filter(|case| !case.row.status.is_terminal()) {
        let Case {
            name, row, steps, ..
        } = case;
        let reason = &row.status_reason;
        findings.wrong(
            Check::Lost,
            format!(
                "{name} ({}) is {} after {} steps: {reason:?}, due {:?}, epoch {:?}, worker {:?}",
                row.execution.id,
                row.status,
                steps.len(),
                row.due_at,
                row.epoch,
                row.worker
            ),
        );
    }
}

/// It ended as an undisturbed one would have, or because it was called off.
fn ended_as_it_should(case: &Case, accepted: &[Accepted], findings: &mut Findings) {
    let Case {
        name, kind, row, ..
    } = case;
    let is_called_off = |name: &str| {
        let promise = accepted.iter().find(|promise| promise.order.name == name);
        promise.is_some_and(|promise| promise.order.is_called_off())
    };
    let parent = name.strip_suffix("-child").unwrap_or(name);
    let fits = match (&row.outcome, row.status) {
        (_, status) if !status.is_terminal() => true,
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

/// I7: nobody's child goes on after its parent was called off.
fn children_end_too(cases: &[Case], findings: &mut Findings) {
    let by_id: HashMap<_, &Case> = cases
        .iter()
        .map(|case| (case.row.execution.id, case))
        .collect();
    for child in cases {
        let Some(parent) = &child.row.execution.parent else {
            continue;
        };
        let is_over = by_id
            .get(&parent.id)
            .is_some_and(|parent| parent.row.status.is_terminal());
        if is_over && !child.row.status.is_terminal() {
            findings.wrong(
                Check::ActedAfterEnd,
                format!("{} goes on without its parent", child.name),
            );
        }
    }
}

/// I6: what the budgets are reckoned with is the sum of what the journals say, counted once.
async fn usage_adds_up(store: &Postgres, cases: &[Case], findings: &mut Findings) {
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
fn processes(world: &World, findings: &mut Findings) {
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
