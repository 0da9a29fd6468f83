//! What is in a copy, as somebody wants to know it who is about to go on from it.

use std::collections::{HashMap, HashSet};

use domain::definition::Effect;
use domain::{CallRef, StepBody, Time};

use super::{Cell, Layout, TableLayout, read_line};
use crate::Result;
use crate::codec::decode;
use crate::error::corrupt;

/// How many executions of a kind are named.
const NAMED: usize = 20;

/// How an execution of the copy goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is over.
    Over,
    /// It goes on by itself.
    Resumes,
    /// It waits for a person.
    Waits,
    /// A call that must not be made twice was under way: nobody knows whether it happened, and a person decides.
    Unknown,
}

/// What is in a copy. Each row is shown to it once, in the order of the copy.
#[derive(Debug)]
pub struct Survey {
    tables: Vec<Columns>,
    open: HashMap<[u8; 16], Time>,
    asked: HashSet<[u8; 16]>,
    /// The unsafe calls that were under way.
    begun: HashMap<[u8; 16], HashSet<CallRef>>,
    over: u64,
    /// Schedules that are at work, and when each is next due.
    schedules: Vec<(String, Option<Time>)>,
}

/// Where the columns are that it looks at.
#[derive(Debug)]
enum Columns {
    Executions {
        id: usize,
        finished_at: usize,
        deadline: usize,
    },
    Steps {
        id: usize,
        kind: usize,
        body: usize,
    },
    Inputs {
        id: usize,
        answer: usize,
        consumed: usize,
    },
    Schedules {
        name: usize,
        next_due: usize,
        is_active: usize,
    },
    Others,
}

impl Survey {
    /// Of a copy of this layout.
    ///
    /// # Errors
    /// The layout lacks what every version has.
    pub fn new(layout: &Layout) -> Result<Self> {
        Ok(Self {
            tables: layout.tables.iter().map(columns).collect::<Result<_>>()?,
            open: HashMap::new(),
            asked: HashSet::new(),
            begun: HashMap::new(),
            over: 0,
            schedules: Vec::new(),
        })
    }

    /// Looks at a line of a table, and so at whether it is one.
    ///
    /// # Errors
    /// It is no row of that table.
    pub fn line(&mut self, table: usize, line: &[u8], columns: usize) -> Result<()> {
        let row = read_line(line, columns)?;
        let cell = |column: usize| row.get(column).unwrap_or(&Cell::Null);
        let id = |column: usize| {
            cell(column)
                .id()
                .ok_or_else(|| corrupt("a row of the copy", "it has no id"))
        };
        match self.tables.get(table) {
            Some(Columns::Executions {
                id: key,
                finished_at,
                deadline,
            }) => {
                let id = id(*key)?;
                if cell(*finished_at) == &Cell::Null {
                    self.open
                        .insert(id, time(cell(*deadline)).unwrap_or_default());
                } else {
                    self.over += 1;
                }
            }
            Some(Columns::Steps {
                id: key,
                kind,
                body,
            }) => {
                let id = id(*key)?;
                let is_tools = matches!(cell(*kind).text(), Some("tool_intent" | "tool_result"));
                if is_tools && self.open.contains_key(&id) {
                    self.step(id, cell(*body).text().unwrap_or_default());
                }
            }
            Some(Columns::Inputs {
                id: key,
                answer,
                consumed,
            }) => {
                let id = id(*key)?;
                let is_open = cell(*answer) == &Cell::Null && cell(*consumed) == &Cell::Int(0);
                if is_open && self.open.contains_key(&id) {
                    self.asked.insert(id);
                }
            }
            Some(Columns::Schedules {
                name,
                next_due,
                is_active,
            }) => {
                if cell(*is_active) == &Cell::Int(1) {
                    let name = cell(*name).text().unwrap_or_default().to_owned();
                    self.schedules.push((name, time(cell(*next_due))));
                }
            }
            Some(Columns::Others) | None => {}
        }
        Ok(())
    }

    /// One that can't be read fails as what it is when its turn comes.
    fn step(&mut self, id: [u8; 16], body: &str) {
        match decode::<StepBody>(|| "a step".to_owned(), body) {
            Ok(StepBody::ToolIntent(intent)) if intent.effect == Effect::Unsafe => {
                self.begun.entry(id).or_default().insert(intent.call);
            }
            Ok(StepBody::ToolResult(result)) => {
                if let Some(calls) = self.begun.get_mut(&id) {
                    calls.remove(&result.call);
                }
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn kind(&self, id: &[u8; 16]) -> Kind {
        if self.begun.get(id).is_some_and(|calls| !calls.is_empty()) {
            Kind::Unknown
        } else if self.asked.contains(id) {
            Kind::Waits
        } else {
            Kind::Resumes
        }
    }

    /// How many executions are of a kind.
    pub fn count(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Over => self.over,
            Kind::Resumes | Kind::Waits | Kind::Unknown => {
                self.open.keys().filter(|id| self.kind(id) == kind).count() as u64
            }
        }
    }

    /// The ids of some executions that are not over and of a kind.
    pub fn some(&self, kind: Kind) -> Vec<domain::ExecutionId> {
        let ids = self.open.keys().filter(|id| self.kind(id) == kind);
        let mut ids: Vec<[u8; 16]> = ids.copied().collect();
        ids.sort_unstable();
        ids.truncate(NAMED);
        let ids = ids.into_iter().map(uuid::Uuid::from_bytes);
        ids.map(domain::ExecutionId::from_uuid).collect()
    }

    /// How many that are not over have passed their deadline by `now`: they end as timed out.
    pub fn overdue(&self, now: Time) -> u64 {
        self.open
            .values()
            .filter(|deadline| **deadline <= now)
            .count() as u64
    }

    /// The schedules that are at work, and when each is next due.
    pub fn schedules(&self) -> &[(String, Option<Time>)] {
        &self.schedules
    }
}

fn time(cell: &Cell) -> Option<Time> {
    cell.int().and_then(Time::from_timestamp_micros)
}

fn columns(table: &TableLayout) -> Result<Columns> {
    let column = |name: &str| table.required(name);
    Ok(match table.name.as_str() {
        "executions" => Columns::Executions {
            id: column("id")?,
            finished_at: column("finished_at")?,
            deadline: column("deadline")?,
        },
        "steps" => Columns::Steps {
            id: column("execution_id")?,
            kind: column("kind")?,
            body: column("body")?,
        },
        "inputs" => Columns::Inputs {
            id: column("execution_id")?,
            answer: column("answer")?,
            consumed: column("consumed")?,
        },
        "schedules" => Columns::Schedules {
            name: column("name")?,
            next_due: column("next_due")?,
            is_active: column("is_active")?,
        },
        _ => Columns::Others,
    })
}
