//! What a restore changes in the rows of a backup: leases and claims of processes that are no more end, epochs rise above
//! those that are forgotten, and what was not over is told that it came back ([`domain::Restored`]).

use std::collections::HashSet;

use domain::{Epoch, Restored};
use serde_json::Value;

use super::{Cell, Layout, TableLayout};
use crate::Result;
use crate::codec::{Packing, decode};
use crate::error::corrupt;

/// Above which length tasks are packed again, in bytes.
const PACKED_ABOVE: usize = 1 << 20;

/// Changes rows on their way into a store.
pub(crate) struct Revival {
    restored: Option<Restored>,
    /// The executions that are not over.
    open: HashSet<[u8; 16]>,
    /// What is done with each table.
    deeds: Vec<Deed>,
}

/// What is done with the rows of a table. Numbers are positions of columns.
enum Deed {
    Nothing,
    Executions {
        id: usize,
        finished_at: usize,
        epoch: usize,
        worker: usize,
        heartbeat_at: usize,
        due_at: usize,
    },
    Specs {
        id: usize,
        spec: usize,
    },
    /// Whoever had claimed it is gone.
    Unclaim {
        claim: usize,
    },
}

impl Revival {
    /// With nothing to be done when the rows only move house.
    pub(crate) fn new(layout: &Layout, restored: Option<Restored>) -> Result<Self> {
        let deeds = match restored {
            None => layout.tables.iter().map(|_| Deed::Nothing).collect(),
            Some(_) => layout.tables.iter().map(deed).collect::<Result<_>>()?,
        };
        Ok(Self {
            restored,
            open: HashSet::new(),
            deeds,
        })
    }

    /// Changes a row of a table of the layout.
    pub(crate) fn row(&mut self, table: usize, row: &mut [Cell]) -> Result<()> {
        let (Some(restored), Some(deed)) = (self.restored, self.deeds.get(table)) else {
            return Ok(());
        };
        match *deed {
            Deed::Nothing => {}
            Deed::Executions {
                id,
                finished_at,
                epoch,
                worker,
                heartbeat_at,
                due_at,
            } => {
                if at(row, finished_at)? != &mut Cell::Null {
                    return Ok(());
                }
                let id = at(row, id)?.id();
                self.open
                    .insert(id.ok_or_else(|| corrupt("a row of executions", "its id is none"))?);
                let before = at(row, epoch)?.int().and_then(|n| u32::try_from(n).ok());
                let risen = Epoch::new(before.unwrap_or_default()).after_restore();
                // The columns of both databases have a sign.
                *at(row, epoch)? = Cell::Int(i64::from(risen.get()).min(i64::from(i32::MAX)));
                if at(row, worker)? != &mut Cell::Null {
                    *at(row, worker)? = Cell::Null;
                    *at(row, heartbeat_at)? = Cell::Null;
                    *at(row, due_at)? = Cell::Int(restored.at.timestamp_micros());
                }
            }
            Deed::Specs { id, spec } => {
                let is_open = at(row, id)?.id().is_some_and(|id| self.open.contains(&id));
                if is_open {
                    // One that can't be read fails as what it is when its turn comes, before it does anything.
                    if let Some(told) = at(row, spec)?.text().and_then(|spec| tell(spec, restored))
                    {
                        *at(row, spec)? = Cell::Text(told);
                    }
                }
            }
            Deed::Unclaim { claim } => *at(row, claim)? = Cell::Null,
        }
        Ok(())
    }
}

/// The task with the moment of the backup.
fn tell(spec: &str, restored: Restored) -> Option<String> {
    let mut task: Value = decode(|| "a task".to_owned(), spec).ok()?;
    let moment = serde_json::to_value(restored.backup).ok()?;
    task.as_object_mut()?.insert("restored".to_owned(), moment);
    Packing::above(PACKED_ABOVE).encode("a task", &task).ok()
}

fn deed(table: &TableLayout) -> Result<Deed> {
    let column = |name: &str| table.required(name);
    Ok(match table.name.as_str() {
        "executions" => Deed::Executions {
            id: column("id")?,
            finished_at: column("finished_at")?,
            epoch: column("epoch")?,
            worker: column("worker")?,
            heartbeat_at: column("heartbeat_at")?,
            due_at: column("due_at")?,
        },
        "execution_specs" => Deed::Specs {
            id: column("execution_id")?,
            spec: column("spec")?,
        },
        // Those of the first schemas have no claims.
        "outbox" | "deliveries" => unclaim(table, "claimed_until"),
        "errands" => unclaim(table, "owned_until"),
        _ => Deed::Nothing,
    })
}

fn unclaim(table: &TableLayout, column: &str) -> Deed {
    table
        .position(column)
        .map_or(Deed::Nothing, |claim| Deed::Unclaim { claim })
}

fn at(row: &mut [Cell], column: usize) -> Result<&mut Cell> {
    row.get_mut(column)
        .ok_or_else(|| corrupt("a row of the copy", "it is too short"))
}

#[cfg(test)]
mod tests {
    use domain::Time;

    use super::*;

    fn layout() -> Layout {
        let table = |name: &str, columns: &[&str]| TableLayout {
            name: name.to_owned(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        };
        Layout {
            schema: 1,
            taken_at: Time::default(),
            months: Vec::new(),
            tables: vec![
                table(
                    "executions",
                    &[
                        "id",
                        "finished_at",
                        "epoch",
                        "worker",
                        "heartbeat_at",
                        "due_at",
                    ],
                ),
                table("execution_specs", &["execution_id", "spec"]),
                table("outbox", &["event", "claimed_until"]),
            ],
        }
    }

    fn restored() -> Restored {
        Restored {
            at: Time::from_timestamp_micros(9_000_000).unwrap(),
            backup: Time::from_timestamp_micros(5_000_000).unwrap(),
        }
    }

    fn execution(id: u8, finished: Cell, worker: Cell) -> Vec<Cell> {
        let id = Cell::Bytes(vec![id; 16]);
        vec![
            id,
            finished,
            Cell::Int(3),
            worker,
            Cell::Int(1),
            Cell::Int(2),
        ]
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    #[test]
    fn what_was_not_over_goes_on_above_all_epochs_and_knows_why() {
        let mut revival = Revival::new(&layout(), Some(restored())).unwrap();
        let mut leased = execution(1, Cell::Null, text("w-1"));
        let mut parked = execution(2, Cell::Null, Cell::Null);
        let mut over = execution(3, Cell::Int(2), Cell::Null);
        for row in [&mut leased, &mut parked, &mut over] {
            revival.row(0, row).unwrap();
        }
        let risen = Cell::Int(i64::from(Epoch::new(3).after_restore().get()));
        assert_eq!(
            leased[2..],
            [risen.clone(), Cell::Null, Cell::Null, Cell::Int(9_000_000)]
        );
        assert_eq!(parked[2..], [risen, Cell::Null, Cell::Int(1), Cell::Int(2)]);
        assert_eq!(over, execution(3, Cell::Int(2), Cell::Null));

        let spec = |id: u8| vec![Cell::Bytes(vec![id; 16]), text("{\"agent\":\"a\"}")];
        let (mut of_open, mut of_over) = (spec(1), spec(3));
        revival.row(1, &mut of_open).unwrap();
        revival.row(1, &mut of_over).unwrap();
        assert_eq!(
            of_open[1],
            text("{\"agent\":\"a\",\"restored\":\"1970-01-01T00:00:05Z\"}")
        );
        assert_eq!(of_over, spec(3));

        let mut event = vec![text("e"), Cell::Int(7)];
        revival.row(2, &mut event).unwrap();
        assert_eq!(event, [text("e"), Cell::Null]);
    }

    #[test]
    fn what_moves_house_stays_as_it_is() {
        let mut revival = Revival::new(&layout(), None).unwrap();
        let mut row = execution(1, Cell::Null, text("w-1"));
        revival.row(0, &mut row).unwrap();
        assert_eq!(row, execution(1, Cell::Null, text("w-1")));
    }
}
