//! What the journals of a store must be, whoever worked and whatever broke meanwhile: each by itself, those of parents
//! and their children together, and what people were asked. Tests that kill and break things end with it.

mod family;
mod journal;
mod people;

use domain::{Execution, Status, Step};
use store::{ExecutionFilter, ExecutionRow, Page, Store};

/// The longest journal that is read.
const LONGEST: usize = 10_000;
/// How many rows are read at once.
const PAGE: usize = 500;

/// An execution with its journal.
pub(crate) struct Entry {
    pub(crate) row: ExecutionRow,
    pub(crate) steps: Vec<Step>,
}

impl Entry {
    /// What to call it in a complaint.
    fn name(&self) -> String {
        let Execution { id, agent, .. } = &self.row.execution;
        format!("{agent} {id}")
    }

    pub(crate) fn is_completed(&self) -> bool {
        self.row.status == Status::Completed
    }
}

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// One who is not the owner wrote.
    I2,
    /// It is not over, or has not exactly one end.
    I3,
    /// It was started more than once, or nobody started it.
    I4,
    /// What was consumed does not add up.
    I6,
    /// A child outlives its parent.
    I7,
    /// The journal does not lead to what the row says.
    I8,
    /// It was done without a person's yes, or a person was heard twice.
    Unasked,
}

/// A broken promise, in words.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

fn flaw(rule: Rule, what: impl Into<String>) -> Flaw {
    let what = what.into();
    Flaw { rule, what }
}

/// Everything that the journals show to be wrong.
pub(crate) fn flaws<'a>(all: impl IntoIterator<Item = &'a Entry>) -> Vec<Flaw> {
    let all: Vec<&Entry> = all.into_iter().collect();
    let mut flaws = Vec::new();
    for entry in &all {
        journal::check(entry, &mut flaws);
        people::check(entry, &mut flaws);
    }
    family::check(&all, &mut flaws);
    flaws
}

/// Every execution of a store, newest first, with its journal.
pub(crate) async fn read(store: &dyn Store) -> Vec<Entry> {
    let mut entries = Vec::new();
    for row in rows(store).await {
        let steps = store.steps(row.execution.id, None, LONGEST).await.unwrap();
        entries.push(Entry { row, steps });
    }
    entries
}

/// Every execution of a store, newest first.
pub(crate) async fn rows(store: &dyn Store) -> Vec<ExecutionRow> {
    let mut all: Vec<ExecutionRow> = Vec::new();
    loop {
        let position = |row: &ExecutionRow| {
            let Execution { created_at, id, .. } = &row.execution;
            (*created_at, id.to_string())
        };
        let page = Page {
            limit: PAGE,
            after: all.last().map(position),
        };
        let rows = store.executions(ExecutionFilter::default(), page).await;
        let (rows, _) = rows.unwrap();
        if rows.is_empty() {
            return all;
        }
        all.extend(rows);
    }
}
